"""Tests of modified and damaged calibration files: loaded, or rejected with one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from mutation import mutated_bytes, mutated_data, require_clean

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.calibration_file import CameraCalibration, load_cameras
from genima.cameras.camera import Camera
from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel
from genima_calibration.easy_handeye2 import Calib
from genima_calibration.sample_folder import load_samples, sample_names
from genima_calibration.session import Session
from genima_sim.coppeliasim.names import SceneNames

PANDA = RobotModel.load("panda")
BOARD = {"kind": "charuco", "columns": 7, "rows": 6, "square": 0.036, "marker": 0.027, "dictionary": "5X5_50",
         "legacy_pattern": True, "first_id": 3}  # fmt: skip
CALIBRATION = {
    "parent": "base", "translation": [1.0, 0.1, 0.6], "rotation_xyzw": [0.0, 0.6, 0.0, 0.8],
    "width": 640, "height": 480, "fx": 600.0, "fy": 601.0, "cx": 320.0, "cy": 240.0,
    "distortion": {"k1": 0.1, "k2": -0.2, "p1": 0.0, "p2": 0.0, "k3": 0.1},
    "frames": {"parent": "panda_link0", "camera": "front_color_optical_frame"},
    "date": "2026-11-22T10:00:00+00:00", "method": "bundle adjustment",
    "residuals": {"pixels": 0.3, "millimetres": 1.0, "degrees": 0.1},
    "covariance": (1e-6 * np.eye(6)).tolist(), "board": BOARD, "samples": ["01", "02"], "outliers": {"03": "bumped"},
}  # fmt: skip
SAMPLE = {
    "view": "front", "joints": dict(zip(PANDA.joint_names, PANDA.home.tolist(), strict=True)) | {"finger_joint": 0.7},
    "camera_info": {
        "frame_id": "front_color_optical_frame", "width": 64, "height": 48, "distortion_model": "plumb_bob",
        "d": [0.1, -0.2, 0.0, 0.0, 0.1], "k": [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0],
    },
}  # fmt: skip
CALIB = {
    "parameters": {
        "name": "wrist", "calibration_type": "eye_in_hand", "robot_base_frame": "panda_link0",
        "robot_effector_frame": "panda_hand", "tracking_base_frame": "wrist_link", "tracking_marker_frame": "board",
        "freehand_robot_movement": True, "move_group_namespace": "/", "move_group": "manipulator",
    },
    "transform": {"translation": {"x": 0.1, "y": 0.0, "z": 0.05}, "rotation": {"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0}},
}  # fmt: skip
ROS_1 = {
    "parameters": {
        "eye_on_hand": False, "robot_base_frame": "panda_link0", "robot_effector_frame": "panda_hand",
        "tracking_base_frame": "camera_link", "tracking_marker_frame": "board", "namespace": "/eye_on_base/",
    },
    "transformation": {"x": 0.5, "y": 0.0, "z": 1.2, "qx": 0.0, "qy": 0.0, "qz": 0.0, "qw": 1.0},
}  # fmt: skip
SCENE = yaml.safe_load(paths.shared("config", "coppeliasim", "rlbench.yaml").read_text(encoding="utf-8"))


def save_image(file: Path, width: int = 64, height: int = 48) -> None:
    cv2.imwrite(str(file), np.full((height, width, 3), 90, np.uint8))


def samples(file: Path) -> None:
    for sample in load_samples(file.parent, [file.stem]):
        with_lens = sample.info.intrinsics
        assert isinstance(with_lens, CameraIntrinsics) and sample.image.shape == (with_lens.height, with_lens.width, 3)
        sample.positions(PANDA)


READERS: dict[str, tuple[dict[str, Any], Callable[[Path], object]]] = {
    "board": (BOARD, lambda file: CalibrationBoard.load(file).cv_board),
    "calibration": (CALIBRATION, lambda file: CameraCalibration.load(file).to_dict()),
    "sample": (SAMPLE, samples),
    "easy_handeye2": (CALIB, Calib.load),
    "easy_handeye": (ROS_1, Calib.load),
    "coppeliasim": (SCENE, lambda file: SceneNames.load(file, PANDA)),
}


@pytest.mark.parametrize("kind", READERS)
def test_mutated_files_are_read_or_rejected_in_one_line(kind: str, tmp_path: Path) -> None:
    valid, read = READERS[kind]
    file = tmp_path / "front.yaml"
    save_image(file.with_suffix(".png"))
    file.write_text(yaml.safe_dump(valid), encoding="utf-8")
    read(file)
    accepted = 0
    for seed, data in enumerate(mutated_data(valid, 250)):
        file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
        accepted += require_clean(lambda: read(file), data)
        if seed % 25 == 0:
            require_clean(lambda: load_cameras(tmp_path), data)
    assert accepted < 150
    for content in mutated_bytes(yaml.safe_dump(valid).encode(), 150):
        file.write_bytes(content)
        require_clean(lambda: read(file), content)


def test_mutated_images_are_read_or_rejected_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "01.png"
    file.with_suffix(".yaml").write_text(yaml.safe_dump(SAMPLE), encoding="utf-8")
    save_image(file)
    for content in mutated_bytes(file.read_bytes(), 200):
        file.write_bytes(content)
        require_clean(lambda: samples(file), content)


STRANGE_TEXTS = {
    "date": b"square: 2024-01-01",
    "digits": b"square: " + b"9" * 6000,
    "braces": b"{" * 3000,
    "brackets": b"[" * 3000,
    "apply": b"!!python/object/apply:os.system [true]",
    "name": b"kind: !!python/name:os.system\n",
    "recursive": b"a: &a [*a]",
    "merge": b"<<: {kind: grid}",
    "twice": b"kind: grid\nkind: charuco",
    "utf-16": b"\xff\xfe\x00",
    "null": b"kind: \x00",
    "documents": b"---\n---\n",
    "list": b"- kind",
    "umlaut": "kind: grid  # f\u00fcr Jan".encode(),
    "lines": b"\n" * 2_000_000,
    "long": b"a: " + b"x" * 2_000_000,
}


@pytest.mark.parametrize("name", STRANGE_TEXTS)
@pytest.mark.parametrize("kind", READERS)
def test_hostile_texts_are_rejected_without_execution(kind: str, name: str, tmp_path: Path) -> None:
    file, began = tmp_path / "front.yaml", time.process_time()
    file.write_bytes(STRANGE_TEXTS[name])
    save_image(file.with_suffix(".png"))
    with pytest.raises(GenimaError) as refused:
        READERS[kind][1](file)
    assert "\n" not in str(refused.value) and time.process_time() - began < 10


def test_huge_image_header_allocates_no_memory(tmp_path: Path) -> None:
    save_image(tmp_path / "01.png")
    data = (tmp_path / "01.png").read_bytes()
    (tmp_path / "01.png").write_bytes(data[:16] + (100_000).to_bytes(4, "big") * 2 + data[24:])
    (tmp_path / "01.yaml").write_text(yaml.safe_dump(SAMPLE), encoding="utf-8")
    with pytest.raises(GenimaError, match=r"01.png: 100000x100000, but camera_info of 64x48"):
        next(load_samples(tmp_path, ["01"]))


def test_calibration_folders_with_unusual_file_names(tmp_path: Path) -> None:
    (tmp_path / "front.yaml").write_text(yaml.safe_dump(CALIBRATION), encoding="utf-8")
    (tmp_path / "._front.yaml").write_bytes(b"\x00\x05\x16\x07")  # macOS leaves these on foreign disks
    (tmp_path / "front.yaml.2026-11-22_10-00-00").write_text("a former one", encoding="utf-8")
    assert list(load_cameras(tmp_path)) == ["front"]
    for name in ("left-shoulder", "front (copy)", "2nd", "fr\u00f6nt", "a" * 150):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(CALIBRATION), encoding="utf-8")
        with pytest.raises(GenimaError, match="camera calibration .*: view: "):
            load_cameras(tmp_path)
        file.unlink()
    (tmp_path / "wrist.yaml").mkdir()
    with pytest.raises(GenimaError, match="wrist.yaml: not a regular file"):
        load_cameras(tmp_path)


def test_samples_do_not_overwrite_other_files(tmp_path: Path) -> None:
    save_image(tmp_path / "0001.png")
    before = (tmp_path / "0001.png").read_bytes()
    (tmp_path / "._0003.yaml").write_bytes(b"\x00")
    (tmp_path / "._0003.png").write_bytes(b"\x00")
    board = CalibrationBoard.from_dict(BOARD)
    session = Session(tmp_path, "front", "base", board, PANDA)
    from genima.types import Joints
    from genima_calibration.board_detection import Detection
    from genima_calibration.sample_folder import CameraInfo

    camera_info = SAMPLE["camera_info"]
    info = CameraInfo(*(tuple(value) if isinstance(value, list) else value for value in camera_info.values()))
    seen = Detection(np.arange(6), np.zeros((6, 2)), board.points[:6])
    name = session.take(np.zeros((48, 64, 3), np.uint8), info, Joints(0.0, PANDA.home, 1.0), seen)
    assert name == "0002" and (tmp_path / "0001.png").read_bytes() == before
    assert sample_names(tmp_path) == ["0002"]


def test_saving_keeps_backups(tmp_path: Path) -> None:
    pose = np.eye(4)
    for i in range(4):  # within one second
        pose[0, 3] = 0.1 * i
        CameraCalibration(Camera("front", "base", pose.copy(), 640, 480, 600, 600, 320, 240)).save(tmp_path)
    kept = [yaml.safe_load(file.read_text(encoding="utf-8"))["translation"][0] for file in tmp_path.iterdir()]
    assert sorted(kept) == pytest.approx([0, 0.1, 0.2, 0.3])
