"""Simulated calibration: board poses in images, realistic cameras, boards printed to scale."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rclpy
from domains import free_domain
from ros_graph import Graph
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage
from simulated_calibration import CalibrationSetup, CalibrationWorkcell, Sensor, delay_images, rotate_images

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.camera import Camera
from genima.cameras.intrinsics import CameraIntrinsics
from genima.control.collision import SelfCollision
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import inverse, pose_distance
from genima.targets import Appearance, place_spheres
from genima.types import Image
from genima_calibration.board_detection import Detection, detect
from genima_calibration.board_printing import DPI, RULER, print_board
from genima_calibration.hand_eye import calibrate, calibration
from genima_calibration.samples import Sample
from genima_nodes.ros import qos
from genima_sim.mounted_board import MountedBoard
from genima_sim.rendering import SceneRenderer
from genima_sim.sim_node import SimNode
from genima_sim.simulation import Simulation

SAMPLES = 15
SEEDS = range(2)


@pytest.fixture(scope="module")
def board() -> CalibrationBoard:
    return CalibrationBoard.load(paths.shared("calibration", "boards", "charuco_7x5_a4.yaml"))


@pytest.fixture(scope="module", params=["base", "flange"])
def workcell(board: CalibrationBoard, request: pytest.FixtureRequest) -> Iterator[CalibrationWorkcell]:
    workcell = CalibrationWorkcell(board, request.param)
    yield workcell
    workcell.close()


@pytest.fixture(scope="module")
def setups(workcell: CalibrationWorkcell) -> list[CalibrationSetup]:
    return [workcell.random_setup(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def images(workcell: CalibrationWorkcell, setups: list[CalibrationSetup]) -> list[Image]:
    """Images of the first set-up."""
    return workcell.images(setups[0])


def select_samples(setup: CalibrationSetup, *which: int) -> CalibrationSetup:
    """Return a set-up with some of the samples."""
    return replace(setup, positions=setup.positions[[*which]], T_carrier_board=setup.T_carrier_board[[*which]])


def errors(setup: CalibrationSetup, images: Sequence[Image]) -> list[np.ndarray]:
    """Return the errors in px (M, 2) of the detected points of each image."""
    detections = [detect(image, setup.board, setup.intrinsics) for image in images]
    return [one.pixels - truth[one.ids] for one, truth in zip(detections, setup.pixels, strict=True)]


def test_clean_images_match_true_board_pose(workcell: CalibrationWorkcell, setups: list[CalibrationSetup]) -> None:
    setup = replace(select_samples(setups[1], *range(6)), sensor=Sensor(blur=0.0, noise=0.0))
    pixel_errors = np.concatenate(errors(setup, workcell.images(setup)))
    assert len(pixel_errors) > 0.8 * 6 * len(setup.board.points)
    assert np.abs(pixel_errors.mean(0)).max() < 0.02  # no subpixel offset
    assert np.sqrt((pixel_errors**2).mean()) < 0.1


def test_points_are_unbiased_with_blur_and_noise(setups: list[CalibrationSetup], images: list[Image]) -> None:
    pixel_errors = errors(setups[0], images)
    assert min(map(len, pixel_errors)) >= 8
    all_errors = np.concatenate(pixel_errors)
    assert np.abs(all_errors.mean(0)).max() < 0.03
    assert 0.01 < np.sqrt((all_errors**2).mean()) < 0.15


def test_images_have_distortion_and_noise_and_are_reproducible(
    workcell: CalibrationWorkcell, setups: list[CalibrationSetup], images: list[Image]
) -> None:
    setup = select_samples(setups[0], 0, 1)
    np.testing.assert_array_equal(images[:2], workcell.images(setup))
    assert images[0].shape == (480, 640, 3) and images[0].dtype == np.uint8
    noiseless = replace(select_samples(setup, 0), sensor=Sensor(noise=0.0))
    grain = workcell.images(noiseless)[0].astype(float)
    exposure = images[0].mean() / grain.mean()
    assert 0.7 < exposure < 1.15
    assert 1.0 < np.std(images[0] - exposure * grain) < 4.0
    undistorted = [replace(one, intrinsics=replace(one.intrinsics, distortion=(0.0,) * 5)) for one in setups]
    bent = [np.abs(one.pixels - other.pixels).max() for one, other in zip(setups, undistorted, strict=True)]
    assert max(bent) > 2.0  # px


def test_every_setup_has_its_own_valid_poses(setups: list[CalibrationSetup], robot: RobotModel) -> None:
    self_collision = SelfCollision(robot)
    for setup in setups:
        assert setup.positions.shape == (SAMPLES, 7)
        assert np.all((setup.positions > robot.position_min) & (setup.positions < robot.position_max))
        assert not any(self_collision.depth(positions) for positions in setup.positions)
        assert setup.pixels.min() > 0 and np.all(setup.pixels < [640, 480])
        turns = Rotation.from_matrix(robot.link_poses(setup.positions)[:, -2, :3, :3])
        between = [(a * b.inv()).as_rotvec() for a, b in itertools.combinations(turns, 2)]
        assert np.degrees(np.linalg.norm(between, axis=1)).max() > 90
        axes = np.array([turn / np.linalg.norm(turn) for turn in between])
        assert np.linalg.svd(axes, compute_uv=False)[-1] > 0.2 * np.sqrt(len(axes))  # about all three axes
    for one, other in itertools.combinations(setups, 2):
        assert not np.allclose(one.T_parent_camera, other.T_parent_camera, atol=1e-3)
        assert not np.allclose(one.T_carrier_board, other.T_carrier_board, atol=1e-3)
        assert one.intrinsics != other.intrinsics


def test_setup_is_reproducible(workcell: CalibrationWorkcell, setups: list[CalibrationSetup]) -> None:
    again = workcell.random_setup(1, samples=4)
    np.testing.assert_array_equal(again.positions, setups[1].positions[:4])
    np.testing.assert_array_equal(again.T_parent_camera, setups[1].T_parent_camera)
    np.testing.assert_array_equal(again.noisy_joints(0.1), setups[1].noisy_joints(0.1)[:4])
    noise = np.degrees(setups[1].noisy_joints(0.1) - setups[1].positions)
    assert 0.07 < noise.std() < 0.13
    np.testing.assert_array_equal(again.noisy_joints(0.0), again.positions)


def test_outliers_differ_from_truth(
    workcell: CalibrationWorkcell, setups: list[CalibrationSetup], images: list[Image]
) -> None:
    setup = setups[0]
    displaced = setup.displace_board([3])
    assert np.linalg.norm(displaced.pixels - setup.pixels, axis=-1)[[0, 1, 2, 4]].max() == 0
    sample_images = [*images[:3], *workcell.images(select_samples(displaced, 3)), images[4]]
    assert np.abs(np.concatenate(errors(select_samples(displaced, *range(5)), sample_images))).max() < 1.0
    for changed_images, which in (
        (sample_images, 3),
        (rotate_images(sample_images, [1]), 1),
        (delay_images(sample_images, [2]), 2),
    ):
        detection = detect(changed_images[which], setup.board, setup.intrinsics)
        assert np.median(np.linalg.norm(detection.pixels - setup.pixels[which, detection.ids], axis=1)) > 5.0  # px
        assert changed_images[4] is sample_images[4]


def sphere_centres(camera: Camera, robot: RobotModel, q: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the centres in px (S, 2) of the target's spheres; NaN behind the camera."""
    placed = place_spheres(camera, robot, Appearance(), target, True, q)
    return CameraIntrinsics.of(camera).project(np.array([sphere.centre for sphere in placed]))


