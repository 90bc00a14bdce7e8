"""Tests of target rendering against OpenCV, brute-force ray casting and MuJoCo; stripes; renderers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import mujoco
import numpy as np
import psutil
import pytest
import yaml
from mutation import mutated_bytes, mutated_data, require_clean
from scipy.spatial.transform import Rotation

from genima.cameras.camera import Camera
from genima.cameras.tiling import crop_square
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel
from genima.targets import RENDERERS, Appearance, PlacedSphere, Sphere, draw_targets, place_spheres, render_spheres
from genima.targets.rendering import label_stripes
from genima.targets.sphere_geometry import stripe_colours
from genima.types import Image
from genima_sim.simulation import Simulation

APPEARANCE = Appearance()
RELEASE = Appearance.load("genima_release")
PLAIN = replace(APPEARANCE, dark=1.0)  # no stripes: every sphere in one colour
STRIPED_JOINTS = {"base": 1, "elbow": 3, "wrist": 5, "gripper": 6}  # index of the joint that turns each sphere


def near_home(robot: RobotModel, seed: int, width: float = 0.5) -> np.ndarray:
    positions = robot.home + np.random.default_rng(seed).uniform(-width, width, 7)
    return np.clip(positions, robot.position_min, robot.position_max)


def black(camera: Camera) -> Image:
    return np.zeros((camera.height, camera.width, 3), np.uint8)


def without_closed_colour() -> Appearance:
    *others, gripper = APPEARANCE.spheres
    return replace(APPEARANCE, spheres=(*others, replace(gripper, closed_colour=None)))


def only(name: str, appearance: Appearance = APPEARANCE) -> Appearance:
    return replace(appearance, spheres=tuple(sphere for sphere in appearance.spheres if sphere.name == name))


def cast(
    camera: Camera, robot: RobotModel, appearance: Appearance, target: np.ndarray, gripper_open: bool, now: np.ndarray
) -> Image:
    """Brute-force ray casting: distance of each pixel's ray from each centre, and angle of the hit to the x axis."""
    image, nearest = black(camera), np.full((camera.height, camera.width), np.inf)
    T_camera_base = np.linalg.inv(camera.T_base_camera(robot, now))
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], axis=-1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    radius = appearance.radii[camera.view]
    for sphere in appearance.spheres:
        T_camera_frame = T_camera_base @ robot.link_poses(target)[sphere.frame]
        centre = T_camera_frame[:3, 3]
        miss = np.linalg.norm(np.cross(rays, centre), axis=-1)
        distance = rays @ centre - np.sqrt(np.maximum(radius**2 - miss**2, 0))
        hit = (miss <= radius) & (distance * rays[..., 2] > 1e-3) & (distance < nearest)
        normal = (rays * distance[..., None] - centre) / radius
        band = np.floor((normal @ T_camera_frame[:3, 0] + 1) / appearance.stripe_period)
        closed = not gripper_open and sphere.closed_colour is not None
        colour = np.array(sphere.closed_colour if closed else sphere.colour)
        coloured = band % 2 == (1 if appearance.first_stripe == "dark" else 0)
        shade = np.where(coloured, 1.0, appearance.dark)[..., None] * colour
        image[hit], nearest[hit] = np.rint(shade).astype(np.uint8)[hit], distance[hit]
    return image


@pytest.mark.parametrize("seed", range(6))
def test_rendering_matches_brute_force_ray_casting(robot: RobotModel, cameras: Mapping[str, Camera], seed: int) -> None:
    target, now, gripper_open = near_home(robot, seed), near_home(robot, seed + 100, 0.2), seed % 2 == 0
    for camera in cameras.values():
        small = camera.scale(96, 96)
        drawn = draw_targets(black(small), small, robot, APPEARANCE, target, gripper_open, now)
        expected = cast(small, robot, APPEARANCE, target, gripper_open, now)
        assert np.count_nonzero((drawn != expected).any(-1)) <= 2  # rays that rounding puts on the other side


@pytest.fixture(scope="module")
def rasteriser(request: pytest.FixtureRequest) -> Iterator[mujoco.Renderer]:
    simulation: Simulation = request.getfixturevalue("recorder").environment.simulation
    renderer = mujoco.Renderer(simulation.model, 256, 256)
    yield renderer
    renderer.close()


