"""Diffusion agent, policy, controller, command guard, task runner and simulator nodes, with stand-ins for models."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from builtin_interfaces.msg import Duration as DurationMessage
from builtin_interfaces.msg import Time
from cells import write_cell
from domains import free_domain
from geometry_msgs.msg import Point, Pose
from policy_standins import PANDA, SIZE, VIEWS, StandInAgent, StandInController
from rclpy.action import ActionClient
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from ros_graph import Graph, arm_is_at, overrides
from sensor_msgs.msg import CameraInfo, JointState
from sensor_msgs.msg import Image as ImageMessage
from standins.openpi_server import PolicyServer, Reply
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from genima.cameras.calibration_file import CameraCalibration
from genima.cameras.camera import VIRTUAL
from genima.cameras.intrinsics import CameraIntrinsics
from genima.cameras.tiling import untile
from genima.cameras.undistortion import Undistorter
from genima.control.guard_status import GuardReason, GuardState
from genima.errors import GenimaError
from genima.io import paths
from genima.policy import server_interface
from genima.policy.remote import RemotePolicy, Server
from genima.policy.spec import PolicySpec
from genima.teleop.leader_follower import FollowerState
from genima.types import ActionChunk, Command, DrawnTarget, Joints, Observation, TaskOutcome
from genima_calibration.auto_calibration import AutoCalibrationState
from genima_interfaces.action import RunTask
from genima_interfaces.msg import CalibratorStatus, GuardStatus, NodeStatus, Observed, SceneStatus, TeleopStatus
from genima_interfaces.msg import DrawnTarget as DrawnTargetMessage
from genima_interfaces.srv import ResetScene, SelectSource
from genima_nodes import task_runner
from genima_nodes.command_guard import SOURCES, CommandGuardNode
from genima_nodes.controller import ControllerNode
from genima_nodes.diffusion_agent import DiffusionAgentNode
from genima_nodes.policy import PolicyNode
from genima_nodes.ros import messages, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.trajectory_messages import chunk_from, chunk_message
from genima_nodes.task_runner import TaskRunnerNode
from genima_sim.sim_node import SimNode


def picture(stamp: float, size: int = SIZE, encoding: str = "rgb8", grey: int = 200) -> ImageMessage:
    message = messages.image_message(np.full((size, size, 3), grey, np.uint8), stamp)
    message.encoding = encoding
    return message


def joint_state(positions: np.ndarray = PANDA.home) -> JointState:
    return messages.joints_message(Joints(time.time(), positions, 1.0), PANDA)


def drawn_target(task: str, stamp: float, size: int = 2 * SIZE) -> DrawnTargetMessage:
    tile = np.zeros((size, size, 3), np.uint8)
    return messages.drawn_target_message(DrawnTarget(stamp, task, VIEWS, tile), 0.1, 0)


# ------------------------------------------------------------------------------------------------ diffusion agent


class Cameras:
    """Publishers of camera images, with faults."""

    def __init__(self, graph: Graph, views: Sequence[str] = VIEWS, depth: Sequence[str] = ()) -> None:
        self._publish = {v: graph.publisher(ImageMessage, f"cameras/{v}/color/image_raw", qos.IMAGE) for v in views}
        self._depth = {v: graph.publisher(ImageMessage, messages.depth_topic(v), qos.IMAGE) for v in depth}
        self.depth = dict.fromkeys(depth, np.full((SIZE, SIZE), 0.5, np.float32))  # m
        self.depth_lag = 0.0  # s between the stamps of an image and its depth image
        self.corrupt_depth: Callable[[ImageMessage], object] | None = None  # of the front camera
        self.spread = 0.0  # s between the stamps of one set
        self.silent: str | None = None
        self.stamps: list[float] = []

    def publish(self, **front: object) -> None:
        stamp = time.time()
        self.stamps.append(round(stamp, 6))
        for k, view in enumerate(self._publish):
            if view != self.silent:
                self._publish[view](picture(stamp + k * self.spread, **(front if view == "front" else {})))  # type: ignore[arg-type]
        for view, publish in self._depth.items():
            message = messages.depth_message(self.depth[view], stamp - self.depth_lag)
            if view == "front" and self.corrupt_depth is not None:
                self.corrupt_depth(message)
            if f"{view} depth" != self.silent:
                publish(message)


@pytest.fixture
def generation(graph: Graph) -> tuple[StandInAgent, Cameras, list[DrawnTargetMessage], Callable[[str], None]]:
    agent = StandInAgent()
    graph.add(DiffusionAgentNode(agent))  # type: ignore[arg-type]
    received = graph.subscribe(DrawnTargetMessage, "drawn_target", qos.DRAWN_TARGET)
    task = graph.publisher(String, "task", qos.TASK)
    return agent, Cameras(graph), received, lambda instruction: task(String(data=instruction))


def test_synchronised_images_yield_drawn_target(graph, generation) -> None:
    _, cameras, received, publish_task = generation
    for _ in range(5):
        cameras.publish()
    time.sleep(0.3)
    assert not received, "targets are generated without a task"
    publish_task("wave")
    cameras.spread = 0.002
    graph.until(lambda: len(received) >= 3, "no drawn target", cameras.publish)
    drawn = messages.drawn_target_from(received[-1])
    assert (drawn.instruction, drawn.views, drawn.steps) == ("wave", VIEWS, 5)
    assert round(drawn.stamp, 6) in cameras.stamps  # the oldest image's
    assert np.all(drawn.tile == 55)
    assert received[-1].latency > 0


def test_unsynchronised_images_yield_no_target(graph, generation) -> None:
    _, cameras, received, publish_task = generation
    publish_task("wave")
    cameras.spread = 0.5
    for _ in range(10):
        cameras.publish()
        time.sleep(0.02)
    assert not received


def test_single_views_are_published_for_subscribers(graph, generation) -> None:
    _, cameras, received, publish_task = generation
    publish_task("wave")
    seen = graph.subscribe(ImageMessage, "drawn_target/front/image", qos.IMAGE)
    graph.until(lambda: seen, "no single view", cameras.publish)
    assert (seen[0].height, seen[0].width, seen[0].encoding) == (SIZE, SIZE, "rgb8")


@pytest.mark.parametrize(
    "fault, expected",
    [
        ({"size": 8}, "camera front: image: size 8x8; 16x16 is needed"),
        ({"encoding": "bgr8"}, "camera front: image: encoding bgr8; rgb8 is needed"),
    ],
)
def test_invalid_image_is_reported_and_not_used(graph, generation, fault, expected) -> None:
    _, cameras, received, publish_task = generation
    publish_task("wave")
    graph.until(
        graph.reports_fault("diffusion_agent", expected), "fault not reported", lambda: cameras.publish(**fault)
    )
    assert not received
    graph.until(lambda: received and graph.has_no_fault("diffusion_agent")(), "no recovery", cameras.publish)


def test_camera_timeout_is_reported_and_stops_generation(graph, generation) -> None:
    _, cameras, received, publish_task = generation
    publish_task("wave")
    graph.until(lambda: received, "no drawn target", cameras.publish)
    cameras.silent = "wrist"
    time.sleep(0.2)
    before = len(received)
    graph.until(graph.reports_fault("diffusion_agent", "camera wrist timeout"), "fault not reported", cameras.publish)
    assert len(received) == before
    cameras.silent = None
    graph.until(
        lambda: len(received) > before and graph.has_no_fault("diffusion_agent")(), "no recovery", cameras.publish
    )


def test_unsynchronised_cameras_are_reported(graph, generation) -> None:
    _, cameras, received, publish_task = generation
    observed = graph.subscribe(Observed, "observed", qos.OBSERVED)
    publish_task("wave")
    cameras.spread = 0.1
    expected = "images not synchronised; wrist is 0.3 s behind"
    graph.until(graph.reports_fault("diffusion_agent", expected), "fault not reported", cameras.publish)
    assert not received and observed
    assert {message.header.stamp.sec for message in observed} == {0}
    cameras.spread = 0.0
    fine = graph.has_no_fault("diffusion_agent")
    graph.until(lambda: observed[-1].header.stamp.sec and fine(), "no recovery", cameras.publish)


def test_camera_is_frozen_when_image_is_constant_while_arm_moves(graph, generation) -> None:
    _, cameras, received, publish_task = generation
    publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    observed = graph.subscribe(Observed, "observed", qos.OBSERVED)
    publish_task("wave")

    def move(turned: float, **front: object) -> None:
        publish_joints(joint_state(PANDA.home + turned))
        time.sleep(0.01)
        cameras.publish(**front)

    graph.until(lambda: len(received) > 2, "images of an arm at rest are rejected", lambda: move(0.0))
    graph.until(graph.reports_fault("diffusion_agent", "camera front: frozen"), "fault not reported",
                lambda: move(0.05))  # fmt: skip
    expected = "camera wrist: frozen; the image has not changed while the arm moved"
    graph.until(lambda: observed[-1].problem.startswith(expected), "not observed", lambda: move(0.05))
    before = len(received)
    for _ in range(5):
        move(0.05)
    time.sleep(0.1)
    assert len(received) - before <= 1
    for name in VIEWS:
        graph.nodes[0]._observations._changes.pop(name)  # as the next picture of each would
    graph.until(lambda: len(received) > before + 2 and graph.has_no_fault("diffusion_agent")(), "no recovery",
                lambda: move(0.05, grey=100))  # fmt: skip
    assert not observed[-1].problem


def test_camera_is_not_frozen_after_unmeasured_motion(graph, generation) -> None:
    _, cameras, received, publish_task = generation
    publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    observed = graph.subscribe(Observed, "observed", qos.OBSERVED)
    publish_task("wave")
    publish_joints(joint_state())
    time.sleep(0.3)  # the arm comes to rest at another position meanwhile
    graph.until(lambda: received, "no drawn target", cameras.publish)
    for _ in range(10):
        publish_joints(joint_state(PANDA.home + 0.1))
        time.sleep(0.02)
        cameras.publish()
    assert not any(message.problem for message in observed)


def test_virtual_view_needs_recent_joints(graph) -> None:
    agent = StandInAgent()
    agent.views, agent.camera_views = (*VIEWS[:3], VIRTUAL), VIEWS[:3]
    measured: list[np.ndarray] = []

    def generate(observation: Observation, seed: int, previous: DrawnTarget | None = None) -> DrawnTarget:
        measured.append(observation.joints.positions)
        return DrawnTarget(observation.stamp, observation.instruction, VIEWS, np.zeros((32, 32, 3), np.uint8))

    agent.generate = generate  # type: ignore[method-assign]
    graph.add(DiffusionAgentNode(agent))  # type: ignore[arg-type]
    received = graph.subscribe(DrawnTargetMessage, "drawn_target", qos.DRAWN_TARGET)
    graph.publisher(String, "task", qos.TASK)(String(data="wave"))
    cameras = Cameras(graph, agent.camera_views)
    publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    expected = "joint_states: none within 0.1 s of the images"
    graph.until(graph.reports_fault("diffusion_agent", expected), "fault not reported", cameras.publish)
    assert not received and not measured

    def publish_all() -> None:
        publish_joints(joint_state(PANDA.home + 0.1))
        cameras.publish()

    graph.until(lambda: received and graph.has_no_fault("diffusion_agent")(), "no drawn target", publish_all)
    np.testing.assert_allclose(measured[-1], PANDA.home + 0.1)
    graph.until(graph.reports_fault("diffusion_agent", expected), "old joints are rendered", cameras.publish)


def test_failed_generation_is_reported_and_not_published(graph, generation) -> None:
    agent, cameras, received, publish_task = generation
    agent.finite = False
    publish_task("wave")
    graph.until(
        graph.reports_fault("diffusion_agent", "drawn target is not finite"), "fault not reported", cameras.publish
    )
    assert not received


def test_images_are_undistorted_and_other_intrinsics_rejected(graph, tmp_path: Path) -> None:
    lens = CameraIntrinsics(SIZE, SIZE, 9.0, 9.0, 8.0, 8.0, (0.5, 0.0, 0.0, 0.0, 0.0))
    cameras = {view: lens.camera(view, "base", np.eye(4)) for view in VIEWS}
    for camera in cameras.values():
        CameraCalibration(camera).save(tmp_path)
    options = {"parameter_overrides": overrides(calibration=str(tmp_path))}
    graph.add(DiffusionAgentNode(StandInAgent(), **options))  # type: ignore[arg-type]
    received = graph.subscribe(DrawnTargetMessage, "drawn_target", qos.DRAWN_TARGET)
    graph.publisher(String, "task", qos.TASK)(String(data="wave"))
    publish = {view: graph.publisher(ImageMessage, f"cameras/{view}/color/image_raw", qos.IMAGE) for view in VIEWS}
    publish_info = graph.publisher(CameraInfo, "cameras/front/color/camera_info", qos.IMAGE)
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)

    def publish_all() -> None:
        stamp = time.time()
        for view in VIEWS:
            publish[view](messages.image_message(image, stamp))

    graph.until(lambda: received, "no drawn target", publish_all)
    undistorted = Undistorter(cameras["front"])(image)
    assert np.abs(undistorted.astype(int) - image).max() > 50
    np.testing.assert_array_equal(
        untile(messages.drawn_target_from(received[-1]).tile, VIEWS)["front"], 255 - undistorted
    )
    for other, fine in ((replace(lens, fx=18.0, fy=18.0), False), (lens, True)):
        info = other.camera("front", "base", np.eye(4)).camera_info()
        publish_info(CameraInfo(**info | {"d": info["d"].tolist()}))
        expected = "camera front: camera_info of front: does not fit its calibration"
        condition = graph.has_no_fault("diffusion_agent") if fine else graph.reports_fault("diffusion_agent", expected)
        graph.until(condition, "fault not reported or not cleared", publish_all)


def test_first_target_of_task_has_no_previous_target(graph, generation) -> None:
    agent, cameras, received, publish_task = generation
    previous: list[DrawnTarget | None] = []
    generate = agent.generate

    def note(observation: Observation, seed: int, before: DrawnTarget | None = None) -> DrawnTarget:
        previous.append(before)
        return generate(observation, seed)

    agent.generate = note
    for _ in range(2):  # the same instruction: the scene may have been reset
        received.clear()
        publish_task("wave")
        graph.until(lambda: len(received) > 2, "no drawn target", cameras.publish)
        publish_task("")
        for _ in range(5):
            cameras.publish()
            time.sleep(0.02)
    first = [before is None for before in previous]
    assert first.count(True) == 2 and first[0]


# --------------------------------------------------------------------------------------------------------- policy


class StandInPolicy:
    """Policy that holds the arm, and logs its observations and resets."""

    spec = PolicySpec("panda", PANDA.joint_names, VIEWS, (SIZE, SIZE))

    def __init__(self) -> None:
        self.resets: list[int] = []
        self.seen: list[Observation] = []
        self.value = 1.0  # probability of open
        self.clock_step = 0.0  # s by which the clock jumps while each chunk is predicted

    def reset(self, seed: int = 0) -> None:
        self.resets.append(seed)

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation)
        return ActionChunk(
            observation.stamp - self.clock_step,
            0.05,
            np.tile(observation.joints.positions, (20, 1)),
            np.full(20, self.value),
        )


def test_policy_node_publishes_chunks(graph) -> None:
    policy = StandInPolicy()
    graph.add(PolicyNode(policy, parameter_overrides=overrides(seed=5)))
    received = graph.subscribe(JointTrajectory, "action_chunk", qos.DRAWN_TARGET)
    cameras, publish_task = Cameras(graph), graph.publisher(String, "task", qos.TASK)
    publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    publish_scene = graph.publisher(SceneStatus, "sim/status", qos.STATUS)
    scene = SceneStatus(bodies=["button"], poses=[Pose(position=Point(x=0.5, y=0.1, z=0.0))])
    observed = graph.subscribe(Observed, "observed", qos.OBSERVED)
    publish_task(String(data="wave"))
    graph.until(graph.reports_fault("policy", "joint_states: none within 0.1 s"), "fault not reported", cameras.publish)

    def publish_all() -> None:
        publish_scene(scene)
        publish_joints(joint_state(PANDA.home + 0.1))
        cameras.publish()

    def done() -> bool:
        return bool(received and policy.seen and policy.seen[-1].bodies and graph.has_no_fault("policy")())

    graph.until(done, "no chunk", publish_all)
    chunk, seen = chunk_from(received[-1], PANDA), policy.seen[-1]
    assert round(chunk.stamp, 6) in cameras.stamps and observed
    np.testing.assert_allclose(chunk.positions[-1], PANDA.home + 0.1)
    assert seen.instruction == "wave" and set(seen.images) == set(VIEWS)
    np.testing.assert_allclose(seen.bodies["button"][:3, 3], [0.5, 0.1, 0.0])
    assert policy.resets == [5]
    graph.until(lambda: 0 < policy.seen[-1].latency != 0.1, "latency not measured", publish_all)
    for policy.clock_step in (20.0, -20.0):
        count = len(policy.seen)
        graph.until(lambda count=count: len(policy.seen) > count + 1, "no chunk after a clock jump", publish_all)
        assert 0 < policy.seen[-1].latency <= 1.0
    policy.clock_step = 0.0
    publish_task(String(data="wave"))
    graph.until(lambda: len(policy.resets) > 1, "not reset at the next task", publish_all)
    policy.value = np.nan
    graph.until(graph.reports_fault("policy", "action chunk: not finite"), "fault not reported", publish_all)


@pytest.fixture
def depth_policy(graph) -> tuple[StandInPolicy, Cameras, list[JointTrajectory], Callable[[], None]]:
    """Policy that requires depth, the cameras, its chunks, and a function that publishes all of its inputs."""
    policy = StandInPolicy()
    policy.spec = replace(StandInPolicy.spec, requires_depth=True)
    graph.add(PolicyNode(policy, parameter_overrides=overrides(calibration="")))
    received = graph.subscribe(JointTrajectory, "action_chunk", qos.DRAWN_TARGET)
    cameras = Cameras(graph, depth=VIEWS)
    graph.publisher(String, "task", qos.TASK)(String(data="wave"))
    publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)

    def publish_all() -> None:
        publish_joints(joint_state())
        cameras.publish()

    return policy, cameras, received, publish_all


def test_policy_observes_depth_images(graph, depth_policy) -> None:
    policy, cameras, received, publish_all = depth_policy
    rng = np.random.default_rng(0)
    cameras.depth = {view: rng.integers(0, 3000, (SIZE, SIZE)).astype(np.float32) / 1000 for view in VIEWS}
    graph.until(lambda: received and graph.has_no_fault("policy")(), "no chunk", publish_all)
    assert set(policy.seen[-1].depth) == set(VIEWS)
    for view, depth in cameras.depth.items():
        np.testing.assert_allclose(policy.seen[-1].depth[view], depth, atol=1e-6)


@pytest.mark.parametrize(("corrupt", "expected"), [
    (lambda m: setattr(m, "encoding", "mono16"), "encoding mono16; 16UC1 or 32FC1 is needed"),
    (lambda m: setattr(m, "height", 8), f"size {SIZE}x8; {SIZE}x{SIZE} is needed"),
    (lambda m: setattr(m, "data", m.data[:-2]), f"{2 * SIZE**2 - 2} bytes in rows of {2 * SIZE} do not fit"),
])  # fmt: skip
def test_invalid_depth_image_holds_arm(graph, depth_policy, corrupt, expected) -> None:
    _, cameras, received, publish_all = depth_policy
    observed = graph.subscribe(Observed, "observed", qos.OBSERVED)
    graph.until(lambda: received, "no chunk", publish_all)
    cameras.corrupt_depth = corrupt
    expected = f"camera front depth: image: {expected}"
    graph.until(graph.reports_fault("policy", expected), "fault not reported", publish_all)
    graph.until(lambda: observed[-1].problem.startswith(expected), "not observed, so the arm moves", publish_all)
    count = len(received)
    publish_all()
    time.sleep(0.1)
    assert len(received) <= count + 1
    cameras.corrupt_depth = None
    graph.until(lambda: len(received) > count + 1 and graph.has_no_fault("policy")(), "no recovery", publish_all)


def test_missing_depth_and_depth_of_another_moment_are_reported(graph, depth_policy) -> None:
    policy, cameras, _, publish_all = depth_policy
    cameras.silent = "wrist depth"
    graph.until(graph.reports_fault("policy", "camera wrist depth timeout: no image yet"), "no fault", publish_all)
    cameras.silent, cameras.depth_lag = None, 0.005  # of the same view within the tolerance for different views
    expected = "depth is 0.005 s behind; a depth image needs the stamp of its colour image"
    graph.until(graph.reports_fault("policy", expected), "fault not reported", publish_all)
    assert not policy.seen
    cameras.depth_lag = 0.0
    graph.until(lambda: policy.seen and graph.has_no_fault("policy")(), "no recovery", publish_all)


class StalledServer(PolicyServer):
    """Policy server that holds the arm, and stalls on demand."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.running.set()
        super().__init__(self._reply, server_interface.metadata(StandInPolicy.spec))

    def stall(self, stalled: bool) -> None:
        self._loop.call_soon_threadsafe(self.running.clear if stalled else self.running.set)

    async def _reply(self, observation: dict[str, Any]) -> list[Reply]:
        await self.running.wait()
        request = {key: observation["genima"][key] for key in ("sequence", "stamp")}
        return [{"actions": np.tile(observation["observation/state"], (20, 1)), "genima": request}]


