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
from genima_sim.motions import GRIP_TIME, MoveTo, back_off, shift
from genima_sim.scene import scene_frames
from genima_sim.scene_state import SceneFrames
from genima_sim.task import FailedGrasp, Task
from genima_sim.tasks import DEMO_HZ

_HOME_SHARE, _HOME_SPREAD = 0.4, 0.15  # of the demos start around home; rad
_SPOT_ABOVE, _SPOT_SPREAD = (0.0, 0.0, 0.03), (0.10, 0.10, 0.05)  # m; the others start around the hover point
_SPOT_ATTEMPTS = 10  # at a spot that is within reach and free
_DISPLACEMENT = 0.012  # m, standard deviation of the hover point
_REST = 0.3  # s before the demo
_BEFORE = 0.08  # m before a failed grasp: from there the gripper comes without touching anything

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
            try:  # in the posture of the expert's grasp, so that the arm does not turn round near the object
                plan = expert.plan_task(task, scene, expert.robot.home)
                closing = np.flatnonzero(np.diff(plan.gripper) < 0)
                posture = plan.positions[closing[0]] if closing.size else expert.robot.home
                start = expert.reach_symmetric(failed.grasp, posture)
                expert.reach_symmetric(failed.retreat, start)
            except UnreachableError:
                failed = None
        return cls(task, start, failed, displacement)

    def planners(self, expert: Expert) -> list[Planner]:
        """Return the expert's motions; each is planned when the one before has ended."""

        def retreat(start: NDArray[np.float64], bodies: Bodies) -> Trajectory:
            assert self.failed_grasp is not None
            return expert.plan([MoveTo(self.failed_grasp.retreat, 1.2, 0.0)], start, settle_seconds=0.0)

        def act(start: NDArray[np.float64], bodies: Bodies) -> Trajectory:
            scene = scene_frames(self.task, bodies)
            hover, *others = self.task.motions(scene)
            assert isinstance(hover, MoveTo)  # as a task's motions are checked
            dx, dy = map(float, self.displacement)
            hover = replace(hover, grasp=shift(hover.grasp, dx, dy))
            return expert.plan_motions(self.task, [hover, *others], scene, start)

        return [retreat, act] if self.failed_grasp else [act]

    def above(self, expert: Expert) -> NDArray[np.float64]:
        """Return joints (n,) in rad from which the arm can move to the start."""
        if self.failed_grasp is None:
            return self.start
        return expert.reach(back_off(expert.grasp_frame(self.start), _BEFORE), self.start)

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
            if scene.has_room(at):
                with contextlib.suppress(UnreachableError):
                    return expert.reach(at, home)
    return home + rng.uniform(-_HOME_SPREAD, _HOME_SPREAD, len(home))
