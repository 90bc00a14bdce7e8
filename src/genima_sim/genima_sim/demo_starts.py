"""Random starts of demonstrations by scripted experts.

The starts are wider than those of evaluations, the hover point is displaced, and some demos start with a failed grasp:
so a policy also sees how errors, its own among them, are corrected.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genima.robot.model import RobotModel
from genima_sim.experts import Expert, Trajectory
from genima_sim.task import FailedGrasp, Positions, Task, Waypoint
from genima_sim.tasks import DEMO_HZ

GRIPPER_TIME = 0.7  # s that the gripper takes to close
_HOME_SHARE, _HOME_SPREAD = 0.4, 0.15  # of the demos start around home; rad
_SPOT_ABOVE, _SPOT_SPREAD = (0.0, 0.0, 0.03), (0.10, 0.10, 0.05)  # m; the others start around the hover point
_DISPLACEMENT = 0.012  # m, standard deviation of the hover point
_REST = 0.3  # s before the demo
_ABOVE = 0.08  # m above a failed grasp: from there the tip comes down without touching anything

Planner = Callable[[NDArray[np.float64], Positions], Trajectory]
"""Planner of a trajectory from joints (n,) in rad and positions of objects."""


@dataclass(frozen=True)
class Demo:
    """One demonstration in one scene."""

    task: Task
    start: NDArray[np.float64]  # (n,) rad
    failed_grasp: FailedGrasp | None  # the demo starts with it
    displacement: NDArray[np.float64]  # (2,) m, of the hover point

    @classmethod
    def random(cls, task: Task, seed: int, positions: Positions, expert: Expert) -> Demo:
        """Return the demo for a scene with objects at ``positions``; equal for equal seeds."""
        rng = np.random.default_rng([seed, 0xDE30])
        start = _random_start(task, positions, expert, rng)
        displacement = rng.normal(0.0, _DISPLACEMENT, 2)
        failed = task.failed_grasp(positions, np.random.default_rng([seed, 0x4E74]))
        if failed is not None:
            start = expert.reach(failed.position, expert.robot.home)
        return cls(task, start, failed, displacement)

    def planners(self, expert: Expert) -> list[Planner]:
        """Return the expert's motions; each is planned when the one before has ended."""

        def lift(start: NDArray[np.float64], positions: Positions) -> Trajectory:
            assert self.failed_grasp is not None
            x, y, _ = map(float, _tip(expert.robot, start))
            return expert.plan([Waypoint((x, y, self.failed_grasp.lift_to), 1.2, 0.0)], start, settle_seconds=0.0)

        def act(start: NDArray[np.float64], positions: Positions) -> Trajectory:
            hover, *others = self.task.waypoints(positions)
            x, y, z = hover.position
            dx, dy = map(float, self.displacement)
            waypoints = [replace(hover, position=(x + dx, y + dy, z)), *others]
            return expert.plan_task(self.task, waypoints, start)

        return [lift, act] if self.failed_grasp else [act]

    def above(self, expert: Expert) -> NDArray[np.float64]:
        """Return joints (n,) in rad from which the arm can move to the start."""
        if self.failed_grasp is None:
            return self.start
        return expert.reach(_tip(expert.robot, self.start) + [0.0, 0.0, _ABOVE], self.start)

    def approach(self, expert: Expert) -> Trajectory:
        """Return the trajectory from :meth:`above` to the start, at rest at its end."""
        if self.failed_grasp is None:
            rest = round(_REST * DEMO_HZ)
            return Trajectory(np.tile(self.start, (rest, 1)), np.ones(rest))
        x, y, z = map(float, _tip(expert.robot, self.start))
        down, close = Waypoint((x, y, z), 1.0, 1.0), Waypoint((x, y, z), GRIPPER_TIME, 0.0)
        return expert.plan([down, close], self.above(expert), settle_seconds=0.0)


def _tip(robot: RobotModel, joints: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the position (3,) in m of the tip."""
    return robot.link_poses(joints)[-1, :3, 3]


def _random_start(task: Task, positions: Positions, expert: Expert, rng: np.random.Generator) -> NDArray[np.float64]:
    home = expert.robot.home
    if rng.random() < _HOME_SHARE:
        return home + rng.uniform(-_HOME_SPREAD, _HOME_SPREAD, len(home))
    hover, spread = np.array(task.waypoints(positions)[0].position), np.array(_SPOT_SPREAD)
    return expert.reach(hover + _SPOT_ABOVE + rng.uniform(-spread, spread), home)
