"""Markerless calibration and calibration check by the robot in the image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from ros_graph import Graph, overrides
from scipy.spatial import cKDTree
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import JointState
from simulated_calibration.robot_images import RobotImageGenerator, RobotImageSet

from genima.cameras.calibration_file import CameraCalibration, load_cameras
from genima.cameras.camera import Camera
from genima.cameras.intrinsics import CameraIntrinsics
from genima.cameras.robot_depth import RobotDepth
from genima.data.episodes import EpisodeWriter
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import apply_twist, pose_distance
from genima.types import Command, Image, Joints
from genima_calibration import markerless
from genima_calibration.background_image import estimate_background, expected_motion, normalize_exposure
from genima_calibration.bag_samples import _stationary_images
from genima_calibration.calibration_watch import CalibrationWatchNode
from genima_calibration.commands import check
from genima_calibration.commands.check import main as check_main
from genima_calibration.commands.robot import main as robot_main
from genima_calibration.image_undistortion import ImageUndistorter
from genima_calibration.markerless import RobotImage, locate_camera
from genima_calibration.pose_check import AGREEING, CalibrationChecker, DriftDetector, PoseCheck, PoseVerdict
from genima_calibration.robot_outline import Outline
from genima_calibration.robot_overlay import DETECTED, EXPECTED, draw_check
from genima_calibration.sample_folder import CameraInfo, RawSample, save_sample
from genima_calibration.stationary_detector import is_slow
from genima_nodes.ros import messages, qos
from genima_sim.rendering import SceneRenderer
from genima_sim.simulation import Simulation

SHIFT = np.array([0.0, 0.03, 0.02])  # m
BUMP = np.array([0.0, 0.0, 0.0, 0.015, 0.025, 0.0])  # m, rad: 7 px of the front view's 256


@pytest.fixture(scope="module")
def recording() -> tuple[RobotImageSet, Sequence[Image]]:
    generator = RobotImageGenerator(RobotModel.load("panda"))
    image_set = generator.random_set(seed=6, count=5)
    images = [cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA) for image in generator.images(image_set)]
    generator.close()
    lens = CameraIntrinsics.of(image_set.intrinsics.camera("camera", "base", np.eye(4)).scale(320, 240))
    lens = lens.with_parameters(lens.parameters)  # as Python numbers
    return replace(image_set, intrinsics=lens), images  # half size: faster


def robot_images_of(image_set: RobotImageSet, images: Sequence[Image]) -> list[RobotImage]:
    readings = image_set.noisy_joints(0.02)
    return [
        RobotImage(f"{i}", image, Joints(0.0, q, float(gripper)))
        for i, (image, q, gripper) in enumerate(zip(images, readings, image_set.gripper, strict=True))
    ]


@dataclass(frozen=True)
class Scene:
    """Images and joints of the simulated workcell."""

    images: dict[str, Image]
    joints: Joints


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Scenes with the arm in different poses."""
    simulation, moments = Simulation(), []
    renderer = SceneRenderer(simulation.model, simulation.cameras)
    for seed, turn in enumerate(([0.3, 0.2, 0, 0.2, 0, 0, 0.3], [-0.3, 0.4, 0.1, 0.3, 0, 0.2, 0])):
        simulation.reset("push_button", seed, simulation.robot.home + turn)
        images, placed = dict(renderer.render(simulation.qpos(), simulation.model)), simulation.model.camera("front")
        placed.pos += SHIFT
        images["front moved"] = renderer.render(simulation.qpos(), simulation.model)["front"]
        placed.pos -= SHIFT
        moments.append(Scene(images, simulation.joints()))
    renderer.close()
    return moments


@pytest.fixture(scope="module")
def cameras() -> dict[str, Camera]:
    return dict(load_cameras("sim"))


def displace(camera: Camera, twist: np.ndarray = BUMP) -> Camera:
    return replace(camera, T_parent_camera=apply_twist(camera.T_parent_camera, twist))


def check_pose(camera: Camera, robot: RobotModel, image: Image, joints: Joints) -> PoseCheck:
    checker = CalibrationChecker(camera, robot)
    try:
        return checker.check(image, joints)
    finally:
        checker.close()


# Parts.


def test_rendered_robot_matches_simulator_image(
    scenes: list[Scene], cameras: dict[str, Camera], robot: RobotModel
) -> None:
    scene = scenes[0]
    depth = RobotDepth(robot, cameras["front"])
    mask = np.isfinite(depth.render(cameras["front"].T_parent_camera, scene.joints.positions, scene.joints.gripper))
    depth.close()
    assert 0.05 < mask.mean() < 0.4
    above = scene.images["front"][:60].max(-1) > 12  # only the robot is in front of the black background
    assert (above & mask[:60]).sum() / (above | mask[:60]).sum() > 0.97


