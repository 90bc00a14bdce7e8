"""Hand-eye calibration: against known truth, OpenCV and SciPy; insufficient and wrong samples, and files."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import handeye as bench
import numpy as np
import pytest
import yaml
from photographs import ahead, photograph
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.calibration_file import CameraCalibration, Frames, Residuals, load_cameras
from genima.cameras.camera import Parent
from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import apply_twist, inverse, mean_pose, pose, pose_distance, skew, transform
from genima_calibration.board_detection import Detection, board_pose, detect, reprojection
from genima_calibration.bundle_adjustment import CAMERA, Fit, FreeParameters, Noise, derivatives, refine
from genima_calibration.closed_form import OPENCV, HandEye, solve_closed, solve_opencv
from genima_calibration.easy_handeye2 import Calib, Parameters
from genima_calibration.hand_eye import calibrate, calibration
from genima_calibration.outliers import robust_start
from genima_calibration.pose_selection import next_pose, sample_candidates
from genima_calibration.report import format_report
from genima_calibration.samples import Sample, stack_samples

PANDA = RobotModel.load("panda")
BOARD, LENS = bench.BOARD, bench.LENS
GRIDS = (
    CalibrationBoard("grid", 4, 3, 0.05, 0.04, "APRILTAG_36h11"),
    CalibrationBoard("grid", 3, 3, 0.06, 0.045, "4X4_50"),
)
both_parents = pytest.mark.parametrize("parent", bench.PARENTS)


@pytest.fixture(scope="module")
def setups() -> Mapping[Parent, bench.Setup]:
    """Set-ups of both kinds, without joint noise."""
    return {parent: bench.setup(PANDA, parent, 7) for parent in bench.PARENTS}


# boards


def test_board_image_equals_opencv() -> None:
    board = CalibrationBoard("grid", 4, 3, 0.05, 0.04, "APRILTAG_36h11")  # 25 px a cell, 50 px between markers
    ours = board.image(5000, 0.0)
    assert ours.shape == (700, 950, 3)
    np.testing.assert_array_equal(ours[..., 0], board.cv_board.generateImage((950, 700)))
    chess = CalibrationBoard("charuco", 7, 5, 0.036, 0.028, "5X5_50")  # 8 px a cell, 8 px around a marker
    np.testing.assert_array_equal(chess.image(2000, 0.0)[..., 0], chess.cv_board.generateImage((504, 360)))


@pytest.mark.parametrize("board", [BOARD, *GRIDS])
def test_detected_points_match_board_image(board: CalibrationBoard) -> None:
    """No half-pixel offset: a corner at the edge between two pixels is detected at their common border."""
    per_metre, margin = 3000.0, 0.02
    image = board.image(per_metre, margin)
    flat = CameraIntrinsics(image.shape[1], image.shape[0], 1000, 1000, image.shape[1] / 2, image.shape[0] / 2)
    found = detect(image, board, flat)
    assert len(found.ids) == len(board.points)
    np.testing.assert_allclose(found.pixels, (found.points[:, :2] + margin) * per_metre, atol=0.15)
    assert np.abs(np.mean(found.pixels - (found.points[:, :2] + margin) * per_metre)) < 0.03
    assert (image[[0, -1]] == 255).all()
    assert board.size == pytest.approx(np.array(image.shape[1::-1]) / per_metre - 2 * margin, abs=1e-3)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"kind": "circles"}, "kind: .*'charuco' or 'grid'"),
        ({"marker": 0.036}, "smaller than square"),
        ({"marker": 0.0}, "marker: .*greater than 0"),
        ({"marker": 1e-9}, "smaller than square.*use 0.001"),
        ({"square": float("nan")}, "square: .*nan"),
        ({"square": float("inf")}, "square: .*inf"),
        ({"square": 36.0, "marker": 27.0}, "in millimetres. Write square: 0.036 and marker: 0.027"),
        ({"square": 3.6, "marker": 2.7}, "in centimetres. Write square: 0.036 and marker: 0.027"),
        ({"square": 0.027, "marker": 0.036}, "swapped. Write square: 0.036 and marker: 0.027"),
        ({"kind": "grid", "square": 0.01, "marker": 0.04}, "or, where 0.01 is the gap between markers, square: 0.05"),
        ({"columns": 2}, "columns and rows: out of range"),
        ({"columns": 100_000, "rows": 100_000}, "columns: .*less than or equal to 1000"),
        ({"columns": 1000, "rows": 1000}, "the board needs 500000"),
        ({"columns": 7.5}, "columns: .*7.5"),
        ({"first_id": 40}, r"dictionary 5X5_50: too few markers \(50, the board needs 17 from first_id 40\)"),
        ({"legacy_pattern": "yes"}, "legacy_pattern: .*'yes'"),
        ({"kind": "grid", "legacy_pattern": True}, "legacy_pattern: not a field of a grid"),
        ({"dictionary": "7X7_9"}, r"dictionary: unknown to OpenCV \('7X7_9'\)"),
        ({"columns": 20, "rows": 10}, r"dictionary 5X5_50: too few markers \(50, the board needs 100\)"),
    ],
)
def test_invalid_board_is_rejected(changed: dict[str, Any], expected: str) -> None:
    with pytest.raises(GenimaError, match=expected):
        CalibrationBoard.from_dict({**BOARD.to_dict(), **changed})


def test_board_file_round_trip(tmp_path: Path) -> None:
    assert CalibrationBoard.load(paths.shared("calibration", "boards", "charuco_7x5_a4.yaml")) == BOARD
    file = tmp_path / "new" / "board.yaml"
    GRIDS[0].save(file)
    assert CalibrationBoard.load(file) == GRIDS[0]
    for content, expected in (
        ("kind: [", "not YAML"),
        ("just words", "a valid dictionary .'just words'."),
        (file.read_text() + "colour: red\n", "colour: Extra inputs are not permitted"),
        (file.read_text().replace("columns: 4", "columns: four"), "four"),
    ):
        file.write_text(content)
        with pytest.raises(GenimaError, match=f"board {re.escape(str(file))}.*{expected}"):
            CalibrationBoard.load(file)
    with pytest.raises(GenimaError, match="does not exist"):
        CalibrationBoard.load(tmp_path / "none.yaml")


# lenses


def test_projection_equals_opencv() -> None:
    points = np.random.default_rng(0).uniform([-0.4, -0.3, 0.6], [0.4, 0.3, 1.5], (50, 3))
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), LENS.K, np.array(LENS.distortion))
    np.testing.assert_allclose(LENS.project(points), expected[:, 0], atol=1e-9)
    assert np.isnan(LENS.project(np.array([0.0, 0.0, -1.0]))).all()


def test_lens_jacobians_match_finite_differences() -> None:
    points = np.random.default_rng(0).uniform([-0.4, -0.3, 0.6], [0.4, 0.3, 1.5], (5, 3))
    by_point, by_parameter = LENS.jacobians(points)
    h = 1e-6
    for i in range(3):
        step = h * np.eye(3)[i]
        expected = (LENS.project(points + step) - LENS.project(points - step)) / (2 * h)
        np.testing.assert_allclose(by_point[..., i], expected, rtol=1e-6, atol=1e-4)
    for i in range(9):
        step = h * np.eye(9)[i]
        up, down = (LENS.with_parameters(LENS.parameters + sign * step).project(points) for sign in (1, -1))
        np.testing.assert_allclose(by_parameter[..., i], (up - down) / (2 * h), rtol=1e-5, atol=1e-4)


def test_camera_info_has_pixel_centre_origin() -> None:
    k = [600.0, 0, 319.5, 0, 601, 239.5, 0, 0, 1]
    lens = CameraIntrinsics.from_camera_info(640, 480, "plumb_bob", [0.1, -0.2, 0.01, 0.02, 0.3], k)
    assert (lens.cx, lens.cy) == (320, 240) and lens.distortion == (0.1, -0.2, 0.01, 0.02, 0.3)
    assert CameraIntrinsics.from_camera_info(640, 480, "", [], k).distortion == (0,) * 5
    rational = CameraIntrinsics.from_camera_info(640, 480, "rational_polynomial", [0.1, 0.2, 0, 0, 0, 0, 0, 0], k)
    assert rational.distortion == (0.1, 0.2, 0, 0, 0)


@pytest.mark.parametrize(
    ("model", "d", "k", "expected"),
    [
        ("plumb_bob", [0.0] * 5, [0.0] * 9, "no intrinsics"),
        ("plumb_bob", [0.0] * 5, [1.0] * 4, "no intrinsics"),
        (
            "equidistant",
            [0.1, 0, 0, 0],
            [600.0, 0, 320, 0, 600, 240, 0, 0, 1],
            "distortion model not supported .*equidistant",
        ),
        ("rational_polynomial", [0.1] * 8, [600.0, 0, 320, 0, 600, 240, 0, 0, 1], "rectified image"),
        ("plumb_bob", [float("nan")] * 5, [600.0, 0, 320, 0, 600, 240, 0, 0, 1], "not finite"),
    ],
)
def test_unsupported_camera_info_is_rejected(model: str, d: list[float], k: list[float], expected: str) -> None:
    with pytest.raises(GenimaError, match=expected):
        CameraIntrinsics.from_camera_info(640, 480, model, d, k)


# detection


@pytest.mark.parametrize("board", [BOARD, *GRIDS])
def test_board_is_detected_with_subpixel_accuracy(board: CalibrationBoard) -> None:
    pixel_errors = []
    for turn in ([0.3, 0.2, -0.3], [-2.0, -0.4, 0.1], [1.5, 0.5, 0.4]):
        T = ahead(board, turn, 0.45)
        found = detect(photograph(board, T, LENS), board, LENS)
        assert len(found.ids) > 0.8 * len(board.points)
        np.testing.assert_array_equal(found.points, board.points[found.ids])
        pixel_errors.append(found.pixels - LENS.project(transform(T, found.points)))
        metres, angle = pose_distance(board_pose(found, LENS), T)
        assert metres < 2e-3 and angle < np.radians(0.6)
    errors = np.concatenate(pixel_errors)
    assert np.abs(errors.mean(0)).max() < 0.05  # detects a half-pixel offset of another convention
    assert np.sqrt(np.mean(errors**2)) < 0.25


def test_image_without_board_is_rejected() -> None:
    empty = np.full((480, 640, 3), 120, np.uint8)
    for board in (BOARD, GRIDS[0]):
        with pytest.raises(GenimaError, match="board: not detected .0 of its"):
            detect(empty, board, LENS)
    seen = photograph(BOARD, ahead(BOARD, [0.1, 0.2, 0.1]), LENS)
    with pytest.raises(GenimaError, match="board: not detected.*APRILTAG_36h11 grid of 4 x 3"):
        detect(seen, GRIDS[0], LENS)
    with pytest.raises(GenimaError, match="image: size 640 x 480, but intrinsics for 1280 x 720"):
        detect(seen, BOARD, replace(LENS, width=1280, height=720))
    T = ahead(BOARD, [0, 0, 0])
    strip = photograph(BOARD, T, LENS)
    strip[int(LENS.project(transform(T, np.array([[0.126, 0.074, 0]])))[0, 1]) :] = 110  # two rows of squares remain
    with pytest.raises(GenimaError, match="points on one line only"):
        detect(strip, BOARD, LENS)


def test_other_board_with_same_markers_is_rejected() -> None:
    image = photograph(BOARD, ahead(BOARD, [0.2, 0.3, -0.2]), LENS)
    with pytest.raises(GenimaError, match="board: points do not fit|board: not detected"):
        detect(image, replace(BOARD, columns=5, rows=7), LENS)
    grid = GRIDS[0]
    with pytest.raises(GenimaError, match="board: points do not fit"):
        detect(photograph(grid, ahead(grid, [0.2, 0.3, -0.2]), LENS), replace(grid, columns=3, rows=4), LENS)


def test_board_pose_is_robust_to_wrong_points(setups: Mapping[Parent, bench.Setup]) -> None:
    setup = setups["base"]
    found = setup.samples[0].detection
    pixels = found.pixels.copy()
    pixels[[3, 10, 17]] += [[30, 10], [-20, 5], [4, -15]]
    T = setup.truth.T_camera_board(PANDA, setup.joints[0])
    wrong = replace(found, pixels=pixels)
    assert np.median(reprojection(board_pose(wrong, LENS), wrong, LENS)) < 0.6
    assert pose_distance(board_pose(wrong, LENS), T)[0] < 0.01


# poses


def test_poses_invert_rotate_and_average() -> None:
    rng = np.random.default_rng(0)
    T = pose(Rotation.random(20, rng=rng).as_matrix(), rng.normal(size=(20, 3)))
    np.testing.assert_allclose(T @ inverse(T), np.broadcast_to(np.eye(4), T.shape), atol=1e-12)
    a, b = rng.normal(size=(2, 5, 3))
    np.testing.assert_allclose((skew(a) @ b[..., None])[..., 0], np.cross(a, b))
    around = np.stack([apply_twist(T[0], sign * 0.1 * axis) for axis in np.eye(6) for sign in (1, -1)])
    np.testing.assert_allclose(mean_pose(around), T[0], atol=1e-12)
    quarter = apply_twist(np.eye(4), np.array([1, 2, 3, 0, 0, np.pi / 2]))
    np.testing.assert_allclose(transform(quarter, np.array([[1.0, 0, 0]])), [[1, 3, 3]], atol=1e-12)
    assert pose_distance(np.eye(4), quarter) == pytest.approx((np.sqrt(14), np.pi / 2))


# solvers


def test_frames_of_manual_set_up() -> None:
    """The camera is 2 m above the base and faces down; the board is on the flange, its z towards the base."""
    down = np.diag([1.0, -1.0, -1.0])
    above = HandEye("base", pose(down, np.array([0.4, 0, 2.0])), np.eye(4))
    T_base_flange = PANDA.link_poses(PANDA.home)[-2]
    T_camera_board = above.T_camera_board(PANDA, PANDA.home)
    expected = [T_base_flange[0, 3] - 0.4, -T_base_flange[1, 3], 2.0 - T_base_flange[2, 3]]
    np.testing.assert_allclose(T_camera_board[:3, 3], expected, atol=1e-12)
    # a camera at the flange has the base at the inverse of the flange's pose
    in_hand = HandEye("flange", np.eye(4), np.eye(4))
    np.testing.assert_allclose(in_hand.T_camera_board(PANDA, PANDA.home), inverse(T_base_flange), atol=1e-12)


@both_parents
def test_all_solvers_are_exact_on_exact_samples(parent: Parent) -> None:
    setup = bench.setup(PANDA, parent, 3, pixels=0.0)
    samples = stack_samples(setup.samples, LENS, PANDA)
    for method in OPENCV:
        found = solve_opencv(samples, parent, method)
        assert found is not None
        for ours, true in ((found.T_parent_camera, setup.truth.T_parent_camera),
                           (found.T_carrier_board, setup.truth.T_carrier_board)):  # fmt: skip
            assert pose_distance(ours, true)[0] < 1e-4, method
            assert pose_distance(ours, true)[1] < 1e-4, method
    A, B = samples.T_parent_carrier(parent), samples.T_camera_board.copy()
    B[:, :3, 3] *= 0.9  # the board's file has a smaller size
    X, Y, scale = solve_closed(A, B, free_scale=True)
    assert scale == pytest.approx(1 / 0.9, abs=1e-4)
    assert pose_distance(X, setup.truth.T_parent_camera)[0] < 1e-4
    assert pose_distance(Y, setup.truth.T_carrier_board)[0] < 1e-4


@both_parents
def test_derivatives_match_finite_differences(parent: Parent) -> None:
    setup = bench.setup(PANDA, parent, 1, count=5)
    samples = stack_samples(setup.samples, LENS, PANDA)
    free = FreeParameters(scale=True, intrinsics=True)
    fit = Fit(
        setup.truth, LENS, 1.1, samples.joints, Noise(1, 1), samples.seen.astype(float), np.eye(22), free
    )  # fmt: skip

    def expected(step: np.ndarray, joints: np.ndarray) -> np.ndarray:
        at = replace(
            setup.truth,
            T_parent_camera=apply_twist(setup.truth.T_parent_camera, step[:6]),
            T_carrier_board=apply_twist(setup.truth.T_carrier_board, step[6:12]),
        )
        lens = LENS.with_parameters(LENS.parameters + step[13:])
        T = at.T_camera_board(PANDA, samples.joints + joints)
        return lens.project(transform(T, (1.1 + step[12]) * samples.points)).reshape(5, -1)

    d, h = derivatives(samples, fit), 1e-6
    np.testing.assert_allclose(d.residuals, samples.pixels.reshape(5, -1) - expected(np.zeros(22), np.zeros(7)))
    for i in range(22):
        step = h * np.eye(22)[i]
        by = (expected(step, np.zeros(7)) - expected(-step, np.zeros(7))) / (2 * h)
        np.testing.assert_allclose(d.unknowns[..., i], by, rtol=1e-4, atol=1e-3)
    for i in range(7):
        step = h * np.eye(7)[i]
        by = (expected(np.zeros(22), step) - expected(np.zeros(22), -step)) / (2 * h)
        np.testing.assert_allclose(d.joints[..., i], by, rtol=1e-4, atol=1e-3)
    T = setup.truth.T_camera_board(PANDA, samples.joints)
    centre = 1.1 * BOARD.points.mean(0)
    about = pose(np.eye(3), centre)
    for i in range(6):
        up, down = (T @ about @ apply_twist(np.eye(4), s * h * np.eye(6)[i]) @ inverse(about) for s in (1, -1))
        by = LENS.project(transform(up, 1.1 * samples.points)) - LENS.project(transform(down, 1.1 * samples.points))
        np.testing.assert_allclose(d.board[..., i], by.reshape(5, -1) / (2 * h), rtol=1e-4, atol=1e-3)


@both_parents
def test_refined_poses_equal_scipy_minimum(parent: Parent) -> None:
    """Minimum of the same sum of squares over poses and joints, by a general solver with finite differences."""
    setup = bench.setup(PANDA, parent, 5, count=6, joints=np.radians(0.1))
    samples = stack_samples(setup.samples, LENS, PANDA)
    fit = refine(samples, robust_start(samples, parent).hand_eye)
    assert fit.weights.min() > 0.8  # nearly all points have full weight

    def residuals(x: np.ndarray) -> np.ndarray:
        at = HandEye(
            parent, apply_twist(setup.truth.T_parent_camera, x[:6]), apply_twist(setup.truth.T_carrier_board, x[6:12])
        )
        joint_offsets = x[12:].reshape(6, 7)
        lens = LENS.K, np.array(LENS.distortion)
        pixels = [
            cv2.projectPoints(BOARD.points, cv2.Rodrigues(T[:3, :3])[0], T[:3, 3], *lens)
            for T in at.T_camera_board(PANDA, samples.joints + joint_offsets)
        ]
        by_pixels = samples.pixels - np.array([p[0][:, 0] for p in pixels])
        weighted = np.sqrt(fit.weights)[..., None] * by_pixels
        return np.concatenate([weighted.ravel() / fit.noise.pixels, joint_offsets.ravel() / fit.noise.joints])

    best = least_squares(residuals, np.zeros(12 + 42), xtol=1e-10, ftol=1e-12)
    metres, angle = pose_distance(apply_twist(setup.truth.T_parent_camera, best.x[:6]), fit.hand_eye.T_parent_camera)
    sigma = np.sqrt(np.diag(fit.covariance[CAMERA, CAMERA]))
    assert metres < 0.02 * sigma[:3].max() and angle < 0.02 * sigma[3:].max()
    C = np.linalg.inv(best.jac.T @ best.jac)[CAMERA, CAMERA]
    np.testing.assert_allclose(sigma, np.sqrt(np.diag(C)), rtol=0.02)
    np.testing.assert_allclose(fit.joints - samples.joints, best.x[12:].reshape(6, 7), atol=np.radians(5e-3))


# accuracy; benchmarks/handeye.py writes the tables


@both_parents
def test_error_is_below_all_opencv_solvers(parent: Parent) -> None:
    ours, best = [], []
    for seed in range(12):
        setup = bench.setup(PANDA, parent, seed)
        found = [bench.error(h, setup.truth) for h, _ in bench.opencv(PANDA, setup).values()]
        best.append(np.min(found, axis=0))
        outcome = calibrate(setup.samples, BOARD, LENS, PANDA, parent)
        assert not outcome.outliers
        ours.append(bench.error(outcome.fit.hand_eye, setup.truth))
    assert np.all(np.array(ours) <= best)
    assert np.all(np.median(ours, axis=0) < (1.0, 0.1))  # mm, deg
    assert np.median(np.array(best)[:, 0] / np.array(ours)[:, 0]) > 3


def test_noisy_joints_halve_error_and_covariance_is_calibrated() -> None:
    gains, squares, noises = [], [], []
    for seed in range(24):
        for parent in bench.PARENTS:
            setup = bench.setup(PANDA, parent, seed, joints=np.radians(0.1))
            opencv_hand_eye = min(bench.opencv(PANDA, setup).values(), key=lambda found: found[1])[0]
            fit = refine(stack_samples(setup.samples, LENS, PANDA), opencv_hand_eye)
            gains.append(np.divide(bench.error(opencv_hand_eye, setup.truth), bench.error(fit.hand_eye, setup.truth)))
            squares.append(bench.squared(fit, setup.truth))
            noises.append((fit.noise.pixels, np.degrees(fit.noise.joints)))
    assert np.median(gains) > 2
    assert 5.0 < np.mean(squares) < 7.5  # 6 expected, +- 0.5 by chance
    np.testing.assert_allclose(np.median(noises, axis=0), [0.25, 0.1], rtol=0.15)


def test_wrong_focal_lengths_are_refined() -> None:
    setup = bench.setup(PANDA, "flange", 2, count=25)
    wrong = replace(LENS, fx=LENS.fx * 1.01, fy=LENS.fy * 1.01, cx=LENS.cx + 4, distortion=(0.0,) * 5)
    outcome = calibrate(setup.samples, BOARD, wrong, PANDA, "flange", refine_intrinsics=True)
    found = outcome.fit.intrinsics
    assert found.fx == pytest.approx(LENS.fx, rel=2e-3) and found.fy == pytest.approx(LENS.fy, rel=2e-3)
    sigma = np.sqrt(np.diag(outcome.fit.covariance))[12:]
    assert np.all(np.abs(found.parameters - LENS.parameters) < 4 * sigma) and sigma[2] < 3
    assert outcome.fit.noise.pixels == pytest.approx(0.25, rel=0.1)
    assert not outcome.outliers
    assert bench.squared(outcome.fit, setup.truth) < 20  # of 6 expected
    millimetres, _ = bench.error(outcome.fit.hand_eye, setup.truth)
    fixed = calibrate(setup.samples, BOARD, wrong, PANDA, "flange")
    assert millimetres < 1.0 and millimetres < bench.error(fixed.fit.hand_eye, setup.truth)[0] / 2


def test_fifteen_samples_take_less_than_two_cpu_seconds(setups: Mapping[Parent, bench.Setup]) -> None:
    start = time.process_time()
    calibrate(setups["base"].samples, BOARD, LENS, PANDA, "base")
    assert time.process_time() - start < 2.0


def test_benchmark_writes_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.json"
    monkeypatch.setattr(sys, "argv", ["handeye.py", "--setups", "1", "--joints", "0.1", "--out", str(out)])
    bench.main()
    report = json.loads(out.read_text())
    assert report["benchmark"] == "handeye"
    table = report["results"]
    assert list(table) == ["camera on the flange, joints 0.1 deg", "camera on the base, joints 0.1 deg"]
    printed = capsys.readouterr().out
    for name, result in table.items():
        assert name in printed
        assert set(result["millimetres"]) == {*OPENCV, bench.FIT, bench.BEST, bench.OURS} == set(result["degrees"])
        assert result["millimetres"][bench.BEST] <= result["millimetres"][bench.FIT]
        for method, counts in result["nearer"].items():
            ours = [result[unit][bench.OURS] <= result[unit][method] for unit in ("millimetres", "degrees")]
            assert counts == [*ours, all(ours)]  # of one set-up
        assert np.all(np.divide(result["spread"], result["limit"]) < 4)
    monkeypatch.setattr(sys, "argv", ["handeye.py", "--samples", "4"])
    with pytest.raises(GenimaError, match="--samples at least 5"):
        bench.main()


# wrong samples


@both_parents
@pytest.mark.parametrize("joints", [0.0, 0.1])
def test_one_fifth_outliers_are_reported_with_small_error(parent: Parent, joints: float) -> None:
    clean, with_outliers = [], []
    for seed in range(3):
        setup = bench.setup(PANDA, parent, seed, joints=np.radians(joints))
        clean.append(bench.error(calibrate(setup.samples, BOARD, LENS, PANDA, parent).fit.hand_eye, setup.truth))
        outcome = calibrate(bench.bumped(PANDA, setup, range(12, 15), 0.25), BOARD, LENS, PANDA, parent)
        assert list(outcome.outliers) == ["13", "14", "15"]
        for reason in outcome.outliers.values():
            assert "13, 14, 15 agree with each other, so the board or the camera was moved" in reason
            match = re.match(r"board (.*) mm and (.*) deg from its pose", reason)
            assert (
                match and float(match[1]) == pytest.approx(22.9, abs=8) and float(match[2]) == pytest.approx(5.4, abs=2)
            )
        with_outliers.append(bench.error(outcome.fit.hand_eye, setup.truth))
    assert np.all(np.median(with_outliers, axis=0) < 2 * np.median(clean, axis=0))


@both_parents
def test_wrong_detections_are_reported(setups: Mapping[Parent, bench.Setup], parent: Parent) -> None:
    setup, rng = setups[parent], np.random.default_rng(1)
    samples = list(setup.samples)
    for i, noise in ((2, 12.0), (9, 60.0)):
        found = samples[i].detection
        pixels = found.pixels + rng.normal(0, noise, found.pixels.shape)
        samples[i] = replace(samples[i], detection=replace(found, pixels=pixels))
    samples[5] = replace(samples[5], detection=setup.samples[6].detection)  # an image of another pose
    outcome = calibrate(samples, BOARD, LENS, PANDA, parent)
    assert sorted(outcome.outliers) == ["03", "06", "10"]
    assert "do not fit the board" in outcome.outliers["03"] and "agree" not in outcome.outliers["06"]
    assert bench.error(outcome.fit.hand_eye, setup.truth)[0] < 1.0


def test_single_wrong_points_keep_all_samples(setups: Mapping[Parent, bench.Setup]) -> None:
    setup = setups["base"]
    samples = []
    for i, sample in enumerate(setup.samples):
        pixels = sample.detection.pixels.copy()
        pixels[[i, (i + 11) % 24]] += [[15.0, -8], [-40, 3]]
        samples.append(replace(sample, detection=replace(sample.detection, pixels=pixels)))
    outcome = calibrate(samples, BOARD, LENS, PANDA, "base")
    assert not outcome.outliers
    assert bench.error(outcome.fit.hand_eye, setup.truth)[0] < 1.0
    assert outcome.fit.noise.pixels == pytest.approx(0.25, rel=0.15)


def test_partial_boards_are_accurate(setups: Mapping[Parent, bench.Setup]) -> None:
    setup, rng = setups["flange"], np.random.default_rng(0)
    samples = []
    for sample in setup.samples:
        subset = np.sort(rng.choice(24, rng.integers(8, 24), replace=False))
        found = sample.detection
        samples.append(
            replace(sample, detection=Detection(found.ids[subset], found.pixels[subset], found.points[subset]))
        )
    outcome = calibrate(samples, BOARD, LENS, PANDA, "flange")
    assert not outcome.outliers and bench.error(outcome.fit.hand_eye, setup.truth)[0] < 1.5


# insufficient samples


def measured(joints: np.ndarray, parent: Parent = "flange", seed: int = 0) -> list[Sample]:
    """Return samples at joints (N, 7), with the board in the middle of the image at their mean."""
    rng = np.random.default_rng(seed)
    truth = bench.around(PANDA, parent, joints.mean(0), rng)
    return bench.measured(PANDA, truth, joints, rng, 0.25, 0.0)


def translations(count: int) -> np.ndarray:
    """Return joints (count, 7) of an arm in one plane, with translation but no rotation of the flange."""
    rng = np.random.default_rng(0)
    q = np.tile([0, -0.35, 0, -2.35, 0, 2.0, 0.785], (count, 1))
    q[:, 1] += rng.uniform(-0.2, 0.2, count)
    q[:, 3] += rng.uniform(-0.2, 0.2, count)
    q[:, 5] += (q[:, 1] - q[0, 1]) - (q[:, 3] - q[0, 3])
    return q


@both_parents
def test_too_few_samples_are_rejected(setups: Mapping[Parent, bench.Setup], parent: Parent) -> None:
    for count in (0, 4):
        with pytest.raises(GenimaError, match=f"samples: too few .{count}.; take at least 5"):
            calibrate(setups[parent].samples[:count], BOARD, LENS, PANDA, parent)
    assert len(calibrate(setups[parent].samples[:5], BOARD, LENS, PANDA, parent).samples) == 5


@both_parents
def test_translations_without_rotation_are_rejected(parent: Parent) -> None:
    q = translations(10)
    R = PANDA.link_poses(q)[:, -2, :3, :3]
    np.testing.assert_allclose(R, np.broadcast_to(R[0], R.shape), atol=1e-8)
    with pytest.raises(GenimaError, match="hardly rotates.*about two or more axes"):
        calibrate(measured(q, parent), BOARD, LENS, PANDA, parent)


@both_parents
def test_rotation_about_one_axis_is_rejected(parent: Parent) -> None:
    q = np.tile(PANDA.home, (10, 1))
    q[:, 6] += np.linspace(-0.6, 0.6, 10)
    plane = translations(10)
    plane[:, 5] += np.linspace(-0.3, 0.3, 10)
    axis = r"\[-?0.0, -?0.0, 1.0\] in the flange" if parent == "flange" else "in the base"
    with pytest.raises(GenimaError, match=f"about one axis only.*{axis}"):
        calibrate(measured(q, parent), BOARD, LENS, PANDA, parent)
    with pytest.raises(GenimaError, match="about one axis only"):
        calibrate(measured(plane, parent), BOARD, LENS, PANDA, parent)


def test_uncertain_camera_pose_is_rejected() -> None:
    rng = np.random.default_rng(0)
    q = np.tile(PANDA.home, (6, 1))
    q[:, 6] += np.linspace(-0.4, 0.4, 6)
    q[:, 4] += rng.uniform(-0.1, 0.1, 6)
    samples = bench.measured(PANDA, bench.around(PANDA, "base", PANDA.home, rng), q, rng, 2.0, 0.0)
    with pytest.raises(GenimaError, match="pose uncertain by [0-9.]+ (mm|deg).*more samples"):
        calibrate(samples, BOARD, LENS, PANDA, "base")


@both_parents
def test_swapped_cameras_are_detected(setups: Mapping[Parent, bench.Setup], parent: Parent) -> None:
    wrong: Parent = "flange" if parent == "base" else "base"
    with pytest.raises(GenimaError, match=f"of a camera on the {parent} .*not on the {wrong}.*names are not swapped"):
        calibrate(setups[parent].samples, BOARD, LENS, PANDA, wrong)


def resize_board(
    board: CalibrationBoard, factor: float, samples: list[Sample]
) -> tuple[CalibrationBoard, list[Sample]]:
    """Return board and samples with the board's size multiplied by ``factor`` in its file."""
    file_board = replace(board, square=board.square * factor, marker=board.marker * factor)
    return file_board, [
        replace(s, detection=replace(s.detection, points=file_board.points[s.detection.ids])) for s in samples
    ]


