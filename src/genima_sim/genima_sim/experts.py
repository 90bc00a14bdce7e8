"""Joint trajectories through the waypoints of scripted experts."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.control.jerk_limited_motion import minimum_jerk
from genima.errors import GenimaError
from genima.robot.body import arm_only_model
from genima.robot.ik import InverseKinematics
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose
from genima_sim.task import Task, Waypoint
from genima_sim.tasks import DEMO_HZ

_POINTING_DOWN = Rotation.from_euler("x", np.pi) * Rotation.from_euler("z", -np.pi / 4)


@dataclass(frozen=True)
class Trajectory:
    """Commands at ``DEMO_HZ``."""

    positions: NDArray[np.float64]  # (T, 7) rad
    gripper: NDArray[np.float64]  # (T,) open fraction


class Expert:
    """Plan joint trajectories through waypoints, with minimum-jerk timing."""

    def __init__(self, robot: RobotModel) -> None:
        self.robot = robot
        self._ik = InverseKinematics(arm_only_model(robot), robot.home)

    def reach(self, position: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return joints (7,) in rad with the tip at ``position`` (3,) in m and the gripper down, facing outwards."""
        outwards = Rotation.from_euler("z", np.arctan2(position[1], position[0]))
        return self._ik.solve(pose((outwards * _POINTING_DOWN).as_matrix(), position), start)

    def plan_task(self, task: Task, waypoints: list[Waypoint], start: NDArray[np.float64]) -> Trajectory:
        """Return the trajectory of a task through waypoints of its expert.

        Raises:
            GenimaError: naming the task's file, for a waypoint out of reach.
        """
        try:
            return self.plan(waypoints, start)
        except GenimaError as error:
            file = inspect.getfile(type(task))
            raise GenimaError(f"task {task.name}: {error}; correct waypoints in {file}") from None

    def plan(self, waypoints: list[Waypoint], start: NDArray[np.float64], settle_seconds: float = 0.5) -> Trajectory:
        """Return a trajectory from joints ``start`` through ``waypoints``, then at rest for ``settle_seconds``."""
        positions, gripper = [], []
        q = start
        for waypoint in waypoints:
            steps = round(waypoint.seconds * DEMO_HZ)
            target = np.array(waypoint.position)
            goal = self.reach(target, q)
            origin, q0 = self.robot.link_poses(q)[-1, :3, 3], q
            for s in (minimum_jerk(k / steps) for k in range(1, steps + 1)):
                q = self.reach(origin + s * (target - origin), q) if waypoint.straight else q0 + s * (goal - q0)
                positions.append(q)
                gripper.append(waypoint.gripper)
        rest = round(settle_seconds * DEMO_HZ)
        return Trajectory(np.array(positions + [q] * rest), np.array(gripper + [gripper[-1]] * rest))