@pytest.mark.parametrize("axis", range(6))
def test_outline_shifts_match_derivatives(axis: int, cameras: dict[str, Camera], robot: RobotModel) -> None:
    camera = cameras["front"].scale(640, 640)
    depth, T, twist = RobotDepth(robot, camera), camera.T_parent_camera, 0.004 * np.eye(6)[axis]
    before, after = (Outline.of(depth.render(at, robot.home, 0.5), camera) for at in (T, apply_twist(T, twist)))
    depth.close()
    np.testing.assert_allclose(np.linalg.norm(before.normals, axis=1), 1)
    expected = before.shift(twist)
    _, nearest = cKDTree(after.pixels).query(before.pixels + expected[:, None] * before.normals)
    across = np.sum(before.normals * (after.pixels[nearest] - before.pixels), axis=1)
    assert abs(np.mean(across - expected)) < 0.1 and np.sqrt(np.mean((across - expected) ** 2)) < 0.6  # whole pixels


def test_undistorted_images_are_of_pinhole_camera(recording: tuple[RobotImageSet, Sequence[Image]]) -> None:
    lens = replace(recording[0].intrinsics, fy=recording[0].intrinsics.fy * 1.02)
    camera = lens.camera("camera", "base", np.eye(4))
    undistort = ImageUndistorter(camera)
    dot = np.array([[0.15, -0.1, 1.0]])
    image = np.zeros((240, 320, 3), np.uint8)
    rows, columns = np.indices((240, 320)) + 0.5
    x, y = lens.project(dot)[0]
    image[...] = np.rint(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18))[..., None]
    undistorted = undistort(image)[..., 0].astype(float)
    middle = [(undistorted * at).sum() / undistorted.sum() for at in (columns, rows)]
    np.testing.assert_allclose(middle, CameraIntrinsics.of(undistort.camera).project(dot)[0], atol=0.05)
    with pytest.raises(GenimaError, match="160 x 120"):
        undistort(image[:120, :160])


def test_background_behind_moving_robot_is_estimated() -> None:
    rng = np.random.default_rng(0)
    scene = rng.uniform(40, 200, (20, 30, 3)).astype(np.float32)
    robot = np.zeros((4, 20, 30), bool)
    for i in range(4):
        robot[i, 5:15, 6 * i : 6 * i + 10] = True
    images = np.where(robot[..., None], np.float32(100), scene) * np.float32([1.0, 0.8, 0.9, 1.1])[:, None, None, None]
    light = normalize_exposure(images)
    behind, known = estimate_background(light, ~robot)
    assert known[~robot.all(0)].all()
    ratio = behind[known] / scene[known]
    assert ratio.std() < 0.02 * ratio.mean()
    assert not expected_motion(np.repeat(robot[:1], 3, axis=0)).any()  # a static object has no motion


# Location of a camera.


def test_camera_is_located_by_robot(recording: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel) -> None:
    image_set, images = recording
    guess = apply_twist(image_set.T_base_camera, np.array([0.06, -0.05, 0.06, 0.1, -0.1, 0.08]))  # 10 cm, 9 deg
    found = locate_camera(robot_images_of(image_set, images), image_set.intrinsics, robot, guess)
    metres, angle = pose_distance(found.T_base_camera, image_set.T_base_camera)
    assert metres < 5e-3 and np.degrees(angle) < 0.4
    assert metres < 5 * found.sigma[0] and found.sigma[0] < 5e-3
    assert found.found > 0.8 and found.pixels < 0.8


@pytest.mark.nightly
def test_camera_is_located_despite_wrong_guess(
    recording: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel
) -> None:
    image_set, images = recording
    behind = image_set.T_base_camera @ np.diag([-1.0, 1.0, -1.0, 1.0])
    found = locate_camera(robot_images_of(image_set, images)[:3], image_set.intrinsics, robot, behind)
    metres, angle = pose_distance(found.T_base_camera, image_set.T_base_camera)
    assert metres < 5e-3 and np.degrees(angle) < 0.4