@pytest.fixture
def remote_policy() -> Iterator[tuple[RemotePolicy, StalledServer]]:
    with StalledServer() as server, closing(RemotePolicy(Server(server.address), timeout=10.0)) as policy:
        yield policy, server


def test_stalled_policy_server_publishes_no_chunk(remote_policy, graph) -> None:
    """Nothing is published from its late reply either, and tasks can begin again once it replies."""
    policy, server = remote_policy
    node = PolicyNode(policy, parameter_overrides=overrides())
    graph.add(node)
    received = graph.subscribe(JointTrajectory, "action_chunk", qos.DRAWN_TARGET)
    cameras, publish_task = Cameras(graph), graph.publisher(String, "task", qos.TASK)
    publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)

    def publish_all() -> None:
        publish_joints(joint_state())
        cameras.publish()

    publish_task(String(data="wave"))
    graph.until(lambda: received, "no chunk", publish_all)
    server.stall(True)
    policy.timeout = 0.2
    graph.until(graph.reports_fault("policy", "no reply within 0.2 s"), "fault not reported", publish_all)
    received.clear()
    publish_task(String(data=""))  # the task ends by the fault
    graph.until(lambda: node._observations.task_number == 2, "task does not end")
    server.stall(False)
    graph.until(graph.has_no_fault("policy"), "fault lasts without a task", cameras.publish)
    assert not received and policy.rejected == 1
    policy.timeout = 10.0
    publish_task(String(data="wave"))
    graph.until(lambda: received, "no chunk", publish_all)


