"""RViz: config files and the rviz_markers node."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_graph import overrides
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import Marker, MarkerArray

from genima.cameras.camera_devices import load_camera_devices
from genima.errors import GenimaError
from genima.policy.spec import read_pair
from genima.robot.model import RobotModel
from genima.types import ActionChunk
from genima_nodes.ros import qos
from genima_nodes.ros.trajectory_messages import chunk_from, chunk_message
from genima_nodes.rviz_markers import RvizMarkersNode

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / "config" / "rviz").glob("*.rviz"))
KNOWN = yaml.safe_load((ROOT / "test" / "data" / "rviz_classes.yaml").read_text())
EVERY_DISPLAY = {"Class", "Enabled", "Name", "Value"}
SOURCES = "".join(
    file.read_text()
    for package in ("genima_nodes", "genima_calibration", "genima_sim")
    for file in (ROOT / "src" / package).rglob("*.py")
)
DRIVERS = {"robot_description", "robotiq/robot_description", "commanded/robot_description"}


def displays(file: Path) -> list[dict[str, Any]]:
    return yaml.safe_load(file.read_text())["Visualization Manager"]["Displays"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_rviz_config_has_known_classes_and_properties(file: Path) -> None:
    """RViz drops unknown displays and properties without a message."""
    data = yaml.safe_load(file.read_text())
    manager = data["Visualization Manager"]
    for display in manager["Displays"]:
        assert set(display) - EVERY_DISPLAY <= set(KNOWN["displays"][display["Class"]]), display["Name"]
    for tool in manager["Tools"]:
        assert tool["Class"].removeprefix("rviz_default_plugins/") in KNOWN["tools"]
    assert manager["Views"]["Current"]["Class"].removeprefix("rviz_default_plugins/") in KNOWN["views"]
    assert {panel["Class"].removeprefix("rviz_common/") for panel in data["Panels"]} <= set(KNOWN["panels"])
    names = [display["Name"] for display in manager["Displays"]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_displayed_topics_are_published(file: Path) -> None:
    """Every displayed topic is published by a node of the project or by a driver."""
    for display in displays(file):
        for key in ("Topic", "Description Topic"):
            if key not in display:
                continue
            topic = display[key]["Value"].lstrip("/")
            pattern = re.sub(r"\b(wrist|front|left_shoulder|right_shoulder)\b", r"\\{[\\w.]+\\}", topic)
            assert topic in DRIVERS or re.search(rf'f?"{pattern}"', SOURCES), topic


def test_real_robot_config_shows_all_cameras() -> None:
    seen = displays(ROOT / "config" / "rviz" / "real_robot.rviz")
    shown = {display["Topic"]["Value"] for display in seen if "Topic" in display}
    for view in load_camera_devices("four_d415"):
        assert {f"cameras/{view}/color/image_raw", f"drawn_target/{view}/image"} <= shown


def chunk_of(robot: RobotModel, gripper: float) -> ActionChunk:
    positions = np.linspace(robot.home, robot.home + 0.3, 5)
    return ActionChunk(stamp=12.5, period=0.05, positions=positions, gripper=np.full(5, gripper))


def test_chunk_message_round_trip(robot: RobotModel) -> None:
    chunk = chunk_of(robot, 0.25)
    message = chunk_message(chunk, robot)
    order = np.random.default_rng(0).permutation(len(message.joint_names))
    message.joint_names = [message.joint_names[i] for i in order]
    for point in message.points:
        point.positions = [point.positions[i] for i in order]
    back = chunk_from(message, robot)
    for field in dataclasses.fields(ActionChunk):
        np.testing.assert_allclose(getattr(back, field.name), getattr(chunk, field.name), atol=1e-9)


def test_malformed_chunk_messages_are_rejected(robot: RobotModel) -> None:
    message = chunk_message(chunk_of(robot, 1.0), robot)
    message.points[2].positions[0] = float("nan")
    for bad, expected in ((JointTrajectory(), "no actions"), (message, "not finite")):
        with pytest.raises(GenimaError, match=expected):
            chunk_from(bad, robot)


@pytest.mark.any_pace
def test_markers_show_last_action_and_faults(graph, robot: RobotModel) -> None:
    """Spheres are at the frames of the last action, in the colours of open and closed; faults are shown as text."""
    graph.add(RvizMarkersNode())
    spec, _ = read_pair(None)
    received = graph.subscribe(MarkerArray, "rviz_markers", qos.STATUS)
    publish_chunk = graph.publisher(JointTrajectory, "action_chunk", qos.DRAWN_TARGET)
    publish_diagnostics = graph.publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
    fault = DiagnosticStatus(level=DiagnosticStatus.ERROR, name="controller", message="no images")

    def markers(kind: str) -> list[Marker]:
        return [marker for array in list(received) for marker in array.markers if marker.ns == kind]

    for gripper in (1.0, 0.0):
        received.clear()
        chunk = chunk_of(robot, gripper)
        message = chunk_message(chunk, robot)
        graph.until(lambda: markers("tip path"), "no markers", lambda m=message: publish_chunk(m))
        poses = robot.link_poses(chunk.positions)
        for sphere, marker in zip(spec.appearance.spheres, markers("targets"), strict=False):
            at = marker.pose.position
            np.testing.assert_allclose([at.x, at.y, at.z], poses[-1, sphere.frame, :3, 3], atol=1e-9)
            colour = sphere.colour if gripper or sphere.closed_colour is None else sphere.closed_colour
            shown = marker.color.r, marker.color.g, marker.color.b
            np.testing.assert_allclose(np.multiply(shown, 255), colour, atol=1e-3)
            assert marker.header.frame_id == "panda_link0"
        tip = [[point.x, point.y, point.z] for point in markers("tip path")[0].points]
        np.testing.assert_allclose(tip, poses[:, -1, :3, 3], atol=1e-9)
    graph.until(
        lambda: any("controller: no images" in marker.text for marker in markers("diagnostics")),
        "fault not shown",
        lambda: publish_diagnostics(DiagnosticArray(status=[fault])),
    )
    assert graph.has_no_fault("rviz_markers")()


@pytest.mark.any_pace
def test_markers_show_robot_of_cell(graph) -> None:
    """The spheres of a checkpoint of another arm are shown on the cell's."""
    graph.add(RvizMarkersNode(parameter_overrides=overrides(cell="sim_fr3")))
    received = graph.subscribe(MarkerArray, "rviz_markers", qos.STATUS)
    publish_chunk = graph.publisher(JointTrajectory, "action_chunk", qos.DRAWN_TARGET)
    message = chunk_message(chunk_of(fr3 := RobotModel.load("fr3"), 1.0), fr3)
    graph.until(
        lambda: any(marker.ns == "tip path" for array in list(received) for marker in array.markers),
        "no markers",
        lambda: publish_chunk(message),
    )
