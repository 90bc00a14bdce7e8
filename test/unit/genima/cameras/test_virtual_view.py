"""Tests of the virtual view: it shows the whole robot and nothing else."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from dataclasses import replace

import cv2
import mujoco
import numpy as np
import psutil
import pytest
from projection import project

from genima.cameras.virtual_view import BACKGROUND, VIRTUAL, VirtualView, virtual_camera
from genima.errors import GenimaError
from genima.robot import body
from genima.robot.model import RobotModel
from genima.system.opengl_context import mujoco_renderer
from genima.targets import Appearance, draw_targets, place_spheres, render_spheres
from genima.targets.appearance import DEFAULT
from genima_sim.demo_recorder import DemoRecorder
from genima_sim.scene import build_scene
from genima_sim.simulation import Simulation
from genima_sim.tasks import get_task, scene_objects

CAMERA = virtual_camera()


@pytest.fixture(scope="module")
def view(robot: RobotModel) -> Iterator[VirtualView]:
    view = VirtualView(robot)
    yield view
    view.close()


def at_work(robot: RobotModel, count: int) -> np.ndarray:
    """Joint positions (count, 7) around home that keep gripper and elbow above the table."""
    drawn = robot.home + np.random.default_rng(0).uniform(-0.6, 0.6, (20 * count, 7))
    drawn = np.clip(drawn, robot.position_min, robot.position_max)
    return drawn[robot.link_poses(drawn)[:, 3:, 2, 3].min(axis=1) > 0.05][:count]


def silhouette(image: np.ndarray) -> np.ndarray:
    return (image != BACKGROUND).any(axis=-1)


def test_virtual_camera_is_upright_and_looks_down(view: VirtualView, robot: RobotModel) -> None:
    rotation = CAMERA.T_parent_camera[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert rotation[2, 0] == pytest.approx(0) and rotation[2, 1] < 0 and rotation[2, 2] < 0
    assert CAMERA.view == VIRTUAL and (CAMERA.height, CAMERA.width, 3) == view.render(robot.home, 1.0).shape


def test_arm_and_spheres_are_in_virtual_view(view: VirtualView, robot: RobotModel) -> None:
    appearance = Appearance()
    for positions in at_work(robot, 40):
        image = view.render(positions, 1.0)
        drawn = draw_targets(image, CAMERA, robot, appearance, positions, True, positions)
        seen = silhouette(drawn)
        assert not (seen[[0, -1]].any() or seen[:, [0, -1]].any())
        assert np.ptp(np.flatnonzero(silhouette(image).any(axis=1))) > CAMERA.height / 4  # and it is not tiny


def test_silhouette_matches_simulated_robot(view: VirtualView, simulation: Simulation, robot: RobotModel) -> None:
    scene = build_scene(robot, {VIRTUAL: CAMERA}, scene_objects(get_task("push_button"))).model
    data, robot_only = mujoco.MjData(scene), mujoco.MjvOption()
    robot_only.geomgroup[:] = [0, 1, 0, 0, 0, 0]
    renderer = mujoco.Renderer(scene, CAMERA.height, CAMERA.width)
    renderer.enable_segmentation_rendering()
    for positions, gripper in zip(at_work(robot, 4), (1.0, 0.0, 0.5, 0.8), strict=True):
        simulation.reset("push_button", 0, start=positions)
        simulation.command(positions, gripper)
        simulation.step(1.5)  # the fingers of the simulator go where its motors and constraints take them
        data.qpos[:] = simulation.qpos()
        mujoco.mj_kinematics(scene, data)
        mujoco.mj_camlight(scene, data)
        renderer.update_scene(data, VIRTUAL, robot_only)
        expected = renderer.render()[..., 0] >= 0
        joints = simulation.joints()
        drawn = silhouette(view.render(joints.positions, joints.gripper))
        assert (expected & ~drawn).sum() < 0.015 * expected.sum()  # some of its shades are the background's grey
        # The rendered edges are smoothed, so it is up to a pixel wider all round.
        assert not (drawn & ~cv2.dilate(expected.astype(np.uint8), np.ones((3, 3))).astype(bool)).any()
    renderer.close()


def test_every_joint_projects_onto_robot(view: VirtualView, robot: RobotModel) -> None:
    for positions in at_work(robot, 40):
        seen = silhouette(view.render(positions, 1.0))
        joints = robot.link_poses(positions)[[0, 1, 3, 4, 5, 6, 7], :3, 3]  # link 3's origin lies behind the elbow
        for column, row in project(CAMERA, joints).astype(int):
            assert seen[row - 1 : row + 2, column - 1 : column + 2].sum() >= 8


def test_each_joint_moves_only_later_links(view: VirtualView, robot: RobotModel) -> None:
    before = view.render(robot.home, 1.0)
    for joint in range(7):
        positions = robot.home.copy()
        positions[joint] += 0.3
        moved = (view.render(positions, 1.0) != before).any(axis=-1)
        assert moved.sum() > 100, joint
        base = project(CAMERA, np.array([[0.0, 0.0, 0.05]]))[0].astype(int)
        assert not moved[base[1] - 5 : base[1] + 5, base[0] - 5 : base[0] + 5].any()
        if joint >= 3:  # the shoulder stands still
            shoulder = project(CAMERA, robot.link_poses(robot.home)[1:2, :3, 3])[0].astype(int)
            assert not moved[shoulder[1] - 5 : shoulder[1] + 5, shoulder[0] - 5 : shoulder[0] + 5].any()


def test_fingers_follow_open_fraction(view: VirtualView, robot: RobotModel) -> None:
    images = [view.render(robot.home, fraction) for fraction in (0.0, 0.25, 0.5, 0.75, 1.0)]
    flange, tip = project(CAMERA, robot.link_poses(robot.home)[7:, :3, 3])
    widths = []
    for image in images:
        changed = np.argwhere((image != images[0]).any(axis=-1))[:, ::-1]
        assert np.linalg.norm(changed - tip, axis=1).max(initial=0) < 1.5 * np.linalg.norm(tip - flange)
        fingers = silhouette(image)[int(flange[1] + 0.6 * (tip[1] - flange[1])) : int(tip[1]), int(tip[0]) - 40 :]
        widths.append(np.ptp(np.flatnonzero(fingers.any(axis=0))))
    assert widths == sorted(widths) and widths[-1] > 1.5 * widths[0], widths


def test_virtual_view_is_deterministic(view: VirtualView, robot: RobotModel) -> None:
    first = view.render(robot.home, 0.5)
    view.render(robot.home + 0.3, 1.0)
    np.testing.assert_array_equal(view.render(robot.home, 0.5), first)
    other = VirtualView(robot)
    np.testing.assert_array_equal(other.render(robot.home, 0.5), first)
    other.close()


def test_rendering_between_simulator_and_pyrender_images(
    view: VirtualView, recorder: DemoRecorder, simulation: Simulation, robot: RobotModel
) -> None:
    appearance, camera = Appearance.load(DEFAULT), simulation.cameras["front"]
    spheres = place_spheres(camera, robot, appearance, robot.home, True, robot.home)

    def render_all() -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
        images = recorder.environment.renderer.render(simulation.qpos(), simulation.model)
        return view.render(robot.home, 1.0), images, render_spheres(camera, spheres, appearance, "pyrender")

    alone = view.render(robot.home, 1.0)
    scene = recorder.environment.renderer.render(simulation.qpos(), simulation.model)
    layer = render_spheres(camera, spheres, appearance, "pyrender")
    assert layer.any()
    for _ in range(3):
        image, images, spheres_alone = render_all()
        np.testing.assert_array_equal(image, alone)
        for name in images:
            np.testing.assert_array_equal(images[name], scene[name])
        np.testing.assert_array_equal(spheres_alone, layer)
    VirtualView(robot).close()  # another one's end leaves the rest alone
    np.testing.assert_array_equal(render_all()[0], alone)


def test_renderer_of_ended_thread_does_not_affect_others() -> None:
    """MuJoCo's own renderer deletes the framebuffer of the current context, when freed in another thread."""
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='0.3' rgba='1 0 0 1'/></worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    dropped: list[mujoco.Renderer] = []

    def image(renderer: mujoco.Renderer) -> np.ndarray:
        renderer.update_scene(data)
        return renderer.render().copy()

    def use_and_end() -> None:
        dropped.append(mujoco_renderer(model, 64, 64))
        image(dropped[0])

    renderer = mujoco_renderer(model, 64, 64)
    before = image(renderer)
    thread = threading.Thread(target=use_and_end)
    thread.start()
    thread.join()
    image(renderer)
    dropped.clear()
    gc.collect()
    np.testing.assert_array_equal(image(renderer), before)
    renderer.close()