@pytest.mark.parametrize(("corrupt", "expected"), [
    (lambda m: m.points.clear(), "chunk: no actions"),
    (lambda m: m.points[-1].positions.append(0.0), "joint"),
    (lambda m: setattr(m.points[3].time_from_start, "sec", 7), "not evenly spaced"),
    (lambda m: [setattr(p, "time_from_start", DurationMessage()) for p in m.points], "not evenly spaced"),
    (lambda m: m.points[2].positions.__setitem__(0, float("nan")), "finite"),
    (lambda m: m.points[2].positions.__setitem__(7, 1.5), "not a probability"),
    (lambda m: m.points[2].positions.__setitem__(0, 9.0), "panda_joint1"),
    (lambda m: setattr(m.header.stamp, "sec", m.header.stamp.sec + 9), "stamp in the future"),
    (lambda m: m.joint_names.__setitem__(0, "panda_joint2"), "panda_joint"),
])  # fmt: skip
def test_malformed_action_chunk_holds_arm(graph, corrupt, expected) -> None:
    arm = Arm(graph, "action_chunk")
    arm.task("wave")
    graph.until(lambda: moving(arm.commands), "no commands", arm.work)
    arm.corrupt = corrupt
    graph.until(graph.reports_fault("controller", expected), "fault not reported", arm.work)
    arm.corrupt = None
    graph.until(graph.has_no_fault("controller"), "no recovery", arm.work)