@both_parents
@pytest.mark.parametrize("factor", [0.97, 1.05, 36 / 25, 0.5])
def test_wrong_board_size_is_reported(setups: Mapping[Parent, bench.Setup], parent: Parent, factor: float) -> None:
    file_board, samples = resize_board(BOARD, factor, setups[parent].samples)
    with pytest.raises(GenimaError, match=r"squares of (\d+\.\d+) \+-") as rejected:
        calibrate(samples, file_board, LENS, PANDA, parent)
    likely = re.search(r"squares of (\d+\.\d+) \+-", str(rejected.value))
    assert likely and float(likely[1]) == pytest.approx(36, abs=0.4)
    assert ("larger" in str(rejected.value)) == (factor < 1)


@both_parents
@pytest.mark.parametrize("factor", [0.991, 0.995, 1.005, 1.009])
def test_small_board_size_error_is_reported_in_uncertainty(
    setups: Mapping[Parent, bench.Setup], parent: Parent, factor: float
) -> None:
    file_board, samples = resize_board(BOARD, factor, setups[parent].samples)
    outcome = calibrate(samples, file_board, LENS, PANDA, parent)
    advice = outcome.quality.advice()
    likely = re.search(r"squares of (\d+\.\d+) \+-.*write square: 0.03[56]\d+, or the measured value", advice)
    assert likely and float(likely[1]) == pytest.approx(36, abs=0.05)
    result = calibration(outcome, "front", file_board, "2026-11-22")
    millimetres, _ = bench.error(outcome.fit.hand_eye, setups[parent].truth)
    alone = 1e3 * np.sqrt(np.linalg.eigvalsh(outcome.fit.covariance[:3, :3])[-1])
    assert result.sigma and millimetres < 2 * result.sigma[0] and millimetres > 2 * alone
    assert any("WARNING: board:" in line for line in format_report(outcome, result, file_board))


