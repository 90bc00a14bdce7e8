"""Cartesian jogging: joint motion from a twist of the tip.

Joint velocities by differential inverse kinematics (mink, https://github.com/kevinzakka/mink).
"""

from __future__ import annotations

import mink
import numpy as np
from numpy.typing import NDArray

from genima.robot.body import arm_only_model
from genima.robot.model import RobotModel

Array = NDArray[np.float64]
_MAX_ERROR = 0.02, 0.1  # m, rad between the goal and the tip: beyond the arm's reach, the goal stays
_VELOCITY_FRACTION = 0.5  # of the arm's velocities


class CartesianJog:
    """State of an arm whose tip is jogged: ``positions`` (n,) rad, ``velocities`` (n,) rad/s."""

    def __init__(self, robot: RobotModel) -> None:
        """Raises:
        GenimaError: for an arm without meshes.
        """
        self._robot = robot
        self._configuration = mink.Configuration(arm_only_model(robot))
        self._tip = mink.FrameTask("tip", "site", position_cost=1.0, orientation_cost=0.2)
        self._posture = mink.PostureTask(self._configuration.model, cost=1e-3)
        speeds = dict(zip(robot.joint_names, _VELOCITY_FRACTION * robot.velocity_max, strict=True))
        self._limits = [
            mink.ConfigurationLimit(self._configuration.model),
            mink.VelocityLimit(self._configuration.model, speeds),
        ]
        self._goal: mink.SE3  # T_base_tip
        self.reset(robot.home)

    def reset(self, positions: Array) -> None:
        """Set the arm at rest at ``positions`` (n,) rad."""
        self._configuration.update(np.asarray(positions, float))
        self._posture.set_target(self.positions)
        self._reset_goal()
        self.velocities = np.zeros_like(self.positions)

    @property
    def positions(self) -> Array:
        """Joint positions, (n,) rad."""
        return np.array(self._configuration.q)

    def move(self, linear: Array, angular: Array, seconds: float) -> None:
        """Move the tip for ``seconds`` at ``linear`` (3,) m/s and ``angular`` (3,) rad/s in the base frame."""
        if not (np.any(linear) or np.any(angular)):
            self._reset_goal()  # drop the remaining error, too
            self.velocities = np.zeros_like(self.velocities)
            return
        pose = self._goal
        turned = mink.SO3.exp(np.asarray(angular, float) * seconds) @ pose.rotation()
        self._goal = mink.SE3.from_rotation_and_translation(turned, pose.translation() + np.asarray(linear) * seconds)
        self._tip.set_target(self._goal)
        self.velocities = mink.solve_ik(
            self._configuration, [self._tip, self._posture], seconds, "daqp", limits=self._limits, damping=1e-4
        )
        self._configuration.integrate_inplace(self.velocities, seconds)
        error = self._tip.compute_error(self._configuration)
        if np.linalg.norm(error[:3]) > _MAX_ERROR[0] or np.linalg.norm(error[3:]) > _MAX_ERROR[1]:
            self._reset_goal()

    def _reset_goal(self) -> None:
        self._goal = self._configuration.get_transform_frame_to_world("tip", "site")
