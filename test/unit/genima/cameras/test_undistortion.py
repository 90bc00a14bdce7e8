"""Tests of lens distortion: images are rectified identically in training and in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from genima.cameras.calibration_file import CameraCalibration, load_cameras
from genima.cameras.camera import Camera
from genima.cameras.intrinsics import CameraIntrinsics
from genima.cameras.tiling import crop_square
from genima.cameras.undistortion import Undistorter
from genima.data.datasets.render import RenderPlan, _render_rows
from genima.data.episodes import Episode, EpisodeError, EpisodeWriter
from genima.data.episodes.cameras import EpisodeCameras
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command, Image, Joints
from genima_cli.render import Render, make_plan

DISTORTION = (0.12, -0.26, 0.001, -0.0008, 0.08)
LENS = CameraIntrinsics(640, 480, 612.0, 610.0, 325.0, 236.5, DISTORTION)
CAMERA = LENS.camera("front", "base", np.eye(4))


def dotted(lens: CameraIntrinsics, rays: np.ndarray) -> Image:
    """Image (h, w, 3) with dots at the distorted projections of rays (N, 2), x and y at z = 1."""
    pixels = lens.project(np.column_stack([rays, np.ones(len(rays))]))
    v, u = np.mgrid[: lens.height, : lens.width] + 0.5
    light = sum(np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 3.0**2)) for x, y in pixels)
    return np.repeat(np.rint(220 * np.clip(light, 0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def dots(image: Image, near: np.ndarray) -> np.ndarray:
    """Centres of light (N, 2) px within 10 px of (N, 2); pixel centres at n + 0.5."""
    v, u = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    found = []
    for x, y in near:
        weight = image[..., 0] * ((u - x) ** 2 + (v - y) ** 2 < 10**2)
        found.append([(weight * u).sum() / weight.sum(), (weight * v).sum() / weight.sum()])
    return np.array(found)


def test_undistorted_points_match_pinhole() -> None:
    rays = np.array([[x, y] for x in (-0.45, -0.2, 0.0, 0.22, 0.46) for y in (-0.33, -0.1, 0.12, 0.34)])
    image = dotted(LENS, rays)
    pinhole = replace(LENS, distortion=(0.0,) * 5).project(np.column_stack([rays, np.ones(len(rays))]))
    distorted_pixels = LENS.project(np.column_stack([rays, np.ones(len(rays))]))
    assert np.abs(distorted_pixels - pinhole).max() > 2
    rectified = Undistorter(CAMERA)(image)
    assert rectified.shape == image.shape and rectified.dtype == np.uint8
    assert np.abs(dots(rectified, pinhole) - pinhole).max() < 0.1  # no half pixel is lost
    small = cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA)
    assert np.abs(2 * dots(np.asarray(Undistorter(CAMERA)(small)), pinhole / 2) - pinhole).max() < 0.2
    fitted = CAMERA.crop_square(256)
    assert not any(fitted.distortion)
    expected = CameraIntrinsics.of(fitted).project(np.column_stack([rays, np.ones(len(rays))]))
    inside = np.all((expected > 12) & (expected < 244), axis=1)
    assert np.abs(dots(crop_square(rectified, 256), expected[inside]) - expected[inside]).max() < 0.1


def test_image_without_distortion_is_unchanged() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    assert Undistorter(replace(CAMERA, distortion=(0.0,) * 5))(image) is image
    assert "distortion" not in replace(CAMERA, distortion=(0.0,) * 5).to_dict()
    again = Camera.from_dict("front", CAMERA.to_dict())
    assert again.distortion == DISTORTION and again.scale(320, 240).distortion == DISTORTION


def test_depth_is_undistorted_in_step_with_the_image_without_mixing_pixels() -> None:
    """Each pixel is one of the nearest source pixels, those of an image of its coordinates; outside is unknown."""
    camera = replace(CAMERA, distortion=(0.25, 0.05, 0.0, 0.0, 0.0))
    undistorter, (w, h) = Undistorter(camera), (camera.width, camera.height)
    depth = 1 + np.arange(w * h, dtype=np.float32).reshape(h, w)
    undistorted = undistorter.depth(depth)
    assert set(np.unique(undistorted)) <= {0.0, *depth.ravel()}
    x, y = np.meshgrid(np.arange(w), np.arange(h))
    info = camera.camera_info()
    K, d = info["k"].reshape(3, 3), info["d"]
    rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1).reshape(-1, 3)
    source = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), K, d)[0].reshape(h, w, 2)
    found = undistorted > 0
    found_y, found_x = np.divmod(undistorted[found].astype(int) - 1, w)
    assert np.abs(np.column_stack([found_x, found_y]) - source[found]).max() < 0.53  # px; maps have steps of 1/32
    inside = np.all((source > 0) & (source < [w - 1, h - 1]), -1)
    assert found[inside].all() and not found.all()
    plain = Undistorter(replace(camera, distortion=(0.0,) * 5))
    assert plain.depth(depth) is depth
    with pytest.raises(GenimaError, match="aspect ratio differs"):
        undistorter.depth(np.zeros((720, 1280), np.float32))


def test_other_aspect_ratio_and_lens_are_rejected() -> None:
    undistorter = Undistorter(CAMERA)
    with pytest.raises(GenimaError, match=r"image of front: aspect ratio differs .* \(1280x720, 640x480\)"):
        undistorter(np.zeros((720, 1280, 3), np.uint8))
    with pytest.raises(GenimaError, match=r"camera_info of front: aspect ratio differs .* \(640x360, 640x480\)"):
        undistorter.require_intrinsics(replace(LENS, height=360))
    with pytest.raises(
        GenimaError, match=r"camera_info of front: does not fit its calibration \(fx 462 and 612 px.*resolution"
    ):
        undistorter.require_intrinsics(replace(LENS, fx=462.0, fy=460.0))
    with pytest.raises(GenimaError, match="does not fit its calibration"):
        undistorter.require_intrinsics(replace(LENS, cx=LENS.cx + 30))
    with pytest.raises(GenimaError, match="does not fit its calibration"):
        undistorter.require_intrinsics(replace(LENS, distortion=(-0.3, 0.1, 0.0, 0.0, 0.0)))
    for same in (
        LENS,
        CameraIntrinsics.of(CAMERA.scale(320, 240)),  # the driver makes smaller images of the same view
        replace(LENS, fx=LENS.fx * 1.01, fy=LENS.fy * 1.01, cx=LENS.cx + 3, distortion=(0.0,) * 5),  # was refined
    ):
        undistorter.require_intrinsics(same)


def test_camera_info_matches_calibration() -> None:
    info = CAMERA.camera_info()
    assert (info["k"][2], info["k"][5]) == (324.5, 236.0)  # ROS counts pixels from the middle of the first one
    np.testing.assert_array_equal(info["p"].reshape(3, 4)[:, :3], info["k"].reshape(3, 3))
    back = CameraIntrinsics.from_camera_info(640, 480, info["distortion_model"], info["d"], info["k"])
    assert back == LENS


# From demos to a dataset.

VIEWS = ("front", "wrist", "left_shoulder", "right_shoulder")
SIZE = 64


STRONG = (0.25, 0.05, 0.0, 0.0, 0.0)


def distorted(camera: Camera) -> Camera:
    return replace(camera, distortion=STRONG)


def write_demo(
    folder: Path, robot: RobotModel, calibrated: Mapping[str, Camera], recorded: Mapping[str, Camera], image: Image
) -> None:
    """A few moments with calibrations ``calibrated`` by camera_info and ``recorded`` with them."""
    with EpisodeWriter(folder, robot, recorded, "wait") as episode:
        episode._cameras = calibrated
        for t in range(3):
            stamp = 10 + 0.05 * t
            episode.observe(stamp, dict.fromkeys(VIEWS, image), Joints(stamp, robot.home + 0.02 * t, 1.0))
            episode.command(Command(stamp, robot.home, gripper=1.0))
        episode.judge(stamp, True)


@pytest.fixture(scope="module")
def picture() -> Image:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (256, 256), interpolation=cv2.INTER_CUBIC), np.uint8)


def test_dataset_images_match_agent_input(
    robot: RobotModel, cameras: Mapping[str, Camera], tmp_path: Path, picture: Image
) -> None:
    """Demos are rendered with their stored calibrations and rectified images, or with given calibrations."""
    distorted_cameras = {view: distorted(camera) for view, camera in cameras.items()}
    write_demo(tmp_path / "own", robot, distorted_cameras, distorted_cameras, picture)
    write_demo(tmp_path / "plain", robot, cameras, {}, picture)
    demos = [tmp_path / "own", tmp_path / "plain"]
    plan = make_plan(Render(view_size=SIZE), demos)
    assert plan.cameras["front"].distortion == STRONG and plan.recorded
    named = make_plan(Render(view_size=SIZE, cameras=Path("sim")), demos)
    assert not any(named.cameras["front"].distortion) and not named.recorded
    assert named.fingerprint() != plan.fingerprint()

    def observation_image(plan: RenderPlan, demo: Path, view: str) -> np.ndarray:
        row = _render_rows(Episode.load(demo, robot), plan, robot, None)[0]
        data = np.frombuffer(row[f"observation.{view}"]["bytes"], np.uint8)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1], int)

    original = Episode.load(demos[0], robot).image("wrist", 0)
    undistorted = crop_square(Undistorter(distorted_cameras["wrist"])(original), SIZE).astype(int)
    assert np.abs(undistorted - crop_square(original, SIZE)).max() > 30
    np.testing.assert_allclose(observation_image(plan, demos[0], "wrist"), undistorted, atol=12)  # JPEG
    np.testing.assert_allclose(observation_image(named, demos[1], "wrist"), crop_square(original, SIZE), atol=12)
    write_demo(tmp_path / "sim", robot, cameras, cameras, picture)
    with pytest.raises(EpisodeError, match="sim: /calibration/wrist: recorded with another calibration than"):
        observation_image(plan, tmp_path / "sim", "wrist")
    with pytest.raises(EpisodeError, match="plain: /calibration/wrist: unknown calibration; .*--cameras FOLDER"):
        observation_image(make_plan(Render(view_size=SIZE), [demos[1], tmp_path / "sim"]), demos[1], "wrist")


def test_calibration_scales_to_equal_aspect_ratio_only() -> None:
    assert CAMERA.resize(320, 240).fx == CAMERA.fx / 2 and CAMERA.resize(1279, 959).width == 1279
    with pytest.raises(
        GenimaError, match=r"camera front: images do not fit its calibration \(640x360, 640x480\); .*--cameras"
    ):
        CAMERA.resize(640, 360)
    assert CAMERA.is_close(Camera.from_dict("front", CAMERA.to_dict())) and not CAMERA.is_close(CAMERA.scale(320, 240))
    assert not CAMERA.is_close(replace(CAMERA, fx=CAMERA.fx + 0.01))


def test_demos_with_other_intrinsics_are_reported(
    robot: RobotModel, cameras: Mapping[str, Camera], tmp_path: Path, picture: Image
) -> None:
    simulated = Render(cameras=Path("sim"))
    wide = cameras | {"front": replace(cameras["front"], fx=170.0, fy=170.0)}
    write_demo(tmp_path / "wide", robot, wide, {}, picture)
    with pytest.raises(
        EpisodeError, match="wide: /cameras/front/color/camera_info: camera_info of front: does not fit its cal"
    ):
        _render_rows(Episode.load(tmp_path / "wide", robot), make_plan(simulated, [tmp_path / "wide"]), robot, None)
    write_demo(tmp_path / "flat", robot, cameras, {}, np.ascontiguousarray(picture[:128]))
    with pytest.raises(EpisodeError, match=r"flat: /cameras/.*/image_raw: image of \w+: aspect .*256x128, 256x256"):
        _render_rows(Episode.load(tmp_path / "flat", robot), make_plan(simulated, [tmp_path / "flat"]), robot, None)


def test_cameras_of_demo_are_read_and_checked(
    robot: RobotModel, cameras: Mapping[str, Camera], tmp_path: Path, picture: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    distorted_cameras = {"front": distorted(cameras["front"])}
    write_demo(tmp_path / "one", robot, {**cameras, **distorted_cameras}, distorted_cameras, picture)
    found = EpisodeCameras.of(tmp_path / "one")
    assert set(found.calibrated) == {"front"} and set(found.lenses) == set(VIEWS)
    assert found.lenses["front"].parameters == pytest.approx(CameraIntrinsics.of(distorted_cameras["front"]).parameters)
    np.testing.assert_allclose(found.calibrated["front"].T_parent_camera, cameras["front"].T_parent_camera, atol=1e-12)
    T = cameras["front"].T_parent_camera.copy()
    T[:3, 3] *= 1000
    front = distorted_cameras["front"]
    broken = {"negative": replace(front, fx=-1.0), "millimetres": replace(front, T_parent_camera=T)}
    for name, camera in broken.items():
        with pytest.raises(GenimaError, match="camera calibration of front: "):
            write_demo(tmp_path / name, robot, cameras, {"front": camera}, picture)
    monkeypatch.setattr("genima.data.episodes.writer.require_plausible", lambda camera, what: None)
    for (name, camera), expected in zip(broken.items(), ("fx", "millimetres"), strict=True):
        write_demo(tmp_path / name, robot, cameras, {"front": camera}, picture)
        with pytest.raises(GenimaError, match=f"{name}: /calibration/front: .*({expected})"):
            EpisodeCameras.of(tmp_path / name)


def test_cameras_are_loaded_by_name_or_folder(tmp_path: Path) -> None:
    CameraCalibration(CAMERA).save(tmp_path / "mine")
    assert load_cameras(tmp_path / "mine")["front"].distortion == DISTORTION
    assert set(load_cameras("sim")) == set(VIEWS)
    (tmp_path / "mine" / "wrist.yaml").write_text((tmp_path / "mine" / "front.yaml").read_text() + "colour: red\n")
    with pytest.raises(GenimaError, match="wrist.yaml: .*colour"):
        load_cameras(tmp_path / "mine")
    with pytest.raises(GenimaError, match="calibration/nowhere not found"):
        load_cameras("nowhere")
