"""Calibrated cameras in tf: under a driver's own frames, without a driver, and never with two parents."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_graph import Graph
from scipy.spatial.transform import RigidTransform, Rotation
from tf2_msgs.msg import TFMessage

from genima.cameras.calibration_file import CameraCalibration, Frames
from genima.cameras.camera import Camera
from genima.cameras.frame_tree import T_LINK_OPTICAL, FrameTree, attach_camera, camera_link
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose
from genima_nodes.camera_transforms import CameraTransformsNode
from genima_nodes.ros.transform_messages import transform_from, transform_message

PANDA = RobotModel.load("panda")
STATIC = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
LINK, COLOR, OPTICAL = "front_link", "front_color_frame", "front_color_optical_frame"
# As a D435 says it: the colour sensor 15 mm beside the link's origin, turned by a fraction of a degree.
T_LINK_COLOR = pose(Rotation.from_quat([-0.0012, 0.0034, -0.0008, 1.0]).as_matrix(), np.array([0.0002, 0.0149, 0.0001]))
DRIVER = ((LINK, COLOR, T_LINK_COLOR), (COLOR, OPTICAL, T_LINK_OPTICAL))
numbers = st.floats(-2, 2)
poses = st.tuples(st.tuples(numbers, numbers, numbers), st.tuples(numbers, numbers, numbers)).map(
    lambda parts: pose(Rotation.from_rotvec(parts[0]).as_matrix(), np.array(parts[1]))
)

pytestmark = pytest.mark.any_pace  # of the nodes


def tree(*transforms: tuple[str, str, np.ndarray]) -> FrameTree:
    made = FrameTree()
    for transform in transforms:
        made.add(*transform)
    return made


@given(poses, poses, poses)
@settings(max_examples=50)
def test_the_link_hangs_where_the_optical_frame_then_is_as_calibrated(wanted: Any, one: Any, two: Any) -> None:
    driver = tree((LINK, COLOR, one), (COLOR, OPTICAL, two))
    (hanging,) = attach_camera(driver, "panda_link0", OPTICAL, wanted)
    assert (hanging.parent, hanging.child) == ("panda_link0", LINK)
    chain = (RigidTransform.from_matrix(T) for T in (hanging.T_parent_child, one, two))
    np.testing.assert_allclose(np.prod(list(chain)).as_matrix(), wanted, atol=1e-9)
    driver.add(hanging.parent, hanging.child, hanging.T_parent_child)
    np.testing.assert_allclose(driver.T("panda_link0", OPTICAL), wanted, atol=1e-9)


def test_a_realsense_is_hung_15_mm_beside_its_colour_sensor() -> None:
    wanted = pose(T_LINK_OPTICAL[:3, :3], np.array([0.5, 0.0, 0.4]))  # looks along the base's x
    (hanging,) = attach_camera(tree(*DRIVER), "panda_link0", OPTICAL, wanted)
    np.testing.assert_allclose(hanging.T_parent_child[:3, 3], [0.5, -0.015, 0.4], atol=3e-4)
    (alone, axes) = attach_camera(FrameTree(), "panda_link0", OPTICAL, wanted)
    np.testing.assert_allclose(alone.T_parent_child, pose(np.eye(3), wanted[:3, 3]), atol=1e-12)
    assert (alone.child, axes.parent, axes.child) == (LINK, LINK, OPTICAL)
    np.testing.assert_allclose(alone.T_parent_child @ axes.T_parent_child, wanted)
    (plain,) = attach_camera(FrameTree(), "panda_link0", "usb_cam", wanted)
    assert (plain.parent, plain.child) == ("panda_link0", "usb_cam")
    assert [camera_link(name) for name in (OPTICAL, "ir_optical_frame", "usb_cam")] == [LINK, "ir_link", None]


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([*DRIVER, ("panda_link0", LINK, np.eye(4))], r"front_link: has a parent already \(panda_link0\)"),
        ([*DRIVER, ("map", LINK, np.eye(4))], r"front_link: has a parent already \(map\)"),
        ([("panda_link0", LINK, np.eye(4))], r"front_link: has a parent already \(panda_link0\)"),
        (
            [("world", "panda_link0", np.eye(4)), ("world", OPTICAL, np.eye(4))],
            r"in the tree of panda_link0 already \(root world\)",
        ),
    ],
)
def test_a_camera_that_hangs_already_is_refused(others: Any, words: str) -> None:
    with pytest.raises(GenimaError, match=words):
        attach_camera(tree(*others), "panda_link0", OPTICAL, np.eye(4))


def test_a_frame_has_one_parent_and_is_not_its_own() -> None:
    made = tree(("a", "b", np.eye(4)), ("b", "c", np.eye(4)))
    with pytest.raises(GenimaError, match=r"c: two parents \(b, a\)"):
        made.add("a", "c", np.eye(4))
    with pytest.raises(GenimaError, match="a: cycle"):
        made.add("c", "a", np.eye(4))
    assert made.root("c") == "a" and list(made.ancestors("c")) == ["b", "a"]


class Room:
    """A node that hangs cameras, and others who publish frames."""

    def __init__(self, graph: Graph, folder: Path, **parameters: Any) -> None:
        self.graph, self._keep = graph, []
        values = {"calibration": str(folder), "wait": 0.3} | parameters
        self.heard = graph.subscribe(TFMessage, "/tf_static", STATIC)
        self._publisher = graph.probe.create_publisher(TFMessage, "/tf_static", STATIC)
        self.node = graph.add(
            CameraTransformsNode(parameter_overrides=[Parameter(name, value=value) for name, value in values.items()])
        )

    def say(self, *transforms: tuple[str, str, np.ndarray]) -> None:
        now = time.time()
        self._publisher.publish(TFMessage(transforms=[transform_message(now, *t) for t in transforms]))

    @property
    def tree(self) -> FrameTree:
        made = FrameTree()
        for message in list(self.heard):
            for t in message.transforms:
                made.add(t.header.frame_id, t.child_frame_id, transform_from(t))
        return made


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    wanted = pose(Rotation.from_euler("xyz", [2.0, 0.3, -1.0]).as_matrix(), np.array([0.9, 0.1, 0.6]))
    CameraCalibration(Camera("front", "base", wanted, 640, 480, 600, 600, 320, 240), Frames("base", OPTICAL)).save(
        tmp_path
    )
    return tmp_path


def test_a_camera_hangs_under_its_drivers_frames(graph: Graph, calibrated: Path) -> None:
    room = Room(graph, calibrated, wait=-1.0)
    graph.until(graph.reports_fault("camera_transforms", "no publisher of front_color_optical"), "no complaint")
    assert not room.heard
    room.say(*DRIVER)
    graph.until(lambda: room.tree.parent(LINK), "it is not hung")
    wanted = CameraCalibration.load(calibrated / "front.yaml").camera.T_parent_camera
    np.testing.assert_allclose(room.tree.T("base", OPTICAL), wanted, atol=1e-9)
    graph.until(graph.has_no_fault("camera_transforms"), "no OK status")
    late = graph.subscribe(TFMessage, "/tf_static", STATIC)  # who comes later hears it, too
    graph.until(lambda: [t for m in late for t in m.transforms if t.child_frame_id == LINK], "it is not latched")
    room.say(("elsewhere", LINK, np.eye(4)))
    graph.until(graph.reports_fault("camera_transforms", "publishes it under elsewhere"), "no complaint of a rival")


def test_without_a_driver_the_axes_are_turned(graph: Graph) -> None:
    room = Room(graph, Path("sim"))
    graph.until(lambda: room.heard, "nothing is published")
    graph.until(graph.has_no_fault("camera_transforms"), "no OK status")
    made = room.tree
    for view, parent in {"front": "panda_link0", "wrist": "panda_link8"}.items():
        wanted = CameraCalibration.load(paths.shared("calibration", "sim", f"{view}.yaml")).camera.T_parent_camera
        assert made.parent(f"{view}_link") == parent
        np.testing.assert_allclose(made.T(parent, f"{view}_color_optical_frame"), wanted, atol=1e-9)
    room.say(*DRIVER)
    graph.until(graph.reports_fault("camera_transforms", "restart this one"), "a late driver is not told")


def test_a_camera_that_somebody_else_hangs_is_left_alone(graph: Graph, calibrated: Path) -> None:
    room = Room(graph, calibrated)
    room.say(*DRIVER, ("base", LINK, np.eye(4)))
    graph.until(graph.reports_fault("camera_transforms", "front_link: has a parent already (base)"), "no complaint")
    time.sleep(0.5)
    assert all(len(message.transforms) == 3 for message in room.heard)


def test_only_the_views_of_the_rig_are_hung(graph: Graph) -> None:
    room = Room(graph, Path("sim"), views=["front", "wrist"])
    graph.until(lambda: room.heard, "nothing is published")
    graph.until(graph.has_no_fault("camera_transforms"), "no OK status")
    assert room.tree.parent("wrist_link") and not room.tree.parent("left_shoulder_link")
    with pytest.raises(GenimaError, match="no calibration of ceiling"):
        Room(graph, Path("sim"), views=["ceiling"])


def test_folders_that_make_no_sense_are_refused(graph: Graph, calibrated: Path, tmp_path: Path) -> None:
    with pytest.raises(GenimaError, match="not found"):
        Room(graph, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GenimaError, match="there is no calibration"):
        Room(graph, tmp_path / "empty")
    (calibrated / "other.yaml").write_text((calibrated / "front.yaml").read_text())
    with pytest.raises(GenimaError, match="front and other .* are both of front_color_optical_frame"):
        Room(graph, calibrated, views=["front", "other"])