def test_chunks_from_before_task_are_dropped(graph) -> None:
    arm = Arm(graph, "action_chunk")
    arm.ago = 5.0
    arm.task("wave")
    assert arm.is_silent()
    arm.ago = 0.0
    graph.until(lambda: len(arm.commands) > 20, "no commands", arm.work)


# ----------------------------------------------------------------------------------------------------- controller


class Arm:
    """Controller node with publishers of joint states, observed, task, and drawn targets or action chunks."""

    def __init__(self, graph: Graph, kind: str = "drawn_target") -> None:
        if kind == "drawn_target":
            graph.add(ControllerNode(StandInController(), parameter_overrides=overrides(calibration="")))  # type: ignore[arg-type]
        else:
            graph.add(ControllerNode(parameter_overrides=overrides(input=kind)))
        self._kind = kind
        self.corrupt: Callable[[JointTrajectory], object] | None = None
        self.ago = 0.0  # s, age of chunks
        self.commands = graph.subscribe(JointState, "controller/command", qos.JOINT_COMMAND)
        self.publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
        message = DrawnTargetMessage if kind == "drawn_target" else JointTrajectory
        self._publish_input = graph.publisher(message, kind, qos.DRAWN_TARGET)
        self._publish_task = graph.publisher(String, "task", qos.TASK)
        self._publish_observed = graph.publisher(Observed, "observed", qos.OBSERVED)
        self._task = ""

    def task(self, instruction: str) -> None:
        self._task = instruction
        self._publish_task(String(data=instruction))

    def observe(self, problem: str = "", ago: float = 0.0) -> None:
        self.publish_joints(joint_state())
        observed = Observed(problem=problem)
        observed.header.stamp = messages.time_message(time.time() - ago)
        self._publish_observed(observed)

    def is_silent(self) -> bool:
        """Return True if no command is published although all inputs are."""
        count = len(self.commands)
        for _ in range(10):
            self.work()
            time.sleep(0.02)
        return len(self.commands) == count

    def work(self, size: int = 2 * SIZE) -> None:
        self.observe()
        if self._kind == "drawn_target":
            self._publish_input(drawn_target(self._task, time.time(), size))
            return
        ahead = np.tile(PANDA.home, (20, 1))
        ahead[:, 0] += np.linspace(0, 0.1, 20)
        message = chunk_message(ActionChunk(time.time() - self.ago, 0.05, ahead, np.ones(20)), PANDA)
        if self.corrupt:
            self.corrupt(message)
        self._publish_input(message)


@pytest.fixture
def arm(graph: Graph) -> Arm:
    return Arm(graph)


def test_controller_publishes_commands_for_drawn_targets(graph, arm) -> None:
    arm.task("wave")
    graph.until(lambda: len(arm.commands) > 20, "no commands", arm.work)
    command = messages.command_from(arm.commands[-1], PANDA)
    assert 0 < command.positions[0] - PANDA.home[0] < 0.11
    assert command.gripper == 1.0
    stamps = np.array([messages.seconds(m.header.stamp) for m in arm.commands])
    # stamps are those of the deadlines: whole periods apart, however busy the machine is
    assert np.all(np.abs(np.diff(stamps) / 0.02 - np.round(np.diff(stamps) / 0.02)) < 0.1)
    arm.task("")
    time.sleep(0.2)
    assert arm.is_silent(), "commands without a task"


def test_task_ends_with_its_publisher(graph, arm) -> None:
    arm.task("wave")
    graph.until(lambda: len(arm.commands) > 20, "no commands", arm.work)
    graph.probe.destroy_publisher(arm._publish_task.__self__)
    graph.until(graph.reports_fault("controller", "task: publisher ended"), "fault not reported", arm.work)
    time.sleep(0.1)
    assert arm.is_silent(), "commands continue"


def test_targets_from_before_task_are_dropped(graph, arm) -> None:
    arm.task("wave")
    for _ in range(10):
        arm.publish_joints(joint_state())
        arm._publish_input(drawn_target("wave", time.time() - 60))
        arm._publish_input(drawn_target("something else", time.time()))
        time.sleep(0.02)
    assert not arm.commands


@pytest.mark.parametrize(
    "corrupt, expected",
    [
        (lambda m: m.position.__setitem__(3, np.nan), "joint state: not finite (panda_joint4)"),
        (lambda m: (m.name.pop(2), m.position.pop(2)), "joint state: joints missing (panda_joint3)"),
    ],
)
def test_malformed_joint_states_hold_arm(graph, arm, corrupt, expected) -> None:
    arm.task("wave")
    graph.until(lambda: arm.commands, "no commands", arm.work)

    def bad() -> None:
        message = joint_state()
        corrupt(message)
        arm.publish_joints(message)

    graph.until(graph.reports_fault("controller", expected), "fault not reported", bad)
    time.sleep(0.3)
    count = len(arm.commands)
    for _ in range(10):
        bad()
        time.sleep(0.02)
    assert len(arm.commands) == count, "commands without joint states"
    graph.until(lambda: len(arm.commands) > count and graph.has_no_fault("controller")(), "no recovery", arm.work)


