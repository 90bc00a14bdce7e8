"""The nodes in one process, with stand-ins for the models; and what they do when something is wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
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
from geometry_msgs.msg import Point
from policy_standins import PANDA, SIZE, VIEWS, StandInAgent, StandInController
from rclpy.action import ActionClient
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from ros_graph import Graph
from sensor_msgs.msg import CameraInfo, JointState
from sensor_msgs.msg import Image as ImageMessage
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
    """Cameras that can be made to fail."""

    def __init__(self, graph: Graph, views: Sequence[str] = VIEWS) -> None:
        self._say = {v: graph.publisher(ImageMessage, f"cameras/{v}/color/image_raw", qos.IMAGE) for v in views}
        self.spread = 0.0  # s between the stamps of one set
        self.silent: str | None = None
        self.stamps: list[float] = []

    def shoot(self, **front: object) -> None:
        stamp = time.time()
        self.stamps.append(round(stamp, 6))
        for k, view in enumerate(self._say):
            if view != self.silent:
                self._say[view](picture(stamp + k * self.spread, **(front if view == "front" else {})))  # type: ignore[arg-type]


@pytest.fixture
def drawing(graph: Graph) -> tuple[StandInAgent, Cameras, list[DrawnTargetMessage], Callable[[str], None]]:
    agent = StandInAgent()
    graph.add(DiffusionAgentNode(agent))  # type: ignore[arg-type]
    heard = graph.subscribe(DrawnTargetMessage, "drawn_target", qos.DRAWN_TARGET)
    task = graph.publisher(String, "task", qos.TASK)
    return agent, Cameras(graph), heard, lambda words: task(String(data=words))


def test_synchronised_images_become_a_drawn_target(graph, drawing) -> None:
    _, cameras, heard, say_task = drawing
    for _ in range(5):
        cameras.shoot()
    time.sleep(0.3)
    assert not heard, "nothing is drawn without a task"
    say_task("wave")
    cameras.spread = 0.002
    graph.until(lambda: len(heard) >= 3, "nothing is drawn", cameras.shoot)
    drawn = messages.drawn_target_from(heard[-1])
    assert (drawn.instruction, drawn.views, drawn.steps) == ("wave", VIEWS, 5)
    assert round(drawn.stamp, 6) in cameras.stamps  # the oldest image's
    assert np.all(drawn.tile == 55)
    assert heard[-1].latency > 0


def test_images_of_different_moments_are_not_drawn_for(graph, drawing) -> None:
    _, cameras, heard, say_task = drawing
    say_task("wave")
    cameras.spread = 0.5
    for _ in range(10):
        cameras.shoot()
        time.sleep(0.02)
    assert not heard


def test_single_views_are_published_while_somebody_looks(graph, drawing) -> None:
    _, cameras, heard, say_task = drawing
    say_task("wave")
    seen = graph.subscribe(ImageMessage, "drawn_target/front/image", qos.IMAGE)
    graph.until(lambda: seen, "no single view", cameras.shoot)
    assert (seen[0].height, seen[0].width, seen[0].encoding) == (SIZE, SIZE, "rgb8")


@pytest.mark.parametrize(
    "fault, words",
    [
        ({"size": 8}, "camera front: image is 8x8, 16x16 is needed"),
        ({"encoding": "bgr8"}, "camera front: image is bgr8, rgb8 is needed"),
    ],
)
def test_a_wrong_image_is_named_and_not_drawn_for(graph, drawing, fault, words) -> None:
    _, cameras, heard, say_task = drawing
    say_task("wave")
    graph.until(graph.reports_fault("diffusion_agent", words), "no complaint", lambda: cameras.shoot(**fault))
    assert not heard
    graph.until(lambda: heard and graph.has_no_fault("diffusion_agent")(), "no recovery", cameras.shoot)


def test_a_camera_that_stops_is_named_and_ends_the_drawing(graph, drawing) -> None:
    _, cameras, heard, say_task = drawing
    say_task("wave")
    graph.until(lambda: heard, "nothing is drawn", cameras.shoot)
    cameras.silent = "wrist"
    time.sleep(0.2)
    before = len(heard)
    graph.until(graph.reports_fault("diffusion_agent", "camera wrist silent"), "no complaint", cameras.shoot)
    assert len(heard) == before
    cameras.silent = None
    graph.until(lambda: len(heard) > before and graph.has_no_fault("diffusion_agent")(), "no recovery", cameras.shoot)


def test_images_that_never_are_of_one_moment_are_told(graph, drawing) -> None:
    _, cameras, heard, say_task = drawing
    observed = graph.subscribe(Observed, "observed", qos.OBSERVED)
    say_task("wave")
    cameras.spread = 0.1
    words = "no images of one moment; the oldest are of wrist, by 0.3 s"
    graph.until(graph.reports_fault("diffusion_agent", words), "no complaint", cameras.shoot)
    assert not heard and observed
    assert {message.header.stamp.sec for message in observed} == {0}
    cameras.spread = 0.0
    fine = graph.has_no_fault("diffusion_agent")
    graph.until(lambda: observed[-1].header.stamp.sec and fine(), "no recovery", cameras.shoot)


def test_a_camera_that_shows_the_same_while_the_arm_moves_is_frozen(graph, drawing) -> None:
    _, cameras, heard, say_task = drawing
    say_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    observed = graph.subscribe(Observed, "observed", qos.OBSERVED)
    say_task("wave")

    def move(turned: float, **front: object) -> None:
        say_joints(joint_state(PANDA.home + turned))
        time.sleep(0.01)
        cameras.shoot(**front)

    graph.until(lambda: len(heard) > 2, "an arm at rest shows the same, too", lambda: move(0.0))
    graph.until(graph.reports_fault("diffusion_agent", "camera front: the image has not changed"), "no complaint",
                lambda: move(0.05))  # fmt: skip
    before = len(heard)
    for _ in range(5):
        move(0.05)
    time.sleep(0.1)
    assert observed[-1].problem.startswith("camera wrist: the image has not changed while the arm moved")
    assert len(heard) - before <= 1
    for name in VIEWS:
        graph.nodes[0]._observations._changes.pop(name)  # as the next picture of each would
    graph.until(lambda: len(heard) > before + 2 and graph.has_no_fault("diffusion_agent")(), "no recovery",
                lambda: move(0.05, grey=100))  # fmt: skip
    assert not observed[-1].problem


def test_a_camera_is_not_called_frozen_for_a_way_that_nobody_measured(graph, drawing) -> None:
    _, cameras, heard, say_task = drawing
    say_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    observed = graph.subscribe(Observed, "observed", qos.OBSERVED)
    say_task("wave")
    say_joints(joint_state())
    time.sleep(0.3)  # the arm comes to rest somewhere else meanwhile
    graph.until(lambda: heard, "nothing is drawn", cameras.shoot)
    for _ in range(10):
        say_joints(joint_state(PANDA.home + 0.1))
        time.sleep(0.02)
        cameras.shoot()
    assert not any(message.problem for message in observed)


def test_a_virtual_view_is_drawn_of_the_measured_joints_and_never_of_old_ones(graph) -> None:
    agent = StandInAgent()
    agent.views, agent.camera_views = (*VIEWS[:3], VIRTUAL), VIEWS[:3]
    measured: list[np.ndarray] = []

    def generate(observation: Observation, seed: int, previous: DrawnTarget | None = None) -> DrawnTarget:
        measured.append(observation.joints.positions)
        return DrawnTarget(observation.stamp, observation.instruction, VIEWS, np.zeros((32, 32, 3), np.uint8))

    agent.generate = generate  # type: ignore[method-assign]
    graph.add(DiffusionAgentNode(agent))  # type: ignore[arg-type]
    heard = graph.subscribe(DrawnTargetMessage, "drawn_target", qos.DRAWN_TARGET)
    graph.publisher(String, "task", qos.TASK)(String(data="wave"))
    cameras = Cameras(graph, agent.camera_views)
    say_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    words = "no joint states within 0.1 s of the images"
    graph.until(graph.reports_fault("diffusion_agent", words), "no complaint", cameras.shoot)
    assert not heard and not measured

    def shoot() -> None:
        say_joints(joint_state(PANDA.home + 0.1))
        cameras.shoot()

    graph.until(lambda: heard and graph.has_no_fault("diffusion_agent")(), "nothing is drawn", shoot)
    np.testing.assert_allclose(measured[-1], PANDA.home + 0.1)
    graph.until(graph.reports_fault("diffusion_agent", words), "old joints are drawn", cameras.shoot)


def test_a_drawing_that_fails_is_told_and_not_published(graph, drawing) -> None:
    agent, cameras, heard, say_task = drawing
    agent.finite = False
    say_task("wave")
    graph.until(graph.reports_fault("diffusion_agent", "drawing is not finite"), "no complaint", cameras.shoot)
    assert not heard


def test_images_are_rectified_and_those_of_other_lenses_than_calibrated_refused(graph, tmp_path: Path) -> None:
    lens = CameraIntrinsics(SIZE, SIZE, 9.0, 9.0, 8.0, 8.0, (0.5, 0.0, 0.0, 0.0, 0.0))
    cameras = {view: lens.camera(view, "base", np.eye(4)) for view in VIEWS}
    for camera in cameras.values():
        CameraCalibration(camera).save(tmp_path)
    options = {"parameter_overrides": [Parameter("calibration", value=str(tmp_path))]}
    graph.add(DiffusionAgentNode(StandInAgent(), **options))  # type: ignore[arg-type]
    heard = graph.subscribe(DrawnTargetMessage, "drawn_target", qos.DRAWN_TARGET)
    graph.publisher(String, "task", qos.TASK)(String(data="wave"))
    say = {view: graph.publisher(ImageMessage, f"cameras/{view}/color/image_raw", qos.IMAGE) for view in VIEWS}
    say_lens = graph.publisher(CameraInfo, "cameras/front/color/camera_info", qos.IMAGE)
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)

    def shoot() -> None:
        stamp = time.time()
        for view in VIEWS:
            say[view](messages.image_message(image, stamp))

    graph.until(lambda: heard, "nothing drawn", shoot)
    straight = Undistorter(cameras["front"])(image)
    assert np.abs(straight.astype(int) - image).max() > 50
    np.testing.assert_array_equal(untile(messages.drawn_target_from(heard[-1]).tile, VIEWS)["front"], 255 - straight)
    for other, fine in ((replace(lens, fx=18.0, fy=18.0), False), (lens, True)):
        said = other.camera("front", "base", np.eye(4)).camera_info()
        say_lens(CameraInfo(**said | {"d": said["d"].tolist()}))
        words = "camera front: camera_info of front: does not fit its calibration"
        condition = graph.has_no_fault("diffusion_agent") if fine else graph.reports_fault("diffusion_agent", words)
        graph.until(condition, "no complaint, or no recovery", shoot)


def test_the_first_target_of_a_task_never_starts_from_that_of_the_task_before(graph, drawing) -> None:
    agent, cameras, heard, say_task = drawing
    previous: list[DrawnTarget | None] = []
    generate = agent.generate

    def note(observation: Observation, seed: int, before: DrawnTarget | None = None) -> DrawnTarget:
        previous.append(before)
        return generate(observation, seed)

    agent.generate = note
    for _ in range(2):  # the same instruction: the scene may have been reset
        heard.clear()
        say_task("wave")
        graph.until(lambda: len(heard) > 2, "nothing drawn", cameras.shoot)
        say_task("")
        for _ in range(5):
            cameras.shoot()
            time.sleep(0.02)
    first = [before is None for before in previous]
    assert first.count(True) == 2 and first[0]


# --------------------------------------------------------------------------------------------------------- policy


class StandInPolicy:
    """Stays where the arm is; notes its resets."""

    spec = PolicySpec("panda", PANDA.joint_names, VIEWS, (SIZE, SIZE))

    def __init__(self) -> None:
        self.resets: list[int] = []
        self.seen: list[Observation] = []
        self.value = 1.0  # probability of open

    def reset(self, seed: int = 0) -> None:
        self.resets.append(seed)

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation)
        return ActionChunk(
            observation.stamp, 0.05, np.tile(observation.joints.positions, (20, 1)), np.full(20, self.value)
        )


def test_a_policy_node_predicts_chunks_from_images_joints_and_task(graph) -> None:
    policy = StandInPolicy()
    graph.add(PolicyNode(policy, parameter_overrides=[Parameter("seed", value=5)]))
    heard = graph.subscribe(JointTrajectory, "action_chunk", qos.DRAWN_TARGET)
    cameras, say_task = Cameras(graph), graph.publisher(String, "task", qos.TASK)
    say_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    say_scene = graph.publisher(SceneStatus, "sim/status", qos.STATUS)
    scene = SceneStatus(objects=["button"], positions=[Point(x=0.5, y=0.1, z=0.0)])
    observed = graph.subscribe(Observed, "observed", qos.OBSERVED)
    say_task(String(data="wave"))
    graph.until(graph.reports_fault("policy", "no joint states within 0.1 s"), "no complaint", cameras.shoot)

    def shoot() -> None:
        say_scene(scene)
        say_joints(joint_state(PANDA.home + 0.1))
        cameras.shoot()

    def done() -> bool:
        return bool(heard and policy.seen and policy.seen[-1].objects and graph.has_no_fault("policy")())

    graph.until(done, "no chunk", shoot)
    chunk, seen = chunk_from(heard[-1], PANDA), policy.seen[-1]
    assert round(chunk.stamp, 6) in cameras.stamps and observed
    np.testing.assert_allclose(chunk.positions[-1], PANDA.home + 0.1)
    assert seen.instruction == "wave" and set(seen.images) == set(VIEWS)
    np.testing.assert_allclose(seen.objects["button"], [0.5, 0.1, 0.0])
    assert policy.resets == [5]
    say_task(String(data="wave"))
    graph.until(lambda: len(policy.resets) > 1, "not reset at the next task", shoot)
    policy.value = np.nan
    graph.until(graph.reports_fault("policy", "action chunk: not finite"), "no complaint", shoot)


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda m: m.points.clear(), "the chunk has no actions"),
    (lambda m: m.points[-1].positions.append(0.0), "joint"),
    (lambda m: setattr(m.points[3].time_from_start, "sec", 7), "not evenly spaced"),
    (lambda m: [setattr(p, "time_from_start", DurationMessage()) for p in m.points], "not evenly spaced"),
    (lambda m: m.points[2].positions.__setitem__(0, float("nan")), "finite"),
    (lambda m: m.points[2].positions.__setitem__(7, 1.5), "no probability"),
    (lambda m: m.points[2].positions.__setitem__(0, 9.0), "panda_joint1"),
    (lambda m: setattr(m.header.stamp, "sec", m.header.stamp.sec + 9), "stamped in the future"),
    (lambda m: m.joint_names.__setitem__(0, "panda_joint2"), "panda_joint"),
])  # fmt: skip
def test_action_chunks_are_followed_and_bad_ones_hold_the_arm(graph, spoil, words) -> None:
    arm = Arm(graph, "action_chunk")
    arm.task("wave")
    graph.until(lambda: moving(arm.commands), "no commands", arm.work)
    arm.spoil = spoil
    graph.until(graph.reports_fault("controller", words), "no complaint", arm.work)
    arm.spoil = None
    graph.until(graph.has_no_fault("controller"), "no recovery", arm.work)


def test_chunks_from_before_the_task_are_not_followed(graph) -> None:
    arm = Arm(graph, "action_chunk")
    arm.ago = 5.0
    arm.task("wave")
    assert arm.is_silent()
    arm.ago = 0.0
    graph.until(lambda: len(arm.commands) > 20, "no commands", arm.work)


# ----------------------------------------------------------------------------------------------------- controller


class Arm:
    """Drives the controller: joint states all the time, drawn targets or action chunks for a task."""

    def __init__(self, graph: Graph, kind: str = "drawn_target") -> None:
        if kind == "drawn_target":
            graph.add(ControllerNode(StandInController(), parameter_overrides=[Parameter("calibration", value="")]))  # type: ignore[arg-type]
        else:
            graph.add(ControllerNode(parameter_overrides=[Parameter("input", value=kind)]))
        self._kind = kind
        self.spoil: Callable[[JointTrajectory], object] | None = None
        self.ago = 0.0  # s, age of chunks
        self.commands = graph.subscribe(JointState, "controller/command", qos.JOINT_COMMAND)
        self.say_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
        message = DrawnTargetMessage if kind == "drawn_target" else JointTrajectory
        self._say = graph.publisher(message, kind, qos.DRAWN_TARGET)
        self._say_task = graph.publisher(String, "task", qos.TASK)
        self._say_observed = graph.publisher(Observed, "observed", qos.OBSERVED)
        self._task = ""

    def task(self, words: str) -> None:
        self._task = words
        self._say_task(String(data=words))

    def see(self, problem: str = "", ago: float = 0.0) -> None:
        self.say_joints(joint_state())
        observed = Observed(problem=problem)
        observed.header.stamp = messages.time_message(time.time() - ago)
        self._say_observed(observed)

    def is_silent(self) -> bool:
        """Whether nothing is commanded, though there is all to go by."""
        count = len(self.commands)
        for _ in range(10):
            self.work()
            time.sleep(0.02)
        return len(self.commands) == count

    def work(self, size: int = 2 * SIZE) -> None:
        self.see()
        if self._kind == "drawn_target":
            self._say(drawn_target(self._task, time.time(), size))
            return
        ahead = np.tile(PANDA.home, (20, 1))
        ahead[:, 0] += np.linspace(0, 0.1, 20)
        message = chunk_message(ActionChunk(time.time() - self.ago, 0.05, ahead, np.ones(20)), PANDA)
        if self.spoil:
            self.spoil(message)
        self._say(message)


@pytest.fixture
def arm(graph: Graph) -> Arm:
    return Arm(graph)


def test_drawn_targets_become_a_stream_of_commands(graph, arm) -> None:
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
    assert arm.is_silent(), "without a task nothing is said"


def test_a_task_that_nobody_can_end_any_more_is_not_followed(graph, arm) -> None:
    arm.task("wave")
    graph.until(lambda: len(arm.commands) > 20, "no commands", arm.work)
    graph.probe.destroy_publisher(arm._say_task.__self__)
    graph.until(graph.reports_fault("controller", "whoever put it in force has ended"), "no complaint", arm.work)
    time.sleep(0.1)
    assert arm.is_silent(), "it goes on"


def test_drawings_from_before_the_task_are_not_followed(graph, arm) -> None:
    arm.task("wave")
    for _ in range(10):
        arm.say_joints(joint_state())
        arm._say(drawn_target("wave", time.time() - 60))
        arm._say(drawn_target("something else", time.time()))
        time.sleep(0.02)
    assert not arm.commands


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda m: m.position.__setitem__(3, np.nan), "joint state: not finite (panda_joint4)"),
        (lambda m: (m.name.pop(2), m.position.pop(2)), "joint state: joints missing (panda_joint3)"),
    ],
)
def test_bad_joint_states_hold_the_arm(graph, arm, spoil, words) -> None:
    arm.task("wave")
    graph.until(lambda: arm.commands, "no commands", arm.work)

    def bad() -> None:
        message = joint_state()
        spoil(message)
        arm.say_joints(message)

    graph.until(graph.reports_fault("controller", words), "no complaint", bad)
    time.sleep(0.3)
    count = len(arm.commands)
    for _ in range(10):
        bad()
        time.sleep(0.02)
    assert len(arm.commands) == count, "commands go on without a measured state"
    graph.until(lambda: len(arm.commands) > count and graph.has_no_fault("controller")(), "no recovery", arm.work)


def moving(commands: list[JointState]) -> bool:
    return len(commands) > 1 and bool(np.abs(np.subtract(commands[-1].position, commands[-2].position)).max() > 1e-5)


@pytest.mark.parametrize(
    "words, see",
    [
        ("the diffusion agent is silent", lambda arm: arm.say_joints(joint_state())),
        ("no complete set of good images within", lambda arm: arm.see(ago=0.5)),
        ("camera front: gone", lambda arm: arm.see("camera front: gone")),
    ],
)
def test_without_eyes_the_arm_comes_to_rest(graph, arm, words, see) -> None:
    """Though the chunk that it follows goes on."""
    arm.task("wave")
    graph.until(lambda: len(arm.commands) > 5 and moving(arm.commands), "no motion", arm.work)
    blind = time.monotonic()
    graph.until(lambda: not moving(arm.commands), "the arm goes on blindly", lambda: see(arm))
    assert time.monotonic() - blind < 0.9  # of the second that the chunk lasts; the machine may be busy
    graph.until(graph.reports_fault("controller", words), "no complaint", lambda: see(arm))
    graph.until(lambda: moving(arm.commands) and graph.has_no_fault("controller")(), "no recovery", arm.work)


def test_an_arm_that_is_held_by_others_is_followed_not_left_behind(graph, arm) -> None:
    stood = StandInController.predict_chunk

    def far(self: StandInController, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
        chunk = stood(self, drawn, joints)
        chunk.positions[:, 0] += np.linspace(0, 0.6, 20)
        return chunk

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StandInController, "predict_chunk", far)
        arm.task("wave")
        words = "the arm is 0.2 rad or more from its set-point; restarting there"
        graph.until(graph.reports_fault("controller", words), "no complaint", arm.work)
    offsets = [command.position[0] - PANDA.home[0] for command in arm.commands]
    assert 0.2 < max(offsets) < 0.6  # nor does it wait for the arm for ever


def test_a_drawing_that_does_not_show_what_was_read_from_it_holds_the_arm(graph, arm) -> None:
    arm.task("wave")
    graph.until(lambda: len(arm.commands) > 5 and moving(arm.commands), "no motion", arm.work)
    agreement = 0.2
    graph.nodes[0]._consistency = lambda *_: agreement
    words = "does not show what was read from it: 20% of the spheres' pixels are there, 45% are needed"
    graph.until(graph.reports_fault("controller", words), "no complaint", arm.work)
    graph.until(lambda: not moving(arm.commands), "the arm follows it", arm.see)
    agreement = 0.6
    graph.until(lambda: moving(arm.commands) and graph.has_no_fault("controller")(), "no recovery", arm.work)


def test_a_drawing_that_is_read_as_joints_outside_the_range_holds_the_arm(graph, arm) -> None:
    arm.task("wave")
    graph.until(lambda: len(arm.commands) > 5 and moving(arm.commands), "no motion", arm.work)
    graph.nodes[0]._controller.beyond = 3.0
    words = "reading: panda_joint7: outside its range -2.90 .. 2.90 (3.79 rad)"
    graph.until(graph.reports_fault("controller", words), "no complaint", arm.work)
    graph.until(lambda: not moving(arm.commands), "the arm goes to its limit", arm.see)
    assert messages.command_from(arm.commands[-1], PANDA).positions[6] == pytest.approx(PANDA.home[6], abs=0.01)


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda m: setattr(m.header, "stamp", Time()), "joint state is not stamped"),
        (lambda m: m.position.__setitem__(5, 114.6), r"panda_joint6: outside .* \(114.60 rad\).*are these degrees"),
        (lambda m: m.position.__setitem__(7, 40.0), r"finger_joint: outside its travel \(40"),
    ],
)
def test_joint_states_that_cannot_be_are_refused_by_name(graph, spoil, words) -> None:
    graph.add(CommandGuardNode())
    say = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)

    def speak() -> None:
        message = joint_state()
        spoil(message)
        say(message)

    def refused() -> bool:
        status = graph.diagnostics.get("command_guard")
        return status is not None and re.search(f"joint_states: {words}", status.message) is not None

    graph.until(refused, "no complaint", speak)
    graph.until(graph.has_no_fault("command_guard"), "no recovery", lambda: say(joint_state()))


@pytest.mark.parametrize("jump", [-30.0, 30.0])
def test_a_jump_of_the_clock_is_a_new_start(graph, arm, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
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


def test_joint_states_whose_time_goes_back_are_left_out(graph, arm) -> None:
    def say(ago: float) -> None:
        arm.say_joints(messages.joints_message(Joints(time.time() - ago, PANDA.home, 1.0), PANDA))

    def back() -> None:
        say(0.0)
        say(0.4)

    graph.until(graph.reports_fault("controller", "before the one that came before it"), "no complaint", back)
    graph.until(graph.has_no_fault("controller"), "no recovery", lambda: say(0.0))


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("rate", 10, "the parameter rate is 10; it must be a number from 20 to 200"),
        ("rate", "fast", "the parameter rate is fast"),
        ("mode", "parallel", "mode: unknown .'parallel'.; use overlapped or serial"),
        ("calibration", "nowhere", "nowhere"),
        ("least_agreement", 1.5, "from 0 to 1"),
        ("observation_timeout", -1, "of at least 0"),
    ],
)
def test_senseless_parameters_are_refused_in_one_line(name: str, value: object, words: str) -> None:
    line = [*("python", "--ros-args", "-p"), f"{name}:={value}"]
    rclpy.init(args=line, domain_id=free_domain())
    try:
        with pytest.raises(GenimaError, match=words) as caught:
            ControllerNode(StandInController())  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    finally:
        rclpy.shutdown()


def test_a_drawing_of_another_size_is_told_and_not_followed(graph, arm) -> None:
    arm.task("wave")
    words = "the drawing is 8 px wide, 32 is needed"
    graph.until(graph.reports_fault("controller", words), "no complaint", lambda: arm.work(size=8))
    assert not arm.commands


# -------------------------------------------------------------------------------------------------- command guard


class Guarded:
    """Drives the command guard with an arm that stands still."""

    def __init__(self, graph: Graph) -> None:
        graph.add(CommandGuardNode())
        self.graph = graph
        self.sent = graph.subscribe(JointState, "joint_command", qos.JOINT_COMMAND)
        self._say_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._say_command = graph.publisher(JointState, "controller/command", qos.SOURCE_COMMAND)

    def select(self, source: str) -> SelectSource.Response:
        return self.graph.call(SelectSource, "command_guard/select", SelectSource.Request(source=source))

    def wish(self, offset: float | np.ndarray = 0.01) -> None:
        self._say_joints(joint_state())
        command = Command(time.time(), PANDA.home + offset, np.zeros(7), 0.5)
        self._say_command(messages.command_message(command, PANDA))


@pytest.fixture
def guarded(graph: Graph) -> Guarded:
    return Guarded(graph)


def test_only_a_selected_source_reaches_the_robot(graph, guarded) -> None:
    for _ in range(10):
        guarded.wish()
        time.sleep(0.02)
    assert not guarded.sent
    refused = guarded.select("gamepad")
    assert not refused.success and "unknown source ('gamepad')" in refused.message
    assert guarded.select("controller").success

    def arrived() -> bool:
        return bool(guarded.sent) and np.allclose(guarded.sent[-1].position[:7], PANDA.home + 0.01, atol=1e-3)

    graph.until(arrived, "the wish does not arrive", guarded.wish)
    assert guarded.sent[-1].position[7] == 0.5


def test_the_status_of_the_guard_has_typed_fields(graph, guarded) -> None:
    graph.until(lambda: graph.guard.sources, "no status")
    status = graph.guard
    assert (status.owner, list(status.sources)) == ("", list(SOURCES))
    assert (status.state, status.reason) == (GuardStatus.HELD, GuardStatus.NO_OWNER)
    assert status.text == "HELD: the arm has no owner"
    late = graph.subscribe(GuardStatus, "command_guard/status", qos.GUARD_STATUS)
    graph.until(lambda: late, "a late subscriber gets nothing")
    guarded.select("controller")
    graph.until(lambda: graph.guard.owner == "controller", "no owner")
    graph.until(lambda: graph.guard.state == GuardStatus.OK, "it does not follow", guarded.wish)
    graph.until(lambda: graph.guard.sent > 0 and graph.guard.received[0] > 0, "it does not count", guarded.wish)
    assert graph.guard.rejected[0] == 0 and graph.guard.reason_counts[GuardStatus.NO_OWNER] > 0


@pytest.mark.parametrize(("members", "message"), [
    (GuardState, GuardStatus),
    (GuardReason, GuardStatus),
    (FollowerState, TeleopStatus),
    (TaskOutcome, RunTask.Result),
    (AutoCalibrationState, CalibratorStatus),
])  # fmt: skip
def test_numbers_of_states_are_those_of_the_message(members: Iterable[Enum], message: type) -> None:
    for member in members:
        assert getattr(message, member.name) == member.value


def test_an_arm_whose_shape_is_unknown_is_guarded_without_self_collision(graph, tmp_path: Path) -> None:
    fields = yaml.safe_load(paths.named("panda", "config", "robots").read_text(encoding="utf-8"))
    fields["joints"][2]["a"] = 0.05
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump(fields), encoding="utf-8")
    robot = Parameter("cell", value=write_cell(tmp_path, "sim_panda", robot=str(file)))
    graph.add(CommandGuardNode(parameter_overrides=[robot]))
    graph.until(lambda: graph.guard.sources, "the guard does not run")
    with pytest.raises(GenimaError, match="has none"):
        CommandGuardNode(namespace="other", parameter_overrides=[robot, Parameter("self_collision", value=True)])


def test_an_owner_that_has_ended_does_not_keep_the_arm(graph, guarded) -> None:
    guarded.select("controller")
    graph.until(lambda: guarded.sent and graph.guard.owner == "controller", "no set-points", guarded.wish)
    graph.probe.destroy_publisher(guarded._say_command.__self__)
    graph.until(lambda: not graph.guard.owner, "it still has the arm", lambda: guarded._say_joints(joint_state()))
    graph.until(graph.has_no_fault("command_guard"), "a fault stays", lambda: guarded._say_joints(joint_state()))


@pytest.mark.parametrize(
    "offset, reason", [(1.0, GuardStatus.COMMAND_JUMP), (float("nan"), GuardStatus.COMMAND_MALFORMED)]
)
def test_a_bad_command_is_held_and_named(graph, guarded, offset, reason) -> None:
    guarded.select("controller")
    graph.until(lambda: guarded.sent, "no set-points", guarded.wish)
    graph.until(graph.guard_reports(reason), "no reason", lambda: guarded.wish(offset))
    assert graph.guard.state == GuardStatus.HELD
    text = GuardReason(reason).text
    graph.until(graph.reports_fault("command_guard", f"HELD: {text}"), "no complaint", lambda: guarded.wish(offset))
    graph.until(lambda: graph.guard.reason_counts[reason] > 0, "it is not counted", lambda: guarded.wish(offset))
    positions = np.array([m.position[:7] for m in guarded.sent])
    assert np.all(np.isfinite(positions)) and np.all(np.abs(positions - PANDA.home) < 0.02)
    graph.until(graph.has_no_fault("command_guard"), "no recovery", guarded.wish)


def test_two_publishers_of_one_source_are_not_obeyed(graph, guarded) -> None:
    guarded.select("controller")
    graph.until(lambda: guarded.sent, "no set-points", guarded.wish)
    rival = graph.probe.create_publisher(JointState, "controller/command", qos.SOURCE_COMMAND)
    graph.until(graph.guard_reports(GuardStatus.MULTIPLE_PUBLISHERS), "no reason", guarded.wish)
    time.sleep(0.1)
    there = np.array(guarded.sent[-1].position[:7])
    for _ in range(10):
        guarded.wish(0.05)
        time.sleep(0.02)
    np.testing.assert_array_equal(guarded.sent[-1].position[:7], there)
    graph.probe.destroy_publisher(rival)
    graph.until(graph.has_no_fault("command_guard"), "no recovery", guarded.wish)


def test_somebody_else_who_speaks_to_the_robot_is_told(graph, guarded) -> None:
    graph.probe.create_publisher(JointState, "joint_command", qos.JOINT_COMMAND)
    graph.until(graph.reports_fault("command_guard", "published by other nodes, too (1)"), "no complaint")


@pytest.mark.real_time
def test_the_guard_keeps_the_arm_in_a_workspace_that_it_is_given() -> None:
    line = ["python", "--ros-args", "-p", "workspace:=[-1.0, -1.0, 0.2, 1.0, 1.0, 1.0]", "-p", "jump:=1"]
    rclpy.init(args=line, domain_id=free_domain())
    graph = Graph()
    try:
        guarded = Guarded(graph)
        guarded.select("controller")
        lower = PANDA.home + [0, 0.4, 0, 0, 0, 0, 0]
        assert PANDA.link_poses(lower)[-1, 2, 3] < 0.2 < PANDA.link_poses(PANDA.home)[-1, 2, 3]
        graph.until(lambda: guarded.sent, "no set-points", guarded.wish)
        graph.until(graph.guard_reports(GuardStatus.WORKSPACE), "no reason",
                    lambda: guarded.wish(lower - PANDA.home))  # fmt: skip
        heights = [PANDA.link_poses(np.array(message.position[:7]))[-1, 2, 3] for message in guarded.sent]
        assert min(heights) >= 0.2 - 1e-6
    finally:
        graph.close()


def test_stop_latches_until_resume(graph, guarded) -> None:
    guarded.select("controller")
    graph.until(lambda: guarded.sent, "no set-points", guarded.wish)
    assert graph.call(Trigger, "command_guard/stop", Trigger.Request()).success
    graph.until(graph.guard_reports(GuardStatus.STOP_REQUESTED), "no reason", guarded.wish)
    assert graph.guard.state == GuardStatus.STOPPED
    graph.until(
        lambda: graph.call(Trigger, "command_guard/resume", Trigger.Request()).success, "no resume", guarded.wish
    )
    graph.until(graph.has_no_fault("command_guard"), "no recovery", guarded.wish)


def test_faults_are_logged_by_their_key_whatever_numbers_their_texts_have(graph) -> None:
    node = graph.probe
    lines: list[str] = []
    logger = SimpleNamespace(error=lines.append, info=lines.append)
    diagnostics = DiagnosticUpdater(SimpleNamespace(**{  # type: ignore[arg-type]
        name: getattr(node, name) for name in ("create_publisher", "create_timer", "get_clock", "get_name",
                                               "get_fully_qualified_name")}, get_logger=lambda: logger))  # fmt: skip
    for k in range(200):
        diagnostics.set_fault(
            "joint_states", f"joint state is stamped {k / 1000:.3f} s before the one that came before it"
        )
        if k % 2:
            diagnostics.clear_fault("joint_states")
    assert lines == ["joint_states: joint state is stamped 0.000 s before the one that came before it",
                     "joint_states: OK"]  # fmt: skip
    for k in range(20):
        diagnostics.set_fault("arm", "HELD", ("COMMAND_JUMP", "COMMAND_FAR")[k % 2])
    assert lines[2:] == ["arm: HELD", "arm: HELD"], "each kind of fault once"


# ---------------------------------------------------------------------------------------------------- task runner


class Runner:
    """Asks for tasks; plays the simulator that judges them."""

    def __init__(self, graph: Graph, namespace: str = "") -> None:
        graph.add(CommandGuardNode(namespace=namespace))
        graph.add(TaskRunnerNode(namespace=namespace))
        self.graph = graph
        self.phases: list[tuple[int, str]] = []  # all feedback
        prefix = f"{namespace}/" if namespace else ""
        every_task = QoSProfile(depth=100, durability=qos.TASK.durability)
        self.tasks = graph.subscribe(String, f"{prefix}task", every_task)
        self._say_status = graph.publisher(SceneStatus, f"{prefix}sim/status", qos.STATUS)
        self._client = ActionClient(graph.probe, RunTask, f"{prefix}run_task")
        graph.until(self._client.server_is_ready, "no action server")
        graph.until(lambda: self.tasks, "the task runner does not say that no task is in force")

    def status(self, success: bool, instruction: str = "wave") -> None:
        message = SceneStatus(success=success, instruction=instruction)
        message.header.stamp = messages.time_message(time.time())
        self._say_status(message)

    def ask(self, instruction: str, time_limit: float = 0.0):  # type: ignore[no-untyped-def]
        goal = RunTask.Goal(instruction=instruction, time_limit=time_limit)
        future = self._client.send_goal_async(goal, self._on_feedback)
        self.graph.until(future.done, "the task runner does not answer")
        return future.result()

    def _on_feedback(self, message: Any) -> None:
        self.phases.append((message.feedback.phase, message.feedback.text))

    def result(self, handle) -> RunTask.Result:  # type: ignore[no-untyped-def]
        future = handle.get_result_async()
        self.graph.until(future.done, "the task does not end")
        return future.result().result

    @property
    def task(self) -> str:
        return self.tasks[-1].data if self.tasks else ""


@pytest.fixture
def runner(graph: Graph) -> Runner:
    return Runner(graph)


@pytest.mark.any_pace
def test_a_task_succeeds_when_the_simulator_says_so(graph, runner) -> None:
    handle = runner.ask("wave")
    graph.until(lambda: runner.task == "wave", "the task is not put in force", lambda: runner.status(False))
    graph.until(lambda: runner.task == "", "the task does not end", lambda: runner.status(True))
    assert runner.result(handle).outcome == RunTask.Result.SUCCEEDED


@pytest.mark.any_pace
def test_a_task_does_not_succeed_by_what_was_done_before_it(graph, runner) -> None:
    handle = runner.ask("wave")
    graph.until(lambda: runner.task == "wave", "the task is not put in force", lambda: runner.status(True))
    graph.until(lambda: runner.task == "", "the task does not end", lambda: runner.status(True))
    result = runner.result(handle)
    assert (result.outcome, result.reason) == (RunTask.Result.STOPPED, "the scene is solved already; reset it")
    again = runner.ask("wave")
    graph.until(lambda: runner.task == "wave", "the task is not put in force", lambda: runner.status(True))
    graph.until(lambda: runner.task == "", "a reset does not count", lambda: [runner.status(s) for s in (False, True)])
    assert runner.result(again).outcome == RunTask.Result.SUCCEEDED


@pytest.mark.any_pace
@pytest.mark.parametrize("accomplished, outcome", [(True, TaskOutcome.SUCCEEDED), (False, TaskOutcome.FINISHED)])
def test_a_user_may_end_a_task_and_say_whether_it_succeeded(
    graph, runner, accomplished: bool, outcome: TaskOutcome
) -> None:
    judge = SetBool.Request(data=accomplished)
    refused = graph.call(SetBool, "run_task/judge", judge)
    assert not refused.success and refused.message == "no task is running"
    handle = runner.ask("wave")
    graph.until(lambda: runner.task == "wave", "the task is not put in force")
    assert graph.call(SetBool, "run_task/judge", judge).success
    assert runner.result(handle).outcome == outcome
    again = runner.ask("wave", time_limit=0.3)
    assert runner.result(again).outcome == RunTask.Result.TIMEOUT, "a verdict counts once"


@pytest.mark.any_pace
def test_a_new_task_takes_the_place_of_the_one_that_runs(graph, runner) -> None:
    first = runner.ask("wave")
    graph.until(lambda: runner.task == "wave", "the task is not put in force")
    second, third = runner.ask("nod"), runner.ask("bow")
    for handle in (first, second):
        result = runner.result(handle)
        assert (result.outcome, result.reason) == (RunTask.Result.STOPPED, "replaced by a new task")
    graph.until(lambda: runner.task == "bow", "the new task is not put in force")
    third.cancel_goal_async()
    assert runner.result(third).outcome == RunTask.Result.STOPPED
    said = [message.data for message in runner.tasks]
    assert said.index("") < said.index("wave") < said.index("", said.index("wave")) < said.index("bow")


@pytest.mark.any_pace
def test_a_task_ends_when_somebody_else_moves_the_arm(graph, runner) -> None:
    handle = runner.ask("wave")
    graph.until(lambda: runner.task == "wave", "the task is not put in force")
    graph.call(SelectSource, "command_guard/select", SelectSource.Request(source="teleop"))
    assert runner.result(handle).reason == "the command guard gave the arm to teleop"


@pytest.mark.any_pace
def test_the_success_of_another_task_does_not_count(graph, runner) -> None:
    handle = runner.ask("wave", time_limit=0.5)
    graph.until(lambda: runner.task == "wave", "the task is not put in force")
    graph.until(lambda: runner.task == "", "the task does not end", lambda: runner.status(True, "nod"))
    assert runner.result(handle).outcome == RunTask.Result.TIMEOUT


@pytest.mark.any_pace
def test_whichever_policy_runs_is_needed(graph, runner) -> None:
    (node,) = (node for node in graph.nodes if isinstance(node, task_runner.TaskRunnerNode))
    assert node._needed()[-1] == "diffusion_agent" and node._needed(["policy"])[-1] == "policy"
    publish = graph.publisher(NodeStatus, "node_status", qos.NODE_STATUS)
    graph.until(
        lambda: node._needed() == ("command_guard", "controller", "policy"),
        "the policy node is not needed",
        lambda: publish(NodeStatus(node="policy", state=NodeStatus.OK)),
    )


def test_a_fault_that_does_not_go_away_ends_the_task(graph, runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runner, "_PATIENCE", 0.4)
    (node,) = (node for node in graph.nodes if isinstance(node, task_runner.TaskRunnerNode))
    monkeypatch.setattr(node, "_needed", lambda present=(): ("diffusion_agent",))
    say = graph.publisher(NodeStatus, "node_status", qos.NODE_STATUS)
    bad, good = (
        NodeStatus(node="diffusion_agent", state=state, message="camera front silent")
        for state in (NodeStatus.FAULT, NodeStatus.OK)
    )
    say(bad)  # a fault that has passed
    say(good)
    handle = runner.ask("wave")
    graph.until(lambda: runner.task == "wave", "the task is not put in force")
    graph.until(lambda: runner.task == "", "the task does not end", lambda: say(bad))
    result = runner.result(handle)
    assert result.outcome == RunTask.Result.STOPPED and "diffusion_agent: camera front silent" in result.reason
    assert result.elapsed > 0.4


def test_of_several_arms_only_the_own_ones_faults_end_a_task(graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runner, "_PATIENCE", 0.4)
    monkeypatch.setattr(task_runner, "_NEEDED", ("diffusion_agent",))
    runner = Runner(graph, "left")
    graph.add(CommandGuardNode(namespace="right"))  # it has no owner
    say = {
        arm: graph.probe.create_publisher(NodeStatus, f"/{arm}/node_status".replace("//", "/"), qos.NODE_STATUS).publish
        for arm in ("left", "right", "")
    }

    def report(**states: int) -> None:
        for arm, state in states.items():
            say[arm.removeprefix("root")](NodeStatus(node="diffusion_agent", state=state, message=arm))

    bad, good = NodeStatus.FAULT, NodeStatus.OK
    handle = runner.ask("wave")
    graph.until(lambda: runner.task == "wave", "the task is not put in force", lambda: report(left=good))
    begin = time.monotonic()
    graph.until(lambda: time.monotonic() - begin > 1.5, "", lambda: report(right=bad, root=bad, left=good))
    assert runner.task == "wave", "another arm's fault ended it"
    graph.until(lambda: runner.task == "", "the task does not end", lambda: report(right=good, root=good, left=bad))
    assert runner.result(handle).reason == "diffusion_agent: left"


def test_a_node_that_is_not_heard_of_ends_the_task(graph, runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_runner, "_PATIENCE", 1.5)
    result = runner.result(runner.ask("wave"))
    assert result.outcome == RunTask.Result.STOPPED
    assert result.reason == "controller: no status for 2 s; diffusion_agent: no status for 2 s"


def test_a_task_waits_for_a_policy_that_is_loading(graph, runner) -> None:
    """Its node is in the graph, but has not reported yet. Meanwhile the arm is nobody's."""
    loading = rclpy.create_node("diffusion_agent")
    try:
        graph.until(lambda: "diffusion_agent" in graph.probe.get_node_names(), "it is not seen")
        handle = runner.ask("wave", time_limit=0.1)
        graph.until(lambda: (RunTask.Feedback.LOADING, "loading: diffusion_agent") in runner.phases, "no feedback")
        time.sleep(0.5)
        assert runner.task == ""
        say = graph.publisher(NodeStatus, "node_status", qos.NODE_STATUS)
        fine = NodeStatus(node="diffusion_agent", state=NodeStatus.OK)
        graph.until(lambda: runner.task == "wave", "the task is not put in force", lambda: say(fine))
        assert runner.result(handle).outcome == RunTask.Result.TIMEOUT
    finally:
        loading.destroy_node()