@both_parents
def test_correct_board_size_is_accepted(setups: Mapping[Parent, bench.Setup], parent: Parent) -> None:
    outcome = calibrate(setups[parent].samples, BOARD, LENS, PANDA, parent)
    assert not outcome.quality.size.problem
    np.testing.assert_array_equal(outcome.covariance, outcome.fit.covariance[CAMERA, CAMERA])


@both_parents
def test_joints_of_other_robot_are_rejected(setups: Mapping[Parent, bench.Setup], parent: Parent) -> None:
    samples = setups[parent].samples
    other = [replace(s, joints=np.clip(s.joints * [1, -1, 1, 1, -1, 0.5, 1], PANDA.position_min, PANDA.position_max))
             for s in samples]  # fmt: skip
    shuffled = [replace(s, joints=samples[(i * 7 + 3) % 15].joints) for i, s in enumerate(samples)]
    with pytest.raises(GenimaError, match="samples: not consistent.*joints are those of panda"):
        calibrate(other if parent == "base" else shuffled, BOARD, LENS, PANDA, parent)
    degrees = [replace(s, joints=np.degrees(s.joints)) for s in samples]
    with pytest.raises(GenimaError, match="sample 01: joints outside the range of panda .panda_joint.*unit .rad"):
        calibrate(degrees, BOARD, LENS, PANDA, parent)
    with pytest.raises(GenimaError, match="sample 01: not 7 finite joints of panda"):
        calibrate([replace(s, joints=s.joints[:6]) for s in samples], BOARD, LENS, PANDA, parent)
    with pytest.raises(GenimaError, match="samples: repeated names .01"):
        calibrate([*samples, samples[0]], BOARD, LENS, PANDA, parent)


