"""The live calibrator: a session on disk, the node with its camera and arm, and its automatic mode behind the guard."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import handeye as bench
import numpy as np
import pytest
import rclpy
from domains import free_domain
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros_graph import Graph, overrides
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo as CameraInfoMessage
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.calibration_file import CameraCalibration
from genima.cameras.camera import Parent
from genima.cameras.intrinsics import CameraIntrinsics
from genima.control import command_guard
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import inverse, pose, pose_distance, transform
from genima.types import Joints
from genima_calibration.board_detection import detect
from genima_calibration.calibrator import CalibratorNode
from genima_calibration.closed_form import HandEye
from genima_calibration.hand_eye import calibrate
from genima_calibration.image_feedback import DETECTED, NEXT, ImageFeedback, coverage, picture
from genima_calibration.markerless import RobotImage
from genima_calibration.pose_planner import PosePlanner, TableClearance, forbidden_regions
from genima_calibration.sample_folder import CameraInfo, load_samples, sample_names
from genima_calibration.session import Session
from genima_calibration.stationary_detector import StationaryDetector
from genima_interfaces.msg import CalibratorStatus
from genima_interfaces.srv import DropSample, SelectSource
from genima_nodes.command_guard import CommandGuardNode
from genima_nodes.ros import messages, qos
from genima_nodes.ros.transform_messages import transform_from

PANDA = RobotModel.load("panda")
BOARD = bench.BOARD
LENS = CameraIntrinsics(480, 360, 457.0, 459.0, 242.0, 178.5, (0.11, -0.24, 0.0008, -0.0006, 0.09))
FRAME = "front_color_optical_frame"
SLOW = 0.1  # of the arm's speed
PER_METRE, MARGIN = 2500.0, 0.02  # px/m, m of the drawn board


class Camera:
    """Simulated camera: a board on a grey background, with noise."""

    def __init__(self) -> None:
        self._paper = cv2.GaussianBlur(BOARD.image(PER_METRE, MARGIN)[..., 0], (0, 0), 2.0)
        u, v = np.meshgrid(np.arange(LENS.width) + 0.5, np.arange(LENS.height) + 0.5)
        rays = cv2.undistortPoints(np.stack([u, v], -1).reshape(-1, 1, 2), LENS.K, np.array(LENS.distortion))
        self._rays = np.column_stack([rays.reshape(-1, 2), np.ones(u.size)]).astype(np.float32)
        self._shape = u.shape
        self._last: tuple[np.ndarray, np.ndarray] | None = None  # pose and image without noise
        self._rng = np.random.default_rng(0)

    def image(self, T_camera_board: np.ndarray) -> np.ndarray:
        if self._last is None or not np.array_equal(self._last[0], T_camera_board):
            rays = self._rays @ T_camera_board[:3, :3].astype(np.float32)
            eye = inverse(T_camera_board)[:3, 3].astype(np.float32)
            at = (eye[:2] - eye[2] * rays[:, :2] / rays[:, 2:] + MARGIN) * PER_METRE - 0.5
            x, y = (np.ascontiguousarray(at[:, i].reshape(self._shape)) for i in (0, 1))
            shades = cv2.remap(self._paper, x, y, cv2.INTER_LINEAR, borderValue=90)
            self._last = T_camera_board, 40 + np.float32(0.7) * shades
        image = self._last[1] + 2 * self._rng.standard_normal(self._shape, np.float32)
        return cv2.cvtColor(np.clip(image, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2RGB)


def hand_eye_truth(parent: Parent) -> HandEye:
    """Return poses of camera and board with the board in the middle of the image at the arm's home."""
    return bench.around(PANDA, parent, PANDA.home, np.random.default_rng(3))


def camera_info() -> CameraInfoMessage:
    message = CameraInfoMessage(**LENS.camera("front", "base", np.eye(4)).camera_info())
    message.header.frame_id = FRAME
    return message


INFO = CameraInfo.of(camera_info())