def moving(commands: list[JointState]) -> bool:
    return len(commands) > 1 and bool(np.abs(np.subtract(commands[-1].position, commands[-2].position)).max() > 1e-5)


@pytest.mark.parametrize(
    "expected, observe",
    [
        ("observed: no message for 0.08 s", lambda arm: arm.publish_joints(joint_state())),
        ("no complete set of valid images within", lambda arm: arm.observe(ago=0.5)),
        ("camera front: gone", lambda arm: arm.observe("camera front: gone")),
    ],
)
def test_invalid_observations_hold_arm(graph, arm, expected, observe) -> None:
    """Also within a chunk."""
    arm.task("wave")
    graph.until(lambda: len(arm.commands) > 5 and moving(arm.commands), "no motion", arm.work)
    start = time.monotonic()
    graph.until(lambda: not moving(arm.commands), "the arm is not held", lambda: observe(arm))
    assert time.monotonic() - start < 0.9  # s; the chunk lasts 1 s
    graph.until(graph.reports_fault("controller", expected), "fault not reported", lambda: observe(arm))
    graph.until(lambda: moving(arm.commands) and graph.has_no_fault("controller")(), "no recovery", arm.work)


def test_stream_restarts_when_arm_does_not_follow(graph, arm) -> None:
    original = StandInController.predict_chunk

    def far(self: StandInController, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
        chunk = original(self, drawn, joints)
        chunk.positions[:, 0] += np.linspace(0, 0.6, 20)
        return chunk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StandInController, "predict_chunk", far)
        arm.task("wave")
        expected = "arm 0.2 rad or more from its set-point; restarting from the measured joints"
        graph.until(graph.reports_fault("controller", expected), "fault not reported", arm.work)
    offsets = [command.position[0] - PANDA.home[0] for command in arm.commands]
    assert 0.2 < max(offsets) < 0.6  # rad: it does not stop at the arm either


def test_inconsistent_target_holds_arm(graph, arm) -> None:
    arm.task("wave")
    graph.until(lambda: len(arm.commands) > 5 and moving(arm.commands), "no motion", arm.work)
    agreement = 0.2
    graph.nodes[0]._consistency = lambda *_: agreement
    expected = "do not agree (20% of the spheres' pixels; 45% are needed)"
    graph.until(graph.reports_fault("controller", expected), "fault not reported", arm.work)
    graph.until(lambda: not moving(arm.commands), "the arm follows it", arm.observe)
    agreement = 0.6
    graph.until(lambda: moving(arm.commands) and graph.has_no_fault("controller")(), "no recovery", arm.work)


def test_chunk_outside_joint_range_holds_arm(graph, arm) -> None:
    arm.task("wave")
    graph.until(lambda: len(arm.commands) > 5 and moving(arm.commands), "no motion", arm.work)
    graph.nodes[0]._controller.beyond = 3.0
    expected = "prediction: panda_joint7: outside its range -2.90 .. 2.90 (3.79 rad)"
    graph.until(graph.reports_fault("controller", expected), "fault not reported", arm.work)
    graph.until(lambda: not moving(arm.commands), "the arm goes to its limit", arm.observe)
    assert messages.command_from(arm.commands[-1], PANDA).positions[6] == pytest.approx(PANDA.home[6], abs=0.01)


@pytest.mark.parametrize(
    "corrupt, expected",
    [
        (lambda m: setattr(m.header, "stamp", Time()), "joint state: no stamp"),
        (lambda m: m.position.__setitem__(5, 114.6), r"panda_joint6: outside .* \(114.60 rad\).*are these degrees"),
        (lambda m: m.position.__setitem__(7, 40.0), r"finger_joint: outside its travel \(40"),
    ],
)
def test_impossible_joint_states_are_rejected(graph, corrupt, expected) -> None:
    graph.add(CommandGuardNode())
    publish = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)

    def publish_invalid() -> None:
        message = joint_state()
        corrupt(message)
        publish(message)

    def rejected() -> bool:
        status = graph.diagnostics.get("command_guard")
        return status is not None and re.search(f"joint_states: {expected}", status.message) is not None

    graph.until(rejected, "fault not reported", publish_invalid)
    graph.until(graph.has_no_fault("command_guard"), "no recovery", lambda: publish(joint_state()))


@pytest.mark.parametrize("jump", [-30.0, 30.0])
def test_clock_jump_restarts_stream(graph, arm, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    arm.task("wave")
    graph.until(lambda: len(arm.commands) > 5 and moving(arm.commands), "no motion", arm.work)
    now, real = messages.now, time.time
    monkeypatch.setattr(messages, "now", lambda node: now(node) + jump)
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    before = len(arm.commands)
    graph.until(lambda: len(arm.commands) > before + 10 and moving(arm.commands), "no recovery", arm.work)
    stamps = [messages.seconds(command.header.stamp) for command in arm.commands]
    assert abs(stamps[-1] - stamps[0] - jump) < 20
    positions = np.array([command.position for command in arm.commands])
    assert np.abs(np.diff(positions, axis=0)).max() < 0.05


def test_joint_states_with_earlier_stamp_are_dropped(graph, arm) -> None:
    def publish(ago: float) -> None:
        arm.publish_joints(messages.joints_message(Joints(time.time() - ago, PANDA.home, 1.0), PANDA))

    def back() -> None:
        publish(0.0)
        publish(0.4)

    graph.until(graph.reports_fault("controller", "before that of the previous one"), "fault not reported", back)
    graph.until(graph.has_no_fault("controller"), "no recovery", lambda: publish(0.0))


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("rate", 10, "parameter rate is 10; it must be a number from 20 to 200"),
        ("rate", "fast", "parameter rate is fast"),
        ("mode", "parallel", "mode: unknown .'parallel'.; use overlapped or serial"),
        ("calibration", "nowhere", "nowhere"),
        ("least_agreement", 1.5, "from 0 to 1"),
        ("observation_timeout", -1, "of at least 0"),
    ],
)
def test_invalid_parameters_are_rejected_in_one_line(name: str, value: object, expected: str) -> None:
    line = [*("python", "--ros-args", "-p"), f"{name}:={value}"]
    rclpy.init(args=line, domain_id=free_domain())
    try:
        with pytest.raises(GenimaError, match=expected) as caught:
            ControllerNode(StandInController())  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    finally:
        rclpy.shutdown()


def test_target_of_other_size_is_reported(graph, arm) -> None:
    arm.task("wave")
    expected = "the drawn target is 8 px wide, 32 is needed"
    graph.until(graph.reports_fault("controller", expected), "fault not reported", lambda: arm.work(size=8))
    assert not arm.commands


# -------------------------------------------------------------------------------------------------- command guard


class Guarded:
    """Command guard node with publishers of joint states and commands of an arm at rest."""

    def __init__(self, graph: Graph) -> None:
        graph.add(CommandGuardNode())
        self.graph = graph
        self.sent = graph.subscribe(JointState, "joint_command", qos.JOINT_COMMAND)
        self._publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._publish_command = graph.publisher(JointState, "controller/command", qos.SOURCE_COMMAND)

    def select(self, source: str) -> SelectSource.Response:
        return self.graph.call(SelectSource, "command_guard/select", SelectSource.Request(source=source))

    def command(self, offset: float | np.ndarray = 0.01) -> None:
        self._publish_joints(joint_state())
        command = Command(time.time(), PANDA.home + offset, np.zeros(7), 0.5)
        self._publish_command(messages.command_message(command, PANDA))