def test_spheres_match_truth_with_estimated_calibration(
    setups: list[CalibrationSetup], images: list[Image], robot: RobotModel
) -> None:
    """Rectified images of 256 x 256 from rendered ones with noise, blur and distortion, and noisy joints."""
    setup, view = setups[0], {"base": "front", "flange": "wrist"}[setups[0].parent]
    joints = setup.noisy_joints(degrees=0.02)
    samples = [
        Sample(f"{i:02d}", joints[i], detect(image, setup.board, setup.intrinsics)) for i, image in enumerate(images)
    ]
    outcome = calibrate(samples, setup.board, setup.intrinsics, robot, setup.parent)
    estimated = calibration(outcome, view, setup.board, "2026-11-22").camera
    truth = setup.intrinsics.camera(view, setup.parent, setup.T_parent_camera)
    metres, angle = pose_distance(estimated.T_parent_camera, truth.T_parent_camera)
    assert metres < 3e-3 and angle < np.radians(0.3)
    rng, pixel_errors, raw = np.random.default_rng(0), list[float](), list[float]()
    for q in setup.positions:
        for target in np.clip(q + rng.uniform(-0.3, 0.3, (20, 7)), robot.position_min, robot.position_max):
            true_pixels = sphere_centres(truth.crop_square(256), robot, q, target)
            inside = np.all((true_pixels > 0) & (true_pixels < 256), axis=1)
            estimated_pixels = sphere_centres(estimated.crop_square(256), robot, q, target)
            pixel_errors += np.linalg.norm(estimated_pixels - true_pixels, axis=1)[inside].tolist()
            bent = sphere_centres(truth, robot, q, target)  # with distortion, as before the rectification
            undistorted = sphere_centres(replace(truth, distortion=(0.0,) * 5), robot, q, target)
            raw += (np.linalg.norm(bent - undistorted, axis=1)[inside] * 256 / 480).tolist()
    assert len(pixel_errors) > 60
    assert max(pixel_errors) < 1.5
    assert max(raw) > max(pixel_errors)  # the error without rectification is larger