class Cell(Node):
    """Arm that reaches commands at once, and a camera."""

    def __init__(self, at: HandEye, without_info: bool = False) -> None:
        super().__init__("cell")
        self.at, self.positions, self.frame, self.info = at, PANDA.home.copy(), FRAME, camera_info()
        self.names = list(PANDA.joint_names)
        self.board_hidden = self.silent = self.vibrating = self.joints_silent = False
        self.without_info = without_info
        self.commands: list[JointState] = []
        self._camera = Camera()
        self._images = self.create_publisher(ImageMessage, "cameras/front/color/image_raw", qos.IMAGE)
        self._infos = self.create_publisher(CameraInfoMessage, "cameras/front/color/camera_info", qos.IMAGE)
        self._states = self.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self.create_subscription(JointState, "joint_command", self._on_command, qos.JOINT_COMMAND)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._publish_joints, self._publish_images)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _on_command(self, message: JointState) -> None:
        self.commands.append(message)
        self.positions = np.array(message.position[: len(PANDA.joint_names)])

    def _publish_joints(self) -> None:
        while not self._stop.wait(0.01):
            now = time.time()
            vibrating = 0.005 * np.sin(20 * now) * self.vibrating
            message = messages.joints_message(Joints(now, self.positions + vibrating, 0.1), PANDA)
            message.name = [*self.names, PANDA.gripper_joint]
            if not self.joints_silent:
                self._states.publish(message)

    def _publish_images(self) -> None:
        while not self._stop.wait(0.1):
            stamp, T = time.time(), self.at.T_camera_board(PANDA, self.positions)
            if self.board_hidden:
                T = T @ pose(np.eye(3), np.array([5.0, 0, 0]))
            message = messages.image_message(self._camera.image(T), stamp, self.frame)
            if not self.silent:
                self._images.publish(message)
            if not self.without_info:
                self._infos.publish(self.info)


class CalibratorFixture:
    """Calibrator node with a cell, and clients of its services."""

    def __init__(
        self, graph: Graph, folder: Path, parent: Parent = "base", guard: bool = False, without_info: bool = False,
        **changes: Any,
    ) -> None:  # fmt: skip
        self.graph, self.folder = graph, folder
        self.at = hand_eye_truth(parent)
        self.cell: Cell = graph.add(Cell(self.at, without_info))
        self.node: CalibratorNode = graph.add(
            CalibratorNode(parameter_overrides=parameters(folder, parent=parent, **changes))
        )
        if guard:
            graph.add(CommandGuardNode())
        self.statuses = graph.subscribe(CalibratorStatus, "calibrator/status", qos.STATUS)

    def until(
        self, condition: Callable[[CalibratorStatus], Any], otherwise: str, seconds: float = 20.0
    ) -> CalibratorStatus:
        """Return the first new status that meets a condition."""
        self.statuses.clear()
        deadline = time.monotonic() + seconds
        while not (matching := [status for status in list(self.statuses) if condition(status)]):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{otherwise}: {self.statuses[-1:]}")
            time.sleep(0.02)
        return matching[0]

    def problem(self, expected: str) -> CalibratorStatus:
        return self.until(lambda s: expected in s.problem, f"problem not reported: {expected!r}")

    def ready(self) -> CalibratorStatus:
        """Return the first status that is ready for a sample of a new image."""
        now = time.time()
        return self.until(
            lambda s: not s.problem and messages.seconds(s.header.stamp) > now, "the calibrator is not ready"
        )

    def call(self, name: str) -> Trigger.Response:
        return self.graph.call(Trigger, f"calibrator/{name}", Trigger.Request())

    def drop(self, name: str = "") -> DropSample.Response:
        return self.graph.call(DropSample, "calibrator/drop", DropSample.Request(name=name))

    def auto(self, on: bool = True) -> SetBool.Response:
        return self.graph.call(SetBool, "calibrator/auto", SetBool.Request(data=on))

    def take(self) -> None:
        self.ready()
        response = self.call("take")
        assert response.success, response.message

    def take_samples(self, count: int) -> None:
        """Move the arm to poses with a visible board, and take a sample at each."""
        _, positions = visible_poses(cast(Parent, self.node.session.parent))
        for self.cell.positions in positions[:count]:
            self.take()