@pytest.fixture
def guarded(graph: Graph) -> Guarded:
    return Guarded(graph)


def test_guard_passes_only_selected_source(graph, guarded) -> None:
    for _ in range(10):
        guarded.command()
        time.sleep(0.02)
    assert not guarded.sent
    rejected = guarded.select("gamepad")
    assert not rejected.success and "unknown source ('gamepad')" in rejected.message
    assert guarded.select("controller").success

    def has_arrived() -> bool:
        return bool(guarded.sent) and np.allclose(guarded.sent[-1].position[:7], PANDA.home + 0.01, atol=1e-3)

    graph.until(has_arrived, "the command does not arrive", guarded.command)
    assert guarded.sent[-1].position[7] == 0.5


def test_guard_status_has_typed_fields(graph, guarded) -> None:
    graph.until(lambda: graph.guard.sources, "no status")
    status = graph.guard
    assert (status.owner, list(status.sources)) == ("", list(SOURCES))
    assert (status.state, status.reason) == (GuardStatus.HELD, GuardStatus.NO_OWNER)
    assert status.text == "HELD: the arm has no owner"
    late = graph.subscribe(GuardStatus, "command_guard/status", qos.GUARD_STATUS)
    graph.until(lambda: late, "a late subscriber gets nothing")
    guarded.select("controller")
    graph.until(lambda: graph.guard.owner == "controller", "no owner")
    graph.until(lambda: graph.guard.state == GuardStatus.OK, "the arm does not follow", guarded.command)
    graph.until(lambda: graph.guard.sent > 0 and graph.guard.received[0] > 0, "command not counted", guarded.command)
    assert graph.guard.rejected[0] == 0 and graph.guard.reason_counts[GuardStatus.NO_OWNER] > 0


@pytest.mark.parametrize(("members", "message"), [
    (GuardState, GuardStatus),
    (GuardReason, GuardStatus),
    (FollowerState, TeleopStatus),
    (TaskOutcome, RunTask.Result),
    (AutoCalibrationState, CalibratorStatus),
])  # fmt: skip
def test_state_enums_match_message_constants(members: Iterable[Enum], message: type) -> None:
    for member in members:
        assert getattr(message, member.name) == member.value


def test_guard_skips_self_collision_without_meshes(graph, tmp_path: Path) -> None:
    fields = yaml.safe_load(paths.config_file("panda", "config", "robots").read_text(encoding="utf-8"))
    fields["joints"][2]["a"] = 0.05
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump(fields), encoding="utf-8")
    robot = Parameter("cell", value=write_cell(tmp_path, "sim_panda", robot=str(file)))
    graph.add(CommandGuardNode(parameter_overrides=[robot]))
    graph.until(lambda: graph.guard.sources, "the guard does not run")
    with pytest.raises(GenimaError, match="no meshes"):
        CommandGuardNode(namespace="other", parameter_overrides=[robot, Parameter("self_collision", value=True)])


def test_guard_releases_arm_when_owner_ends(graph, guarded) -> None:
    guarded.select("controller")
    graph.until(lambda: guarded.sent and graph.guard.owner == "controller", "no set-points", guarded.command)
    graph.probe.destroy_publisher(guarded._publish_command.__self__)
    graph.until(
        lambda: not graph.guard.owner, "the owner is not released", lambda: guarded._publish_joints(joint_state())
    )
    graph.until(graph.has_no_fault("command_guard"), "a fault stays", lambda: guarded._publish_joints(joint_state()))


@pytest.mark.parametrize(
    "offset, reason", [(1.0, GuardStatus.COMMAND_JUMP), (float("nan"), GuardStatus.COMMAND_MALFORMED)]
)
def test_guard_holds_on_invalid_command(graph, guarded, offset, reason) -> None:
    guarded.select("controller")
    graph.until(lambda: guarded.sent, "no set-points", guarded.command)
    graph.until(graph.guard_reports(reason), "no reason", lambda: guarded.command(offset))
    assert graph.guard.state == GuardStatus.HELD
    text = GuardReason(reason).text
    graph.until(
        graph.reports_fault("command_guard", f"HELD: {text}"), "fault not reported", lambda: guarded.command(offset)
    )
    graph.until(lambda: graph.guard.reason_counts[reason] > 0, "not counted", lambda: guarded.command(offset))
    positions = np.array([m.position[:7] for m in guarded.sent])
    assert np.all(np.isfinite(positions)) and np.all(np.abs(positions - PANDA.home) < 0.02)
    graph.until(graph.has_no_fault("command_guard"), "no recovery", guarded.command)


def test_guard_holds_on_two_publishers_of_source(graph, guarded) -> None:
    guarded.select("controller")
    graph.until(lambda: guarded.sent, "no set-points", guarded.command)
    second = graph.probe.create_publisher(JointState, "controller/command", qos.SOURCE_COMMAND)
    graph.until(graph.guard_reports(GuardStatus.MULTIPLE_PUBLISHERS), "no reason", guarded.command)
    time.sleep(0.1)
    there = np.array(guarded.sent[-1].position[:7])
    for _ in range(10):
        guarded.command(0.05)
        time.sleep(0.02)
    np.testing.assert_array_equal(guarded.sent[-1].position[:7], there)
    graph.probe.destroy_publisher(second)
    graph.until(graph.has_no_fault("command_guard"), "no recovery", guarded.command)


def test_guard_reports_second_publisher_of_joint_command(graph, guarded) -> None:
    graph.probe.create_publisher(JointState, "joint_command", qos.JOINT_COMMAND)
    graph.until(graph.reports_fault("command_guard", "published by other nodes, too (1)"), "fault not reported")


@pytest.mark.real_time
def test_guard_keeps_arm_in_workspace() -> None:
    line = ["python", "--ros-args", "-p", "workspace:=[-1.0, -1.0, 0.2, 1.0, 1.0, 1.0]", "-p", "jump:=1"]
    rclpy.init(args=line, domain_id=free_domain())
    graph = Graph()
    try:
        guarded = Guarded(graph)
        guarded.select("controller")
        lower = PANDA.home + [0, 0.4, 0, 0, 0, 0, 0]
        assert PANDA.link_poses(lower)[-1, 2, 3] < 0.2 < PANDA.link_poses(PANDA.home)[-1, 2, 3]
        graph.until(lambda: guarded.sent, "no set-points", guarded.command)
        graph.until(graph.guard_reports(GuardStatus.WORKSPACE), "no reason",
                    lambda: guarded.command(lower - PANDA.home))  # fmt: skip
        heights = [PANDA.link_poses(np.array(message.position[:7]))[-1, 2, 3] for message in guarded.sent]
        assert min(heights) >= 0.2 - 1e-6
    finally:
        graph.close()


def test_stop_latches_until_resume(graph, guarded) -> None:
    guarded.select("controller")
    graph.until(lambda: guarded.sent, "no set-points", guarded.command)
    assert graph.call(Trigger, "command_guard/stop", Trigger.Request()).success
    graph.until(graph.guard_reports(GuardStatus.STOP_REQUESTED), "no reason", guarded.command)
    assert graph.guard.state == GuardStatus.STOPPED
    graph.until(
        lambda: graph.call(Trigger, "command_guard/resume", Trigger.Request()).success, "no resume", guarded.command
    )
    graph.until(graph.has_no_fault("command_guard"), "no recovery", guarded.command)


