"""What `./genima doctor --live` hears of a running graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import qos_profile_sensor_data
from ros_graph import Graph
from sensor_msgs.msg import CameraInfo, JointState
from sensor_msgs.msg import Image as ImageMessage

from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera_devices import CameraDevice
from genima.doctor import Finding, Status
from genima.robot.model import RobotModel
from genima.types import Joints
from genima_nodes.checkup import CheckupNode
from genima_nodes.ros import messages, qos
from genima_nodes.ros.topic_listener import TopicListener

IMAGE = np.zeros((48, 64, 3), np.uint8)
TOPIC = "cameras/front/color/image_raw"
RIG = {"front": CameraDevice("1", "D415", 64, 48, 20, "base")}

pytestmark = pytest.mark.any_pace


def found(listener: TopicListener) -> dict[str, Finding]:
    return {each.what: each for group in [*listener.groups(), listener.told()] for each in group.findings}


@pytest.fixture
def listener(graph: Graph, robot: RobotModel) -> Iterator[TopicListener]:
    node = graph.add(TopicListener("doctor"))
    node.expect(["front", "wrist"], RIG, load_cameras("sim"), robot)
    yield node


def test_what_is_heard_is_judged(graph: Graph, listener: TopicListener, robot: RobotModel) -> None:
    says = {
        "image": graph.publisher(ImageMessage, TOPIC, qos.IMAGE),
        "joints": graph.publisher(JointState, "joint_states", qos.JOINT_STATES),
        "lens": graph.publisher(CameraInfo, "cameras/front/color/camera_info", qos.IMAGE),
        "health": graph.publisher(DiagnosticArray, "/diagnostics", qos.STATUS),
    }
    start = messages.now(graph.probe) - 0.1
    joints = Joints(0.0, robot.home, 1.0)
    for n in range(5):  # one after the other: nothing queues
        stamp = start + n / 50
        says["image"](messages.image_message(IMAGE, start - 0.2 + n / 20))
        says["joints"](messages.joints_message(Joints(stamp, joints.positions, joints.gripper), robot))
        graph.until(
            lambda n=n: min(len(listener._heard["front"].stamps), len(listener._joints.stamps)) > n, "nothing is heard"
        )
    says["lens"](CameraInfo(**load_cameras("sim")["front"].camera_info()))
    ill = DiagnosticStatus(level=DiagnosticStatus.ERROR, name="controller", message="held")
    same = DiagnosticStatus(level=DiagnosticStatus.ERROR, name="checkup: images that arrive: front")
    says["health"](DiagnosticArray(status=[same, ill, DiagnosticStatus(level=DiagnosticStatus.OK, name="fit")]))
    graph.until(lambda: {"controller", "fit"} <= set(found(listener)), "diagnostics are not heard")
    graph.until(lambda: found(listener)["front lens"].status is Status.OK, "the lens is not heard")

    heard = found(listener)
    assert heard["front"].found.startswith("20.0 Hz") and "64x48 rgb8" in heard["front"].found
    assert heard["joint_states"].found.startswith("50 Hz")
    assert heard["wrist"].status is Status.FAIL and "no publisher" in heard["wrist"].found
    assert heard["wrist lens"].status is Status.SKIPPED
    assert heard["nodes in this domain"].found == "/probe"
    assert heard["joint_command"].status is Status.SKIPPED
    assert same.name not in heard  # it is found here, too
    assert (heard["controller"].status, heard["fit"].status) == (Status.FAIL, Status.OK)

    says["lens"](CameraInfo(**load_cameras("sim")["wrist"].camera_info()))
    graph.until(lambda: found(listener)["front lens"].status is Status.FAIL, "another camera's lens is not noticed")
    listener.forget()
    assert "0 messages received" in found(listener)["front"].found


def test_best_effort_images_and_two_who_command_are_named(graph: Graph, listener: TopicListener) -> None:
    graph.probe.create_publisher(ImageMessage, TOPIC, qos_profile_sensor_data)
    graph.until(lambda: "best-effort" in found(listener)["front"].found, "a best-effort camera is not named")
    graph.probe.create_publisher(JointState, "joint_command", qos.JOINT_COMMAND)
    graph.until(lambda: found(listener)["joint_command"].status is Status.OK, "the guard is not seen")
    other = rclpy.create_node("other")
    other.create_publisher(JointState, "joint_command", qos.JOINT_COMMAND)
    graph.until(lambda: found(listener)["joint_command"].status is Status.FAIL, "the second one is not seen")
    assert "/other, /probe" in found(listener)["joint_command"].found
    twin = rclpy.create_node("probe")
    graph.until(lambda: "run twice: /probe" in found(listener)["nodes in this domain"].found, "no twin is seen")
    for node in (other, twin):
        node.destroy_node()


def test_the_joints_of_another_robot_are_named(graph: Graph, listener: TopicListener) -> None:
    say = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    other = RobotModel.load("fr3")
    for n in range(3):
        say(messages.joints_message(Joints(messages.now(graph.probe), other.home, 1.0), other))
        graph.until(lambda n=n: len(listener._joints.stamps) > n, "nothing is heard")
    finding = found(listener)["joint_states"]
    assert finding.status is Status.FAIL and "joints missing (panda_joint1" in finding.found


def test_the_node_says_on_diagnostics_what_it_finds(graph: Graph) -> None:
    node = graph.add(CheckupNode())
    graph.until(lambda: node._diagnostics.get_subscription_count(), "nobody hears it")
    graph.until(
        lambda: "checkup: images that arrive: front" in graph.diagnostics, "no status received", meanwhile=node._check
    )
    status = graph.diagnostics["checkup: images that arrive: front"]
    assert status.level == DiagnosticStatus.ERROR and "no publisher" in status.message and "-> " in status.message
    assert graph.diagnostics["checkup: running graph: joint_command"].level == DiagnosticStatus.STALE