def parameters(folder: Path, **changes: Any) -> list[Parameter]:
    defaults = {
        "view": "front",
        "parent": "base",
        "samples": str(folder / "samples"),
        "calibration": str(folder / "out"),
    }
    return overrides(**(defaults | {"settle": 0.1} | changes))


@pytest.fixture
def patient_graph(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    """As ``graph``, with longer timeouts of the guard: all nodes run in this process, which may be slow."""
    yield from guarded_graph(monkeypatch, late=3.0, lost=6.0)


@pytest.fixture
def strict_graph(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    """As ``patient_graph`` with shorter timeouts."""
    yield from guarded_graph(monkeypatch, late=0.6, lost=0.9)


def guarded_graph(monkeypatch: pytest.MonkeyPatch, late: float, lost: float) -> Iterator[Graph]:
    """Yield a graph with timeouts of the guard beyond a robot's limits."""
    for name, value in {"late": late, "lost": lost}.items():
        monkeypatch.setitem(command_guard._MAXIMA, name, value)
    line = ["python", "--ros-args", "-p", f"late:={late}", "-p", f"lost:={lost}"]
    rclpy.init(args=line, domain_id=free_domain())
    graph = Graph()
    yield graph
    graph.close()


def visible_poses(parent: Parent) -> tuple[HandEye, np.ndarray]:
    """Return the true poses of a cell, and joints (K, 7) with the board in view."""
    at, rng = hand_eye_truth(parent), np.random.default_rng(1)
    positions = PANDA.home + rng.uniform(-0.35, 0.35, (300, 7)) * [0.3, 0.3, 0.3, 0.6, 1, 1, 1]
    return at, positions[in_view(at.T_camera_board(PANDA, positions))]


def in_view(T_camera_board: np.ndarray) -> np.ndarray:
    width, height = BOARD.size
    corners = np.array([[0, 0, 0], [width, 0, 0], [width, height, 0], [0, height, 0]])
    pixels = LENS.project(transform(T_camera_board, corners))
    return np.all((pixels > 15) & (pixels < [LENS.width - 15, LENS.height - 15]), axis=(1, 2))


# A session without ROS.


@pytest.fixture(scope="module")
def recording() -> list[tuple[np.ndarray, Joints]]:
    """Images of a camera on the base, with their joints."""
    at, positions = visible_poses("base")
    camera = Camera()
    return [(camera.image(at.T_camera_board(PANDA, q)), Joints(float(i), q, 1.0)) for i, q in enumerate(positions[:8])]


def record_session(folder: Path, recording: list[tuple[np.ndarray, Joints]], count: int = 8) -> Session:
    session = Session(folder, "front", "base", BOARD, PANDA)
    for image, joints in recording[:count]:
        session.take(image, INFO, joints, detect(image, BOARD, LENS))
    return session


@pytest.mark.any_pace
def test_other_board_is_reported_with_its_fields(graph: Graph, tmp_path: Path) -> None:
    file = tmp_path / "board.yaml"
    replace(BOARD, columns=5, rows=7).save(file)
    calibrator = CalibratorFixture(graph, tmp_path, board=str(file), base_frame="left_panda_link0")
    calibrator.problem("markers of DICT_5X5_50 are visible")
    calibrator.problem("write in its file: columns: 7, rows: 5")
    assert "board: not detected" in calibrator.call("take").message


def test_session_continues_after_crash(tmp_path: Path, recording: Any) -> None:
    session = record_session(tmp_path, recording)
    result = session.compute(session.samples, INFO)
    assert result.calibration is not None, result.text
    distance, angle = pose_distance(result.calibration.camera.T_parent_camera, hand_eye_truth("base").T_parent_camera)
    assert distance < 3e-3 and angle < np.radians(0.3)
    assert result.samples == tuple(f"{i:04d}" for i in range(1, 9)) and result.next_pose is not None
    (tmp_path / "0009.png").write_bytes(b"a crash while it was written")
    again = Session(tmp_path, "front", "base", BOARD, PANDA)
    assert again.names == session.names and again.info == INFO and again.coverage == session.coverage
    repeated = again.compute(again.samples, INFO).calibration
    assert repeated is not None
    np.testing.assert_array_equal(repeated.camera.T_parent_camera, result.calibration.camera.T_parent_camera)
    assert again.drop() == "0008" and again.drop("0003") == "0003" and len(sample_names(tmp_path)) == 6
    assert again.take(*recording[7][:1], INFO, recording[7][1], detect(recording[7][0], BOARD, LENS)) == "0008"
    with pytest.raises(GenimaError, match="sample 0099: does not exist; there are 0001, 0002, 0004"):
        again.drop("0099")


def test_few_samples_are_reported(tmp_path: Path, recording: Any) -> None:
    session = record_session(tmp_path, recording, 3)
    assert "samples: too few (3)" in session.compute(session.samples, INFO).text
    assert session.find_same_pose(Joints(9.0, recording[1][1].positions + 0.005, 1.0)) == "0002"
    assert session.find_same_pose(Joints(9.0, recording[1][1].positions + 0.1, 1.0)) is None


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"view": "wrist"}, "samples of view front, not wrist; use a folder for each"),
        (
            {"board": CalibrationBoard("charuco", 6, 5, 0.036, 0.027, "5X5_50")},
            "sample 0001 in .*: cannot be used",
        ),
        ({"robot": RobotModel.load("fr3")}, r"sample 0001: joints missing \(fr3_joint1"),
    ],
)
def test_folder_of_other_samples_is_rejected(tmp_path: Path, recording: Any, changed: Any, expected: str) -> None:
    record_session(tmp_path, recording, 1)
    with pytest.raises(GenimaError, match=expected):
        Session(**{"folder": tmp_path, "view": "front", "parent": "base", "board": BOARD, "robot": PANDA} | changed)