def test_insufficient_images_are_rejected(recording: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel) -> None:
    image_set, images = recording
    robot_images, lens = robot_images_of(image_set, images), image_set.intrinsics
    with pytest.raises(GenimaError, match="images: too few .2"):
        locate_camera(robot_images[:2], lens, robot, image_set.T_base_camera)
    repeated = [robot_images[0], *(replace(robot_images[0], name=f"{i}") for i in range(3))]
    with pytest.raises(GenimaError, match="the arm hardly moves"):
        locate_camera(repeated, lens, robot, image_set.T_base_camera)
    in_degrees = [
        replace(photo, joints=replace(photo.joints, positions=np.degrees(photo.joints.positions)))
        for photo in robot_images
    ]
    with pytest.raises(GenimaError, match="outside the ranges of panda"):
        locate_camera(in_degrees, lens, robot, image_set.T_base_camera)
    with pytest.raises(GenimaError, match="take both from the same stream"):
        locate_camera(robot_images, replace(lens, width=640, height=480), robot, image_set.T_base_camera)


def test_other_joints_and_moved_cameras_are_rejected(
    recording: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_poses_around", lambda _: []), ("_COARSE", ())):  # the guess is right; others take seconds
        monkeypatch.setattr(markerless, name, value)
    image_set, images = recording
    robot_images, lens = robot_images_of(image_set, images), image_set.intrinsics
    swapped = [replace(photo, joints=robot_images[i - 1].joints) for i, photo in enumerate(robot_images[:3])]
    with pytest.raises(GenimaError, match="robot: not found in the images"):
        locate_camera(swapped, lens, robot, image_set.T_base_camera)
    shifted = [replace(photo, image=np.roll(photo.image, 6 * (i == 3), axis=1)) for i, photo in enumerate(robot_images)]
    with pytest.raises(GenimaError, match="images: 3 do not agree with the others"):
        locate_camera(shifted, lens, robot, image_set.T_base_camera)
    with pytest.raises(GenimaError, match=r"\d% too small for the intrinsics"):
        locate_camera(robot_images, replace(lens, fx=1.06 * lens.fx, fy=1.06 * lens.fy), robot, image_set.T_base_camera)


# Calibration check.


@pytest.mark.parametrize("view", ["front", "wrist", "left_shoulder", "right_shoulder"])
def test_moved_camera_is_detected(
    view: str, scenes: list[Scene], cameras: dict[str, Camera], robot: RobotModel
) -> None:
    for scene in scenes:
        unmoved_check = check_pose(cameras[view], robot, scene.images[view], scene.joints)
        assert unmoved_check.verdict is PoseVerdict.FINE and unmoved_check.pixels < 1.2 and unmoved_check.share > 0.6, (
            unmoved_check
        )
        displaced_check = check_pose(displace(cameras[view]), robot, scene.images[view], scene.joints)
        assert displaced_check.verdict is PoseVerdict.MOVED, displaced_check
        expected = 0.029 * cameras[view].fx
        assert displaced_check.pixels == pytest.approx(expected, rel=0.4)


def test_robot_out_of_view_is_unknown(scenes: list[Scene], cameras: dict[str, Camera], robot: RobotModel) -> None:
    scene, away = scenes[0], np.array([0, 0, 0, 0, 2.0, 0])
    result = check_pose(displace(cameras["front"], away), robot, scene.images["front"], scene.joints)
    assert result.verdict is PoseVerdict.UNKNOWN and not result.lost and "too little of the robot" in result.reason
    dark = check_pose(cameras["front"], robot, np.zeros_like(scene.images["front"]), scene.joints)
    assert dark.verdict is PoseVerdict.UNKNOWN and dark.share < 0.1
    with pytest.raises(GenimaError, match="calibrated at 256x256"):
        CalibrationChecker.for_images(cameras["front"], robot, 640, 480)


def test_picture_shows_expected_and_detected_robot(
    scenes: list[Scene], cameras: dict[str, Camera], robot: RobotModel
) -> None:
    scene = scenes[0]
    for camera, colours in ((cameras["front"], {EXPECTED}), (displace(cameras["front"]), {EXPECTED, DETECTED})):
        checker = CalibrationChecker(camera, robot)
        image = scene.images["front"]
        picture = draw_check(checker, robot, image, scene.joints, checker.check(image, scene.joints))
        checker.close()
        assert {colour for colour in (EXPECTED, DETECTED) if (picture == colour).all(-1).sum() > 100} == colours


def pose_check(verdict: PoseVerdict, share: float = 0.9, pixels: float = 7.0) -> PoseCheck:
    return PoseCheck(verdict, np.zeros(6), pixels, 0.3, share, 500, "")


def test_drift_needs_agreement() -> None:
    drift = DriftDetector()
    for verdict in (
        PoseVerdict.MOVED,
        PoseVerdict.MOVED,
        PoseVerdict.FINE,
        PoseVerdict.MOVED,
        PoseVerdict.MOVED,
        PoseVerdict.UNKNOWN,
    ):
        drift.update(pose_check(verdict))
        assert not drift.problem
    drift.update(pose_check(PoseVerdict.MOVED))
    assert "moved (robot 7 px from its expected position)" in drift.problem
    for _ in range(AGREEING):
        assert drift.problem
        drift.update(pose_check(PoseVerdict.FINE))
    assert not drift.problem
    for _ in range(9):
        drift.update(pose_check(PoseVerdict.UNKNOWN, share=0.2))
        assert not drift.problem
    drift.update(pose_check(PoseVerdict.UNKNOWN, share=0.2))
    assert "robot not found" in drift.problem


def test_far_moved_camera_is_reported_despite_lost_robot() -> None:
    moved_, lost = pose_check(PoseVerdict.MOVED), pose_check(PoseVerdict.UNKNOWN, share=0.2)
    drift = DriftDetector()
    for checked_ in (pose_check(PoseVerdict.FINE), moved_, lost, moved_, lost, lost):
        drift.update(checked_)
        assert not drift.problem
    drift.update(moved_)
    assert "moved (robot" in drift.problem
    drift = DriftDetector()
    for checked_ in (moved_, *[lost] * 8):
        drift.update(checked_)
        assert not drift.problem
    drift.update(moved_)
    assert "robot not found" in drift.problem


@pytest.mark.parametrize("rotation, opening, expected", [(0.009, 0.0, True), (0.011, 0.0, False), (0.0, 0.05, False)])
def test_images_during_fast_motion_are_skipped(
    rotation: float, opening: float, expected: bool, robot: RobotModel
) -> None:
    before = Joints(3.0, robot.home, 0.5)
    assert is_slow(before, Joints(3.1, robot.home + rotation * np.eye(7)[2], 0.5 + opening), 0.1) is expected


# Commands.


def write_samples(
    folder: Path, view: str, lens: CameraIntrinsics, robot_images: Sequence[RobotImage], robot: RobotModel
) -> Path:
    camera_info = lens.camera(view, "base", np.eye(4)).camera_info()
    d, k = tuple(camera_info["d"].tolist()), tuple(camera_info["k"].tolist())
    info = CameraInfo(f"{view}_optical", lens.width, lens.height, "plumb_bob", d, k)
    for photo in robot_images:
        joints = dict(zip(robot.joint_names, photo.joints.positions.tolist(), strict=True))
        joints[robot.gripper_joint] = robot.gripper_position(photo.joints.gripper)
        save_sample(folder, RawSample(photo.name, view, photo.image, joints, info))
    return folder


def test_unknown_gripper_is_rejected(
    recording: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel, tmp_path: Path
) -> None:
    image_set, images = recording
    samples = write_samples(tmp_path, "front", image_set.intrinsics, robot_images_of(image_set, images), robot)
    for file in samples.glob("*.yaml"):
        sample = yaml.safe_load(file.read_text(encoding="utf-8"))
        del sample["joints"][robot.gripper_joint]
        file.write_text(yaml.safe_dump(sample), encoding="utf-8")
    with pytest.raises(GenimaError, match=f"gripper joint missing .{robot.gripper_joint}"):
        robot_main([str(samples), "--out", str(tmp_path / "found")])
    assert not (tmp_path / "found").exists()


def test_recording_without_gripper_keeps_it_unknown(robot: RobotModel) -> None:
    rest = [Joints(0.01 * i, robot.home, np.nan) for i in range(200)]
    (stop,) = _stationary_images([int(1e9 * t) for t in np.arange(0.8, 1.5, 0.1)], rest)
    assert np.isnan(stop.gripper)
    (stop,) = _stationary_images([10**9], [*rest[:95], *(replace(each, gripper=0.5) for each in rest[95:])])
    assert stop.gripper == 0.5


def test_calibration_from_images_passes_check(
    recording: tuple[RobotImageSet, Sequence[Image]],
    robot: RobotModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image_set, images = recording
    samples = write_samples(
        tmp_path / "samples", "front", image_set.intrinsics, robot_images_of(image_set, images), robot
    )
    wrong = CameraCalibration(
        image_set.intrinsics.camera("front", "base", apply_twist(image_set.T_base_camera, 0.8 * BUMP))
    )
    wrong.save(tmp_path / "before")
    guess = tmp_path / "before" / "front.yaml"
    assert robot_main([str(samples), "--guess", str(guess), "--out", str(tmp_path / "found")]) == 0
    assert "standard deviation" in capsys.readouterr().out
    found = CameraCalibration.load(tmp_path / "found" / "front.yaml")
    assert pose_distance(found.camera.T_parent_camera, image_set.T_base_camera)[0] < 5e-3
    assert found.method == "outlines of the robot" and found.sigma and found.sigma[0] < 5

    picture = tmp_path / "check.png"
    arguments = [str(samples), "--out", str(picture)]
    assert check_main([*arguments, "--calibration", str(tmp_path / "found")]) == 0
    assert "fine" in capsys.readouterr().out
    assert cv2.imread(str(picture)) is not None
    with pytest.raises(GenimaError, match="check.png: already exists; .*--overwrite"):
        check_main([*arguments, "--calibration", str(tmp_path / "before")])
    arguments.append("--overwrite")
    assert check_main([*arguments, "--calibration", str(tmp_path / "before")]) == 1
    assert "it has moved since it was calibrated" in capsys.readouterr().out
    with pytest.raises(GenimaError, match="has no calibration of ceiling; it has front"):
        check_main([*arguments, "--calibration", str(tmp_path / "found"), "--view", "ceiling"])
    with pytest.raises(GenimaError, match="or --live"):
        check_main([])


def test_cameras_missing_in_demo_are_not_checked(
    cameras: dict[str, Camera], robot: RobotModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EpisodeWriter(tmp_path / "demo", robot, {"front": cameras["front"]}, "wait") as demo:
        demo.observe(10.0, {"front": np.zeros((256, 256, 3), np.uint8)}, Joints(10.0, robot.home, 1.0))
        demo.command(Command(10.0, robot.home))
    monkeypatch.setattr(check, "load_stationary_poses", lambda folder, view, robot, most: [])
    assert list(check._recorded_images(tmp_path / "demo", (), cameras, robot, 3)) == ["front"]


def test_camera_on_flange_requires_board(
    recording: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel, tmp_path: Path
) -> None:
    image_set, images = recording
    samples = write_samples(
        tmp_path / "samples", "wrist", image_set.intrinsics, robot_images_of(image_set, images)[:1], robot
    )
    CameraCalibration(image_set.intrinsics.camera("wrist", "flange", np.eye(4))).save(tmp_path)
    with pytest.raises(GenimaError, match="on the flange.*with a board"):
        robot_main([str(samples), "--guess", str(tmp_path / "wrist.yaml"), "--out", str(tmp_path / "found")])


# Node.


def test_moved_camera_is_fault_until_restored(graph: Graph, scenes: list[Scene], robot: RobotModel) -> None:
    values = {"views": ["front", "left_shoulder"], "period": 0.4}
    graph.add(CalibrationWatchNode(parameter_overrides=overrides(**values)))
    image_publishers = {
        v: graph.publisher(ImageMessage, f"cameras/{v}/color/image_raw", qos.IMAGE) for v in ("front", "left_shoulder")
    }
    publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)

    def publish_scene(front: str) -> None:
        stamp = time.time()
        publish_joints(messages.joints_message(replace(scenes[0].joints, stamp=stamp), robot))
        image_publishers["front"](messages.image_message(scenes[0].images[front], stamp))
        image_publishers["left_shoulder"](messages.image_message(scenes[0].images["left_shoulder"], stamp))

    fault_reported = graph.reports_fault("calibration_watch", "camera front: moved")
    graph.until(fault_reported, "no fault", lambda: publish_scene("front moved"))
    assert "left_shoulder" not in graph.diagnostics["calibration_watch"].message
    graph.until(graph.has_no_fault("calibration_watch"), "the fault remains", lambda: publish_scene("front"))


@pytest.mark.parametrize(
    "changes, expected", [({"views": ["ceiling"]}, "no calibration of ceiling"), ({"period": 0.0}, "period is 0")]
)
def test_invalid_parameters_are_rejected(graph: Graph, changes: dict[str, object], expected: str) -> None:
    with pytest.raises(GenimaError, match=expected):
        CalibrationWatchNode(parameter_overrides=overrides(**changes))


def test_unknown_calibration_is_not_simulator_calibration(robot: RobotModel, tmp_path: Path) -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    with EpisodeWriter(tmp_path / "demo", robot, {}, "wait") as demo:
        for t in range(3):
            demo.observe(t / 20, {"front": image}, Joints(t / 20, robot.home, 1.0))
    with pytest.raises(GenimaError, match="demo .*its calibration is unknown; give --calibration FOLDER"):
        check_main([str(tmp_path / "demo")])
    (tmp_path / "samples").mkdir()
    for arguments in ([str(tmp_path / "samples")], ["--live"]):
        with pytest.raises(GenimaError, match="calibration: unknown; give .*--calibration FOLDER"):
            check_main(arguments)
