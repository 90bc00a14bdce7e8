"""Checks of simulated tasks: experts within the arm's limits, and states that must not count as success."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.control.limit_violations import largest_excess
from genima.errors import GenimaError
from genima.evaluation.episodes import EpisodeOptions, run_episodes
from genima.policy.base import Policy
from genima.robot.ik import UnreachableError
from genima.robot.rigid_transforms import pose
from genima_sim.environment import StateEnvironment
from genima_sim.experts import Expert
from genima_sim.scene import scene_frames
from genima_sim.simulation import Simulation
from genima_sim.simulators.mujoco import Mujoco
from genima_sim.task import RelativePose
from genima_sim.tasks import DEMO_HZ

Array = NDArray[np.float64]
_NEAR_MISS_TIME = 0.3  # s for which a near miss is judged
_RANDOM_STEP = 0.05  # rad, standard deviation of the random motion at each command: 2 sigma are the limit of velocity


@dataclass(frozen=True)
class ExpertAttempt:
    """Result of one attempt of an expert."""

    success: bool
    problem: str  # of the plan; empty: it was played
    simulated: float  # s until success, or to the end
    excess: float  # largest velocity, acceleration or jerk of the set-points as a fraction of the arm's limit
    processing: float  # s of processor time for the physics


def run_expert(
    simulation: Simulation, expert: Expert, task: str, seed: int, on_step: Callable[[], None] = lambda: None
) -> ExpertAttempt:
    """Reset to a task and seed, and play the expert's plan.

    Args:
        simulation: the scene.
        expert: for the simulation's robot.
        task: name, with its variation.
        seed: of the placement.
        on_step: called after each command's period.

    Raises:
        GenimaError: for a task that breaks.
    """
    simulation.reset(task, seed)
    start = simulation.joints().positions
    try:
        plan = expert.plan_task(simulation.task, scene_frames(simulation.task, simulation.bodies()), start)
    except UnreachableError as error:
        return ExpertAttempt(False, str(error), 0.0, 0.0, 0.0)
    positions = np.vstack([np.tile(start, (3, 1)), plan.positions])
    excess = largest_excess(np.arange(len(positions)) / DEMO_HZ, positions, simulation.robot)
    began = time.process_time()
    for target, gripper in zip(plan.positions, plan.gripper, strict=True):
        simulation.command(target, float(gripper))
        simulation.step(1 / DEMO_HZ)
        on_step()
        if simulation.success:
            break
    return ExpertAttempt(simulation.success, "", simulation.time, excess, time.process_time() - began)


def run_guarded_expert(environment: StateEnvironment, policy: Policy, task: str, seed: int) -> bool:
    """Run the policy of the experts through the 50 Hz stream and the command guard; return whether it succeeded."""
    options = EpisodeOptions(time_limit=Mujoco.time_limit)
    robot = environment.simulation.robot
    with contextlib.suppress(UnreachableError):  # of a second plan
        run_episodes(environment, policy, robot, task, [seed], options, lambda *_: None)
    return environment.done


def near_miss_counts(
    simulation: Simulation, task: str, changes: Mapping[str, float | RelativePose], seed: int = 0
) -> bool:
    """Return whether a changed state counts as success, or comes to count while the arm rests.

    Args:
        simulation: the scene.
        task: name.
        changes: positions of joints in rad or m, and places of free bodies.
        seed: of the placement.

    Raises:
        GenimaError: for a joint, body or site that the scene lacks.
    """
    simulation.reset(task, seed)
    for name, change in changes.items():
        try:
            _change(simulation, name, change)
        except KeyError as error:
            raise GenimaError(f"task {task}: near miss: unknown name ({error.args[0]})") from None
    mujoco.mj_forward(simulation.model, simulation.data)
    simulation.start_task()
    simulation.step(0.001)
    for _ in range(round(_NEAR_MISS_TIME * DEMO_HZ)):
        if simulation.success:
            return True
        simulation.step(1 / DEMO_HZ)
    return simulation.success


def _change(simulation: Simulation, name: str, change: float | RelativePose) -> None:
    joint = simulation.data.joint(name)
    if isinstance(change, RelativePose):
        turn = Rotation.from_rotvec(change.rotation)
        start = Rotation.from_quat(joint.qpos[3:], scalar_first=True)
        position = simulation.state.frame(change.site)[:3, 3] + change.offset
        simulation.place_body(name, pose((turn * start).as_matrix(), position))
    else:
        joint.qpos[0] = change


def random_motion_succeeds(simulation: Simulation, task: str, seed: int, seconds: float = Mujoco.time_limit) -> bool:
    """Return whether random joint motions accomplish a task."""
    simulation.reset(task, seed)
    rng = np.random.default_rng([seed, 0x0DD])
    robot = simulation.robot
    target = simulation.joints().positions
    for _ in range(round(seconds * DEMO_HZ)):
        target = np.clip(
            target + rng.normal(0.0, _RANDOM_STEP, len(target)), robot.position_min + 0.1, robot.position_max - 0.1
        )
        simulation.command(target, float(rng.integers(2)))
        simulation.step(1 / DEMO_HZ)
        if simulation.success:
            return True
    return False


def resting_arm_succeeds(simulation: Simulation, task: str, seed: int, seconds: float = 3.0) -> bool:
    """Return whether a task is accomplished while the arm rests."""
    simulation.reset(task, seed)
    simulation.step(seconds)
    return simulation.success