def test_samples_of_two_cameras_are_rejected(tmp_path: Path, recording: Any) -> None:
    session = record_session(tmp_path, recording, 1)
    with pytest.raises(GenimaError, match="of another camera or resolution"):
        session.require_camera(replace(INFO, width=640))


def test_arm_is_stationary_after_settling() -> None:
    detector = StationaryDetector(tolerance=1e-3, settle=0.3)
    assert not detector.covers(0.0)
    for i in range(100):  # a fifth of the tolerance as noise, and a motion from 0.4 to 0.5 s
        noise = 2e-4 * np.sin(i)
        detector.update(Joints(0.01 * i, PANDA.home + noise + 0.01 * np.clip(i - 40, 0, 10), 1.0))
        assert detector.covers(0.01 * i) == (30 <= i <= 40 or i >= 80)
    assert not detector.covers(0.7)  # an image from before the arm settled
    detector.update(Joints(0.1, PANDA.home, 1.0))  # the clock was set back
    assert not detector.covers(0.2)


def test_image_feedback_measures_and_draws_board() -> None:
    turn = Rotation.from_euler("zx", [0.3, 0.4])
    T = pose(turn.as_matrix(), np.array([0, 0, 0.6]) - turn.apply([*np.array(BOARD.size) / 2, 0]))
    feedback = ImageFeedback.detect(Camera().image(T), 1.0, BOARD, LENS)
    assert feedback.detection is not None and feedback.T_camera_board is not None
    tilt, distance = feedback.board_view(BOARD)
    assert tilt == pytest.approx(0.4, abs=0.01) and distance == pytest.approx(0.6, abs=0.005)
    far = np.array([[*BOARD.size, 0]])  # the corner without the axes
    next_target = T @ pose(np.eye(3), np.array([0.05, 0.0, 0.1]))
    drawn = picture(feedback, BOARD, LENS, [feedback.detection], next_target)
    for shown, colour in ((T, DETECTED), (next_target, NEXT)):
        ((u, v),) = LENS.project(transform(shown, far))
        near = drawn[round(v) - 4 : round(v) + 4, round(u) - 4 : round(u) + 4].astype(int)
        assert np.abs(near - colour).sum(-1).min() < 60
    inner = LENS.project(transform(T, BOARD.points))
    hull = cv2.convexHull(inner.astype(np.float32))
    assert coverage([feedback.detection], LENS) == pytest.approx(cv2.contourArea(hull) / (480 * 360), rel=0.03)
    blank = ImageFeedback.detect(np.full((360, 480, 3), 90, np.uint8), 1.0, BOARD, LENS)
    assert "board: not detected" in blank.problem and np.isnan(blank.board_view(BOARD)).all()
    np.testing.assert_array_equal(picture(blank, BOARD, LENS, [], None), blank.image)