# quality and the next pose


@both_parents
def test_quality_of_samples(setups: Mapping[Parent, bench.Setup], parent: Parent) -> None:
    quality = calibrate(setups[parent].samples, BOARD, LENS, PANDA, parent).quality
    assert list(quality.left_out) == [s.name for s in setups[parent].samples]
    pixels, millimetres, degrees = np.array(list(quality.left_out.values())).T
    assert 0.25 < np.median(pixels) < 0.6 and np.median(millimetres) < 3 and np.median(degrees) < 1
    assert quality.turns[0] > 10 and not quality.advice()
    small = bench.setup(PANDA, parent, 7, spread=0.1)
    assert "rotate the flange more" in calibrate(small.samples, BOARD, LENS, PANDA, parent).quality.advice()


@both_parents
def test_flange_rotation_angles(parent: Parent) -> None:
    from genima_calibration.quality import flange_rotation

    q = np.tile(PANDA.home, (2, 1))
    q[1, 6] += 0.5
    angles, directions = flange_rotation(stack_samples(measured(q, parent), LENS, PANDA), parent)
    np.testing.assert_allclose(angles, [0, 0.5, 0.5], atol=1e-6)
    axis = np.array([0, 0, 1]) if parent == "flange" else PANDA.link_poses(q[0])[-2, :3, 2]
    assert abs(directions[0] @ axis) == pytest.approx(1)