def test_fault_log_is_throttled_by_key(graph) -> None:
    node = graph.probe
    lines: list[str] = []
    logger = SimpleNamespace(error=lines.append, info=lines.append)
    diagnostics = DiagnosticUpdater(SimpleNamespace(**{  # type: ignore[arg-type]
        name: getattr(node, name) for name in ("create_publisher", "create_timer", "get_clock", "get_name",
                                               "get_fully_qualified_name")}, get_logger=lambda: logger))  # fmt: skip
    for k in range(200):
        diagnostics.set_fault("joint_states", f"joint state: stamp {k / 1000:.3f} s before that of the previous one")
        if k % 2:
            diagnostics.clear_fault("joint_states")
    assert lines == ["joint_states: joint state: stamp 0.000 s before that of the previous one",
                     "joint_states: OK"]  # fmt: skip
    for k in range(20):
        diagnostics.set_fault("arm", "HELD", ("COMMAND_JUMP", "COMMAND_FAR")[k % 2])
    assert lines[2:] == ["arm: HELD", "arm: HELD"], "each kind of fault once"


# ---------------------------------------------------------------------------------------------------- task runner


class Runner:
    """Task runner node with an action client and a publisher of the simulator's status."""

    def __init__(self, graph: Graph, namespace: str = "") -> None:
        graph.add(CommandGuardNode(namespace=namespace))
        graph.add(TaskRunnerNode(namespace=namespace))
        self.graph = graph
        self.phases: list[tuple[int, str]] = []  # all feedback
        prefix = f"{namespace}/" if namespace else ""
        every_task = QoSProfile(depth=100, durability=qos.TASK.durability)
        self.tasks = graph.subscribe(String, f"{prefix}task", every_task)
        self._publish_status = graph.publisher(SceneStatus, f"{prefix}sim/status", qos.STATUS)
        self._client = ActionClient(graph.probe, RunTask, f"{prefix}run_task")
        graph.until(self._client.server_is_ready, "no action server")
        graph.until(lambda: self.tasks, "no initial task message")

    def status(self, success: bool, instruction: str = "wave") -> None:
        message = SceneStatus(success=success, instruction=instruction)
        message.header.stamp = messages.time_message(time.time())
        self._publish_status(message)

    def send_goal(self, instruction: str, time_limit: float = 0.0):  # type: ignore[no-untyped-def]
        goal = RunTask.Goal(instruction=instruction, time_limit=time_limit)
        future = self.graph.execute(lambda: self._client.send_goal_async(goal, self._on_feedback))
        self.graph.until(future.done, "no response from the task runner")
        return future.result()

    def _on_feedback(self, message: Any) -> None:
        self.phases.append((message.feedback.phase, message.feedback.text))

    def result(self, handle) -> RunTask.Result:  # type: ignore[no-untyped-def]
        future = self.graph.execute(handle.get_result_async)
        self.graph.until(future.done, "the task does not end")
        return future.result().result

    @property
    def task(self) -> str:
        return self.tasks[-1].data if self.tasks else ""


@pytest.fixture
def runner(graph: Graph) -> Runner:
    return Runner(graph)


@pytest.mark.any_pace
def test_task_succeeds_when_simulator_reports_success(graph, runner) -> None:
    handle = runner.send_goal("wave")
    graph.until(lambda: runner.task == "wave", "the task is not published")
    graph.until(lambda: runner.task == "", "task does not end", lambda: [runner.status(s) for s in (False, True)])
    assert runner.result(handle).outcome == RunTask.Result.SUCCEEDED


@pytest.mark.any_pace
def test_success_before_task_does_not_count(graph, runner) -> None:
    handle = runner.send_goal("wave")
    graph.until(lambda: runner.task == "wave", "the task is not published", lambda: runner.status(True))
    graph.until(lambda: runner.task == "", "the task does not end", lambda: runner.status(True))
    result = runner.result(handle)
    assert (result.outcome, result.reason) == (RunTask.Result.STOPPED, "the scene is solved already; reset it")
    again = runner.send_goal("wave")
    graph.until(lambda: runner.task == "wave", "the task is not published", lambda: runner.status(True))
    graph.until(lambda: runner.task == "", "a reset does not count", lambda: [runner.status(s) for s in (False, True)])
    assert runner.result(again).outcome == RunTask.Result.SUCCEEDED


@pytest.mark.any_pace
@pytest.mark.parametrize("accomplished, outcome", [(True, TaskOutcome.SUCCEEDED), (False, TaskOutcome.FINISHED)])
def test_user_judges_task(graph, runner, accomplished: bool, outcome: TaskOutcome) -> None:
    judge = SetBool.Request(data=accomplished)
    rejected = graph.call(SetBool, "run_task/judge", judge)
    assert not rejected.success and rejected.message == "no task is running"
    handle = runner.send_goal("wave")
    graph.until(lambda: runner.task == "wave", "the task is not published")
    assert graph.call(SetBool, "run_task/judge", judge).success
    assert runner.result(handle).outcome == outcome
    again = runner.send_goal("wave", time_limit=0.3)
    assert runner.result(again).outcome == RunTask.Result.TIMEOUT, "a verdict counts once"


@pytest.mark.any_pace
def test_new_task_replaces_running_task(graph, runner) -> None:
    first = runner.send_goal("wave")
    graph.until(lambda: runner.task == "wave", "the task is not published")
    second, third = runner.send_goal("nod"), runner.send_goal("bow")
    for handle in (first, second):
        result = runner.result(handle)
        assert (result.outcome, result.reason) == (RunTask.Result.STOPPED, "replaced by a new task")
    graph.until(lambda: runner.task == "bow", "the new task is not put in force")
    graph.execute(third.cancel_goal_async)
    assert runner.result(third).outcome == RunTask.Result.STOPPED
    tasks = [message.data for message in runner.tasks]
    assert tasks.index("") < tasks.index("wave") < tasks.index("", tasks.index("wave")) < tasks.index("bow")


@pytest.mark.any_pace
def test_task_ends_when_owner_changes(graph, runner) -> None:
    handle = runner.send_goal("wave")
    graph.until(lambda: runner.task == "wave", "the task is not published")
    graph.call(SelectSource, "command_guard/select", SelectSource.Request(source="teleop"))
    assert runner.result(handle).reason == "owner of the arm: teleop"


@pytest.mark.any_pace
def test_success_of_another_task_does_not_count(graph, runner) -> None:
    handle = runner.send_goal("wave", time_limit=0.5)
    graph.until(lambda: runner.task == "wave", "the task is not published")
    graph.until(lambda: runner.task == "", "the task does not end", lambda: runner.status(True, "nod"))
    assert runner.result(handle).outcome == RunTask.Result.TIMEOUT


@pytest.mark.any_pace
def test_running_policy_node_is_needed(graph, runner) -> None:
    (node,) = (node for node in graph.nodes if isinstance(node, task_runner.TaskRunnerNode))
    assert node._needed()[-1] == "diffusion_agent" and node._needed(["policy"])[-1] == "policy"
    publish = graph.publisher(NodeStatus, "node_status", qos.NODE_STATUS)
    graph.until(
        lambda: node._needed() == ("command_guard", "controller", "policy"),
        "the policy node is not needed",
        lambda: publish(NodeStatus(node="policy", state=NodeStatus.OK)),
    )