@pytest.fixture(scope="module")
def regions() -> Any:
    return forbidden_regions(PANDA, None, 0.03)


@pytest.mark.parametrize("parent", ["base", "flange"])
def test_planner_avoids_collisions_of_arm_and_board(regions: Any, parent: Parent) -> None:
    planner, present = (
        PosePlanner(PANDA, parent, BOARD, regions, 0.03),
        PANDA.home + np.array([0, -0.05, 0, 0.55, 0, -0.6, 0]),
    )
    for _ in range(5):
        goal = planner.first_pose(present, present)
        trajectory = planner.plan_trajectory(present, goal, 0.3, 0.15)
        along = np.array([trajectory.at(t)[0] for t in np.linspace(0, trajectory.seconds, 50)])
        speeds = np.array([trajectory.at(t)[1] for t in np.linspace(0, trajectory.seconds, 50)])
        assert np.all(np.abs(speeds) <= 0.15 * PANDA.velocity_max + 1e-9) and trajectory.at(0.1)[2] == 0.3
        assert max(region.depth(q) for q in along for region in regions) == 0
        assert np.abs(goal - present).max() > 0.1
        if parent == "base":  # the board is near the tip
            assert PANDA.link_poses(along)[:, -1, 2, 3].min() > 0.03 + np.hypot(*BOARD.size)
    low = PANDA.home + np.array([0, 0.7, 0, 0, 0, 0, 0])
    assert PANDA.link_poses(low)[-1, 2, 3] < 0.03
    with pytest.raises(GenimaError, match="trajectory: not free .the arm would leave its workspace"):
        planner.plan_trajectory(present, low, 1.0, 0.15)
    folded = PANDA.home.copy()
    folded[[3, 5]] = -3.0, 0.1
    with pytest.raises(GenimaError, match="trajectory: not free .the arm would touch itself"):
        planner.plan_trajectory(present, folded, 1.0, 0.15)
    beyond = present.copy()
    beyond[6] = PANDA.position_max[6]
    with pytest.raises(GenimaError, match="end of its range"):
        planner.plan_trajectory(present, beyond, 1.0, 0.15)
    up = planner.plan_trajectory(low, present, 1.0, 0.15)  # an arm that is too low may move up
    assert up.seconds > 0.5


def test_planner_uses_lowest_corner_of_board() -> None:
    points = np.array([[0.0, 0.0, 0.45], [0.1, 0.0, 0.2]])
    below, T = TableClearance(PANDA, points, 0.0, 0.03), PANDA.link_poses(PANDA.home)[-2]
    assert below.depth(PANDA.home) == pytest.approx(0.03 - transform(T, points)[:, 2].min())
    assert TableClearance(PANDA, points, 0.0, -1.0).depth(PANDA.home) == 0


def test_arm_without_meshes_has_no_automatic_mode() -> None:
    with pytest.raises(GenimaError, match="no meshes; use panda or fr3"):
        forbidden_regions(replace(PANDA, dh=PANDA.dh + 0.1, name="other"), None, 0.0)
    with pytest.raises(GenimaError, match="its lowest and its highest corner"):
        forbidden_regions(PANDA, [1.0, 2.0], 0.0)