@both_parents
def test_recommended_pose_is_informative(setups: Mapping[Parent, bench.Setup], parent: Parent) -> None:
    setup = setups[parent]
    outcome = calibrate(setup.samples[:6], BOARD, LENS, PANDA, parent)
    candidates = sample_candidates(outcome.samples, 200, 0.4, seed=0)
    assert np.all((candidates >= PANDA.position_min) & (candidates <= PANDA.position_max))
    recommended = next_pose(outcome.samples, outcome.fit, BOARD, candidates)
    np.testing.assert_array_equal(recommended.joints, candidates[recommended.index])
    assert 0.05 < recommended.gain < 1

    def volume(joints: np.ndarray) -> float:
        rng = np.random.default_rng(1)
        more = bench.measured(PANDA, setup.truth, joints[None], rng, 0.25, 0.0)[0]
        samples = stack_samples([*setup.samples[:6], replace(more, name="new")], LENS, PANDA)
        fit = replace(outcome.fit, noise=outcome.fit.noise)
        found = refine(samples, fit.hand_eye)
        scaled = found.covariance[CAMERA, CAMERA] * (outcome.fit.noise.pixels / found.noise.pixels) ** 2
        return float(np.linalg.slogdet(scaled)[1])

    inside = [q for q in candidates if bench.in_view(setup.truth.T_camera_board(PANDA, q)[None])[0]][:12]
    others = [volume(q) for q in inside]
    assert volume(recommended.joints) < np.percentile(others, 25)


