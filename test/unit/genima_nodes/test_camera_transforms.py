"""Camera transforms: with and without a driver's frames, and with conflicting parents."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_graph import Graph, overrides
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
# Of a D435: the colour sensor is 15 mm from the link's origin, rotated by a fraction of a degree.
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
def test_link_pose_places_optical_frame_as_calibrated(T_expected: Any, one: Any, two: Any) -> None:
    driver = tree((LINK, COLOR, one), (COLOR, OPTICAL, two))
    (attachment,) = attach_camera(driver, "panda_link0", OPTICAL, T_expected)
    assert (attachment.parent, attachment.child) == ("panda_link0", LINK)
    chain = (RigidTransform.from_matrix(T) for T in (attachment.T_parent_child, one, two))
    np.testing.assert_allclose(np.prod(list(chain)).as_matrix(), T_expected, atol=1e-9)
    driver.add(attachment.parent, attachment.child, attachment.T_parent_child)
    np.testing.assert_allclose(driver.T("panda_link0", OPTICAL), T_expected, atol=1e-9)


def test_realsense_link_is_15_mm_from_colour_sensor() -> None:
    T_expected = pose(T_LINK_OPTICAL[:3, :3], np.array([0.5, 0.0, 0.4]))  # looks along the base's x
    (attachment,) = attach_camera(tree(*DRIVER), "panda_link0", OPTICAL, T_expected)
    np.testing.assert_allclose(attachment.T_parent_child[:3, 3], [0.5, -0.015, 0.4], atol=3e-4)
    (alone, axes) = attach_camera(FrameTree(), "panda_link0", OPTICAL, T_expected)
    np.testing.assert_allclose(alone.T_parent_child, pose(np.eye(3), T_expected[:3, 3]), atol=1e-12)
    assert (alone.child, axes.parent, axes.child) == (LINK, LINK, OPTICAL)
    np.testing.assert_allclose(alone.T_parent_child @ axes.T_parent_child, T_expected)
    (plain,) = attach_camera(FrameTree(), "panda_link0", "usb_cam", T_expected)
    assert (plain.parent, plain.child) == ("panda_link0", "usb_cam")
    assert [camera_link(name) for name in (OPTICAL, "ir_optical_frame", "usb_cam")] == [LINK, "ir_link", None]


@pytest.mark.parametrize(
    ("others", "expected"),
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
def test_camera_with_other_parent_is_rejected(others: Any, expected: str) -> None:
    with pytest.raises(GenimaError, match=expected):
        attach_camera(tree(*others), "panda_link0", OPTICAL, np.eye(4))


def test_frame_tree_rejects_second_parent_and_cycle() -> None:
    made = tree(("a", "b", np.eye(4)), ("b", "c", np.eye(4)))
    with pytest.raises(GenimaError, match=r"c: two parents \(b, a\)"):
        made.add("a", "c", np.eye(4))
    with pytest.raises(GenimaError, match="a: cycle"):
        made.add("c", "a", np.eye(4))
    assert made.root("c") == "a" and list(made.ancestors("c")) == ["b", "a"]


class TransformsFixture:
    """Node under test, and a publisher of other frames."""

    def __init__(self, graph: Graph, folder: Path, **parameters: Any) -> None:
        self.graph, self._keep = graph, []
        values = {"calibration": str(folder), "wait": 0.3} | parameters
        self.received = graph.subscribe(TFMessage, "/tf_static", STATIC)
        self._publisher = graph.probe.create_publisher(TFMessage, "/tf_static", STATIC)
        self.node = graph.add(CameraTransformsNode(parameter_overrides=overrides(**values)))

    def publish(self, *transforms: tuple[str, str, np.ndarray]) -> None:
        now = time.time()
        self._publisher.publish(TFMessage(transforms=[transform_message(now, *t) for t in transforms]))

    @property
    def tree(self) -> FrameTree:
        made = FrameTree()
        for message in list(self.received):
            for t in message.transforms:
                made.add(t.header.frame_id, t.child_frame_id, transform_from(t))
        return made


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    T_expected = pose(Rotation.from_euler("xyz", [2.0, 0.3, -1.0]).as_matrix(), np.array([0.9, 0.1, 0.6]))
    CameraCalibration(Camera("front", "base", T_expected, 640, 480, 600, 600, 320, 240), Frames("base", OPTICAL)).save(
        tmp_path
    )
    return tmp_path


def test_transform_uses_driver_frames(graph: Graph, calibrated: Path) -> None:
    fixture = TransformsFixture(graph, calibrated, wait=-1.0)
    graph.until(
        graph.reports_fault("camera_transforms", "no publisher of the frame front_color_optical"), "fault not reported"
    )
    assert not fixture.received
    fixture.publish(*DRIVER)
    graph.until(lambda: fixture.tree.parent(LINK), "link not published")
    T_expected = CameraCalibration.load(calibrated / "front.yaml").camera.T_parent_camera
    np.testing.assert_allclose(fixture.tree.T("base", OPTICAL), T_expected, atol=1e-9)
    graph.until(graph.has_no_fault("camera_transforms"), "no OK status")
    late = graph.subscribe(TFMessage, "/tf_static", STATIC)  # late subscriber
    graph.until(lambda: [t for m in late for t in m.transforms if t.child_frame_id == LINK], "not latched")
    fixture.publish(("elsewhere", LINK, np.eye(4)))
    graph.until(
        graph.reports_fault("camera_transforms", "published under elsewhere by another node"),
        "second parent not reported",
    )


def test_optical_frame_is_published_without_driver(graph: Graph) -> None:
    fixture = TransformsFixture(graph, Path("sim"))
    graph.until(lambda: fixture.received, "nothing is published")
    graph.until(graph.has_no_fault("camera_transforms"), "no OK status")
    made = fixture.tree
    for view, parent in {"front": "panda_link0", "wrist": "panda_link8"}.items():
        T_expected = CameraCalibration.load(paths.shared("calibration", "sim", f"{view}.yaml")).camera.T_parent_camera
        assert made.parent(f"{view}_link") == parent
        np.testing.assert_allclose(made.T(parent, f"{view}_color_optical_frame"), T_expected, atol=1e-9)
    fixture.publish(*DRIVER)
    graph.until(graph.reports_fault("camera_transforms", "restart camera_transforms"), "late driver not reported")


def test_camera_with_other_parent_is_not_published(graph: Graph, calibrated: Path) -> None:
    fixture = TransformsFixture(graph, calibrated)
    fixture.publish(*DRIVER, ("base", LINK, np.eye(4)))
    graph.until(
        graph.reports_fault("camera_transforms", "front_link: has a parent already (base)"), "fault not reported"
    )
    time.sleep(0.5)
    assert all(len(message.transforms) == 3 for message in fixture.received)


def test_only_views_of_parameter_are_published(graph: Graph) -> None:
    fixture = TransformsFixture(graph, Path("sim"), views=["front", "wrist"])
    graph.until(lambda: fixture.received, "nothing is published")
    graph.until(graph.has_no_fault("camera_transforms"), "no OK status")
    assert fixture.tree.parent("wrist_link") and not fixture.tree.parent("left_shoulder_link")
    with pytest.raises(GenimaError, match="no calibration of ceiling"):
        TransformsFixture(graph, Path("sim"), views=["ceiling"])


def test_invalid_calibration_folders_are_rejected(graph: Graph, calibrated: Path, tmp_path: Path) -> None:
    with pytest.raises(GenimaError, match="not found"):
        TransformsFixture(graph, tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(GenimaError, match="no calibration"):
        TransformsFixture(graph, tmp_path / "empty")
    (calibrated / "other.yaml").write_text((calibrated / "front.yaml").read_text())
    with pytest.raises(GenimaError, match="front and other .* have the same frame"):
        TransformsFixture(graph, calibrated, views=["front", "other"])