# The node.


def test_samples_are_taken_computed_and_saved(graph: Graph, tmp_path: Path) -> None:
    calibrator = CalibratorFixture(graph, tmp_path)
    images = graph.subscribe(ImageMessage, "calibrator/image", qos.IMAGE)
    transforms = graph.subscribe(TFMessage, "/tf", qos.STATUS)
    assert "no samples; take some first" in calibrator.call("compute").message
    assert "no result of these samples" in calibrator.call("save").message
    calibrator.take_samples(7)
    rejected = calibrator.call("take")
    assert not rejected.success and "same pose as sample 0007" in rejected.message
    status = calibrator.until(lambda s: s.computed, "no result of these samples")
    assert list(status.samples) == [f"{i:04d}" for i in range(1, 8)] and 0.05 < status.coverage < 1
    assert 0 < status.millimetres < 5 and len(status.next_joints) == 7 and not status.automatic
    assert calibrator.call("compute").message == status.result
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "front.yaml").write_text("what was there")
    assert calibrator.call("save").success
    (former,) = (tmp_path / "out").glob("front.yaml.*")
    assert former.read_text() == "what was there"
    saved = CameraCalibration.load(tmp_path / "out" / "front.yaml")
    assert saved.frames is not None and (saved.frames.parent, saved.frames.camera) == ("panda_link0", FRAME)
    distance, angle = pose_distance(saved.camera.T_parent_camera, calibrator.at.T_parent_camera)
    assert distance < 5e-3 and angle < np.radians(0.5)
    raw = list(load_samples(tmp_path / "samples", sample_names(tmp_path / "samples")))
    assert RobotImage.of(raw[0], PANDA).joints.gripper == pytest.approx(0.1)
    offline = calibrate([one.detected(BOARD, PANDA) for one in raw], BOARD, raw[0].info.intrinsics, PANDA, "base")
    np.testing.assert_allclose(offline.fit.hand_eye.T_parent_camera, saved.camera.T_parent_camera, atol=1e-9)

    board_transform = transforms[-1].transforms[0]
    assert (board_transform.header.frame_id, board_transform.child_frame_id) == (FRAME, "front_board")
    T = calibrator.at.T_camera_board(PANDA, calibrator.cell.positions)
    metres, angle = pose_distance(transform_from(board_transform), T)
    assert metres < 0.01 and angle < np.radians(2)
    shown = messages.image_from(images[-1])
    assert shown.shape == (LENS.height + 3 * 18, LENS.width, 3)
    assert np.abs(shown.astype(int) - DETECTED).sum(-1).min() < 60

    assert calibrator.drop("0002").success and calibrator.drop().message == "sample 0007: dropped"
    assert "sample 0002: does not exist" in calibrator.drop("0002").message
    calibrator.until(lambda s: s.computed and len(s.samples) == 5, "the remaining samples are not computed")
    graph.until(graph.has_no_fault("calibrator"), "no OK status")
    assert calibrator.call("clear").message == "5 samples: dropped"
    calibrator.until(lambda s: not s.samples and not s.computed and not s.result, "the samples are not cleared")


def test_sample_needs_stationary_arm_and_detected_board(graph: Graph, tmp_path: Path) -> None:
    calibrator = CalibratorFixture(graph, tmp_path)
    cell = calibrator.cell
    calibrator.ready()
    cell.board_hidden = True
    calibrator.problem("board: not detected")
    assert not calibrator.call("take").success
    cell.board_hidden = False
    calibrator.ready()
    cell.vibrating = True
    calibrator.problem("the arm is not stationary")
    assert "the arm is not stationary" in calibrator.call("take").message
    cell.vibrating = False
    calibrator.ready()
    cell.names = [name.replace("panda", "fr3") for name in PANDA.joint_names]
    calibrator.problem("joints missing (panda_joint1")
    cell.names = list(PANDA.joint_names)
    calibrator.ready()
    cell.frame = "wrist_color_optical_frame"
    calibrator.problem("remap the topics")
    cell.frame = FRAME
    calibrator.ready()
    cell.silent = True
    calibrator.problem("no image on /cameras/front/color/image_raw")
    graph.until(graph.reports_fault("calibrator", "no image on"), "no fault")
    assert calibrator.call("take").success is False and not (tmp_path / "samples").exists()


