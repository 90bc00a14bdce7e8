"""Planner between keyposes: a straight motion of the tip, else of the joints; then the gripper.

It knows no obstacles: as in RLBench's planner a straight line is tried first, and keyframes are where motions bend.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.control.joint_trajectory import JointTrajectory
from genima.control.tip_motion import interpolate_pose, time_path, trace_path
from genima.robot.body import arm_only_model
from genima.robot.ik import InverseKinematics, UnreachableError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose, pose_distance
from genima.types import Joints

Array = NDArray[np.float64]
SETTLE_SECONDS = 0.2  # at the end of a motion
GRIPPER_SECONDS = 0.7  # to open or close
_RATE = 20.0  # Hz of the trajectory's points
_START_SECONDS, _SPEED, _TURN_SPEED = 0.8, 0.25, 1.2  # s, m/s and rad/s: as fast as the demos' experts
_POINT_DISTANCE, _POINT_TURN = 0.02, 0.1  # m and rad between points of the line for which joints are computed
_HALF_TURN = pose(Rotation.from_euler("z", np.pi).as_matrix(), np.zeros(3))  # the gripper looks the same


class KeyposePlanner:
    """Planner of one arm."""

    def __init__(self, robot: RobotModel) -> None:
        self._robot = robot
        self._ik = InverseKinematics(arm_only_model(robot), robot.home)

    def plan(self, start: Joints, is_open: bool, T_base_tip: Array, opens: bool) -> JointTrajectory:
        """Return the trajectory from joints at rest to a keypose.

        Args:
            start: measured joints.
            is_open: the gripper's command until the pose is reached.
            T_base_tip: (4, 4) goal; of it and its half turn about the approach the nearer one is taken.
            opens: the gripper's command from then on.

        Raises:
            UnreachableError: when the pose is out of reach.
        """
        here = self._robot.link_poses(start.positions)[-1]
        goals = sorted((T_base_tip, T_base_tip @ _HALF_TURN), key=lambda goal: pose_distance(here, goal)[1])
        problem: UnreachableError | None = None
        for goal in goals:
            try:
                path = self._path(here, goal, start.positions)
            except UnreachableError as error:
                problem = problem or error
                continue
            distance, turn = pose_distance(here, goal)
            seconds = _START_SECONDS + max(distance / _SPEED, turn / _TURN_SPEED)
            timed = time_path(path, seconds, self._robot, _RATE)
            return self._trajectory(np.vstack([start.positions, timed]), is_open, opens)
        assert problem is not None
        raise problem

    def hold(self, start: Joints, is_open: bool) -> JointTrajectory:
        """Return a trajectory that stays where the arm is."""
        return self._trajectory(start.positions[None], is_open, is_open)

    def _path(self, here: Array, goal: Array, start: Array) -> Array:
        distance, turn = pose_distance(here, goal)
        points = max(4, round(distance / _POINT_DISTANCE), round(turn / _POINT_TURN))
        try:
            return trace_path(self._ik, lambda share: interpolate_pose(here, goal, share), start, points)
        except UnreachableError:
            return np.linspace(start, self._ik.solve(goal, start), points + 1)

    def _trajectory(self, positions: Array, is_open: bool, opens: bool) -> JointTrajectory:
        rest = round((GRIPPER_SECONDS if is_open != opens else SETTLE_SECONDS) * _RATE)
        positions = np.vstack([positions, np.tile(positions[-1], (rest, 1))])
        gripper = np.full(len(positions), float(is_open))
        gripper[-rest - 1 :] = float(opens)
        return JointTrajectory(np.arange(len(positions)) / _RATE, positions, gripper)