def test_poses_without_visible_board_are_not_recommended(setups: Mapping[Parent, bench.Setup]) -> None:
    outcome = calibrate(setups["base"].samples, BOARD, LENS, PANDA, "base")
    positions = np.tile(PANDA.home + [2.5, 0, 0, 0, 0, 0, 0], (3, 1))
    with pytest.raises(GenimaError, match="not in view from 3"):
        next_pose(outcome.samples, outcome.fit, BOARD, positions)


# files


@pytest.fixture(scope="module")
def result(setups: Mapping[Parent, bench.Setup]) -> CameraCalibration:
    samples = bench.bumped(PANDA, setups["base"], range(13, 15), 0.25)
    outcome = calibrate(samples, BOARD, LENS, PANDA, "base")
    return calibration(outcome, "front", BOARD, "2026-11-22T10:00:00+00:00", Frames("panda_link0", "front_optical"))


@pytest.fixture
def saved_calibration(result: CameraCalibration, tmp_path: Path) -> tuple[CameraCalibration, Path]:
    return result, result.save(tmp_path / "new")


def test_calibration_file_round_trip(saved_calibration: tuple[CameraCalibration, Path]) -> None:
    result, path = saved_calibration
    back = CameraCalibration.load(path)
    assert path.name == "front.yaml" and back.camera.view == "front" and back.camera.parent == "base"
    np.testing.assert_allclose(back.camera.T_parent_camera, result.camera.T_parent_camera, atol=1e-12)
    np.testing.assert_allclose(back.covariance, result.covariance, rtol=1e-12)
    assert set(back.to_dict()) == set(yaml.safe_load(path.read_text()))
    for key in ("frames", "date", "method", "residuals", "board", "samples", "outliers", "intrinsics"):
        assert getattr(back, key) == getattr(result, key)
    assert list(back.outliers) == ["14", "15"] and len(back.samples) == 13 and back.intrinsics == LENS
    assert (
        back.sigma
        and back.sigma[0] < 1
        and f"standard deviation {back.sigma[0]:.2f} mm" in path.read_text().splitlines()[0]
    )
    np.testing.assert_array_equal(load_cameras(path.parent)["front"].T_parent_camera, back.camera.T_parent_camera)


