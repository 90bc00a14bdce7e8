"""Tests of demos on disk: complete, readable by standard tools; damaged or unfinished ones are reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

from genima.cameras.camera import Camera
from genima.data.episodes import Episode, EpisodeWriter, find_episodes
from genima.data.episodes.cameras import EpisodeCameras
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command, Image, Joints

VIEWS = ("front", "wrist", "left_shoulder", "right_shoulder")
STEPS = 6


@dataclass(frozen=True)
class Truth:
    """The written messages."""

    stamps: list[float]
    images: list[Mapping[str, Image]]
    joints: list[Joints]
    commands: list[Command]


def truth() -> Truth:
    rng = np.random.default_rng(0)
    stamps = [1_700_000_000.0 + 0.05 * t for t in range(STEPS)]
    images = [
        {view: cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (96, 64)) for view in VIEWS} for _ in range(STEPS)
    ]
    joints = [Joints(stamp, rng.normal(size=7), float(rng.uniform())) for stamp in stamps]
    commands = [Command(stamp, rng.normal(size=7), rng.normal(size=7), float(rng.uniform())) for stamp in stamps]
    return Truth(stamps, images, joints, commands)


TRUTH = truth()


def write(folder: Path, robot: RobotModel, cameras: Mapping[str, Camera], success: bool = True) -> Path:
    with EpisodeWriter(folder, robot, cameras, "wave, slowly") as episode:
        for stamp, images, joints, command in zip(
            TRUTH.stamps, TRUTH.images, TRUTH.joints, TRUTH.commands, strict=True
        ):
            episode.observe(stamp, images, joints)
            episode.command(command)
        episode.judge(TRUTH.stamps[-1], success)
    return folder


@pytest.fixture(scope="module")
def episode_folder(tmp_path_factory: pytest.TempPathFactory, robot: RobotModel, cameras: Mapping[str, Camera]) -> Path:
    return write(tmp_path_factory.mktemp("episodes") / "one", robot, cameras)


def test_joints_commands_and_stamps_come_back_exactly(episode_folder: Path, robot: RobotModel) -> None:
    episode = Episode.load(episode_folder, robot)
    assert len(episode) == STEPS and episode.instruction == "wave, slowly" and episode.success
    np.testing.assert_allclose(episode.stamps, TRUTH.stamps, atol=1e-6)
    np.testing.assert_array_equal(episode.positions, [joints.positions for joints in TRUTH.joints])
    np.testing.assert_allclose(episode.gripper, [joints.gripper for joints in TRUTH.joints], atol=1e-12)
    np.testing.assert_array_equal(episode.command_positions, [command.positions for command in TRUTH.commands])
    np.testing.assert_array_equal(episode.command_gripper, [command.gripper for command in TRUTH.commands])


def test_image_round_trip_with_jpeg(episode_folder: Path, robot: RobotModel) -> None:
    episode = Episode.load(episode_folder, robot)
    assert set(episode.views) == set(VIEWS)
    for t in range(STEPS):
        for view in VIEWS:
            image = episode.image(view, t)
            assert image.shape == (64, 96, 3) and image.dtype == np.uint8
            assert np.abs(image.astype(int) - TRUTH.images[t][view]).mean() < 2.5


def test_episode_has_calibrations(episode_folder: Path, cameras: Mapping[str, Camera]) -> None:
    """The same topics as in the recorder's demos."""
    found = EpisodeCameras.of(episode_folder).calibrated
    assert set(found) == set(VIEWS)
    for view, camera in found.items():
        np.testing.assert_allclose(camera.T_parent_camera, cameras[view].T_parent_camera, atol=1e-12)
        assert replace(camera, T_parent_camera=cameras[view].T_parent_camera) == cameras[view]


