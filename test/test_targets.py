"""Drawn targets against OpenCV's projection, brute-force ray casting and MuJoCo's rasteriser; and stripes that turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import cv2
import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genima.diffusion.agent import resize
from genima.observation import Image
from genima.robot.model import RobotModel
from genima.targets import Appearance, Sphere, draw_targets
from genima.views import Camera
from genima_sim.simulation import Simulation

APPEARANCE = Appearance()
PLAIN = replace(APPEARANCE, bands=2, dark=1.0)  # no stripes: every sphere in one colour
STRIPED_JOINTS = {"base": 1, "elbow": 3, "wrist": 5, "gripper": 6}  # index of the joint that turns each sphere


def near_home(robot: RobotModel, seed: int, width: float = 0.5) -> np.ndarray:
    positions = robot.home + np.random.default_rng(seed).uniform(-width, width, 7)
    return np.clip(positions, robot.position_min, robot.position_max)


def black(camera: Camera) -> Image:
    return np.zeros((camera.height, camera.width, 3), np.uint8)


def only(name: str, appearance: Appearance = APPEARANCE) -> Appearance:
    return replace(appearance, spheres=tuple(sphere for sphere in appearance.spheres if sphere.name == name))


def cast(
    camera: Camera, robot: RobotModel, appearance: Appearance, target: np.ndarray, gripper_open: bool, now: np.ndarray
) -> Image:
    """The slow way: the distance of every pixel's ray from every centre, and the angle of the hit to the x axis."""
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
        band = np.floor((normal @ T_camera_frame[:3, 0] + 1) / 2 * appearance.bands)
        closed = not gripper_open and sphere.closed_colour is not None
        colour = np.array(sphere.closed_colour if closed else sphere.colour)
        shade = np.where(band % 2 == 1, 1.0, appearance.dark)[..., None] * colour
        image[hit], nearest[hit] = np.rint(shade).astype(np.uint8)[hit], distance[hit]
    return image


@pytest.mark.parametrize("seed", range(6))
def test_drawings_equal_brute_force_ray_casting(robot: RobotModel, cameras: Mapping[str, Camera], seed: int) -> None:
    target, now, gripper_open = near_home(robot, seed), near_home(robot, seed + 100, 0.2), seed % 2 == 0
    for camera in cameras.values():
        small = camera.scaled(96, 96)
        drawn = draw_targets(black(small), small, robot, APPEARANCE, target, gripper_open, now)
        expected = cast(small, robot, APPEARANCE, target, gripper_open, now)
        assert np.count_nonzero((drawn != expected).any(-1)) <= 2  # rays that rounding puts on the other side


@pytest.fixture(scope="module")
def rasteriser(request: pytest.FixtureRequest) -> Iterator[mujoco.Renderer]:
    simulation: Simulation = request.getfixturevalue("recorder").simulation
    renderer = mujoco.Renderer(simulation.model, 256, 256)
    yield renderer
    renderer.close()


