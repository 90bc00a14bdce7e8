"""Cameras by the robot that they see: where they are, without a board, and whether they still are there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from rclpy.parameter import Parameter
from ros_graph import Graph
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
def shot() -> tuple[RobotImageSet, Sequence[Image]]:
    generator = RobotImageGenerator(RobotModel.load("panda"))
    image_set = generator.random_set(seed=6, count=5)
    images = [cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA) for image in generator.images(image_set)]
    generator.close()
    lens = CameraIntrinsics.of(image_set.intrinsics.camera("camera", "base", np.eye(4)).scale(320, 240))
    lens = lens.with_parameters(lens.parameters)  # as plain numbers
    return replace(image_set, intrinsics=lens), images  # half their size: quicker


def photos_of(image_set: RobotImageSet, images: Sequence[Image]) -> list[RobotImage]:
    readings = image_set.noisy_joints(0.02)
    return [
        RobotImage(f"{i}", image, Joints(0.0, q, float(gripper)))
        for i, (image, q, gripper) in enumerate(zip(images, readings, image_set.gripper, strict=True))
    ]


@dataclass(frozen=True)
class Seen:
    """The simulated workcell at one moment."""

    images: dict[str, Image]
    joints: Joints


@pytest.fixture(scope="module")
def scenes() -> list[Seen]:
    """Some moments, the arm in different poses."""
    simulation, seen = Simulation(), []
    renderer = SceneRenderer(simulation.model, simulation.cameras)
    for seed, turn in enumerate(([0.3, 0.2, 0, 0.2, 0, 0, 0.3], [-0.3, 0.4, 0.1, 0.3, 0, 0.2, 0])):
        simulation.reset("push_button", seed, simulation.robot.home + turn)
        images, placed = dict(renderer.render(simulation.qpos())), simulation.model.camera("front")
        placed.pos += SHIFT
        images["front moved"] = renderer.render(simulation.qpos())["front"]
        placed.pos -= SHIFT
        seen.append(Seen(images, simulation.joints()))
    renderer.close()
    return seen


@pytest.fixture(scope="module")
def cameras() -> dict[str, Camera]:
    return dict(load_cameras("sim"))


def bumped(camera: Camera, twist: np.ndarray = BUMP) -> Camera:
    return replace(camera, T_parent_camera=apply_twist(camera.T_parent_camera, twist))


def checked(camera: Camera, robot: RobotModel, image: Image, joints: Joints) -> PoseCheck:
    checker = CalibrationChecker(camera, robot)
    try:
        return checker.check(image, joints)
    finally:
        checker.close()


# Its parts.


def test_the_drawn_robot_is_where_the_simulator_shows_it(
    scenes: list[Seen], cameras: dict[str, Camera], robot: RobotModel
) -> None:
    seen = scenes[0]
    depth = RobotDepth(robot, cameras["front"])
    mask = np.isfinite(depth.render(cameras["front"].T_parent_camera, seen.joints.positions, seen.joints.gripper))
    depth.close()
    assert 0.05 < mask.mean() < 0.4
    above = seen.images["front"][:60].max(-1) > 12  # nothing but the robot stands before the black
    assert (above & mask[:60]).sum() / (above | mask[:60]).sum() > 0.97


@pytest.mark.parametrize("axis", range(6))
def test_outlines_shift_as_their_derivatives_say(axis: int, cameras: dict[str, Camera], robot: RobotModel) -> None:
    camera = cameras["front"].scale(640, 640)
    depth, T, twist = RobotDepth(robot, camera), camera.T_parent_camera, 0.004 * np.eye(6)[axis]
    before, after = (Outline.of(depth.render(at, robot.home, 0.5), camera) for at in (T, apply_twist(T, twist)))
    depth.close()
    np.testing.assert_allclose(np.linalg.norm(before.normals, axis=1), 1)
    expected = before.shift(twist)
    _, nearest = cKDTree(after.pixels).query(before.pixels + expected[:, None] * before.normals)
    across = np.sum(before.normals * (after.pixels[nearest] - before.pixels), axis=1)
    assert abs(np.mean(across - expected)) < 0.1 and np.sqrt(np.mean((across - expected) ** 2)) < 0.6  # whole pixels


def test_straight_images_are_those_of_a_pinhole_with_square_pixels(shot: tuple[RobotImageSet, Sequence[Image]]) -> None:
    lens = replace(shot[0].intrinsics, fy=shot[0].intrinsics.fy * 1.02)
    camera = lens.camera("camera", "base", np.eye(4))
    straighten = ImageUndistorter(camera)
    dot = np.array([[0.15, -0.1, 1.0]])
    image = np.zeros((240, 320, 3), np.uint8)
    rows, columns = np.indices((240, 320)) + 0.5
    x, y = lens.project(dot)[0]
    image[...] = np.rint(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18))[..., None]
    straight = straighten(image)[..., 0].astype(float)
    middle = [(straight * at).sum() / straight.sum() for at in (columns, rows)]
    np.testing.assert_allclose(middle, CameraIntrinsics.of(straighten.camera).project(dot)[0], atol=0.05)
    with pytest.raises(GenimaError, match="160 x 120"):
        straighten(image[:120, :160])


def test_what_is_behind_a_moving_thing_is_found() -> None:
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
    assert not expected_motion(np.repeat(robot[:1], 3, axis=0)).any()  # what never moves is not seen to move


# Where a camera is.


def test_a_camera_is_found_by_the_robot_it_sees(shot: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel) -> None:
    image_set, images = shot
    guess = apply_twist(image_set.T_base_camera, np.array([0.06, -0.05, 0.06, 0.1, -0.1, 0.08]))  # 10 cm, 9 deg
    found = locate_camera(photos_of(image_set, images), image_set.intrinsics, robot, guess)
    metres, angle = pose_distance(found.T_base_camera, image_set.T_base_camera)
    assert metres < 5e-3 and np.degrees(angle) < 0.4
    assert metres < 5 * found.sigma[0] and found.sigma[0] < 5e-3
    assert found.found > 0.8 and found.pixels < 0.8


@pytest.mark.nightly
def test_a_guess_that_leads_nowhere_is_done_without(
    shot: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel
) -> None:
    image_set, images = shot
    behind = image_set.T_base_camera @ np.diag([-1.0, 1.0, -1.0, 1.0])
    found = locate_camera(photos_of(image_set, images)[:3], image_set.intrinsics, robot, behind)
    metres, angle = pose_distance(found.T_base_camera, image_set.T_base_camera)
    assert metres < 5e-3 and np.degrees(angle) < 0.4


def test_photos_that_cannot_tell_are_refused(shot: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel) -> None:
    image_set, images = shot
    photos, lens = photos_of(image_set, images), image_set.intrinsics
    with pytest.raises(GenimaError, match="images: too few .2"):
        locate_camera(photos[:2], lens, robot, image_set.T_base_camera)
    still = [photos[0], *(replace(photos[0], name=f"{i}") for i in range(3))]
    with pytest.raises(GenimaError, match="the arm hardly moves"):
        locate_camera(still, lens, robot, image_set.T_base_camera)
    in_degrees = [
        replace(photo, joints=replace(photo.joints, positions=np.degrees(photo.joints.positions))) for photo in photos
    ]
    with pytest.raises(GenimaError, match="outside the ranges of panda"):
        locate_camera(in_degrees, lens, robot, image_set.T_base_camera)
    with pytest.raises(GenimaError, match="take both from the same stream"):
        locate_camera(photos, replace(lens, width=640, height=480), robot, image_set.T_base_camera)


def test_other_joints_and_moved_cameras_are_refused(
    shot: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(markerless, "_poses_around", lambda _: [])  # the guess is right here; each other takes seconds
    image_set, images = shot
    photos, lens = photos_of(image_set, images), image_set.intrinsics
    swapped = [replace(photo, joints=photos[i - 1].joints) for i, photo in enumerate(photos[:3])]
    with pytest.raises(GenimaError, match="robot: not found in the images"):
        locate_camera(swapped, lens, robot, image_set.T_base_camera)
    shifted = [replace(photo, image=np.roll(photo.image, 6 * (i == 3), axis=1)) for i, photo in enumerate(photos)]
    with pytest.raises(GenimaError, match="images: 3 do not agree with the others"):
        locate_camera(shifted, lens, robot, image_set.T_base_camera)
    with pytest.raises(GenimaError, match=r"\d% too small for the intrinsics"):
        locate_camera(photos, replace(lens, fx=1.06 * lens.fx, fy=1.06 * lens.fy), robot, image_set.T_base_camera)


# Whether it still is there.


@pytest.mark.parametrize("view", ["front", "wrist", "left_shoulder", "right_shoulder"])
def test_a_camera_that_was_moved_is_told_from_one_that_was_not(
    view: str, scenes: list[Seen], cameras: dict[str, Camera], robot: RobotModel
) -> None:
    for seen in scenes:
        fine = checked(cameras[view], robot, seen.images[view], seen.joints)
        assert fine.verdict is PoseVerdict.FINE and fine.pixels < 1.2 and fine.share > 0.6, fine
        off = checked(bumped(cameras[view]), robot, seen.images[view], seen.joints)
        assert off.verdict is PoseVerdict.MOVED, off
        expected = 0.029 * cameras[view].fx
        assert off.pixels == pytest.approx(expected, rel=0.4)


def test_a_robot_out_of_view_tells_nothing(scenes: list[Seen], cameras: dict[str, Camera], robot: RobotModel) -> None:
    seen, away = scenes[0], np.array([0, 0, 0, 0, 2.0, 0])
    result = checked(bumped(cameras["front"], away), robot, seen.images["front"], seen.joints)
    assert result.verdict is PoseVerdict.UNKNOWN and not result.lost and "too little of the robot" in result.reason
    dark = checked(cameras["front"], robot, np.zeros_like(seen.images["front"]), seen.joints)
    assert dark.verdict is PoseVerdict.UNKNOWN and dark.share < 0.1
    with pytest.raises(GenimaError, match="calibrated at 256x256"):
        CalibrationChecker.for_images(cameras["front"], robot, 640, 480)


def test_the_picture_shows_where_the_robot_should_be_and_is(
    scenes: list[Seen], cameras: dict[str, Camera], robot: RobotModel
) -> None:
    seen = scenes[0]
    for camera, colours in ((cameras["front"], {EXPECTED}), (bumped(cameras["front"]), {EXPECTED, DETECTED})):
        checker = CalibrationChecker(camera, robot)
        image = seen.images["front"]
        picture = draw_check(checker, robot, image, seen.joints, checker.check(image, seen.joints))
        checker.close()
        assert {colour for colour in (EXPECTED, DETECTED) if (picture == colour).all(-1).sum() > 100} == colours


def says(verdict: PoseVerdict, share: float = 0.9, pixels: float = 7.0) -> PoseCheck:
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
        drift.update(says(verdict))
        assert not drift.problem
    drift.update(says(PoseVerdict.MOVED))
    assert "moved (robot 7 px from its expected position)" in drift.problem
    for _ in range(AGREEING):
        assert drift.problem
        drift.update(says(PoseVerdict.FINE))
    assert not drift.problem
    for _ in range(9):
        drift.update(says(PoseVerdict.UNKNOWN, share=0.2))
        assert not drift.problem
    drift.update(says(PoseVerdict.UNKNOWN, share=0.2))
    assert "robot not found" in drift.problem


def test_a_camera_that_was_moved_far_is_told_though_some_checks_lose_the_robot() -> None:
    moved_, lost = says(PoseVerdict.MOVED), says(PoseVerdict.UNKNOWN, share=0.2)
    drift = DriftDetector()
    for checked_ in (says(PoseVerdict.FINE), moved_, lost, moved_, lost, lost):
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


@pytest.mark.parametrize("turned, opened, expected", [(0.009, 0.0, True), (0.011, 0.0, False), (0.0, 0.05, False)])
def test_images_of_a_fast_arm_or_gripper_are_not_looked_at(
    turned: float, opened: float, expected: bool, robot: RobotModel
) -> None:
    before = Joints(3.0, robot.home, 0.5)
    assert is_slow(before, Joints(3.1, robot.home + turned * np.eye(7)[2], 0.5 + opened), 0.1) is expected


# On the command line.


def write_samples(
    folder: Path, view: str, lens: CameraIntrinsics, photos: Sequence[RobotImage], robot: RobotModel
) -> Path:
    said = lens.camera(view, "base", np.eye(4)).camera_info()
    d, k = tuple(said["d"].tolist()), tuple(said["k"].tolist())
    info = CameraInfo(f"{view}_optical", lens.width, lens.height, "plumb_bob", d, k)
    for photo in photos:
        joints = dict(zip(robot.joint_names, photo.joints.positions.tolist(), strict=True))
        joints[robot.gripper_joint] = robot.gripper_position(photo.joints.gripper)
        save_sample(folder, RawSample(photo.name, view, photo.image, joints, info))
    return folder


def test_an_unknown_gripper_is_refused(
    shot: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel, tmp_path: Path
) -> None:
    image_set, images = shot
    samples = write_samples(tmp_path, "front", image_set.intrinsics, photos_of(image_set, images), robot)
    for file in samples.glob("*.yaml"):
        sample = yaml.safe_load(file.read_text(encoding="utf-8"))
        del sample["joints"][robot.gripper_joint]
        file.write_text(yaml.safe_dump(sample), encoding="utf-8")
    with pytest.raises(GenimaError, match=f"gripper joint missing .{robot.gripper_joint}"):
        robot_main([str(samples), "--out", str(tmp_path / "found")])
    assert not (tmp_path / "found").exists()


def test_a_recording_without_the_gripper_keeps_it_unknown(robot: RobotModel) -> None:
    rest = [Joints(0.01 * i, robot.home, np.nan) for i in range(200)]
    (stop,) = _stationary_images([int(1e9 * t) for t in np.arange(0.8, 1.5, 0.1)], rest)
    assert np.isnan(stop.gripper)
    (stop,) = _stationary_images([10**9], [*rest[:95], *(replace(each, gripper=0.5) for each in rest[95:])])
    assert stop.gripper == 0.5


def test_a_folder_of_photos_becomes_a_calibration_that_is_found_fine(
    shot: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image_set, images = shot
    samples = write_samples(tmp_path / "samples", "front", image_set.intrinsics, photos_of(image_set, images), robot)
    wrong = CameraCalibration(
        image_set.intrinsics.camera("front", "base", apply_twist(image_set.T_base_camera, 0.8 * BUMP))
    )
    wrong.save(tmp_path / "before")
    guess = tmp_path / "before" / "front.yaml"
    assert robot_main([str(samples), "--guess", str(guess), "--out", str(tmp_path / "found")]) == 0
    assert "sure to" in capsys.readouterr().out
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


def test_calibrated_cameras_that_a_demo_does_not_have_are_not_checked(
    cameras: dict[str, Camera], robot: RobotModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EpisodeWriter(tmp_path / "demo", robot, {"front": cameras["front"]}, "wait") as demo:
        demo.observe(10.0, {"front": np.zeros((256, 256, 3), np.uint8)}, Joints(10.0, robot.home, 1.0))
        demo.command(Command(10.0, robot.home))
    monkeypatch.setattr(check, "load_stationary_poses", lambda folder, view, robot, most: [])
    assert list(check._recorded_images(tmp_path / "demo", (), cameras, robot, 3)) == ["front"]


def test_a_camera_on_the_flange_needs_a_board(
    shot: tuple[RobotImageSet, Sequence[Image]], robot: RobotModel, tmp_path: Path
) -> None:
    image_set, images = shot
    samples = write_samples(
        tmp_path / "samples", "wrist", image_set.intrinsics, photos_of(image_set, images)[:1], robot
    )
    CameraCalibration(image_set.intrinsics.camera("wrist", "flange", np.eye(4))).save(tmp_path)
    with pytest.raises(GenimaError, match="on the flange.*with a board"):
        robot_main([str(samples), "--guess", str(tmp_path / "wrist.yaml"), "--out", str(tmp_path / "found")])


# The node.


def test_a_moved_camera_is_a_fault_until_it_is_fine_again(graph: Graph, scenes: list[Seen], robot: RobotModel) -> None:
    values = {"views": ["front", "left_shoulder"], "period": 0.4}
    graph.add(CalibrationWatchNode(parameter_overrides=[Parameter(n, value=v) for n, v in values.items()]))
    see = {
        v: graph.publisher(ImageMessage, f"cameras/{v}/color/image_raw", qos.IMAGE) for v in ("front", "left_shoulder")
    }
    feel = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)

    def look(front: str) -> None:
        stamp = time.time()
        feel(messages.joints_message(replace(scenes[0].joints, stamp=stamp), robot))
        see["front"](messages.image_message(scenes[0].images[front], stamp))
        see["left_shoulder"](messages.image_message(scenes[0].images["left_shoulder"], stamp))

    said = graph.reports_fault("calibration_watch", "camera front: moved")
    graph.until(said, "no fault", lambda: look("front moved"))
    assert "left_shoulder" not in graph.diagnostics["calibration_watch"].message
    graph.until(graph.has_no_fault("calibration_watch"), "the fault stays", lambda: look("front"))


@pytest.mark.parametrize(
    "changes, words", [({"views": ["ceiling"]}, "no calibration of ceiling"), ({"period": 0.0}, "period is 0")]
)
def test_parameters_that_make_no_sense_are_refused(graph: Graph, changes: dict[str, object], words: str) -> None:
    with pytest.raises(GenimaError, match=words):
        CalibrationWatchNode(parameter_overrides=[Parameter(n, value=v) for n, v in changes.items()])


def test_a_calibration_that_is_unknown_is_not_taken_for_the_simulators(robot: RobotModel, tmp_path: Path) -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    with EpisodeWriter(tmp_path / "demo", robot, {}, "wait") as demo:
        for t in range(3):
            demo.observe(t / 20, {"front": image}, Joints(t / 20, robot.home, 1.0))
    with pytest.raises(GenimaError, match="demo .*its calibration is unknown; give --calibration FOLDER"):
        check_main([str(tmp_path / "demo")])
    (tmp_path / "samples").mkdir()
    for arguments in ([str(tmp_path / "samples")], ["--live"]):
        with pytest.raises(GenimaError, match="is unknown; give .*--calibration FOLDER"):
            check_main(arguments)
