"""Registry of policies: load one by name, or from a checkpoint folder.

To add a policy, write one module with a function ``load(options: PolicyOptions) -> Policy`` and register it in
:data:`POLICIES`; ``package.module`` in place of a name loads one that is not registered.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from genima.errors import GenimaError
from genima.io.files import shorten
from genima.policy.diffusion_agent.sampling_options import SamplingOptions

if TYPE_CHECKING:  # genima.policy.spec imports OpenCV and SciPy: too slow for --help
    from genima.policy.base import Policy

GENIMA = "genima"
POLICIES = {
    GENIMA: "genima.policy.genima",
    "expert": "genima_sim.expert_policy",  # by name: imports point downwards only
    "replay": "genima.data.replay_policy",
}
"""Modules by the policy's name."""


def _default_views() -> tuple[str, ...]:
    from genima.policy.spec import PolicySpec

    return PolicySpec.views


@dataclass(frozen=True)
class PolicyOptions:
    """Options of all policies; each uses those that it needs."""

    checkpoint: str = ""  # folder of a trained policy; empty: the bundled one
    device: str = "cpu"
    robot: str = "panda"  # of policies that were not trained: a name in config/robots or a YAML file
    views: tuple[str, ...] = field(default_factory=_default_views)  # of policies that were not trained
    episode: str = ""  # folder of the episode to replay
    sampling: SamplingOptions = field(default_factory=SamplingOptions)  # of policies with a diffusion model


def require_policy(name: str) -> None:
    """Raise a GenimaError unless a policy of that name can be loaded; imports nothing slow."""
    _module_of(name)


def load_policy(name_or_folder: str = GENIMA, options: PolicyOptions | None = None) -> Policy:
    """Load a policy: a name in :data:`POLICIES`, a module of the user's, or a checkpoint folder of GENIMA.

    Raises:
        GenimaError: for an unknown name, and when the policy cannot be loaded.
    """
    options = options or PolicyOptions()
    if name_or_folder not in POLICIES and _is_checkpoint(name_or_folder):
        options = replace(options, checkpoint=name_or_folder)
        name_or_folder = GENIMA
    policy: Policy = importlib.import_module(_module_of(name_or_folder)).load(options)
    return policy


def _is_checkpoint(folder: str) -> bool:
    from genima.policy.spec import FOLDERS

    return bool(folder) and any(os.path.isdir(os.path.join(folder, part)) for part in FOLDERS.values())


def _module_of(name: str) -> str:
    if name in POLICIES:
        return POLICIES[name]
    if _is_checkpoint(name):
        return POLICIES[GENIMA]
    try:
        found = "." in name and importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise GenimaError(
            f"policy {shorten(repr(name))}: unknown; known are {', '.join(POLICIES)}, a checkpoint folder, or a module "
            "package.module with a function load"
        )
    return name
