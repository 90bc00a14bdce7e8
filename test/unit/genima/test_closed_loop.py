"""Tests of the closed loop with models that know the solution, and of its timing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from genima.cameras.camera import Camera
from genima.cameras.tiling import crop_square, tile
from genima.closed_loop import run_episode
from genima.control.chunk_stream import ChunkStream, Mode
from genima.control.command_guard import CommandGuard
from genima.policy.genima import GenimaPolicy, TargetFollower
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.targets import draw_targets
from genima.types import ActionChunk, Command, DrawnTarget, Joints, Observation
from genima_sim.demo_recorder import DemoRecorder
from genima_sim.environment import Environment
from genima_sim.experts import Expert, Trajectory
from genima_sim.scene import scene_frames
from genima_sim.tasks import DEMO_HZ

K, RATE = 20, 50.0


@dataclass
class ExpertAgent:
    """Agent that renders the spheres of the expert's joints K steps ahead."""

    spec: PolicySpec
    robot: RobotModel
    cameras: Mapping[str, Camera]
    trajectory: Trajectory
    seeds: list[int] = field(default_factory=list)

    def generate(self, observation: Observation, seed: int, previous: DrawnTarget | None = None) -> DrawnTarget:
        self.seeds.append(seed)
        size, spec = self.spec.view_size, self.spec
        seen = {view: crop_square(observation.images[view], size) for view in spec.views}
        k = min(round(observation.stamp * DEMO_HZ) + K, len(self.trajectory.positions)) - 1
        target, gripper_open = self.trajectory.positions[k], bool(self.trajectory.gripper[k] > 0.5)
        now = observation.joints.positions
        drawn = tile(
            {
                view: draw_targets(
                    image, self.cameras[view].crop_square(size), self.robot, spec.appearance, target, gripper_open, now
                )
                for view, image in seen.items()
            },
            spec.views,
        )
        assert (drawn != tile(seen, spec.views)).any()
        return DrawnTarget(observation.stamp, observation.instruction, spec.views, drawn, seed=seed)