def test_lasting_fault_ends_task(graph, runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runner, "_TIMEOUT", 0.4)
    (node,) = (node for node in graph.nodes if isinstance(node, task_runner.TaskRunnerNode))
    monkeypatch.setattr(node, "_needed", lambda present=(): ("diffusion_agent",))
    publish = graph.publisher(NodeStatus, "node_status", qos.NODE_STATUS)
    bad, good = (
        NodeStatus(node="diffusion_agent", state=state, message="camera front timeout")
        for state in (NodeStatus.FAULT, NodeStatus.OK)
    )
    publish(bad)  # cleared before the task
    publish(good)
    handle = runner.send_goal("wave")
    graph.until(lambda: runner.task == "wave", "the task is not published")
    graph.until(lambda: runner.task == "", "the task does not end", lambda: publish(bad))
    result = runner.result(handle)
    assert result.outcome == RunTask.Result.STOPPED and "diffusion_agent: camera front timeout" in result.reason
    assert result.elapsed > 0.4


def test_faults_of_other_arms_do_not_end_task(graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runner, "_TIMEOUT", 0.4)
    monkeypatch.setattr(task_runner, "_NEEDED", ("diffusion_agent",))
    runner = Runner(graph, "left")
    graph.add(CommandGuardNode(namespace="right"))  # it has no owner
    publish = {
        arm: graph.probe.create_publisher(NodeStatus, f"/{arm}/node_status".replace("//", "/"), qos.NODE_STATUS).publish
        for arm in ("left", "right", "")
    }

    def report(**states: int) -> None:
        for arm, state in states.items():
            publish[arm.removeprefix("root")](NodeStatus(node="diffusion_agent", state=state, message=arm))

    bad, good = NodeStatus.FAULT, NodeStatus.OK
    handle = runner.send_goal("wave")
    graph.until(lambda: runner.task == "wave", "the task is not published", lambda: report(left=good))
    begin = time.monotonic()
    graph.until(lambda: time.monotonic() - begin > 1.5, "", lambda: report(right=bad, root=bad, left=good))
    assert runner.task == "wave", "another arm's fault ended it"
    graph.until(lambda: runner.task == "", "the task does not end", lambda: report(right=good, root=good, left=bad))
    assert runner.result(handle).reason == "diffusion_agent: left"


def test_missing_status_ends_task(graph, runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runner, "_TIMEOUT", 1.5)
    result = runner.result(runner.send_goal("wave"))
    assert result.outcome == RunTask.Result.STOPPED
    # The guard, which has no arm here, may have its own fault for as long.
    assert result.reason.endswith("controller: no status for 2 s; diffusion_agent: no status for 2 s")


def test_task_waits_for_loading_policy(graph, runner) -> None:
    """A node in the graph without a status is loading; the arm has no owner meanwhile."""
    loading = rclpy.create_node("diffusion_agent")
    try:
        graph.until(lambda: "diffusion_agent" in graph.probe.get_node_names(), "node not discovered")
        handle = runner.send_goal("wave", time_limit=0.1)
        graph.until(lambda: (RunTask.Feedback.LOADING, "loading: diffusion_agent") in runner.phases, "no feedback")
        time.sleep(0.5)
        assert runner.task == ""
        publish = graph.publisher(NodeStatus, "node_status", qos.NODE_STATUS)
        status = NodeStatus(node="diffusion_agent", state=NodeStatus.OK)
        graph.until(lambda: runner.task == "wave", "the task is not published", lambda: publish(status))
        assert runner.result(handle).outcome == RunTask.Result.TIMEOUT
    finally:
        loading.destroy_node()


def test_task_ends_at_time_limit(graph, runner) -> None:
    result = runner.result(runner.send_goal("wave", time_limit=0.3))
    assert (result.outcome, result.reason) == (RunTask.Result.TIMEOUT, "not done after 0 s")
    assert result.elapsed >= 0.3
    graph.until(lambda: runner.task == "", "the task does not end")


@pytest.mark.any_pace
def test_task_can_be_cancelled(graph, runner) -> None:
    handle = runner.send_goal("wave")
    graph.until(lambda: runner.task == "wave", "the task is not published")
    graph.execute(handle.cancel_goal_async)
    assert runner.result(handle).outcome == RunTask.Result.STOPPED
    graph.until(lambda: runner.task == "", "the task does not end")


@pytest.mark.any_pace
def test_stop_of_guard_ends_task(graph, runner) -> None:
    handle = runner.send_goal("wave")
    graph.until(lambda: runner.task == "wave", "the task is not published")
    graph.call(Trigger, "command_guard/stop", Trigger.Request())
    assert runner.result(handle).outcome == RunTask.Result.STOPPED


@pytest.mark.any_pace
@pytest.mark.parametrize("instruction, limit", [("", 1.0), ("  ", 1.0), ("wave", -1.0), ("wave", float("nan"))])
def test_invalid_task_is_rejected(runner, instruction: str, limit: float) -> None:
    assert not runner.send_goal(instruction, limit).accepted


# ------------------------------------------------------------------------------------------------------ simulator


def test_simulator_publishes_robot_interface(graph) -> None:
    graph.add(SimNode())
    states = graph.subscribe(JointState, "joint_states", qos.JOINT_STATES)
    images = {v: graph.subscribe(ImageMessage, f"cameras/{v}/color/image_raw", qos.IMAGE) for v in VIEWS}
    graph.until(lambda: all(images.values()) and states, "no images or joint states")
    assert {(m[0].width, m[0].height, m[0].encoding) for m in images.values()} == {(256, 256, "rgb8")}
    common = set.intersection(*({messages.seconds(m.header.stamp) for m in received} for received in images.values()))
    graph.until(lambda: common or any(images.values()), "the views have no common stamp")

    rejected = graph.call(ResetScene, "sim/reset", ResetScene.Request(task="push_buton", seed=1))
    assert not rejected.success and "did you mean push_button" in rejected.message
    reset = graph.call(ResetScene, "sim/reset", ResetScene.Request(task="push_button", seed=1))
    assert reset.success and "button" in reset.instruction

    publish = graph.publisher(JointState, "joint_command", qos.JOINT_COMMAND)
    goal = messages.joints_from(states[-1], PANDA).positions + 0.1

    def command() -> None:
        message = messages.command_message(Command(time.time(), goal, np.zeros(7), 1.0), PANDA)
        order = [7, *range(6, -1, -1)]  # joints are matched by name
        message.name = [message.name[i] for i in order]
        message.position = [message.position[i] for i in order]
        publish(message)

    has_arrived = arm_is_at(states, goal, PANDA)
    graph.until(has_arrived, "the arm does not arrive", command)
    time.sleep(1.0)  # without commands, it holds the last one
    there = messages.joints_from(states[-1], PANDA).positions
    time.sleep(1.0)
    np.testing.assert_allclose(messages.joints_from(states[-1], PANDA).positions, there, atol=1e-3)
    assert has_arrived()
    malformed = messages.command_message(Command(time.time(), goal + np.nan, np.zeros(7), 1.0), PANDA)
    graph.until(graph.reports_fault("sim_node", "joint_command"), "fault not reported", lambda: publish(malformed))
    assert has_arrived()
