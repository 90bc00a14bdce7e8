"""Scripted experts: from where the objects stand to a joint trajectory at the demos' rate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.control.jerk_limited_motion import minimum_jerk
from genima.robot.body import arm_only_model
from genima.robot.ik import InverseKinematics
from genima.robot.model import RobotModel
from genima_sim.tasks import DEMO_HZ, KNOB_HEIGHT, PAN_HEIGHT, Layout

_HOVER = 0.10  # m above the object, where the approach ends and the straight descent begins
_PRESSED = 0.071  # m, tip height with the button's cap all the way down
_GRASP = PAN_HEIGHT + KNOB_HEIGHT - 0.003  # m, tip height with the pads round the knob
_POINTING_DOWN = Rotation.from_euler("x", np.pi) * Rotation.from_euler("z", -np.pi / 4)


@dataclass(frozen=True)
class Waypoint:
    """Where the tip goes, how long it takes, and what the gripper does meanwhile."""

    position: tuple[float, float, float]  # m in the base frame
    seconds: float
    gripper: float  # open fraction
    straight: bool = True  # along a line of the tip; else of the joints


@dataclass(frozen=True)
class Trajectory:
    """Commands at ``DEMO_HZ``."""

    positions: NDArray[np.float64]  # (T, 7) rad
    gripper: NDArray[np.float64]  # (T,) open fraction


def waypoints(task: str, layout: Layout, miss: NDArray[np.float64] | None = None) -> list[Waypoint]:
    """The expert's plan; ``miss`` (2,) in m displaces the hover point, so that demos show how to correct."""
    dx, dy = (0.0, 0.0) if miss is None else miss
    if task == "push_button":
        x, y = layout.button
        return [
            Waypoint((x + dx, y + dy, _PRESSED + _HOVER), 1.8, 0.0, straight=False),
            Waypoint((x, y, _PRESSED), 1.2, 0.0),
            # It ends with the button down: an arm that has gone up again looks like one that has yet to come down.
            Waypoint((x, y, _PRESSED), 0.6, 0.0),
        ]
    x, y = layout.saucepan
    return [
        Waypoint((x + dx, y + dy, _GRASP + _HOVER), 1.8, 1.0, straight=False),
        Waypoint((x, y, _GRASP), 1.2, 1.0),
        Waypoint((x, y, _GRASP), 0.7, 0.0),
        Waypoint((x, y, _GRASP + 0.18), 1.5, 0.0),
    ]


def lift_from(tip: NDArray[np.float64]) -> Waypoint:
    """Straight up with the gripper closed, from tip position (3,) in m: high enough to see whether the lid is in it."""
    return Waypoint((float(tip[0]), float(tip[1]), _GRASP + 0.14), 1.2, 0.0)


class Expert:
    """Turns waypoints into joint trajectories with minimum-jerk timing."""

    def __init__(self, robot: RobotModel) -> None:
        self.robot = robot
        self._ik = InverseKinematics(arm_only_model(robot), robot.home)

    def reach(self, position: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joint positions (7,) in rad with the gripper straight above ``position`` (3,) in m, facing outwards."""
        outwards = Rotation.from_euler("z", np.arctan2(position[1], position[0]))
        T_base_tip = np.eye(4)
        T_base_tip[:3, :3] = (outwards * _POINTING_DOWN).as_matrix()
        T_base_tip[:3, 3] = position
        return self._ik.solve(T_base_tip, start)

    def plan(self, plan: list[Waypoint], start: NDArray[np.float64], settle_seconds: float = 0.5) -> Trajectory:
        """A trajectory from joint positions ``start`` through ``plan``, then still for ``settle_seconds``."""
        positions, gripper = [], []
        q = start
        for waypoint in plan:
            steps = round(waypoint.seconds * DEMO_HZ)
            target = np.array(waypoint.position)
            goal = self.reach(target, q)
            origin, q0 = self.robot.link_poses(q)[-1, :3, 3], q
            for s in (minimum_jerk(k / steps) for k in range(1, steps + 1)):
                q = self.reach(origin + s * (target - origin), q) if waypoint.straight else q0 + s * (goal - q0)
                positions.append(q)
                gripper.append(waypoint.gripper)
        still = round(settle_seconds * DEMO_HZ)
        return Trajectory(np.array(positions + [q] * still), np.array(gripper + [gripper[-1]] * still))