@dataclass
class ExpertController:
    """Controller that returns the expert's next K commands."""

    trajectory: Trajectory

    def predict_chunk(self, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
        steps = np.minimum(round(drawn.stamp * DEMO_HZ) + np.arange(K), len(self.trajectory.positions) - 1)
        return ActionChunk(drawn.stamp, 1 / DEMO_HZ, self.trajectory.positions[steps], self.trajectory.gripper[steps])


class HoldController:
    """Controller that predicts the present position for every target."""

    def predict_chunk(self, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
        return ActionChunk(drawn.stamp, 1 / DEMO_HZ, np.tile(joints.positions, (K, 1)), np.ones(K))


def run(environment: Environment, agent: ExpertAgent, controller: TargetFollower, robot: RobotModel) -> int:
    return run_episode(
        environment, GenimaPolicy(agent, controller), ChunkStream(robot, RATE, 10), CommandGuard(robot, RATE),
        command_rate=RATE, latency=0.0, time_limit=8.0, seed=700,
    )  # fmt: skip


def prepared(
    environment: Environment, expert: Expert, spec: PolicySpec, robot: RobotModel, task: str, seed: int
) -> ExpertAgent:
    environment.reset(task, seed)
    simulation = environment.simulation
    scene = scene_frames(simulation.task, simulation.bodies())
    trajectory = expert.plan_task(simulation.task, scene, simulation.joints().positions)
    return ExpertAgent(spec, robot, simulation.cameras, trajectory)


@pytest.mark.parametrize("task", ["push_button", "take_lid_off_saucepan"])
def test_loop_with_exact_targets_solves_tasks(
    environment: Environment, recorder: DemoRecorder, spec: PolicySpec, robot: RobotModel, task: str
) -> None:
    for seed in range(2):
        agent = prepared(environment, recorder.expert, spec, robot, task, seed)
        count = run(environment, agent, ExpertController(agent.trajectory), robot)
        assert environment.done
        assert agent.seeds == list(range(700, 700 + count))  # a new seed for every target
        assert 0.5 * (count - 1) < environment.time < 0.5 * count + 1e-6


def test_ignored_targets_do_not_move_arm(
    environment: Environment, recorder: DemoRecorder, spec: PolicySpec, robot: RobotModel
) -> None:
    agent = prepared(environment, recorder.expert, spec, robot, "push_button", 0)
    start = environment.joints().positions
    assert run(environment, agent, HoldController(), robot) == 16
    assert not environment.done and environment.time == pytest.approx(8.0)
    np.testing.assert_allclose(environment.joints().positions, start, atol=2e-3)


# With a robot that obeys at once, to count and to time


class RecordingRobot:
    """Robot that executes commands at once, and records observations and commands."""

    def __init__(self, start: np.ndarray, done_after: float = np.inf) -> None:
        self.time, self.position, self.gripper, self.done_after = 0.0, start, 1.0, done_after
        self.observation_times: list[float] = []
        self.commands: list[Command] = []
        self.steps: list[float] = []

    @property
    def done(self) -> bool:
        return self.time >= self.done_after

    def joints(self) -> Joints:
        return Joints(self.time, self.position, self.gripper)

    def observe(self) -> Observation:
        self.observation_times.append(self.time)
        return Observation(self.time, {}, self.joints(), "go")

    def apply(self, command: Command | None, seconds: float) -> None:
        if command is not None:
            self.commands.append(command)
            self.position, self.gripper = command.positions, command.gripper
        self.steps.append(seconds)
        self.time += seconds


class EmptyAgent:
    """Agent with drawn targets that are empty except for their stamps."""

    spec = PolicySpec("panda", RobotModel.load("panda").joint_names)

    def generate(self, observation: Observation, seed: int, previous: DrawnTarget | None = None) -> DrawnTarget:
        return DrawnTarget(observation.stamp, observation.instruction, (), np.zeros((2, 2, 3), np.uint8), seed=seed)


@dataclass
class LinearController:
    """Controller that predicts K linear steps to ``goal`` for every target."""

    goal: np.ndarray
    gripper: float = 1.0

    def predict_chunk(self, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
        positions = joints.positions + np.linspace(1 / K, 1, K)[:, None] * (self.goal - joints.positions)
        return ActionChunk(drawn.stamp, 1 / DEMO_HZ, positions, np.full(K, self.gripper))


def follow(
    robot: RobotModel, body: RecordingRobot, controller: TargetFollower, time_limit: float = 5.0, actions: int = 4,
    latency: float = 0.0, mode: Mode = "overlapped",
) -> int:  # fmt: skip
    stream, guard = ChunkStream(robot, RATE, actions, mode), CommandGuard(robot, RATE)
    return run_episode(
        body, GenimaPolicy(EmptyAgent(), controller), stream, guard,
        command_rate=RATE, latency=latency, time_limit=time_limit, seed=0,
    )  # fmt: skip


def test_inference_overlaps_execution_unless_serial(robot: RobotModel) -> None:
    overlapped, serial = RecordingRobot(robot.home), RecordingRobot(robot.home)
    follow(robot, overlapped, LinearController(robot.home + 0.2), latency=0.3, actions=16)
    follow(robot, serial, LinearController(robot.home + 0.2), latency=0.3, actions=16, mode="serial")
    # 0.8 s less the latency
    np.testing.assert_allclose(overlapped.observation_times[:10], np.arange(0, 5, 0.5), atol=1e-9)
    np.testing.assert_allclose(serial.observation_times[:5], np.arange(0, 5, 1.1), atol=1e-9)  # 0.8 s and the latency


def test_targets_and_commands_have_their_rates(robot: RobotModel) -> None:
    body = RecordingRobot(robot.home)
    assert follow(robot, body, LinearController(robot.home + 0.2), time_limit=2.0) == 10
    np.testing.assert_allclose(body.observation_times, 0.2 * np.arange(10), atol=1e-9)
    assert body.steps == [1 / RATE] * 100


def test_loop_ends_on_success(robot: RobotModel) -> None:
    body = RecordingRobot(robot.home, done_after=0.9)
    assert follow(robot, body, LinearController(robot.home)) == 5
    assert follow(robot, RecordingRobot(robot.home, done_after=0.0), LinearController(robot.home)) == 0


def test_arm_and_gripper_reach_chunk_targets(robot: RobotModel) -> None:
    body = RecordingRobot(robot.home)
    goal = robot.home + np.array([0.3, -0.2, 0.2, 0.3, -0.3, 0.2, 0.3])
    follow(robot, body, LinearController(goal, gripper=0.0), time_limit=8.0)
    np.testing.assert_allclose(body.position, goal, atol=5e-3)
    assert body.gripper == 0.0


def test_arm_keeps_limits_for_random_chunks(robot: RobotModel) -> None:
    body = RecordingRobot(robot.home)
    follow(robot, body, LinearController(robot.home + 3.0), time_limit=6.0)
    positions = np.array([command.positions for command in body.commands])
    assert np.all(positions >= robot.position_min) and np.all(positions <= robot.position_max)
    assert np.all(np.abs(np.diff(positions, axis=0) * RATE) <= robot.velocity_max * (1 + 1e-6))
    assert np.ptp(positions, axis=0).max() > 1  # the command was large


def test_arm_holds_without_valid_chunk(robot: RobotModel) -> None:
    class Late:
        def predict_chunk(self, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
            return replace(HoldController().predict_chunk(drawn, joints), stamp=drawn.stamp - 10.0)

    body = RecordingRobot(robot.home)
    follow(robot, body, Late(), time_limit=1.0)
    np.testing.assert_allclose(body.position, robot.home, atol=1e-9)