def test_bad_setups_are_rejected_in_one_line(
    workcell: CalibrationWorkcell, setups: list[CalibrationSetup], board: CalibrationBoard
) -> None:
    with pytest.raises(GenimaError, match="-1 is negative"):
        workcell.random_setup(-1)
    with pytest.raises(GenimaError, match="base or flange, not 'hand'"):
        CalibrationWorkcell(board, "hand")  # type: ignore[arg-type]
    with pytest.raises(GenimaError, match="640x480 px, not 1280x720 px"):
        workcell.images(replace(setups[0], intrinsics=CameraIntrinsics(1280, 720, 900, 900, 640, 360)))
    with pytest.raises(GenimaError, match="rays outside the render"):
        workcell.images(replace(setups[0], intrinsics=replace(setups[0].intrinsics, distortion=(-0.5, 0, 0, 0, 0))))


def test_too_large_board_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulated_calibration.workcell._ATTEMPTS", 200)
    workcell = CalibrationWorkcell(CalibrationBoard("charuco", 12, 9, 0.08, 0.06, "5X5_100"), "flange")
    try:
        with pytest.raises(GenimaError, match="found 0 of 15 samples"):
            workcell.random_setup(0)
    finally:
        workcell.close()


# Simulator node.


def detect_board(simulation: Simulation, board: CalibrationBoard, view: str) -> tuple[Detection, np.ndarray]:
    """Return the board's detection in a view, and its true points (M, 2) px."""
    mounted = simulation.board
    assert mounted is not None
    renderer = SceneRenderer(simulation.model, simulation.cameras)
    try:
        image = renderer.render(simulation.qpos(), simulation.model)[view]
    finally:
        renderer.close()
    camera, positions = simulation.cameras[view], simulation.joints().positions
    T_base_board = mounted.T_parent_board
    if mounted.place == "gripper":
        T_base_board = simulation.robot.link_poses(positions)[-2] @ T_base_board
    T_camera_board = inverse(camera.T_base_camera(simulation.robot, positions)) @ T_base_board
    detection, intrinsics = detect(image, board, CameraIntrinsics.of(camera)), CameraIntrinsics.of(camera)
    return detection, intrinsics.project(detection.points @ T_camera_board[:3, :3].T + T_camera_board[:3, 3])


def test_simulator_with_board_on_table_has_no_task_objects(board: CalibrationBoard) -> None:
    simulation = Simulation(board=MountedBoard.at(board, "table"))
    simulation.reset("take_lid_off_saucepan", 4)
    detection, truth = detect_board(simulation, board, "wrist")
    assert len(detection.ids) >= 12
    assert np.abs(detection.pixels - truth).mean() < 0.3
    assert not simulation.bodies()


def test_board_in_gripper_moves_with_flange(board: CalibrationBoard) -> None:
    simulation = Simulation(board=MountedBoard.at(board, "gripper"))
    places = []
    for turn in (0.0, 0.4):
        simulation.reset("push_button", 0)
        positions = simulation.joints().positions + [0, 0, 0, 0, 0, 0, turn]
        simulation.command(positions, 0.0)
        simulation.step(1.5)
        np.testing.assert_allclose(simulation.joints().positions, positions, atol=3e-3)  # no contact
        detection, truth = detect_board(simulation, board, "left_shoulder")
        assert len(detection.ids) >= 12
        assert np.abs(detection.pixels - truth).mean() < 0.3
        places.append(truth.mean(0))
    assert np.linalg.norm(places[1] - places[0]) > 3  # px
    assert simulation.joints().gripper < 0.1


def test_unknown_board_place_is_rejected(board: CalibrationBoard) -> None:
    with pytest.raises(GenimaError, match="unknown place .'ceiling'.; use table or gripper"):
        MountedBoard.at(board, "ceiling")


@contextmanager
def ros_parameters(**parameters: object) -> Iterator[None]:
    """Initialise ROS with parameters on the command line."""
    line = ["python", "--ros-args"]
    for name, value in parameters.items():
        line += ["-p", f"{name}:={value}"]
    rclpy.init(args=line, domain_id=free_domain())
    try:
        yield
    finally:
        rclpy.try_shutdown()


