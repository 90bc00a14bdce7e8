"""Random starts of demonstrations by scripted experts.

The starts are wider than those of evaluations, the hover point is displaced, and some demos start with a failed grasp:
so a policy also sees how errors, its own among them, are corrected.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genima.robot.ik import UnreachableError
from genima_sim.experts import Expert, Trajectory
from genima_sim.motions import GRIP_TIME, MoveTo, Pose, back_off, shift
from genima_sim.scene import scene_frames
from genima_sim.scene_state import SceneFrames
from genima_sim.task import FailedGrasp, Task
from genima_sim.tasks import DEMO_HZ

_HOME_SHARE, _HOME_SPREAD = 0.4, 0.15  # of the demos start around home; rad
_SPOT_ABOVE, _SPOT_SPREAD = (0.0, 0.0, 0.03), (0.10, 0.10, 0.05)  # m; the others start around the hover point
_SPOT_ATTEMPTS = 10  # at a spot that is within reach and free
_GRIPPER_ROOM = {0.0: 0.05, 0.07: 0.08, 0.14: 0.08, 0.21: 0.08}  # m free round points, by their distance from the tip
_DISPLACEMENT = 0.012  # m, standard deviation of the hover point
_REST = 0.3  # s before the demo
_ABOVE = 0.08  # m above a failed grasp: from there the tip comes down without touching anything

Bodies = Mapping[str, NDArray[np.float64]]
"""Poses (4, 4) of bodies by name."""
Planner = Callable[[NDArray[np.float64], Bodies], Trajectory]
"""Planner of a trajectory from joints (n,) in rad and the bodies of the scene."""


@dataclass(frozen=True)
class Demo:
    """One demonstration in one scene."""

    task: Task
    start: NDArray[np.float64]  # (n,) rad
    failed_grasp: FailedGrasp | None  # the demo starts with it
    displacement: NDArray[np.float64]  # (2,) m, of the hover point

    @classmethod
    def random(cls, task: Task, seed: int, bodies: Bodies, expert: Expert) -> Demo:
        """Return the demo for a scene with these bodies; equal for equal seeds."""
        rng, scene = np.random.default_rng([seed, 0xDE30]), scene_frames(task, bodies)
        start = _random_start(task, scene, expert, rng)
        displacement = rng.normal(0.0, _DISPLACEMENT, 2)
        failed = task.failed_grasp(scene, np.random.default_rng([seed, 0x4E74]))
        if failed is not None:
            start = expert.reach(failed.grasp, expert.robot.home)
        return cls(task, start, failed, displacement)

    def planners(self, expert: Expert) -> list[Planner]:
        """Return the expert's motions; each is planned when the one before has ended."""

        def lift(start: NDArray[np.float64], bodies: Bodies) -> Trajectory:
            assert self.failed_grasp is not None
            tip = expert.grasp_frame(start)
            lifted = shift(tip, z=self.failed_grasp.lift_to - tip[2, 3])
            return expert.plan([MoveTo(lifted, 1.2, 0.0)], start, settle_seconds=0.0)

        def act(start: NDArray[np.float64], bodies: Bodies) -> Trajectory:
            scene = scene_frames(self.task, bodies)
            hover, *others = self.task.motions(scene)
            assert isinstance(hover, MoveTo)  # as a task's motions are checked
            dx, dy = map(float, self.displacement)
            hover = replace(hover, grasp=shift(hover.grasp, dx, dy))
            return expert.plan_motions(self.task, [hover, *others], scene, start)

        return [lift, act] if self.failed_grasp else [act]

    def above(self, expert: Expert) -> NDArray[np.float64]:
        """Return joints (n,) in rad from which the arm can move to the start."""
        if self.failed_grasp is None:
            return self.start
        return expert.reach(shift(expert.grasp_frame(self.start), z=_ABOVE), self.start)

    def approach(self, expert: Expert) -> Trajectory:
        """Return the trajectory from :meth:`above` to the start, at rest at its end."""
        if self.failed_grasp is None:
            rest = round(_REST * DEMO_HZ)
            return Trajectory(np.tile(self.start, (rest, 1)), np.ones(rest))
        tip = expert.grasp_frame(self.start)
        return expert.plan([MoveTo(tip, 1.0, 1.0), MoveTo(tip, GRIP_TIME, 0.0)], self.above(expert), settle_seconds=0.0)


def _random_start(task: Task, scene: SceneFrames, expert: Expert, rng: np.random.Generator) -> NDArray[np.float64]:
    home = expert.robot.home
    if rng.random() >= _HOME_SHARE:
        first, spread = next(iter(task.motions(scene))), np.array(_SPOT_SPREAD)
        assert isinstance(first, MoveTo)  # as a task's motions are checked
        for _ in range(_SPOT_ATTEMPTS):
            at = shift(first.grasp, *map(float, _SPOT_ABOVE + rng.uniform(-spread, spread)))
            if _is_free(scene, at):
                with contextlib.suppress(UnreachableError):
                    return expert.reach(at, home)
    return home + rng.uniform(-_HOME_SPREAD, _HOME_SPREAD, len(home))


def _is_free(scene: SceneFrames, grasp: Pose) -> bool:
    """Return whether an open gripper has room at a grasp frame (4, 4)."""
    points = {distance: back_off(grasp, distance)[:3, 3] for distance in _GRIPPER_ROOM}
    return all(
        points[distance][2] > room and scene.clearance(points[distance]) > room
        for distance, room in _GRIPPER_ROOM.items()
    )