def test_a_task_ends_at_its_time_limit(graph, runner) -> None:
    result = runner.result(runner.ask("wave", time_limit=0.3))
    assert (result.outcome, result.reason) == (RunTask.Result.TIMEOUT, "not done after 0 s")
    assert result.elapsed >= 0.3
    graph.until(lambda: runner.task == "", "the task stays in force")


@pytest.mark.any_pace
def test_a_task_can_be_cancelled(graph, runner) -> None:
    handle = runner.ask("wave")
    graph.until(lambda: runner.task == "wave", "the task is not put in force")
    handle.cancel_goal_async()
    assert runner.result(handle).outcome == RunTask.Result.STOPPED
    graph.until(lambda: runner.task == "", "the task stays in force")


@pytest.mark.any_pace
def test_a_stop_of_the_guard_ends_the_task(graph, runner) -> None:
    handle = runner.ask("wave")
    graph.until(lambda: runner.task == "wave", "the task is not put in force")
    graph.call(Trigger, "command_guard/stop", Trigger.Request())
    assert runner.result(handle).outcome == RunTask.Result.STOPPED


@pytest.mark.any_pace
@pytest.mark.parametrize("instruction, limit", [("", 1.0), ("  ", 1.0), ("wave", -1.0), ("wave", float("nan"))])
def test_a_senseless_task_is_refused(runner, instruction: str, limit: float) -> None:
    assert not runner.ask(instruction, limit).accepted