def test_simulator_node_renders_board(board: CalibrationBoard) -> None:
    with ros_parameters(board="table"):
        graph = Graph()
        try:
            graph.add(SimNode())
            images = graph.subscribe(ImageMessage, "cameras/wrist/color/image_raw", qos.IMAGE)
            infos = graph.subscribe(CameraInfo, "cameras/wrist/color/camera_info", qos.IMAGE)
            graph.until(lambda: images and infos, "no image")
        finally:
            graph.close()
        info, image = infos[0], images[0]
        pixels = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
        intrinsics = CameraIntrinsics.from_camera_info(info.width, info.height, info.distortion_model, info.d, info.k)
        assert len(detect(pixels, board, intrinsics).ids) >= 12


@pytest.mark.parametrize(
    "parameters, expected",
    [
        ({"board": "ceiling"}, "unknown place .'ceiling'.; use table or gripper"),
        ({"board": "table", "board_file": "nowhere.yaml"}, "board nowhere.yaml does not exist"),
    ],
)
def test_unknown_board_is_rejected_by_simulator(parameters: dict[str, str], expected: str) -> None:
    with ros_parameters(**parameters), pytest.raises(GenimaError, match=expected):
        SimNode()


# Printed boards.

BOARDS = [
    (CalibrationBoard("charuco", 7, 5, 0.036, 0.027, "5X5_50"), "A4", (297, 210)),
    (CalibrationBoard("charuco", 5, 7, 0.03, 0.022, "4X4_50"), "A4", (210, 297)),
    (CalibrationBoard("charuco", 9, 6, 0.042, 0.032, "6X6_50"), "A3", (420, 297)),
    (CalibrationBoard("grid", 4, 6, 0.04, 0.03, "APRILTAG_36h11"), "A4", (210, 297)),
]


@pytest.mark.parametrize(("printed", "paper", "size"), BOARDS)
def test_printed_boards_are_to_scale(
    printed: CalibrationBoard, paper: str, size: tuple[int, int], tmp_path: Path
) -> None:
    print_board(printed, tmp_path / "board.png", paper, "a.yaml")
    page = cv2.imread(str(tmp_path / "board.png"), cv2.IMREAD_GRAYSCALE)
    assert page is not None
    per_mm = DPI / 25.4
    np.testing.assert_allclose(page.shape[::-1], np.array(size) * per_mm, atol=1)
    ruler = page[-round(18 * per_mm) :, : round(115 * per_mm)]  # below the board, left of the text
    row = ruler[np.argmax((ruler < 128).sum(axis=1))]
    dark = np.flatnonzero(row < 128)
    assert (dark[-1] - dark[0] + 1) / per_mm == pytest.approx(RULER, abs=0.3)
    front = printed.image(1000 * per_mm, margin=0)[..., 0]
    top, left = np.flatnonzero((page < 128).any(axis=1))[0], round((page.shape[1] - front.shape[1]) / 2)
    patch = page[top : top + front.shape[0], left : left + front.shape[1]]
    smooth = [cv2.GaussianBlur(image, (0, 0), 2.0).astype(int) for image in (patch, front)]
    assert np.abs(smooth[0] - smooth[1]).max() < 100  # all cells are right, edges within a pixel
    if printed.kind == "charuco":
        detector = cv2.aruco.CharucoDetector(printed.cv_board)  # type: ignore[arg-type]
        corners, ids, _, _ = detector.detectBoard(cv2.GaussianBlur(page, (0, 0), 2.0))
        assert len(ids) == len(printed.points)
        errors_mm = corners.reshape(-1, 2) / per_mm - 1000 * printed.points[ids.ravel(), :2]
        assert np.abs(errors_mm - errors_mm.mean(0)).max() < 0.02  # mm


def test_pdf_has_paper_size_and_is_reproducible(board: CalibrationBoard, tmp_path: Path) -> None:
    for name in ("one.pdf", "two.pdf"):
        print_board(board, tmp_path / name)
    data = (tmp_path / "one.pdf").read_bytes()
    assert data == (tmp_path / "two.pdf").read_bytes()
    box = data.split(b"/MediaBox [")[1].split(b"]")[0].split()
    np.testing.assert_allclose(np.array(box, float) * 25.4 / 72, [0, 0, 297, 210], atol=0.01)


def test_unprintable_boards_are_rejected_in_one_line(board: CalibrationBoard, tmp_path: Path) -> None:
    with pytest.raises(GenimaError, match="too large for A4 .*252 x 252 mm"):
        print_board(replace(board, rows=7), tmp_path / "board.pdf")
    with pytest.raises(GenimaError, match="'A5'.; use A4 or A3"):
        print_board(board, tmp_path / "board.pdf", "A5")
    with pytest.raises(GenimaError, match=r"board.jpg: the page is a \.pdf or a \.png file"):
        print_board(board, tmp_path / "board.jpg")
    with pytest.raises(GenimaError, match="cannot write"):
        print_board(board, Path("/proc/board.png"))