def test_sample_needs_camera_info(graph: Graph, tmp_path: Path) -> None:
    calibrator = CalibratorFixture(graph, tmp_path, without_info=True)
    calibrator.problem("no camera_info on /cameras/front/color/camera_info")
    assert not calibrator.call("take").success
    calibrator.cell.info.k[:] = 0.0
    calibrator.cell.without_info = False
    calibrator.problem("camera_info: no intrinsics")


@pytest.mark.any_pace
def test_restarted_node_continues(graph: Graph, tmp_path: Path, recording: Any) -> None:
    record_session(tmp_path / "samples", recording)
    calibrator = CalibratorFixture(graph, tmp_path)
    status = calibrator.until(lambda s: s.computed, "no result of these samples")
    assert len(status.samples) == 8
    with pytest.raises(GenimaError, match="samples of view front, not wrist"):
        CalibratorNode(parameter_overrides=parameters(tmp_path, view="wrist"))


@pytest.mark.any_pace
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"parent": ""}, "parent is ''; it must be one of base, flange"),
        ({"board": "nowhere.yaml"}, "board nowhere.yaml does not exist"),
        ({"cell": "nobody"}, "nobody.yaml"),
        ({"speed": 2.0}, "speed is 2.0"),
        ({"most": 3}, "most is 3"),
    ],
)
def test_invalid_parameters_are_rejected(graph: Graph, tmp_path: Path, changes: Any, expected: str) -> None:
    with pytest.raises(GenimaError, match=expected):
        CalibratorNode(parameter_overrides=parameters(tmp_path, **changes))


# Automatic mode


@pytest.mark.parametrize("parent", ["base", pytest.param("flange", marks=pytest.mark.nightly)])
def test_automatic_mode_ends_when_accurate(patient_graph: Graph, tmp_path: Path, parent: Parent) -> None:
    """A camera on the flange is calibrated by `test_calibrate.py`, in processes."""
    calibrator = CalibratorFixture(
        patient_graph, tmp_path, parent, guard=True, speed=1.0, most=9, millimetres=1.0, degrees=0.1
    )
    calibrator.ready()
    assert not calibrator.cell.commands  # no motion before the start
    response = calibrator.auto()
    assert response.success, response.message
    assert "already running" in calibrator.auto().message
    status = calibrator.until(lambda s: s.automatic in (s.DONE, s.FAILED), "automatic mode does not end", seconds=60)
    assert status.automatic_text.startswith("done") and 5 <= len(status.samples) <= 9, status.automatic_text
    found = calibrator.node.result().calibration
    distance, angle = pose_distance(found.camera.T_parent_camera, calibrator.at.T_parent_camera)
    assert distance < 5e-3 and angle < np.radians(0.4)
    command_positions = np.array([message.position for message in calibrator.cell.commands])
    assert np.ptp(command_positions[:, 7]) < 0.02  # the gripper does not move
    stamps = np.array([messages.seconds(message.header.stamp) for message in calibrator.cell.commands])
    assert np.all(
        np.abs(np.diff(command_positions[:, :7], axis=0)) <= PANDA.velocity_max * np.diff(stamps)[:, None] + 1e-3
    )
    patient_graph.until(patient_graph.has_no_fault("calibrator"), "no OK status")
    assert "not running" in calibrator.auto(False).message


