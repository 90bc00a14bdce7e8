"""Inverse kinematics of the tip by mink (differential IK as a quadratic programme, https://github.com/kevinzakka/mink)."""

from __future__ import annotations

import mink
import mujoco
import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError

_TOLERANCE = 1e-4  # m and rad
_MAX_ITERATIONS = 200
_MAX_STEP = 0.5  # rad: longer steps leave the range in which the linearisation holds, and miss solutions


class UnreachableError(GenimaError):
    """Pose that the arm does not reach."""


class InverseKinematics:
    """Inverse kinematics of the tip: the solution nearest to a rest posture."""

    def __init__(self, arm: mujoco.MjModel, rest: NDArray[np.float64]) -> None:
        """``arm`` is a model of the arm with a site at the tip; ``rest`` (n,) rad is the preferred posture."""
        self._configuration = mink.Configuration(arm)
        self._tip = mink.FrameTask("tip", "site", position_cost=1.0, orientation_cost=1.0)
        self._posture = mink.PostureTask(arm, cost=1e-3)
        self._posture.set_target(rest)
        self._limits = [mink.ConfigurationLimit(arm)]

    def solve(self, T_base_tip: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return joint positions (n,) rad for the tip pose ``T_base_tip`` (4, 4).

        Raises:
            UnreachableError: when the pose is out of reach.
        """
        self._tip.set_target(mink.SE3.from_matrix(T_base_tip))
        self._configuration.update(start)
        for _ in range(_MAX_ITERATIONS):
            velocity = mink.solve_ik(
                self._configuration,
                [self._tip, self._posture],
                dt=1.0,
                solver="daqp",
                limits=self._limits,
                damping=1e-6,
            )
            step = float(np.abs(velocity).max())
            self._configuration.integrate_inplace(velocity, min(1.0, _MAX_STEP / max(step, _TOLERANCE)))
            if step < _TOLERANCE:
                break
        error = np.abs(self._tip.compute_error(self._configuration))
        if error.max() > 5e-3:
            raise UnreachableError(
                f"tip pose: out of reach ({T_base_tip[:3, 3].round(3).tolist()} m); use a nearer one"
            )
        return self._configuration.q.copy()