def test_success_round_trip(tmp_path: Path, robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    assert not Episode.load(write(tmp_path / "failed", robot, cameras, success=False), robot).success


def test_stock_tools_open_episode(episode_folder: Path, robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    metadata = yaml.safe_load((episode_folder / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["storage_identifier"] == "mcap"
    assert metadata["relative_file_paths"] == [file.name for file in episode_folder.glob("*.mcap")]
    assert metadata["message_count"] == STEPS * (2 * len(VIEWS) + 2) + len(VIEWS) + 3
    mcap = (episode_folder / metadata["relative_file_paths"][0]).read_bytes()
    assert mcap.startswith(b"\x89MCAP0\r\n") and mcap.endswith(b"\x89MCAP0\r\n")
    for definition in (b"ros2msg", b"float64[] position", b"std_msgs/Header header"):
        assert definition in mcap
    kinds = {
        "/task": "std_msgs/msg/String",
        "/robot_model": "std_msgs/msg/String",
        "/success": "std_msgs/msg/Bool",
        "/joint_states": "sensor_msgs/msg/JointState",
        "/joint_command": "sensor_msgs/msg/JointState",
    }
    for view in VIEWS:
        kinds[f"/cameras/{view}/color/image_raw/compressed"] = "sensor_msgs/msg/CompressedImage"
        kinds[f"/cameras/{view}/color/camera_info"] = "sensor_msgs/msg/CameraInfo"
        kinds[f"/calibration/{view}"] = "std_msgs/msg/String"
    with AnyReader([episode_folder]) as bag:  # no types are given: those in the bag must do
        assert {connection.topic: connection.msgtype for connection in bag.connections} == kinds
        for connection, _, raw in bag.messages():
            message = bag.deserialize(raw, connection.msgtype)
            if connection.msgtype == "sensor_msgs/msg/JointState":
                assert message.name == [*robot.joint_names, robot.gripper_joint]
                if connection.topic == "/joint_states":  # in rad, as drivers report it; commands are open fractions
                    assert 0 <= message.position[-1] <= robot.gripper_closed
            elif connection.msgtype == "sensor_msgs/msg/CameraInfo":
                camera = cameras[connection.topic.split("/")[2]]
                # ROS counts pixels from the middle of the first one
                K = [[camera.fx, 0, camera.cx - 0.5], [0, camera.fy, camera.cy - 0.5], [0, 0, 1]]
                np.testing.assert_array_equal(message.k.reshape(3, 3), K)
                np.testing.assert_array_equal(message.p.reshape(3, 4), np.column_stack([K, np.zeros(3)]))
                assert message.header.frame_id == f"{camera.view}_color_optical_frame"


def rewrite(source: Path, folder: Path, without: str = "none", delay: Callable[[int], int] = lambda i: 0) -> Path:
    """A copy of a bag without a topic, with shifted log times and unchanged messages."""
    with AnyReader([source]) as bag, Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as out:
        connections = {
            c.topic: out.add_connection(c.topic, c.msgtype, typestore=bag.typestore)
            for c in bag.connections
            if c.topic != without
        }
        for i, (connection, log_time, raw) in enumerate(bag.messages()):
            if connection.topic != without:
                out.write(connections[connection.topic], log_time + delay(i), bytes(raw))
    return folder


def test_times_are_header_stamps(episode_folder: Path, tmp_path: Path, robot: RobotModel) -> None:
    late = rewrite(episode_folder, tmp_path / "late", delay=lambda i: 300_000_000 + (i * 7919) % 1_000_000)
    np.testing.assert_array_equal(Episode.load(late, robot).stamps, Episode.load(episode_folder, robot).stamps)


def test_crash_while_recording_leaves_no_episode(
    tmp_path: Path, robot: RobotModel, cameras: Mapping[str, Camera]
) -> None:
    with pytest.raises(KeyboardInterrupt), EpisodeWriter(tmp_path / "one", robot, cameras, "wave") as episode:
        episode.observe(0.0, TRUTH.images[0], TRUTH.joints[0])
        raise KeyboardInterrupt
    _nothing_there(tmp_path)


def test_killed_recording_leaves_no_episode(tmp_path: Path, robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    killed = EpisodeWriter(tmp_path / "one", robot, cameras, "wave").__enter__()
    killed.observe(0.0, TRUTH.images[0], TRUTH.joints[0])
    killed._bag.close()  # everything is on disk, even the bag's metadata, but it is not marked as complete
    _nothing_there(tmp_path)
    write(tmp_path / "one", robot, cameras)
    assert find_episodes(tmp_path) == [tmp_path / "one"]


def _nothing_there(folder: Path) -> None:
    assert not (folder / "one").exists()
    with pytest.raises(GenimaError, match="no episodes"):
        find_episodes(folder)


def test_episode_is_never_overwritten(episode_folder: Path, robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
    with pytest.raises(GenimaError, match="exists already"):
        EpisodeWriter(episode_folder, robot, cameras, "wave")


def _cut(bag: Path) -> None:
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _lose(bag: Path) -> None:
    next(bag.glob("*.mcap")).unlink()


def _no_metadata(bag: Path) -> None:
    (bag / "metadata.yaml").write_text("{[")


def _remove(bag: Path) -> None:
    for file in bag.iterdir():
        file.unlink()


@pytest.mark.parametrize("damage", [_cut, _lose, _no_metadata, _remove])
def test_damaged_episode_is_reported_in_one_line(
    episode_folder: Path, copy_folder: Callable[[Path], Path], robot: RobotModel, damage: Callable[[Path], None]
) -> None:
    folder = copy_folder(episode_folder)
    damage(folder)
    _assert_rejected(folder, robot, str(folder))


@pytest.mark.parametrize("topic", ["/joint_states", "/joint_command"])
def test_missing_topic_is_reported(episode_folder: Path, tmp_path: Path, robot: RobotModel, topic: str) -> None:
    _assert_rejected(rewrite(episode_folder, tmp_path / "less", without=topic), robot, topic)


def test_missing_view_is_reported(episode_folder: Path, tmp_path: Path, robot: RobotModel) -> None:
    folder = rewrite(episode_folder, tmp_path / "less", without="/cameras/wrist/color/image_raw/compressed")
    episode = Episode.load(folder, robot)
    episode.image("front", 0)
    with pytest.raises(GenimaError, match=f"{folder}.*wrist"):
        episode.image("wrist", 0)


def test_joints_of_another_robot_are_reported(episode_folder: Path, tmp_path: Path, robot: RobotModel) -> None:
    other = replace(robot, joint_names=(*robot.joint_names[:6], "fr3_joint7"))
    episode = Episode.load(episode_folder, other)
    assert episode.robot.to_dict() == robot.to_dict()  # as recorded
    with pytest.raises(GenimaError, match="of another panda: its kinematics differ"):
        episode.require_robot(other)
    _assert_rejected(rewrite(episode_folder, tmp_path / "old", without="/robot_model"), other, "fr3_joint7")


def test_topics_with_different_stamps_are_rejected(
    tmp_path: Path, robot: RobotModel, cameras: Mapping[str, Camera]
) -> None:
    for lost in ("images", "command"):
        with EpisodeWriter(tmp_path / lost, robot, cameras, "wave") as episode:
            for t, stamp in enumerate(TRUTH.stamps):
                gone = "wrist" if lost == "images" and t in (2, 3) else ""
                images = {v: i for v, i in TRUTH.images[t].items() if v != gone}
                episode.observe(stamp, images, TRUTH.joints[t])
                if lost == "images" or t != 2:
                    episode.command(TRUTH.commands[t])
        _assert_rejected(tmp_path / lost, robot, "wrist" if lost == "images" else "/joint_command")


def _assert_rejected(folder: Path, robot: RobotModel, named: str) -> None:
    with pytest.raises(GenimaError) as caught:
        Episode.load(folder, robot)
    message = str(caught.value)
    assert str(folder) in message and named in message and "\n" not in message