@pytest.mark.real_time
def test_automatic_mode_continues_after_late_commands(strict_graph: Graph, tmp_path: Path) -> None:
    """The guard holds the arm while commands are late; then automatic mode continues with its samples."""
    calibrator = CalibratorFixture(strict_graph, tmp_path, guard=True, speed=SLOW)
    commands = strict_graph.subscribe(JointState, "calibrator/command", qos.SOURCE_COMMAND)
    calibrator.ready()
    assert calibrator.auto().success

    def wait_for_motion() -> None:
        calibrator.until(lambda s: "moving" in s.automatic_text, "the arm does not move")

    def wait_for_sample() -> None:
        count = len(calibrator.node.session.names)
        calibrator.until(lambda s: len(s.samples) > count, "automatic mode does not continue", seconds=30)

    wait_for_motion()
    with calibrator.node._arm._lock:  # delays the publishing thread
        strict_graph.until(strict_graph.reports_fault("command_guard", "commands have stopped"), "the arm is not held")
    wait_for_sample()
    stamps = np.array([messages.seconds(command.header.stamp) for command in commands])
    longest = int(np.diff(stamps).argmax())
    before, after = (np.array(commands[i].position[:7]) for i in (longest, longest + 1))
    assert np.diff(stamps)[longest] > 0.8
    assert np.all(np.abs(after - before) < 0.1 * SLOW * PANDA.velocity_max)  # the motion does not catch up

    wait_for_motion()
    calibrator.cell.joints_silent = True
    strict_graph.until(strict_graph.reports_fault("command_guard", "joint states have stopped"), "the arm is not held")
    calibrator.cell.joints_silent = False
    wait_for_sample()
    strict_graph.until(strict_graph.has_no_fault("calibrator"), "no OK status")

    wait_for_motion()
    calibrator.cell.joints_silent = True
    status = calibrator.until(lambda s: s.automatic == s.FAILED, "automatic mode does not end")
    assert "joint_states" in status.automatic_text and len(status.samples) >= 3
    strict_graph.until(strict_graph.reports_fault("calibrator", "ended, holding"), "no fault")
    assert sample_names(tmp_path / "samples") == status.samples


def test_operator_and_guard_end_automatic_mode(patient_graph: Graph, tmp_path: Path) -> None:
    calibrator = CalibratorFixture(patient_graph, tmp_path, guard=True, speed=0.2)
    calibrator.ready()

    def begin() -> None:
        assert calibrator.auto().success
        calibrator.until(lambda s: "moving" in s.automatic_text, "the arm does not move")

    begin()
    assert calibrator.auto(False).success
    calibrator.until(lambda s: s.automatic == s.CANCELLED, "automatic mode does not end")
    patient_graph.until(patient_graph.has_no_fault("calibrator"), "a requested end is reported as a fault")
    begin()
    calibrator.graph.call(Trigger, "command_guard/stop", Trigger.Request())
    calibrator.until(
        lambda s: "stop requested" in s.automatic_text and s.automatic == s.FAILED, "automatic mode does not end"
    )
    patient_graph.until(patient_graph.reports_fault("calibrator", "stop requested"), "no fault")
    calibrator.graph.call(Trigger, "command_guard/resume", Trigger.Request())
    begin()
    calibrator.graph.call(SelectSource, "command_guard/select", SelectSource.Request(source="teleop"))
    calibrator.until(lambda s: "the owner of the arm is teleop" in s.automatic_text, "automatic mode does not end")
    stopped_at = calibrator.cell.positions
    time.sleep(0.3)
    np.testing.assert_allclose(calibrator.cell.positions, stopped_at, atol=1e-3)


def test_automatic_mode_reports_why_it_cannot_start(patient_graph: Graph, tmp_path: Path) -> None:
    calibrator = CalibratorFixture(patient_graph, tmp_path)
    calibrator.ready()
    assert calibrator.auto().success
    calibrator.until(
        lambda s: "command_guard/select: service not available" in s.automatic_text, "automatic mode does not end"
    )
    calibrator.cell.board_hidden = True
    calibrator.problem("board: not detected")
    assert "first move the arm to where the camera sees it" in calibrator.auto().message
    assert not calibrator.cell.commands