def test_covariance_is_in_parent_axes(setups: Mapping[Parent, bench.Setup]) -> None:
    outcome = calibrate(setups["base"].samples, BOARD, LENS, PANDA, "base")
    result = calibration(outcome, "front", BOARD, "2026-11-22")
    T, C = result.camera.T_parent_camera, outcome.fit.covariance[CAMERA, CAMERA]
    rng = np.random.default_rng(0)
    moves = [apply_twist(T, twist) for twist in rng.multivariate_normal(np.zeros(6), C, 1500)]
    turns = [Rotation.from_matrix(M[:3, :3] @ T[:3, :3].T).as_rotvec() for M in moves]
    offsets = np.column_stack([[M[:3, 3] - T[:3, 3] for M in moves], turns])
    assert result.covariance is not None
    unit = np.sqrt(np.outer(np.diag(result.covariance), np.diag(result.covariance)))
    np.testing.assert_allclose(np.cov(offsets.T) / unit, result.covariance / unit, atol=0.1)


def test_simulator_files_are_read() -> None:
    for view in ("front", "wrist"):
        plain = CameraCalibration.load(paths.shared("calibration", "sim", f"{view}.yaml"))
        assert plain.covariance is plain.board is plain.date is plain.sigma is None
        assert plain.camera.distortion == (0,) * 5


