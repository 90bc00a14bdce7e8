"""What the scripted experts demonstrate: the beginnings of demos are wider than those of evaluations, and some begin
with a grasp that went wrong. So a policy also sees how errors, its own among them, are mended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genima.robot.model import RobotModel
from genima_sim.experts import Expert, Trajectory, Waypoint, lift_from, waypoints
from genima_sim.tasks import DEMO_HZ, Layout

CLOSING = 0.7  # s that the gripper takes
_HOME_SHARE, _HOME_SPREAD = 0.4, 0.15  # of the demos begin round home; rad
_SPOT_ABOVE, _SPOT_SPREAD = (0.0, 0.0, 0.03), (0.10, 0.10, 0.05)  # m; the others begin over the table near the object
_DISPLACED_BY = 0.012  # m, standard deviation of the hover point
_MISSED_SHARE = 0.3  # of the demos of take_lid_off begin with a grasp that went wrong
_MISSED_BY = (0.018, 0.045)  # m
_STILL = 0.3  # s
_ABOVE = 0.08  # m over a missed grasp: from there the tip comes down without touching anything

Objects = Mapping[str, NDArray[np.float64]]  # (3,) m in the base frame, by name


@dataclass(frozen=True)
class Demo:
    """One demonstration in one scene."""

    task: str
    seed: int
    layout: Layout
    start: NDArray[np.float64]  # (n,) rad, where it begins
    missed: bool  # it begins with the gripper closed beside the knob
    displaced: NDArray[np.float64]  # (2,) m, of the hover point

    @classmethod
    def random(cls, task: str, seed: int, layout: Layout, expert: Expert) -> Demo:
        """The demo of a scene; equal for equal seeds."""
        rng = np.random.default_rng([seed, 0xDE30])
        start = _random_start(task, layout, expert, rng)
        displaced = rng.normal(0.0, _DISPLACED_BY, 2)
        rng = np.random.default_rng([seed, 0x4E74])
        missed = task == "take_lid_off" and rng.random() < _MISSED_SHARE
        if missed:
            start = expert.reach(_beside_knob(layout, rng), expert.robot.home)
        return cls(task, seed, layout, start, missed, displaced)

    def stages(self, expert: Expert) -> list[Callable[[NDArray[np.float64], Objects], Trajectory]]:
        """What the expert does, one after the other; each is planned from joints (n,) rad and where the objects are."""

        def lift(start: NDArray[np.float64], objects: Objects) -> Trajectory:
            return expert.plan([lift_from(_tip(expert.robot, start))], start, settle_seconds=0.0)

        def act(start: NDArray[np.float64], objects: Objects) -> Trajectory:
            layout = replace(self.layout, saucepan=objects["lid"][:2]) if self.missed else self.layout
            return expert.plan(waypoints(self.task, layout, miss=self.displaced), start)

        return [lift, act] if self.missed else [act]

    def above(self, expert: Expert) -> NDArray[np.float64]:
        """Where an arm stands from which it can come to the start, (n,) rad."""
        if not self.missed:
            return self.start
        return expert.reach(_tip(expert.robot, self.start) + [0.0, 0.0, _ABOVE], self.start)

    def approach(self, expert: Expert) -> Trajectory:
        """The way from there to the start, until all is still."""
        if not self.missed:
            still = round(_STILL * DEMO_HZ)
            return Trajectory(np.tile(self.start, (still, 1)), np.ones(still))
        x, y, z = map(float, _tip(expert.robot, self.start))
        down, closed = Waypoint((x, y, z), 1.0, 1.0), Waypoint((x, y, z), CLOSING, 0.0)
        return expert.plan([down, closed], self.above(expert), settle_seconds=0.0)


def _tip(robot: RobotModel, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    return robot.link_poses(positions)[-1, :3, 3]


def _beside_knob(layout: Layout, rng: np.random.Generator) -> NDArray[np.float64]:
    """Where a policy is that has just closed the gripper beside the knob, (3,) m."""
    _, grasp, *_ = waypoints("take_lid_off", layout)
    angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(*_MISSED_BY)
    return np.array(grasp.position) + [distance * np.cos(angle), distance * np.sin(angle), rng.uniform(0.0, 0.02)]


def _random_start(task: str, layout: Layout, expert: Expert, rng: np.random.Generator) -> NDArray[np.float64]:
    home = expert.robot.home
    if rng.random() < _HOME_SHARE:
        return home + rng.uniform(-_HOME_SPREAD, _HOME_SPREAD, len(home))
    spot, spread = np.array(waypoints(task, layout)[0].position), np.array(_SPOT_SPREAD)
    return expert.reach(spot + _SPOT_ABOVE + rng.uniform(-spread, spread), home)