def test_robots_without_meshes_are_rejected_in_one_line(robot: RobotModel) -> None:
    for build in (VirtualView, body.arm_only_model, lambda other: build_scene(other, {})):
        with pytest.raises(GenimaError, match="robot ur5e: no meshes; use panda or fr3") as caught:
            build(replace(robot, name="ur5e", dh=robot.dh[:6]))
        assert "\n" not in str(caught.value)


def test_missing_meshes_are_reported_with_install_command(robot: RobotModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(GenimaError, match="./genima setup"):
        VirtualView(robot)


def test_rendering_failure_is_one_line_error(robot: RobotModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver(*_: object) -> None:
        raise mujoco.FatalError("gladLoadGL error")

    monkeypatch.setattr("genima.system.opengl_context._renderer_class", lambda: no_driver)
    with pytest.raises(GenimaError, match="OpenGL cannot start.*gladLoadGL error.*install"):
        VirtualView(robot)


@pytest.mark.parametrize(
    ("positions", "gripper"),
    [(np.full(7, np.nan), 1.0), (np.zeros(7), np.inf), (np.zeros(6), 1.0), (np.zeros((1, 7)), 1.0)],
)
def test_invalid_joint_states_are_rejected(view: VirtualView, positions: np.ndarray, gripper: float) -> None:
    with pytest.raises(GenimaError, match="virtual view: not 7 finite joint positions"):
        view.render(positions, gripper)


def test_close_frees_context(robot: RobotModel) -> None:
    def drawn_and_closed() -> VirtualView:
        view = VirtualView(robot)
        view.render(robot.home, 1.0)
        view.close()
        return view

    closed = [drawn_and_closed() for _ in range(2)]
    before = psutil.Process().memory_info().rss
    closed += [drawn_and_closed() for _ in range(4)]
    assert psutil.Process().memory_info().rss - before < 90 << 20  # bytes; an open view holds 40 MiB
    closed[0].close()
    with pytest.raises(GenimaError, match="closed"):
        closed[0].render(robot.home, 1.0)
