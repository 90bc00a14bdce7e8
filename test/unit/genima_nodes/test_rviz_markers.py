"""What RViz is given to show: the files' displays, and the node that makes what has no display of its own."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
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
def test_rviz_knows_what_a_file_asks_for(file: Path) -> None:
    """RViz drops silently what it does not know."""
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
def test_topics_are_somebodys(file: Path) -> None:
    """Each is one that our nodes or a driver publish."""
    for display in displays(file):
        for key in ("Topic", "Description Topic"):
            if key not in display:
                continue
            topic = display[key]["Value"].lstrip("/")
            pattern = re.sub(r"\b(wrist|front|left_shoulder|right_shoulder)\b", r"\\{[\\w.]+\\}", topic)
            assert topic in DRIVERS or re.search(rf'f?"{pattern}"', SOURCES), topic


def test_a_real_robot_is_seen_by_all_its_cameras() -> None:
    seen = displays(ROOT / "config" / "rviz" / "real_robot.rviz")
    shown = {display["Topic"]["Value"] for display in seen if "Topic" in display}
    for view in load_camera_devices("four_d415"):
        assert {f"cameras/{view}/color/image_raw", f"drawn_target/{view}/image"} <= shown


def chunk_of(robot: RobotModel, gripper: float) -> ActionChunk:
    way = np.linspace(robot.home, robot.home + 0.3, 5)
    return ActionChunk(stamp=12.5, period=0.05, positions=way, gripper=np.full(5, gripper))


def test_a_chunk_is_the_same_on_the_other_side(robot: RobotModel) -> None:
    chunk = chunk_of(robot, 0.25)
    message = chunk_message(chunk, robot)
    order = np.random.default_rng(0).permutation(len(message.joint_names))
    message.joint_names = [message.joint_names[i] for i in order]
    for point in message.points:
        point.positions = [point.positions[i] for i in order]
    back = chunk_from(message, robot)
    for field in dataclasses.fields(ActionChunk):
        np.testing.assert_allclose(getattr(back, field.name), getattr(chunk, field.name), atol=1e-9)


def test_bad_chunks_are_refused(robot: RobotModel) -> None:
    message = chunk_message(chunk_of(robot, 1.0), robot)
    message.points[2].positions[0] = float("nan")
    for bad, words in ((JointTrajectory(), "no actions"), (message, "not finite")):
        with pytest.raises(GenimaError, match=words):
            chunk_from(bad, robot)


@pytest.mark.any_pace
def test_markers_are_where_the_joints_will_be(graph, robot: RobotModel) -> None:
    """Spheres at the frames of the last action, in the colours of open and closed; complaints in words."""
    graph.add(RvizMarkersNode())
    spec, _ = read_pair(None)
    heard = graph.subscribe(MarkerArray, "rviz_markers", qos.STATUS)
    say = graph.publisher(JointTrajectory, "action_chunk", qos.DRAWN_TARGET)
    complain = graph.publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
    complaint = DiagnosticStatus(level=DiagnosticStatus.ERROR, name="controller", message="it sees nothing")

    def markers(kind: str) -> list[Marker]:
        return [marker for array in list(heard) for marker in array.markers if marker.ns == kind]

    for gripper in (1.0, 0.0):
        heard.clear()
        chunk = chunk_of(robot, gripper)
        message = chunk_message(chunk, robot)
        graph.until(lambda: markers("way of the tip"), "no markers", lambda m=message: say(m))
        poses = robot.link_poses(chunk.positions)
        for sphere, marker in zip(spec.appearance.spheres, markers("targets"), strict=False):
            at = marker.pose.position
            np.testing.assert_allclose([at.x, at.y, at.z], poses[-1, sphere.frame, :3, 3], atol=1e-9)
            colour = sphere.colour if gripper or sphere.closed_colour is None else sphere.closed_colour
            shown = marker.color.r, marker.color.g, marker.color.b
            np.testing.assert_allclose(np.multiply(shown, 255), colour, atol=1e-3)
            assert marker.header.frame_id == "panda_link0"
        tip = [[point.x, point.y, point.z] for point in markers("way of the tip")[0].points]
        np.testing.assert_allclose(tip, poses[:, -1, :3, 3], atol=1e-9)
    graph.until(
        lambda: any("controller: it sees nothing" in marker.text for marker in markers("diagnostics")),
        "no words on what is wrong",
        lambda: complain(DiagnosticArray(status=[complaint])),
    )
    assert graph.has_no_fault("rviz_markers")()
