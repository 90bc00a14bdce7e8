"""Camera data in wrong units, or of no camera, is refused with its likely cause."""

from dataclasses import replace

import numpy as np
import pytest

from genima.errors import GenimaError
from genima.views.camera import Camera, load_cameras
from genima.views.plausibility import require_plausible, require_plausible_pose, require_rotation
from genima.views.virtual import virtual_camera

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
def test_our_own_cameras_are_plausible(camera: Camera) -> None:
    require_plausible(camera, "camera")
    require_plausible(camera.scaled(640, 480), "camera")


@pytest.mark.parametrize(
    ("camera", "told"),
    [
        (moved(900.0, 0, 400.0), "984.9 m from the base, more than 5 m; is its translation in millimetres"),
        (replace(moved(50.0, 0, 60.0), parent="flange"), "78.1 m from the flange, more than 1 m"),
        (moved(float("nan"), 0, 0), "not 4 x 4 finite numbers"),
        (turned(2 * np.eye(3)), "not orthonormal"),
        (turned(np.zeros((3, 3))), "not orthonormal"),
        (turned(np.diag([1.0, 1, -1])), "mirrored"),
        (replace(CAMERA, fx=4.2, fy=4.2), "fx is 4.2 px for images of 256x256 px, not 51.2 to 2560; is it in milli"),
        (replace(CAMERA, fx=float("nan")), "fx is nan"),
        (replace(CAMERA, fy=-240.0), "fy is -240"),
        (replace(CAMERA, fx=200.0, fy=900.0), "differ by more than a factor of 2"),
        (replace(CAMERA, cx=320.0), "cx is 320 px, outside the image"),
        (replace(CAMERA, cy=0.0), "cy is 0 px, outside the image"),
        (replace(CAMERA, width=0), "image width is 0 px"),
        (replace(CAMERA, height=10**9), "image height is 1e+09 px"),
        (replace(CAMERA, distortion=(float("inf"), 0, 0, 0, 0)), "distortion is not finite"),
    ],
)
def test_what_no_camera_has_is_refused_with_its_cause(camera: Camera, told: str) -> None:
    with pytest.raises(GenimaError, match="^camera x: ") as error:
        require_plausible(camera, "camera x")
    assert told in str(error.value)


def test_a_pose_that_is_no_transform_is_refused() -> None:
    T = CAMERA.T_parent_camera
    with pytest.raises(GenimaError, match="transposed"):
        require_plausible_pose(T.T, "base", "x")
    with pytest.raises(GenimaError, match="4 x 4"):
        require_plausible_pose(T[:3], "base", "x")
    with pytest.raises(GenimaError, match="3 x 3"):
        require_rotation(np.eye(2), "x")
    require_plausible_pose(np.round(T, 4), "base", "x")  # as printed by others