def test_spheres_match_mujoco(
    simulation: Simulation, rasteriser: mujoco.Renderer, robot: RobotModel, cameras: Mapping[str, Camera]
) -> None:
    balls = {"base": "link2", "elbow": "link4", "wrist": "link6"}
    model, data = simulation.model, mujoco.MjData(simulation.model)
    for seed in range(3):
        positions = near_home(robot, seed)
        for name, position in zip(robot.joint_names, positions, strict=True):
            data.joint(name).qpos[0] = position
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        centres = {name: data.body(link).xpos for name, link in balls.items()} | {"gripper": data.site("tip").xpos}
        for view, camera in cameras.items():
            rasteriser.update_scene(data, view)
            rasteriser.scene.ngeom = 0
            for centre in centres.values():
                geom = rasteriser.scene.geoms[rasteriser.scene.ngeom]
                size = np.full(3, APPEARANCE.radii[view])
                kind, white = mujoco.mjtGeom.mjGEOM_SPHERE, np.ones(4, np.float32)
                mujoco.mjv_initGeom(geom, kind, size, centre, np.eye(3).ravel(), white)
                rasteriser.scene.ngeom += 1
            rasteriser.enable_depth_rendering()
            expected = rasteriser.render() < 10  # m; there is nothing else in the picture
            rasteriser.disable_depth_rendering()
            drawn = draw_targets(black(camera), camera, robot, PLAIN, positions, True, positions).any(-1)
            assert np.sum(drawn & expected) >= 0.97 * np.sum(drawn | expected), view  # its balls have corners


def test_sphere_centres_match_opencv(simulation: Simulation, robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    dots = replace(PLAIN, radii=dict.fromkeys(cameras, 0.012))
    data = mujoco.MjData(simulation.model)
    seen = 0
    for seed in range(5):
        positions = near_home(robot, seed)
        for name, position in zip(robot.joint_names, positions, strict=True):
            data.joint(name).qpos[0] = position
        mujoco.mj_kinematics(simulation.model, data)
        mujoco.mj_camlight(simulation.model, data)
        links = {"base": data.body("link2").xpos, "elbow": data.body("link4").xpos, "wrist": data.body("link6").xpos}
        for view, camera in cameras.items():
            pose = data.camera(view)
            T_camera_base = np.diag([1.0, -1.0, -1.0]) @ pose.xmat.reshape(3, 3).T
            K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
            for name, centre in links.items():
                in_camera = T_camera_base @ (centre - pose.xpos)
                if in_camera[2] < 0.1:
                    continue
                rotation, _ = cv2.Rodrigues(T_camera_base)
                pixel = cv2.projectPoints(centre[None], rotation, -T_camera_base @ pose.xpos, K, None)[0].ravel()
                if np.any(pixel < 10) or np.any(pixel > 246):
                    continue
                drawn = draw_targets(black(camera), camera, robot, only(name, dots), positions, True, positions)
                rows, columns = np.nonzero(drawn.any(-1))
                np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], pixel, atol=0.7)
                seen += 1
    assert seen > 20