# ------------------------------------------------------------------------------------------------------ simulator


def test_the_simulator_is_a_robot_with_four_cameras(graph) -> None:
    graph.add(SimNode())
    states = graph.subscribe(JointState, "joint_states", qos.JOINT_STATES)
    images = {v: graph.subscribe(ImageMessage, f"cameras/{v}/color/image_raw", qos.IMAGE) for v in VIEWS}
    graph.until(lambda: all(images.values()) and states, "no images or joint states")
    assert {(m[0].width, m[0].height, m[0].encoding) for m in images.values()} == {(256, 256, "rgb8")}
    common = set.intersection(*({messages.seconds(m.header.stamp) for m in heard} for heard in images.values()))
    graph.until(lambda: common or any(images.values()), "the views have no common stamp")

    refused = graph.call(ResetScene, "sim/reset", ResetScene.Request(task="push_buton", seed=1))
    assert not refused.success and "did you mean push_button" in refused.message
    reset = graph.call(ResetScene, "sim/reset", ResetScene.Request(task="push_button", seed=1))
    assert reset.success and "button" in reset.instruction

    say = graph.publisher(JointState, "joint_command", qos.JOINT_COMMAND)
    goal = messages.joints_from(states[-1], PANDA).positions + 0.1

    def ask() -> None:
        message = messages.command_message(Command(time.time(), goal, np.zeros(7), 1.0), PANDA)
        order = [7, *range(6, -1, -1)]  # joints are matched by name
        message.name = [message.name[i] for i in order]
        message.position = [message.position[i] for i in order]
        say(message)

    def arrived() -> bool:
        return bool(np.allclose(messages.joints_from(states[-1], PANDA).positions, goal, atol=0.01))

    graph.until(arrived, "the arm does not arrive", ask)
    time.sleep(1.0)  # the guard has died, say: it holds what it was told last
    there = messages.joints_from(states[-1], PANDA).positions
    time.sleep(1.0)
    np.testing.assert_allclose(messages.joints_from(states[-1], PANDA).positions, there, atol=1e-3)
    assert arrived()
    malformed = messages.command_message(Command(time.time(), goal + np.nan, np.zeros(7), 1.0), PANDA)
    graph.until(graph.reports_fault("sim_node", "joint_command"), "no complaint", lambda: say(malformed))
    assert arrived()