def test_spheres_cover_what_mujoco_renders_for_balls_at_the_same_links(
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


def test_sphere_centres_are_where_opencv_projects_the_simulated_links(
    simulation: Simulation, robot: RobotModel, cameras: Mapping[str, Camera]
) -> None:
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


def test_drawing_small_equals_drawing_large_and_shrinking(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    white = replace(only("gripper", PLAIN), spheres=(Sphere("gripper", 8, (255, 255, 255)),))
    positions = near_home(robot, 5, 0.2)
    for view in ("front", "left_shoulder", "right_shoulder"):
        camera, small = cameras[view], cameras[view].scaled(64, 64)
        large = draw_targets(black(camera), camera, robot, white, positions, True, positions)
        drawn = draw_targets(black(small), small, robot, white, positions, True, positions)
        difference = np.abs(resize(large, 64).astype(float) - drawn).mean() / drawn.astype(float).mean()
        assert difference < 0.12, view  # only along the edge; a shift by half a pixel of the large image shows
        np.testing.assert_allclose(_centre_of_light(resize(large, 64)), _centre_of_light(drawn), atol=0.1)


def _centre_of_light(image: Image) -> np.ndarray:
    light = image.astype(float).sum(-1)
    rows, columns = np.indices(light.shape)
    return np.array([(rows * light).sum(), (columns * light).sum()]) / light.sum()


@pytest.mark.parametrize("name", STRIPED_JOINTS)
def test_turning_a_joint_moves_the_stripes_of_its_own_sphere_and_nothing_else(
    robot: RobotModel, cameras: Mapping[str, Camera], name: str
) -> None:
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
def test_half_a_turn_swaps_bright_and_dark(robot: RobotModel, cameras: Mapping[str, Camera], name: str) -> None:
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


def test_the_four_spheres_together_tell_every_drawn_joint(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    """No joint can turn without changing some view: nothing that the controller must know is invisible."""
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


def test_a_nearer_sphere_hides_a_farther_one_whatever_the_order(robot: RobotModel) -> None:
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


def test_spheres_behind_the_camera_or_out_of_view_are_left_out(robot: RobotModel) -> None:
    for turn, distance in ((0.0, -1.0), (np.pi / 2, 1.0)):
        camera = looking_at(robot, robot.home, np.array([1.0, 0.0, 0.0]), distance)
        away = camera.T_parent_camera.copy()
        away[:3, :3] = away[:3, :3] @ Rotation.from_euler("y", turn).as_matrix()
        camera = replace(camera, T_parent_camera=away)
        image = np.full((100, 100, 3), 7, np.uint8)
        drawn = draw_targets(image, camera, robot, only("gripper"), robot.home, True, robot.home)
        np.testing.assert_array_equal(drawn, image)


@pytest.mark.parametrize("distance", [0.0, 0.04, 0.0799, 0.0815, 0.085, 0.12])
def test_a_camera_inside_or_close_to_a_sphere_draws_what_ray_casting_draws(robot: RobotModel, distance: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        camera = looking_at(robot, robot.home, rng.normal(size=3), distance)
        drawn = draw_targets(black(camera), camera, robot, only("gripper"), robot.home, True, robot.home)
        expected = cast(camera, robot, only("gripper"), robot.home, True, robot.home)
        assert np.count_nonzero((drawn != expected).any(-1)) <= 2
        assert drawn.any() == (distance > 0.08)  # from inside, nothing is seen


def test_the_camera_plane_may_cut_a_sphere(robot: RobotModel) -> None:
    for seed in range(5):
        camera = looking_at(robot, robot.home, np.random.default_rng(seed).normal(size=3), 0.0)
        aside = camera.T_parent_camera.copy()
        aside[:3, 3] += 0.1 * aside[:3, 0] - 0.05 * aside[:3, 2]  # out of the sphere, which lies beside and ahead
        camera = replace(camera, T_parent_camera=aside, fx=30.0, fy=30.0)
        drawn = draw_targets(black(camera), camera, robot, only("gripper"), robot.home, True, robot.home)
        expected = cast(camera, robot, only("gripper"), robot.home, True, robot.home)
        assert expected.any()
        assert np.count_nonzero((drawn != expected).any(-1)) <= 2


def test_opacity_blends_with_the_image_below(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    camera = cameras["front"]
    below = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    solid, half, none = (
        draw_targets(below, camera, robot, only("elbow"), robot.home, True, robot.home, opacity)
        for opacity in (1.0, 0.5, 0.0)
    )
    assert (solid != below).any()
    np.testing.assert_allclose(half, below / 2 + solid / 2, atol=1.01)
    np.testing.assert_array_equal(none, below)


def test_the_image_below_is_not_written_to(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    below = black(cameras["front"])
    below.flags.writeable = False
    assert draw_targets(below, cameras["front"], robot, APPEARANCE, robot.home, True, robot.home).any()
    assert not below.any()


def test_only_the_gripper_sphere_tells_open_from_closed(robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    camera = cameras["front"]
    opened, closed = (
        draw_targets(black(camera), camera, robot, PLAIN, robot.home, gripper_open, robot.home)
        for gripper_open in (True, False)
    )
    changed = (opened != closed).any(-1)
    assert changed.any()
    assert np.unique(opened[changed], axis=0).tolist() == [[5, 206, 235]]
    assert np.unique(closed[changed], axis=0).tolist() == [[255, 255, 0]]


def test_appearance_survives_its_plain_form() -> None:
    assert Appearance.from_dict(APPEARANCE.to_dict()) == APPEARANCE
    with pytest.raises(KeyError):
        Appearance.from_dict({key: value for key, value in APPEARANCE.to_dict().items() if key != "bands"})
