"""Topic listener of `./genima doctor --live` and of the checkup node."""

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


def find(listener: TopicListener) -> dict[str, Finding]:
    return {each.what: each for group in [*listener.check(), listener.node_diagnostics()] for each in group.findings}


@pytest.fixture
def listener(graph: Graph, robot: RobotModel) -> Iterator[TopicListener]:
    node = graph.add(TopicListener("doctor"))
    node.expect(["front", "wrist"], RIG, load_cameras("sim"), robot)
    yield node


def test_listener_checks_topics_of_running_graph(graph: Graph, listener: TopicListener, robot: RobotModel) -> None:
    publish = {
        "image": graph.publisher(ImageMessage, TOPIC, qos.IMAGE),
        "joints": graph.publisher(JointState, "joint_states", qos.JOINT_STATES),
        "info": graph.publisher(CameraInfo, "cameras/front/color/camera_info", qos.IMAGE),
        "diagnostics": graph.publisher(DiagnosticArray, "/diagnostics", qos.STATUS),
    }
    start = messages.now(graph.probe) - 0.1
    joints = Joints(0.0, robot.home, 1.0)
    for n in range(5):  # one by one, as queues have depth 1
        stamp = start + n / 50
        publish["image"](messages.image_message(IMAGE, start - 0.2 + n / 20))
        publish["joints"](messages.joints_message(Joints(stamp, joints.positions, joints.gripper), robot))
        graph.until(
            lambda n=n: min(len(listener._images["front"].stamps), len(listener._joints.stamps)) > n,
            "no messages received",
        )
    publish["info"](CameraInfo(**load_cameras("sim")["front"].camera_info()))
    fault = DiagnosticStatus(level=DiagnosticStatus.ERROR, name="controller", message="held")
    same = DiagnosticStatus(level=DiagnosticStatus.ERROR, name="checkup: received images: front")
    publish["diagnostics"](
        DiagnosticArray(status=[same, fault, DiagnosticStatus(level=DiagnosticStatus.OK, name="healthy")])
    )
    graph.until(lambda: {"controller", "healthy"} <= set(find(listener)), "diagnostics not received")
    graph.until(lambda: find(listener)["front intrinsics"].status is Status.OK, "camera_info not received")

    results = find(listener)
    assert results["front"].found.startswith("20.0 Hz") and "64x48 rgb8" in results["front"].found
    assert results["joint_states"].found.startswith("50 Hz")
    assert results["wrist"].status is Status.FAIL and "no publisher" in results["wrist"].found
    assert results["wrist intrinsics"].status is Status.SKIPPED
    assert results["nodes in this domain"].found == "/probe"
    assert results["joint_command"].status is Status.SKIPPED
    assert same.name not in results  # it is found here, too
    assert (results["controller"].status, results["healthy"].status) == (Status.FAIL, Status.OK)

    publish["info"](CameraInfo(**load_cameras("sim")["wrist"].camera_info()))
    graph.until(lambda: find(listener)["front intrinsics"].status is Status.FAIL, "mismatch not detected")
    listener.clear()
    assert "0 messages received" in find(listener)["front"].found


def test_best_effort_images_and_duplicate_publishers_are_reported(graph: Graph, listener: TopicListener) -> None:
    graph.probe.create_publisher(ImageMessage, TOPIC, qos_profile_sensor_data)
    graph.until(lambda: "best-effort" in find(listener)["front"].found, "a best-effort camera is not named")
    graph.probe.create_publisher(JointState, "joint_command", qos.JOINT_COMMAND)
    graph.until(lambda: find(listener)["joint_command"].status is Status.OK, "first publisher not find")
    other = rclpy.create_node("other")
    other.create_publisher(JointState, "joint_command", qos.JOINT_COMMAND)
    graph.until(lambda: find(listener)["joint_command"].status is Status.FAIL, "second publisher not find")
    assert "/other, /probe" in find(listener)["joint_command"].found
    twin = rclpy.create_node("probe")
    graph.until(lambda: "run twice: /probe" in find(listener)["nodes in this domain"].found, "duplicate node not find")
    for node in (other, twin):
        node.destroy_node()


def test_joints_of_another_robot_are_reported(graph: Graph, listener: TopicListener) -> None:
    publish = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    other = RobotModel.load("fr3")
    for n in range(3):
        publish(messages.joints_message(Joints(messages.now(graph.probe), other.home, 1.0), other))
        graph.until(lambda n=n: len(listener._joints.stamps) > n, "no messages received")
    finding = find(listener)["joint_states"]
    assert finding.status is Status.FAIL and "joints missing (panda_joint1" in finding.found


def test_checkup_node_publishes_findings(graph: Graph) -> None:
    node = graph.add(CheckupNode())
    graph.until(lambda: node._diagnostics.get_subscription_count(), "no subscriber")
    graph.until(
        lambda: "checkup: received images: front" in graph.diagnostics, "no status received", meanwhile=node._check
    )
    status = graph.diagnostics["checkup: received images: front"]
    assert status.level == DiagnosticStatus.ERROR and "no publisher" in status.message and "-> " in status.message
    assert graph.diagnostics["checkup: running graph: joint_command"].level == DiagnosticStatus.STALE