def test_small_rendering_matches_resized_large_one(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    white = replace(only("gripper", PLAIN), spheres=(Sphere("gripper", 8, (255, 255, 255)),))
    positions = near_home(robot, 5, 0.2)
    for view in ("front", "left_shoulder", "right_shoulder"):
        camera, small = cameras[view], cameras[view].scale(64, 64)
        large = draw_targets(black(camera), camera, robot, white, positions, True, positions)
        drawn = draw_targets(black(small), small, robot, white, positions, True, positions)
        difference = np.abs(crop_square(large, 64).astype(float) - drawn).mean() / drawn.astype(float).mean()
        assert difference < 0.12, view  # only along the edge; a shift by half a pixel of the large image shows
        np.testing.assert_allclose(_centre_of_light(crop_square(large, 64)), _centre_of_light(drawn), atol=0.1)


def _centre_of_light(image: Image) -> np.ndarray:
    light = image.astype(float).sum(-1)
    rows, columns = np.indices(light.shape)
    return np.array([(rows * light).sum(), (columns * light).sum()]) / light.sum()


@pytest.mark.parametrize("name", STRIPED_JOINTS)
def test_joint_rotation_moves_only_its_stripes(robot: RobotModel, cameras: Mapping[str, Camera], name: str) -> None:
    joint, appearance = STRIPED_JOINTS[name], only(name)
    shown = 0
    for camera in (cameras["front"], cameras["left_shoulder"], cameras["right_shoulder"]):
        for seed in range(4):
            before = near_home(robot, seed, 0.3)
            after = before.copy()
            after[joint] += 0.35
            a, b = (draw_targets(black(camera), camera, robot, appearance, q, True, before) for q in (before, after))
            np.testing.assert_array_equal(a.any(-1), b.any(-1))  # the sphere stays: its joint turns it in place
            area = np.count_nonzero(a.any(-1))
            if area > 100:
                assert np.count_nonzero((a != b).any(-1)) > 0.08 * area
                shown += 1
    assert shown >= 6


@pytest.mark.parametrize("name", STRIPED_JOINTS)
def test_half_turn_swaps_stripes(robot: RobotModel, cameras: Mapping[str, Camera], name: str) -> None:
    joint, appearance = STRIPED_JOINTS[name], only(name)
    for view in ("front", "left_shoulder", "right_shoulder"):
        camera = cameras[view]
        before = robot.home.copy()
        after = before.copy()
        after[joint] += np.pi
        a, b = (draw_targets(black(camera), camera, robot, appearance, q, True, before) for q in (before, after))
        area = np.count_nonzero(a.any(-1))
        assert area > 50
        assert np.count_nonzero((a != b).any(-1)) > 0.97 * area


def test_four_spheres_determine_every_joint(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    """Every joint's rotation changes at least one view."""
    views = [cameras[view] for view in ("front", "left_shoulder", "right_shoulder")]
    for joint in range(7):
        after = robot.home.copy()
        after[joint] += 0.15
        changed = [
            np.count_nonzero(
                draw_targets(black(camera), camera, robot, APPEARANCE, robot.home, True, robot.home)
                != draw_targets(black(camera), camera, robot, APPEARANCE, after, True, robot.home)
            )
            for camera in views
        ]
        assert max(changed) > 100, robot.joint_names[joint]


def looking_at(robot: RobotModel, target: np.ndarray, direction: np.ndarray, distance: float) -> Camera:
    """A camera at ``distance`` from the tip of ``target``, looking at it along ``direction``."""
    z = direction / np.linalg.norm(direction)
    x = np.cross([0.3, 0.9, 0.1], z)
    x /= np.linalg.norm(x)
    T_base_camera = np.eye(4)
    T_base_camera[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    T_base_camera[:3, 3] = robot.link_poses(target)[-1, :3, 3] - distance * z
    return Camera("front", "base", T_base_camera, 100, 100, 110.0, 110.0, 50.0, 50.0)


def test_nearer_sphere_occludes_farther_one(robot: RobotModel) -> None:
    poses = robot.link_poses(robot.home)
    camera = looking_at(robot, robot.home, poses[8, :3, 3] - poses[3, :3, 3], 1.5)  # the elbow is before the gripper
    elbow, gripper = Sphere("elbow", 3, (0, 255, 0)), Sphere("gripper", 8, (0, 0, 255))
    pictures = []
    for spheres in ((elbow, gripper), (gripper, elbow)):
        appearance = replace(PLAIN, spheres=spheres)
        pictures.append(draw_targets(black(camera), camera, robot, appearance, robot.home, True, robot.home))
    np.testing.assert_array_equal(*pictures)
    assert pictures[0][50, 50].tolist() == [0, 255, 0]
    back = looking_at(robot, robot.home, poses[3, :3, 3] - poses[8, :3, 3], 1.5)
    both = replace(PLAIN, spheres=(elbow, gripper))
    drawn = draw_targets(black(back), back, robot, both, robot.home, True, robot.home)
    assert drawn[50, 50].tolist() == [0, 0, 255]


def test_spheres_out_of_view_are_omitted(robot: RobotModel) -> None:
    for turn, distance in ((0.0, -1.0), (np.pi / 2, 1.0)):
        camera = looking_at(robot, robot.home, np.array([1.0, 0.0, 0.0]), distance)
        away = camera.T_parent_camera.copy()
        away[:3, :3] = away[:3, :3] @ Rotation.from_euler("y", turn).as_matrix()
        camera = replace(camera, T_parent_camera=away)
        image = np.full((100, 100, 3), 7, np.uint8)
        drawn = draw_targets(image, camera, robot, only("gripper"), robot.home, True, robot.home)
        np.testing.assert_array_equal(drawn, image)


@pytest.mark.parametrize("distance", [0.0, 0.04, 0.0799, 0.0815, 0.085, 0.12])
def test_camera_inside_sphere_matches_ray_casting(robot: RobotModel, distance: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        camera = looking_at(robot, robot.home, rng.normal(size=3), distance)
        drawn = draw_targets(black(camera), camera, robot, only("gripper"), robot.home, True, robot.home)
        expected = cast(camera, robot, only("gripper"), robot.home, True, robot.home)
        assert np.count_nonzero((drawn != expected).any(-1)) <= 2
        assert drawn.any() == (distance > 0.08)  # from inside, nothing is seen


def test_camera_plane_may_intersect_sphere(robot: RobotModel) -> None:
    for seed in range(5):
        camera = looking_at(robot, robot.home, np.random.default_rng(seed).normal(size=3), 0.0)
        aside = camera.T_parent_camera.copy()
        aside[:3, 3] += 0.1 * aside[:3, 0] - 0.05 * aside[:3, 2]  # out of the sphere, which lies to the side and ahead
        camera = replace(camera, T_parent_camera=aside, fx=30.0, fy=30.0)
        drawn = draw_targets(black(camera), camera, robot, only("gripper"), robot.home, True, robot.home)
        expected = cast(camera, robot, only("gripper"), robot.home, True, robot.home)
        assert expected.any()
        assert np.count_nonzero((drawn != expected).any(-1)) <= 2


def test_opacity_blends_with_image_below(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    camera = cameras["front"]
    below = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    solid, half, none = (
        draw_targets(below, camera, robot, only("elbow"), robot.home, True, robot.home, opacity)
        for opacity in (1.0, 0.5, 0.0)
    )
    assert (solid != below).any()
    np.testing.assert_allclose(half, below / 2 + solid / 2, atol=1.01)
    np.testing.assert_array_equal(none, below)


def test_input_image_is_unchanged(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    below = black(cameras["front"])
    below.flags.writeable = False
    assert draw_targets(below, cameras["front"], robot, APPEARANCE, robot.home, True, robot.home).any()
    assert not below.any()


def test_only_gripper_sphere_depends_on_gripper(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    camera = cameras["front"]
    opened, closed = (
        draw_targets(black(camera), camera, robot, PLAIN, robot.home, gripper_open, robot.home)
        for gripper_open in (True, False)
    )
    changed = (opened != closed).any(-1)
    assert changed.any()
    assert np.unique(opened[changed], axis=0).tolist() == [[5, 206, 235]]
    assert np.unique(closed[changed], axis=0).tolist() == [[255, 255, 0]]


@pytest.mark.parametrize("period", [1.0, 0.5, 0.3, 0.1])
def test_stripe_pair_spans_one_period_of_diameter(period: float) -> None:
    camera = Camera("front", "base", np.eye(4), 200, 200, 1e6, 1e6, 100.0, 100.0)  # so far away that depth is lost
    sphere = PlacedSphere("elbow", np.array([0.0, 0.0, 1000.0]), 0.09, np.array([1.0, 0.0, 0.0]), (200, 200, 200))
    across = render_spheres(camera, [sphere], replace(APPEARANCE, stripe_period=period))[100, :, 0].astype(int)
    borders = np.flatnonzero(np.diff(across)) + 1
    np.testing.assert_allclose(borders, [*np.arange(10, 190 - 1e-6, 180 * period / 2), 190], atol=1)
    assert across[12] == 70 and across[9] == across[191] == 0


def stripes_down(appearance: Appearance, renderer: str) -> tuple[list[int], list[int]]:
    """First rows and brightnesses of the stripes down the middle of a sphere of 960 px."""
    camera = Camera("front", "base", np.eye(4), 1000, 1000, _FAR * 1000, _FAR * 1000, 500.0, 500.0)
    sphere = PlacedSphere("elbow", np.array([0.0, 0.0, _FAR]), _RADIUS, np.array([0.0, 1.0, 0.0]), (200, 200, 200))
    down = render_spheres(camera, [sphere], appearance, renderer)[:, 500]
    rows = np.flatnonzero(down[:, 3])
    shades = down[rows, 0].astype(int)
    starts = np.flatnonzero(np.diff(shades, prepend=-1))
    return rows[starts].tolist(), shades[starts].tolist()


_FAR, _RADIUS = 10.0, 0.48  # m


def rows_at(heights: np.ndarray) -> np.ndarray:
    """Projection of points on the sphere's surface at heights -1..1."""
    y = _RADIUS * np.clip(heights, -1, 1)
    return 500 + _FAR * 1000 * y / (_FAR - np.sqrt(_RADIUS**2 - y**2))


@pytest.mark.parametrize("renderer", RENDERERS)
def test_stripes_of_both_appearances(renderer: str) -> None:
    """Stripes of the release: 10 whole and a partial one, coloured first; a pair is 0.1875 of the diameter."""
    rows, shades = stripes_down(RELEASE, renderer)
    assert shades == [200, 0] * 5 + [200]
    np.testing.assert_allclose(rows, rows_at(-1 + 0.1875 * np.arange(11)), atol=2)
    rows, shades = stripes_down(Appearance.load("wide_stripes"), renderer)
    assert shades == [70, 200, 70, 200]
    np.testing.assert_allclose(rows, rows_at(np.array([-1, -0.5, 0, 0.5])), atol=2)


@pytest.mark.parametrize("name", STRIPED_JOINTS)
def test_joint_rotation_shows_in_release_stripes(robot: RobotModel, cameras: Mapping[str, Camera], name: str) -> None:
    joint, appearance = STRIPED_JOINTS[name], only(name, RELEASE)
    for turn, least in ((0.1, 0.08), (0.19, 0.15), (np.pi, 0.15)):  # rad; a stripe is 0.19 rad wide at the equator
        shares = []
        for view in ("front", "left_shoulder", "right_shoulder"):
            before, after = robot.home.copy(), robot.home.copy()
            after[joint] += turn
            a, b = (
                render_spheres(
                    cameras[view], place_spheres(cameras[view], robot, appearance, q, True, before), appearance
                )
                for q in (before, after)
            )
            np.testing.assert_array_equal(a[..., 3], b[..., 3])  # it turns in place
            shares.append(np.count_nonzero((a != b).any(-1)) / np.count_nonzero(a[..., 3]))
        assert max(shares) > least, (turn, shares)


def test_stripe_labels_distinguish_spheres(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    camera = cameras["front"]
    for appearance in (RELEASE, APPEARANCE, replace(APPEARANCE, spheres=APPEARANCE.spheres[::-1])):
        spheres = place_spheres(camera, robot, appearance, robot.home, True, robot.home)
        layer, labels = render_spheres(camera, spheres, appearance), label_stripes(camera, spheres, appearance)
        assert set(np.unique(labels)) == set(range(2 * len(spheres) + 1))
        np.testing.assert_array_equal(labels > 0, layer[..., 3] > 0)
        for i, sphere in enumerate(spheres):
            for k, colour in enumerate(stripe_colours(sphere, appearance)):
                assert (layer[labels == 2 * i + 1 + k] == colour).all()


# ------------------------------------------------------------------------------------------ renderers that agree

GRAPHICS = tuple(name for name in RENDERERS if name != "raycast")


def anywhere(robot: RobotModel, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(robot.position_min, robot.position_max)


def require_agreement(camera: Camera, spheres: Sequence[PlacedSphere], appearance: Appearance, renderer: str) -> None:
    """IoU of 0.99 (or a pixel) of every sphere's mask; two grey levels wherever no border is within a pixel."""
    for sphere in spheres:
        masks = [render_spheres(camera, [sphere], appearance, name)[..., 3] for name in ("raycast", renderer)]
        assert all(set(np.unique(mask)) <= {0, 255} for mask in masks)
        different, either = np.count_nonzero(masks[0] != masks[1]), np.count_nonzero(masks[0] | masks[1])
        assert different <= max(1, 0.01 * either), (camera.view, sphere.name, different, either)
    expected = render_spheres(camera, spheres, appearance)
    layer = render_spheres(camera, spheres, appearance, renderer)
    assert layer.shape == (camera.height, camera.width, 4) and layer.dtype == np.uint8
    assert not layer[layer[..., 3] == 0].any()
    flat = (cv2.dilate(expected, np.ones((3, 3))) == cv2.erode(expected, np.ones((3, 3)))).all(-1)
    np.testing.assert_allclose(layer[flat].astype(int), expected[flat], atol=2)


@pytest.mark.parametrize("renderer", GRAPHICS)
def test_renderers_agree_over_random_poses_of_arm(
    robot: RobotModel, cameras: Mapping[str, Camera], renderer: str
) -> None:
    behind = cut = hidden = 0
    for seed in range(12):
        target, now = anywhere(robot, seed), near_home(robot, seed)
        appearance = (*(replace(APPEARANCE, stripe_period=period) for period in (0.5, 0.3, 1.0)), RELEASE)[seed % 4]
        for camera in cameras.values():
            spheres = place_spheres(camera, robot, appearance, target, seed % 2 == 0, now)
            require_agreement(camera, spheres, appearance, renderer)
            masks = np.array([render_spheres(camera, [sphere], appearance)[..., 3] > 0 for sphere in spheres])
            behind += sum(sphere.centre[2] < 0 for sphere in spheres)
            cut += bool(masks[:, [0, -1]].any() or masks[:, :, [0, -1]].any())
            hidden += bool((masks.sum(0) > 1).any())
    assert min(behind, cut, hidden) >= 3  # the poses are those that matter


@pytest.mark.parametrize("renderer", GRAPHICS)
@pytest.mark.parametrize(
    "centre",
    [
        pytest.param((0.0, 0.0, 0.05), id="round the camera"),
        pytest.param((0.0, 0.01, 0.0799), id="just round the camera"),
        pytest.param((0.0, 0.0, 0.0815), id="touching the near plane"),
        pytest.param((0.12, 0.03, 0.1), id="cutting the border, large"),
        pytest.param((0.09, 0.0, 0.02), id="cutting the camera's plane"),
        pytest.param((0.085, 0.0, -0.0793), id="hardly before the camera's plane"),
        pytest.param((0.0, 0.0, -0.5), id="behind"),
        pytest.param((2.0, 0.0, 0.5), id="beside"),
        pytest.param((0.5, -0.4, 6.0), id="far"),
    ],
)
def test_renderers_agree_for_random_spheres(centre: tuple[float, float, float], renderer: str) -> None:
    camera = Camera("front", "base", np.eye(4), 320, 200, 150.0, 170.0, 130.0, 120.0)
    for normal in np.random.default_rng(0).normal(size=(3, 3)):
        sphere = PlacedSphere("gripper", np.array(centre), 0.08, normal / np.linalg.norm(normal), (5, 206, 235))
        require_agreement(camera, [sphere], APPEARANCE, renderer)


@pytest.mark.parametrize("renderer", GRAPHICS)
def test_intersecting_spheres(renderer: str) -> None:
    camera = Camera("front", "base", np.eye(4), 200, 200, 250.0, 250.0, 100.0, 100.0)
    for offset in ((0.03, 0.0, 0.0), (0.0, 0.04, 0.01), (0.02, 0.02, 0.03)):
        spheres = [
            PlacedSphere("a", np.array([0.0, 0.0, 0.4]), 0.08, np.array([1.0, 0.0, 0.0]), (255, 0, 0)),
            PlacedSphere("b", np.array(offset) + [0.0, 0.0, 0.4], 0.08, np.array([0.0, 1.0, 0.0]), (0, 255, 0)),
        ]
        for both in (spheres, spheres[::-1]):
            assert len(np.unique(render_spheres(camera, both, APPEARANCE, renderer)[..., :2] > 0, axis=1)) > 1
            require_agreement(camera, both, APPEARANCE, renderer)


@pytest.mark.parametrize("renderer", RENDERERS)
def test_rendering_in_changing_sizes(robot: RobotModel, cameras: Mapping[str, Camera], renderer: str) -> None:
    """A failed rendering affects neither later images nor memory."""
    views = [cameras["front"].scale(width, height) for width, height in ((64, 64), (256, 200), (96, 300))]
    placed = [place_spheres(camera, robot, APPEARANCE, robot.home, True, robot.home) for camera in views]
    first = [render_spheres(c, p, APPEARANCE, renderer) for c, p in zip(views, placed, strict=True)]

    def draw_again(times: int) -> None:
        for i in range(times):
            layer = render_spheres(views[i % 3], placed[i % 3], APPEARANCE, renderer)
            np.testing.assert_array_equal(layer, first[i % 3])

    draw_again(30)
    before = psutil.Process().memory_info().rss
    draw_again(60)
    assert psutil.Process().memory_info().rss - before < 8e6  # a framebuffer of each size alone takes 0.5 MB


@pytest.mark.parametrize("renderer", GRAPHICS)
def test_renderers_and_mujoco_alternate_in_any_thread(
    rasteriser: mujoco.Renderer, simulation: Simulation, robot: RobotModel, cameras: Mapping[str, Camera], renderer: str
) -> None:
    camera = cameras["front"]
    spheres = place_spheres(camera, robot, APPEARANCE, robot.home, True, robot.home)
    rasteriser.update_scene(simulation.data, "front")
    scene = rasteriser.render().copy()
    layer = render_spheres(camera, spheres, APPEARANCE, renderer)
    with ThreadPoolExecutor(3) as threads:
        layers = [threads.submit(render_spheres, camera, spheres, APPEARANCE, renderer) for _ in range(12)]
        for _ in range(3):
            np.testing.assert_array_equal(rasteriser.render(), scene)
            np.testing.assert_array_equal(render_spheres(camera, spheres, APPEARANCE, renderer), layer)
        for other in layers:
            np.testing.assert_array_equal(other.result(), layer)


def in_another_process(program: str, **environment: str) -> list[str]:
    """Output of a program with a camera and a sphere in front of it."""
    setting = """
import os
import numpy as np
from genima.errors import GenimaError
from genima.targets import Appearance, PlacedSphere, render_spheres
from genima.cameras.camera import Camera

def draw(renderer):
    camera = Camera("front", "base", np.eye(4), 64, 64, 64.0, 64.0, 32.0, 32.0)
    sphere = PlacedSphere("gripper", np.array([0.0, 0.0, 0.5]), 0.1, np.array([1.0, 0.0, 0.0]), (0, 0, 255))
    try:
        print(int(render_spheres(camera, [sphere], Appearance(), renderer).any()), flush=True)
    except GenimaError as error:
        print(error, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", setting + program],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def test_renderer_failure_is_one_line_error() -> None:
    program = "for renderer in ('raycast', 'pyrender'): draw(renderer)"
    lines = in_another_process(program, EGL_DEVICE_ID="99")
    assert len(lines) == 2
    assert lines[0] == "1"
    assert "pyrender: cannot start" in lines[1] and "install libegl1" in lines[1]


def test_forked_process_is_one_line_error() -> None:
    program = """
draw('pyrender')
if os.fork() == 0:
    draw('pyrender')
    os._exit(0)
os.wait()
"""
    drawn, forked = in_another_process(program)
    assert drawn == "1" and "forked" in forked and "spawn" in forked


def test_unknown_renderer_is_rejected(cameras: Mapping[str, Camera]) -> None:
    with pytest.raises(GenimaError, match=r"renderer: unknown \('opengl'\); use raycast or pyrender"):
        render_spheres(cameras["front"], [], APPEARANCE, "opengl")


def test_missing_radius_and_unknown_frame_are_rejected(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    camera = replace(cameras["front"], view="upper_wrist")
    with pytest.raises(GenimaError, match="no sphere radius for view upper_wrist"):
        place_spheres(camera, robot, APPEARANCE, robot.home, True, robot.home)
    ninth = replace(APPEARANCE, spheres=(Sphere("gripper", 9, (1, 2, 3)),))
    with pytest.raises(GenimaError, match=r"sphere gripper: unknown frame \(9\); panda has frames 0 to 8"):
        place_spheres(cameras["front"], robot, ninth, robot.home, True, robot.home)


def test_sphere_hides_spheres_behind_it(robot: RobotModel) -> None:
    poses = robot.link_poses(robot.home)
    camera = looking_at(robot, robot.home, poses[8, :3, 3] - poses[3, :3, 3], 1.5)  # the elbow is before the gripper
    below = np.full((100, 100, 3), 40, np.uint8)
    both = replace(PLAIN, spheres=(Sphere("gripper", 8, (0, 0, 255)), Sphere("elbow", 3, (0, 255, 0))))
    drawn = draw_targets(below, camera, robot, both, robot.home, True, robot.home, opacity=0.5)
    np.testing.assert_allclose(drawn[50, 50], [20, 147, 20], atol=1)


# ---------------------------------------------------------------------------------------- appearances from files


def test_appearance_dict_round_trip(tmp_path: Path) -> None:
    other = Appearance((Sphere("hand", 7, (1, 2, 3), (4, 5, 6)),), {"top": 0.05}, 0.25, 0.1, "coloured")
    for appearance in (APPEARANCE, other, RELEASE):
        data = json.loads(json.dumps(appearance.to_dict()))
        assert Appearance.from_dict(data) == appearance
        for missing in data.keys() - {"first_stripe"}:
            with pytest.raises(ValueError, match=f"{missing}: Field required"):
                Appearance.from_dict({key: value for key, value in data.items() if key != missing})
    file = tmp_path / "appearance.yaml"
    file.write_text(yaml.safe_dump(APPEARANCE.to_dict()))
    assert Appearance.load(file) == APPEARANCE


def test_shipped_appearances_and_default_of_old_checkpoints() -> None:
    assert Appearance.load("wide_stripes") == APPEARANCE == Appearance.load(Path("wide_stripes"))
    file = yaml.safe_load(paths.shared("config", "appearances", "wide_stripes.yaml").read_text(encoding="utf-8"))
    assert Appearance.from_dict(file) == APPEARANCE  # the file names everything
    assert (RELEASE.stripe_period, RELEASE.dark, RELEASE.first_stripe) == (0.1875, 0.0, "coloured")
    assert (RELEASE.spheres, RELEASE.radii) == (APPEARANCE.spheres, APPEARANCE.radii)
    plain = Appearance.load("no_stripes")
    assert plain == replace(APPEARANCE, dark=1.0) and plain.stripes == (1.0, 1.0)
    assert "first_stripe" not in APPEARANCE.to_dict() and RELEASE.to_dict()["first_stripe"] == "coloured"
    for bundled in paths.shared("models", "tiny").glob("*/genima.json"):
        assert Appearance.from_dict(json.loads(bundled.read_text(encoding="utf-8"))["appearance"]) == APPEARANCE
    with pytest.raises(GenimaError, match="appearance stripy: unknown; use genima_release, no_stripes, wide_stripes"):
        Appearance.load("stripy")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", APPEARANCE),
        ("stripe_period: 0.25", replace(APPEARANCE, stripe_period=0.25)),
        ("dark: 0", replace(APPEARANCE, dark=0.0)),
        ("first_stripe: coloured", replace(APPEARANCE, first_stripe="coloured")),
        ("spheres: [{name: gripper, closed_colour: null}]", without_closed_colour()),
        ("radii: {front: 0.1, top: 0.2}", replace(APPEARANCE, radii={**APPEARANCE.radii, "front": 0.1, "top": 0.2})),
        (
            "spheres: [{name: elbow, colour: [1, 2, 3]}, {name: hand, frame: 7, colour: [4, 5, 6]}]",
            replace(
                APPEARANCE,
                spheres=(
                    APPEARANCE.spheres[0],
                    Sphere("elbow", 3, (1, 2, 3)),
                    *APPEARANCE.spheres[2:],
                    Sphere("hand", 7, (4, 5, 6)),
                ),
            ),
        ),
    ],
)
def test_appearance_file_changes_only_its_fields(tmp_path: Path, text: str, expected: Appearance) -> None:
    file = tmp_path / "appearance.yaml"
    file.write_text(text)
    assert Appearance.load(file) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("bands: 4", "bands: Extra inputs are not permitted"),
        ("spheres: [{name: elbow, color: [1, 2, 3]}]", "spheres.0.color: Extra inputs"),
        ("spheres: [{name: elbow, colour: [1, 2]}]", r"spheres.0.colour: .* at least 3 items .*\[1, 2\]"),
        ("spheres: [{name: elbow, colour: [1, 2, 256]}]", r"spheres.0.colour.2: .* less than or equal to 255 \(256\)"),
        ("spheres: [{name: elbow, colour: [1, 2, 0.5]}]", "spheres.0.colour.2: .* valid integer"),
        ("spheres: [{name: elbow, closed_colour: red}]", r"spheres.0.closed_colour: .* valid list \('red'\)"),
        ("spheres: [{name: elbow, frame: -1}]", r"spheres.0.frame: .* greater than or equal to 0 \(-1\)"),
        ("spheres: [{name: hand, colour: [1, 2, 3]}]", "spheres.4.frame: Field required"),
        ("spheres: [{colour: [1, 2, 3]}]", "spheres.0.name: Field required"),
        ("spheres: [{name: 3}]", "spheres.0.name: .* valid string"),
        ("spheres: elbow", "spheres: .* valid list"),
        ("radii: {front: 0}", r"radii.front: .* greater than 0 \(0\)"),
        ("radii: {front: 80}", r"radii.front: .* less than or equal to 1 \(80\)"),
        ("radii: {front: .nan}", "radii.front: .* finite"),
        ("radii: {front: .inf}", "radii.front: .* finite"),
        ("radii: {front: 8cm}", r"radii.front: .* valid number \('8cm'\)"),
        ("radii: 0.1", "radii: .* valid dictionary"),
        ("radii:", r"radii: .* valid dictionary \(None\)"),
        ("stripe_period: 0", r"stripe_period: .* greater than or equal to 0.01 \(0\)"),
        ("stripe_period: 1.5", r"stripe_period: .* less than or equal to 1 \(1.5\)"),
        ("stripe_period: true", "stripe_period: .* valid number"),
        ("dark: 35", r"dark: .* less than or equal to 1 \(35\)"),
        ("first_stripe: black", r"first_stripe: .* 'dark' or 'coloured' \('black'\)"),
        ("- 1", r"valid dictionary .*\[1\]"),
        ("a: [", "not YAML"),
    ],
)
def test_bad_appearance_file_is_rejected_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "appearance.yaml"
    file.write_text(text)
    with pytest.raises(GenimaError, match=complaint) as raised:
        Appearance.load(file)
    assert str(file) in str(raised.value) and "\n" not in str(raised.value)


def test_mutated_appearances_are_rejected_or_valid(tmp_path: Path, robot: RobotModel) -> None:
    file = tmp_path / "appearance.yaml"
    camera = looking_at(robot, robot.home, np.array([1.0, 0.0, 0.0]), 0.5).scale(24, 24)
    valid = {**APPEARANCE.to_dict(), "first_stripe": "coloured"}
    read = 0

    def draw(appearance: Appearance) -> None:
        draw_targets(black(camera), camera, robot, appearance, robot.home, True, robot.home)

    for data in mutated_data(valid, 700):
        file.write_text(json.dumps(data), encoding="utf-8")
        read += require_clean(lambda: draw(Appearance.load(file)), data)
        try:
            draw(Appearance.from_dict(data))
        except (ValueError, GenimaError) as error:
            assert "\n" not in str(error)
    for text in mutated_bytes(yaml.safe_dump(valid).encode(), 300):
        file.write_bytes(text)
        read += require_clean(lambda: draw(Appearance.load(file)), text)
    assert 10 < read < 800


def test_missing_appearance_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(GenimaError, match="nowhere.yaml does not exist"):
        Appearance.load(tmp_path / "nowhere.yaml")


def test_benchmark_has_renderer_three_times_faster_than_pyrender(tmp_path: Path) -> None:
    benchmark, out = Path(__file__).resolve().parents[4] / "benchmarks" / "rendering.py", tmp_path / "result.json"
    subprocess.run([sys.executable, benchmark, "--poses", "20", "--out", out], check=True, timeout=120)
    renderers = json.loads(out.read_text())["renderers"]
    assert renderers["raycast"]["ratio"] >= 3
    assert min(result["iou"] for result in renderers.values()) >= 0.99
    assert max(result["off"] for result in renderers.values()) < 0.005  # only at borders: there by a whole colour
