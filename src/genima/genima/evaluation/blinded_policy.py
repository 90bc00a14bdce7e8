"""Two policies behind one, switched between trials: neither the robot nor its operator can tell which is in use."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from genima.errors import GenimaError
from genima.policy.base import Policy
from genima.policy.spec import PolicySpec
from genima.types import ActionChunk, Observation

_INTERFACE = ("robot", "joint_names", "views", "camera_size", "horizon", "action_rate", "requires_depth")


class BlindedPolicy:
    """Policy that passes everything on to the one that is selected."""

    def __init__(self, policies: Mapping[str, Policy], names: Mapping[str, str]) -> None:
        """Args:
        policies: by side.
        names: of the policies in errors, by side.

        Raises:
            GenimaError: for policies that take other observations, or have chunks of other sizes or rates.
        """
        self._policies = dict(policies)
        self._selected, self._is_warm = next(iter(self._policies)), False
        for side, policy in self._policies.items():
            for key in _INTERFACE:
                mine, theirs = getattr(self.spec, key), getattr(policy.spec, key)
                if mine != theirs:
                    first = names[self._selected]
                    raise GenimaError(
                        f"policies {first} and {names[side]}: {key} differs ({mine} against {theirs}); "
                        "blinded trials need the same views, sizes, K and rate"
                    )

    @property
    def spec(self) -> PolicySpec:
        """See :class:`genima.policy.base.Policy`."""
        return self._policies[self._selected].spec

    def select(self, side: str) -> None:
        """Select the policy; call it between tasks."""
        self._selected = side

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`."""
        self._policies[self._selected].reset(seed)

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """See :class:`genima.policy.base.Policy`; the first call warms up all policies, so that no trial is slower."""
        if not self._is_warm:
            self._is_warm = True
            for policy in self._policies.values():
                with contextlib.suppress(GenimaError):  # a policy may refuse blank images
                    policy.predict_chunk(observation)
                policy.reset()
        return self._policies[self._selected].predict_chunk(observation)
