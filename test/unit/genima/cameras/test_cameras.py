"""Tests of tiling and of camera poses against the simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import mujoco
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera import Camera
from genima.cameras.tiling import tile, tile_grid, untile
from genima.errors import GenimaError
from genima.io import paths
from genima.policy.diffusion_agent.diffusion_model import join_tile, split_tile
from genima.robot.model import RobotModel
from genima_sim.simulation import Simulation

ORDER = ("wrist", "front", "right_shoulder", "left_shoulder")


@given(st.data(), st.permutations(ORDER), st.integers(1, 8), st.integers(1, 8))
def test_untile_inverts_tile(data: st.DataObject, order: list[str], h: int, w: int) -> None:
    images = {view: data.draw(arrays.arrays(np.uint8, (h, w, 3))) for view in ORDER}
    tiled = tile(images, order)
    assert tiled.shape == (2 * h, 2 * w, 3)
    back = untile(tiled, order)
    assert list(back) == order
    for view in ORDER:
        np.testing.assert_array_equal(back[view], images[view])


@given(arrays.arrays(np.uint8, (6, 4, 3)))
def test_tile_inverts_untile(tiled: np.ndarray) -> None:
    np.testing.assert_array_equal(tile(untile(tiled, ORDER), ORDER), tiled)


def test_views_are_tiled_row_by_row() -> None:
    images = {view: np.full((1, 1, 3), i, np.uint8) for i, view in enumerate(ORDER)}
    assert tile(images, ORDER)[..., 0].tolist() == [[0, 1], [2, 3]]


def test_missing_view_is_reported() -> None:
    images = {view: np.zeros((2, 2, 3), np.uint8) for view in ORDER[:3]}
    with pytest.raises(GenimaError, match="left_shoulder"):
        tile(images, ORDER)


def test_images_of_different_sizes_are_rejected() -> None:
    images = {view: np.zeros((2, 2, 3), np.uint8) for view in ORDER}
    with pytest.raises(GenimaError, match="image sizes differ"):
        tile({**images, "front": np.zeros((2, 3, 3), np.uint8)}, ORDER)


@pytest.mark.parametrize(
    ("views", "grid"), [(1, (1, 1)), (2, (1, 2)), (3, (2, 2)), (4, (2, 2)), (5, (2, 3)), (6, (2, 3))]
)
def test_one_to_six_views_are_tiled_and_untiled(views: int, grid: tuple[int, int]) -> None:
    order = [f"view{i}" for i in range(views)]
    images = {view: np.full((4, 6, 3), 40 * (i + 1), np.uint8) for i, view in enumerate(order)}
    tiled = tile(images, order)
    assert tiled.shape == (4 * grid[0], 6 * grid[1], 3)
    for view, image in untile(tiled, order).items():
        np.testing.assert_array_equal(image, images[view])
    assert (tiled == 0).sum() == 4 * 6 * 3 * (grid[0] * grid[1] - views)  # cells that are left over are black
    batch = torch.from_numpy(tiled).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
    split = split_tile(batch, views)
    assert split.shape == (2 * views, 3, 4, 6)
    assert [int(view[0, 0, 0]) for view in split] == 2 * [40 * (i + 1) for i in range(views)]
    assert torch.equal(join_tile(split, views), batch)


def test_zero_and_seven_views_are_rejected() -> None:
    for views in (0, 7):
        with pytest.raises(GenimaError, match="use 1 to 6"):
            tile_grid(views)


def test_camera_poses_match_simulator(simulation: Simulation, robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    assert set(cameras) == set(ORDER)
    optical_to_mujoco = np.diag([1.0, -1.0, -1.0])  # MuJoCo looks along -z with y up
    data = mujoco.MjData(simulation.model)
    for positions in np.random.default_rng(0).uniform(robot.position_min, robot.position_max, (10, 7)):
        for name, position in zip(robot.joint_names, positions, strict=True):
            data.joint(name).qpos[0] = position
        mujoco.mj_kinematics(simulation.model, data)
        mujoco.mj_camlight(simulation.model, data)
        for view, camera in cameras.items():
            expected, T = data.camera(view), camera.T_base_camera(robot, positions)
            np.testing.assert_allclose(T[:3, 3], expected.xpos, atol=1e-8)
            np.testing.assert_allclose(T[:3, :3] @ optical_to_mujoco, expected.xmat.reshape(3, 3), atol=1e-8)


def test_fields_of_view_match_simulator(simulation: Simulation, cameras: Mapping[str, Camera]) -> None:
    for view, camera in cameras.items():
        half_height = np.tan(np.radians(simulation.model.camera(view).fovy[0]) / 2)
        assert camera.fy == pytest.approx(camera.height / 2 / half_height)
        assert camera.fx == pytest.approx(camera.fy)  # MuJoCo's pixels are square
        assert (camera.cx, camera.cy) == (camera.width / 2, camera.height / 2)


def test_camera_poses_of_batch(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    batch = np.random.default_rng(1).uniform(robot.position_min, robot.position_max, (5, 7))
    for camera in cameras.values():
        poses = camera.T_base_camera(robot, batch)
        assert poses.shape == (5, 4, 4)
        np.testing.assert_allclose(poses, [camera.T_base_camera(robot, positions) for positions in batch])


@given(st.integers(8, 600), st.integers(8, 600), st.integers(0, 99))
def test_scaled_camera_matches_resized_image(width: int, height: int, seed: int) -> None:
    points = np.random.default_rng(seed).uniform([-1, -1, 0.5], [1, 1, 3], (10, 3))
    camera = Camera("front", "base", np.eye(4), 320, 240, 250.0, 255.0, 150.0, 125.0)
    scaled = camera.scale(width, height)
    assert (scaled.width, scaled.height) == (width, height)
    expected = _project(camera, points) * [width / camera.width, height / camera.height]
    np.testing.assert_allclose(_project(scaled, points), expected, rtol=1e-9, atol=1e-9)


def _project(camera: Camera, points: np.ndarray) -> np.ndarray:
    K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    return cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, None)[0][:, 0]


def _no_focal_length(data: Any) -> None:
    del data["fx"]


def _unknown_parent(data: Any) -> None:
    data["parent"] = "elbow"


def _no_rotation(data: Any) -> None:
    data["rotation_xyzw"] = [0.0, 0.0, 0.0, 0.0]


def _flat_translation(data: Any) -> None:
    data["translation"] = [0.0, 1.0]


def _word_for_width(data: Any) -> None:
    data["width"] = "wide"


DAMAGES = [_no_focal_length, _unknown_parent, _no_rotation, _flat_translation, _word_for_width]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_calibration_is_reported_in_one_line(tmp_path: Path, damage: Callable[[Any], None]) -> None:
    data = yaml.safe_load(paths.shared("calibration", "sim", "front.yaml").read_text())
    damage(data)
    (tmp_path / "front.yaml").write_text(yaml.safe_dump(data))
    _assert_rejected(tmp_path, "front.yaml")


@pytest.mark.parametrize("text", ["", "[1, 2", "\tx: y"])
def test_invalid_calibration_file_is_reported_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "wrist.yaml").write_text(text)
    _assert_rejected(tmp_path, "wrist.yaml")


def test_folder_without_calibrations_is_reported(tmp_path: Path) -> None:
    _assert_rejected(tmp_path, str(tmp_path))
    _assert_rejected(tmp_path / "none", "none")


def _assert_rejected(folder: Path, named: str) -> None:
    with pytest.raises(GenimaError) as caught:
        load_cameras(folder)
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert " object at 0x" not in str(caught.value)
