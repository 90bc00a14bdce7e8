"""Tests of implausible camera data: rejected with the likely cause."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation

from genima.cameras.calibration_file import CameraCalibration, Frames, load_cameras
from genima.cameras.camera import Camera
from genima.cameras.plausibility import (
    require_plausible,
    require_plausible_pose,
    require_rotation,
    view_doubt,
    view_problem,
)
from genima.cameras.virtual_view import virtual_camera
from genima.doctor import Status, configuration
from genima.errors import GenimaError
from genima.robot.model import RobotModel

CAMERA = load_cameras("sim")["front"]


def moved(*translation: float) -> Camera:
    T = CAMERA.T_parent_camera.copy()
    T[:3, 3] = translation
    return replace(CAMERA, T_parent_camera=T)


def turned(R: np.ndarray) -> Camera:
    T = CAMERA.T_parent_camera.copy()
    T[:3, :3] = R
    return replace(CAMERA, T_parent_camera=T)


@pytest.mark.parametrize("camera", [*load_cameras("sim").values(), virtual_camera()], ids=lambda c: c.view)
def test_shipped_cameras_are_plausible(camera: Camera) -> None:
    require_plausible(camera, "camera")
    require_plausible(camera.scale(640, 480), "camera")


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        (moved(900.0, 0, 400.0), "more than 5 m from the base (984.9 m); is the translation in millimetres"),
        (replace(moved(50.0, 0, 60.0), parent="flange"), "more than 1 m from the flange (78.1 m)"),
        (moved(float("nan"), 0, 0), "not 4 x 4 finite numbers"),
        (turned(2 * np.eye(3)), "not orthonormal"),
        (turned(np.zeros((3, 3))), "not orthonormal"),
        (turned(np.diag([1.0, 1, -1])), "mirrored"),
        (replace(CAMERA, fx=4.2, fy=4.2), "fx is not 51.2 to 2560 px for images of 256x256 px (4.2); is it in milli"),
        (replace(CAMERA, fx=float("nan")), "(nan); is it in milli"),
        (replace(CAMERA, fy=-240.0), "(-240); is it in milli"),
        (replace(CAMERA, fx=200.0, fy=900.0), "differ by more than a factor of 2"),
        (replace(CAMERA, cx=320.0), "cx is outside the image of 256x256 px (320)"),
        (replace(CAMERA, cy=0.0), "cy is outside the image of 256x256 px (0)"),
        (replace(CAMERA, width=0), "image width is out of range (0 px)"),
        (replace(CAMERA, height=10**9), "image height is out of range (1e+09 px)"),
        (replace(CAMERA, distortion=(float("inf"), 0, 0, 0, 0)), "distortion is not finite"),
    ],
)
def test_implausible_camera_is_rejected_with_cause(camera: Camera, message: str) -> None:
    with pytest.raises(GenimaError, match="^camera x: ") as error:
        require_plausible(camera, "camera x")
    assert message in str(error.value)


def test_invalid_pose_is_rejected() -> None:
    T = CAMERA.T_parent_camera
    with pytest.raises(GenimaError, match="transposed"):
        require_plausible_pose(T.T, "base", "x")
    with pytest.raises(GenimaError, match="4 x 4"):
        require_plausible_pose(T[:3], "base", "x")
    with pytest.raises(GenimaError, match="3 x 3"):
        require_rotation(np.eye(2), "x")
    require_plausible_pose(np.round(T, 4), "base", "x")  # as printed by others


# ---------------------------------------------------------------------------------------------- does it see the robot


PANDA = RobotModel.load("panda")


def placed(view: str, T: np.ndarray, **changes: float) -> Camera:
    return replace(load_cameras("sim")[view], T_parent_camera=T, **changes)


@pytest.mark.parametrize("view", ["front", "wrist", "left_shoulder", "right_shoulder"])
def test_simulator_cameras_see_robot(view: str) -> None:
    assert view_problem(load_cameras("sim")[view], PANDA) == ""


@pytest.mark.parametrize("view", ["front", "left_shoulder", "right_shoulder"])
@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ("wxyz", "in the order w, x, y, z"),
        ("link", "the camera's link .x forward, z up."),
        ("opengl", "as in OpenGL"),
    ],
)
def test_camera_without_robot_in_view_has_likely_cause(view: str, mistake: str, expected: str) -> None:
    T = load_cameras("sim")[view].T_parent_camera.copy()
    R = T[:3, :3]
    if mistake == "wxyz":
        x, y, z, w = Rotation.from_matrix(R).as_quat()
        T[:3, :3] = Rotation.from_quat([w, x, y, z]).as_matrix()  # written as w, x, y, z and read as x, y, z, w
    elif mistake == "link":
        T[:3, :3] = R @ np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    else:
        T[:3, :3] = R @ np.diag([1.0, -1, -1])
    camera = placed(view, T)
    problem = view_problem(camera, PANDA) or view_doubt(camera, PANDA)
    assert "it does not see the robot in its home pose" in problem or "it sees the robot on its side" in problem
    assert re.search(expected, problem) or mistake != "wxyz"  # several mistakes may explain one pose


def test_inverted_pose_is_reported() -> None:
    T = load_cameras("sim")["front"].T_parent_camera
    assert re.search("not see the robot.*is it ", view_problem(placed("front", np.linalg.inv(T)), PANDA))


def test_intrinsics_of_another_resolution_are_reported() -> None:
    camera = load_cameras("sim")["front"]
    other = placed("front", camera.T_parent_camera, cx=0.75 * camera.width, cy=0.75 * camera.height)
    assert (
        "far from the centre of its 256x256 images (192, 192); are the intrinsics of images of another size"
        in view_problem(other, PANDA)
    )


def test_doctor_finds_implausible_calibrations(tmp_path: Path) -> None:
    camera = load_cameras("sim")["front"]
    x, y, z, w = Rotation.from_matrix(camera.T_parent_camera[:3, :3]).as_quat().tolist()
    good = CameraCalibration(camera, date="2026-11-22").to_dict()
    for changes, expected in (
        ({"translation": (1000 * camera.T_parent_camera[:3, 3]).tolist()}, "millimetres"),
        ({"rotation_xyzw": [w, x, y, z]}, "in the order w, x, y, z"),
        ({"rotation_xyzw": [180.0, 0.0, 90.0]}, "Euler angles"),
        ({"cx": 500.0}, "outside the image"),
        ({"width": 1280}, "fx is"),
    ):
        (tmp_path / "front.yaml").write_text(yaml.safe_dump(good | changes), encoding="utf-8")
        [finding] = configuration.check_calibrations(str(tmp_path), None, {}, PANDA)
        assert finding.status is not Status.OK and expected in finding.found, finding
    prefixed = CameraCalibration(camera, Frames("left_panda_link0", "front_color_optical_frame"), date="2026-11-22")
    prefixed.save(tmp_path)
    now = datetime(2026, 11, 23, tzinfo=UTC)
    [finding] = configuration.check_calibrations(str(tmp_path), None, {}, PANDA, now)
    assert finding.status is Status.OK, finding