@pytest.mark.parametrize(
    ("corrupt", "expected"),
    [
        (lambda d: d.pop("fx"), "fx: Field required"),
        (lambda d: d.update(fz=1), "fz: Extra inputs are not permitted"),
        (lambda d: d.update(parent="hand"), "parent: .*'hand'"),
        (lambda d: d.update(fx=-1), "fx: .*greater than 0"),
        (lambda d: d.update(fx="600"), "fx: .*valid number .'600'"),
        (lambda d: d.update(cx=float("nan")), "cx: .*nan"),
        (lambda d: d.update(width=float("inf")), "width: .*inf"),
        (lambda d: d.update(width=10**9), "width: .*less than or equal to 16384"),
        (lambda d: d.update(translation=[1, 2]), "translation: .*at least 3 items"),
        (lambda d: d.update(translation=[900.0, 10.0, 400.0]), r"from the base \(984.9 m\).*millimetres"),
        (lambda d: d.update(rotation_xyzw=[0, 0, 0, 2]), "unit quaternion.*Euler angles"),
        (lambda d: d.update(rotation_xyzw=[180, 0, 90]), "unit quaternion.*Euler angles"),
        (lambda d: d.update(cx=1280.0), r"cx is outside the image of 640x480 px \(1280\).*another size"),
        (lambda d: d["distortion"].pop("k3"), "distortion.k3: Field required"),
        (lambda d: d.update(distortion=[0, 0, 0, 0, 0]), "distortion: .*a valid dictionary"),
        (lambda d: d.update(date="yesterday"), "date: .*yesterday"),
        (lambda d: d["residuals"].pop("pixels"), "residuals.pixels: Field required"),
        (lambda d: d["residuals"].update(pixels="few"), "residuals.pixels: .*'few'"),
        (lambda d: d["frames"].update(child="x"), "frames.child: Extra inputs"),
        (lambda d: d["frames"].update(parent="/panda_link0"), "frames.parent: .*pattern"),
        (lambda d: d["covariance"].pop(), "covariance: .*at least 6 items"),
        (lambda d: d["covariance"][0].__setitem__(1, 5.0), "covariance: not symmetric and positive"),
        (lambda d: d["board"].update(marker=1.0), "board: .*smaller than square"),
        (lambda d: d.update(outliers=["13"]), "outliers: .*dict"),
    ],
)
def test_malformed_calibration_is_rejected_in_one_line(
    saved_calibration: tuple[CameraCalibration, Path], corrupt: Callable[[dict[str, Any]], Any], expected: str
) -> None:
    path = saved_calibration[1]
    data = yaml.safe_load(path.read_text())
    corrupt(data)
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(GenimaError, match=f"camera calibration {re.escape(str(path))}.*{expected}") as rejected:
        CameraCalibration.load(path)
    assert "\n" not in str(rejected.value)


def test_invalid_files_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "front.yaml"
    for content, expected in ((b"", "a valid dictionary"), (b"parent: [", "not YAML"), (b"\xff\xfe\x00", "not UTF-8")):
        file.write_bytes(content)
        with pytest.raises(GenimaError, match=expected):
            CameraCalibration.load(file)
    with pytest.raises(GenimaError, match="does not exist"):
        CameraCalibration.load(tmp_path / "none.yaml")


IN_HAND = """parameters:
  name: wrist
  calibration_type: eye_in_hand
  robot_base_frame: panda_link0
  robot_effector_frame: panda_hand
  tracking_base_frame: wrist_link
  tracking_marker_frame: board
  freehand_robot_movement: true
  move_group_namespace: /
  move_group: manipulator
transform:
  translation: {x: 0.1, y: 0.0, z: 0.05}
  rotation: {x: 0.0, y: 0.0, z: 0.0, w: 1.0}
"""
T_LINK_OPTICAL = pose(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([0, 0.015, 0]))  # REP 103
T_FLANGE_HAND = pose(Rotation.from_euler("z", -np.pi / 4).as_matrix(), np.zeros(3))


def test_easy_handeye2_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "wrist.calib"
    file.write_text(IN_HAND)
    calib = Calib.load(file)
    assert calib.parent == "flange" and calib.parameters.tracking_base_frame == "wrist_link"
    T = calib.T_parent_camera(T_LINK_OPTICAL, T_FLANGE_HAND)
    s = np.sqrt(0.5)
    # the link is 0.1 m along the hand's x, which is 45 deg to the right of the flange's; the optical frame is 15 mm
    # along the link's y, and its z along the link's x
    np.testing.assert_allclose(T[:3, 3], [0.1 * s + 0.015 * s, -0.1 * s + 0.015 * s, 0.05], atol=1e-12)
    np.testing.assert_allclose(T[:3, 2], [s, -s, 0], atol=1e-12)


@pytest.mark.parametrize("kind", ["eye_in_hand", "eye_on_base"])
def test_easy_handeye2_file_round_trip(tmp_path: Path, setups: Mapping[Parent, bench.Setup], kind: Any) -> None:
    parameters = Parameters(
        name="front",
        calibration_type=kind,
        robot_base_frame="panda_link0",
        robot_effector_frame="panda_hand",
        tracking_base_frame="front_link",
        tracking_marker_frame="board",
    )
    parent: Parent = "flange" if kind == "eye_in_hand" else "base"
    T = setups[parent].truth.T_parent_camera
    calib = Calib.of(parameters, T, T_LINK_OPTICAL, T_FLANGE_HAND)
    file = tmp_path / "front.calib"
    calib.save(file)
    back = Calib.load(file)
    assert back.parameters == parameters and back.parent == parent
    np.testing.assert_allclose(back.T_parent_camera(T_LINK_OPTICAL, T_FLANGE_HAND), T, atol=1e-12)
    data = yaml.safe_load(file.read_text())
    assert list(data) == ["parameters", "transform"] and set(data["transform"]["rotation"]) == set("xyzw")
    assert set(data["parameters"]) == set(yaml.safe_load(IN_HAND)["parameters"])
    if parent == "base":  # independent of the effector
        np.testing.assert_allclose(back.T_robot_tracking, T @ inverse(T_LINK_OPTICAL), atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("eye_in_hand", "eye_somewhere", "'eye_somewhere'"),
        ("w: 1.0", "w: 2.0", "length 1"),
        ("x: 0.1", "x: .nan", "transform.translation.x: .*nan"),
        ("x: 0.1", "x: 900.5", r"from the flange \(900.5 m\).*millimetres"),
        ("transform:", "pose:", "no transform .easy_handeye2. or transformation"),
        ("transform:", "transformation:", "eye_on_hand: Field required"),
        ("  calibration_type: eye_in_hand\n", "", "parameters.calibration_type: Field required"),
        ("parameters:", "parameters: [", "not YAML"),
    ],
)
def test_malformed_calib_file_is_rejected(tmp_path: Path, old: str, new: str, expected: str) -> None:
    file = tmp_path / "wrist.calib"
    file.write_text(IN_HAND.replace(old, new))
    with pytest.raises(GenimaError, match=f"easy_handeye2 calibration {re.escape(str(file))}.*{expected}"):
        Calib.load(file)
    with pytest.raises(GenimaError, match="does not exist"):
        Calib.load(tmp_path / "none.calib")


def test_residuals_are_of_left_out_samples(saved_calibration: tuple[CameraCalibration, Path]) -> None:
    residuals = saved_calibration[0].residuals
    assert isinstance(residuals, Residuals)
    assert 0.2 < residuals.pixels < 0.6 and 0 < residuals.millimetres < 5 and 0 < residuals.degrees < 1.5
