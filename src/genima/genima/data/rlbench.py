"""Import of RLBench datasets as rosbag2 demos, without RLBench.

An episode has ``low_dim_obs.pkl``, a pickled list of observations, and folders ``front_rgb/0.png`` and so on; its
folder or a parent has ``variation_descriptions.pkl``, several wordings of the task. Observations are 0.05 s apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.cameras.camera import Camera
from genima.cameras.plausibility import MAX_SIZE, require_plausible, require_rotation
from genima.data import pickle_reader as plain_pickle
from genima.data.episodes.comparison import is_demo_of
from genima.data.episodes.writer import EpisodeWriter
from genima.errors import GenimaError
from genima.io.files import read_bytes
from genima.io.images import decode_colour, image_size
from genima.robot.model import RobotModel
from genima.robot.placement import base_pose
from genima.types import Command, Image, Joints

PERIOD = 0.05  # s between observations
VIEWS = ("front", "left_shoulder", "right_shoulder", "wrist")
_RECORDS = ("rlbench.demo.Demo", "rlbench.backend.observation.Observation")
_LOW_DIM, _WORDINGS = "low_dim_obs.pkl", "variation_descriptions.pkl"
_OUTSIDE_ARM = 0.1  # rad beyond the robot's limits that pass as a measurement
_OPTICAL = np.diag([-1.0, -1.0, 1.0, 1.0])  # vision sensor: z forward, y up; optical frame: y down
_HAND = "wrist"


def find_episodes(dataset: Path) -> list[Path]:
    """Return all episodes below a folder, sorted by number.

    Raises:
        GenimaError: when there is none.
    """
    if not dataset.is_dir():
        raise GenimaError(f"dataset {dataset}: {'not a folder' if dataset.exists() else 'no such folder'}")
    found = [path.parent for path in dataset.rglob(_LOW_DIM)]
    if not found:
        raise GenimaError(f"no episodes of RLBench (TASK/variation0/episodes/episode0/{_LOW_DIM}) in {dataset}")
    return sorted(found, key=lambda path: [int(n) if n.isdigit() else n for n in re.split(r"(\d+)", str(path))])


def demo_name(episode: Path) -> str:
    """Return the demo name of an episode: task, variation and number."""
    parts = episode.resolve().parts
    if len(parts) < 5:  # the root is one
        raise GenimaError(f"episode {episode}: not in TASK/variation0/episodes; move it into such folders")
    *_, task, variation, _, number = parts
    return f"{task}-{variation}-{number}"


def write_demo(
    episode: Path,
    folder: Path,
    robot: RobotModel,
    cameras: Mapping[str, Camera] | None = None,
    images: Literal["png", "jpeg"] = "png",
) -> bool:
    """Write one episode as a demo; return whether it records commands.

    The command of a moment is the next recorded command, where the episode has it, else the next position.

    Args:
        episode: its folder.
        folder: of the demo.
        robot: robot of the episode.
        cameras: calibrations by view for the demo; None: those of the episode, which RLBench stores since July 2024.
        images: format to store; the dataset's PNG is lossless.

    Raises:
        GenimaError: for a malformed episode, or joints of another robot.
    """
    observations = _observations(episode)
    moments = [_joints(episode, i, observation, robot) for i, observation in enumerate(observations)]
    views = [view for view in VIEWS if (episode / f"{view}_rgb").is_dir()]
    if not views:
        raise GenimaError(f"{episode} has no images ({VIEWS[0]}_rgb, ...)")
    size = {view: _image_size(episode, view) for view in views}
    if cameras is None:
        known = {view: _camera(episode, observations[0], view, moments[0], robot) for view in views}
    elif missing := [view for view in views if view not in cameras]:
        raise GenimaError(f"there is no calibration of {', '.join(missing)}; there is {', '.join(cameras)}")
    else:
        known = {view: cameras[view] for view in views}
    known = {view: camera.resize(*size[view]) for view, camera in known.items()}
    commands = [
        replace(_read_command(episode, i, observations[i], moments[i], robot), stamp=joints.stamp)
        for i, joints in zip([*range(1, len(moments)), len(moments) - 1], moments, strict=True)
    ]
    with EpisodeWriter(folder, robot, known, _instruction(episode), images) as demo:
        for i, joints in enumerate(moments):
            demo.observe(joints.stamp, {view: _image(episode, view, i, size[view]) for view in views}, joints)
            demo.command(commands[i])
        demo.judge(moments[-1].stamp, True)  # the generator stores only successful episodes
    return all("joint_position_action" in _misc(observation) for observation in observations[1:])


def is_written(episode: Path, folder: Path, robot: RobotModel) -> bool:
    """Return whether a demo is the conversion of an episode, by its task and joints.

    Raises:
        GenimaError: when the demo or the episode cannot be read.
    """
    moments = [_joints(episode, i, observation, robot) for i, observation in enumerate(_observations(episode))]
    return is_demo_of(folder, robot, _instruction(episode), moments)


def _observations(episode: Path) -> Sequence[Any]:
    """Return the observations of RLBench's Demo, an object with a list or, in older versions, the list."""
    path = episode / _LOW_DIM
    demo = plain_pickle.load(path, _RECORDS)
    observations = getattr(demo, "_observations", demo)
    if not isinstance(observations, list) or not observations:
        raise GenimaError(f"{path} holds no observations")
    return observations


def _joints(episode: Path, i: int, observation: Any, robot: RobotModel) -> Joints:
    positions = _numbers(episode, i, "joint_positions", getattr(observation, "joint_positions", None), len(robot.home))
    opened = _numbers(episode, i, "gripper_open", [getattr(observation, "gripper_open", None)], 1)[0]
    _require_reachable(episode, i, "joint_positions", positions, robot)
    if not 0 <= opened <= 1:
        raise GenimaError(f"{episode}, observation {i}: gripper_open is {opened:g}, 0..1 is needed")
    return Joints(i * PERIOD, positions, float(opened))


def _require_reachable(episode: Path, i: int, name: str, positions: NDArray[np.float64], robot: RobotModel) -> None:
    beyond = np.maximum(robot.position_min - positions, positions - robot.position_max)
    if beyond.max() > _OUTSIDE_ARM:
        joint = robot.joint_names[int(beyond.argmax())]
        raise GenimaError(
            f"{episode}, observation {i}: {name}: {joint} exceeds its limits by {beyond.max():.2f} rad; is it of "
            "another robot, or in degrees?"
        )


def _read_command(episode: Path, i: int, observation: Any, joints: Joints, robot: RobotModel) -> Command:
    """Return the command that led to an observation; without one, its measured joints."""
    action = _misc(observation).get("joint_position_action")
    if action is None:
        return Command(joints.stamp, joints.positions, gripper=joints.gripper)
    numbers = _numbers(episode, i, "joint_position_action", action, len(joints.positions) + 1)
    _require_reachable(episode, i, "joint_position_action", numbers[:-1], robot)
    if not 0 <= numbers[-1] <= 1:
        raise GenimaError(f"{episode}, observation {i}: joint_position_action opens the gripper by {numbers[-1]:g}")
    return Command(joints.stamp, numbers[:-1], gripper=float(numbers[-1]))


def _misc(observation: Any) -> Mapping[str, Any]:
    misc = getattr(observation, "misc", None)
    return misc if isinstance(misc, dict) else {}


def _numbers(episode: Path, i: int, name: str, values: Any, *shape: int) -> NDArray[np.float64]:
    numbers = plain_pickle.as_array(values, shape)
    if numbers is None:
        wanted = " x ".join(map(str, shape))
        raise GenimaError(f"{episode}, observation {i}: {name} is not {wanted} finite numbers")
    return numbers


def _image_size(episode: Path, view: str) -> tuple[int, int]:
    """Return width and height in px of a view's first image."""
    path = _image_path(episode, view, 0)
    return image_size(read_bytes(path, "image"), str(path))


def _image(episode: Path, view: str, i: int, size: tuple[int, int]) -> Image:
    path = _image_path(episode, view, i)
    return decode_colour(read_bytes(path, "image"), str(path), size)


def _image_path(episode: Path, view: str, i: int) -> Path:
    path = episode / f"{view}_rgb" / f"{i}.png"
    if not path.is_file():
        raise GenimaError(f"{path} is missing")
    return path


def _camera(episode: Path, observation: Any, view: str, joints: Joints, robot: RobotModel) -> Camera:
    """Return the camera of a view, by the first observation.

    Its focal lengths are negative, as its axes point left and up.
    """
    misc = _misc(observation)
    if "joint_poses" not in misc:
        raise GenimaError(
            f"{episode}: no joint poses, so the cameras' poses on the robot are unknown (RLBench stores them since "
            "July 2024); give a folder of calibrations with --cameras"
        )
    poses = _numbers(episode, 0, "joint_poses", misc["joint_poses"], len(robot.home), 7)
    frames = np.tile(np.eye(4), (len(poses), 1, 1))
    frames[:, :3, 3] = poses[:, :3]
    try:
        frames[:, :3, :3] = Rotation.from_quat(poses[:, 3:]).as_matrix()
        T_world_base = base_pose(robot, joints.positions, frames)
    except (GenimaError, ValueError) as error:  # also for a quaternion of length 0
        raise GenimaError(f"{episode}: {error}") from None
    T_world_sensor = _numbers(episode, 0, f"{view}'s extrinsics", misc.get(f"{view}_camera_extrinsics"), 4, 4)
    K = _numbers(episode, 0, f"{view}'s intrinsics", misc.get(f"{view}_camera_intrinsics"), 3, 3)
    what = f"{episode}, observation 0: {view}'s camera"
    require_rotation(T_world_sensor[:3, :3], what)
    T = np.linalg.inv(T_world_base) @ T_world_sensor @ _OPTICAL
    if view == _HAND:
        T = np.linalg.inv(robot.link_poses(joints.positions)[-2]) @ T
    plain = np.array([[K[0, 0], 0, K[0, 2]], [0, K[1, 1], K[1, 2]], [0, 0, 1]])
    if not (K == plain).all() or not (K[0, 0] < 0 and K[1, 1] < 0 and K[0, 2] > 0 and K[1, 2] > 0):
        raise GenimaError(f"{what}: its intrinsics are not as RLBench writes them; give --cameras FOLDER")
    fx, fy, cx, cy = (float(number) for number in (-K[0, 0], -K[1, 1], K[0, 2], K[1, 2]))
    parent: Literal["base", "flange"] = "flange" if view == _HAND else "base"
    if not max(cx, cy) < MAX_SIZE:
        raise GenimaError(f"{what}: its principal point is at {cx:g}, {cy:g} px")
    camera = Camera(view, parent, T, round(2 * cx), round(2 * cy), fx, fy, cx, cy)  # RLBench's are symmetric
    require_plausible(camera, what)
    return camera


def _instruction(episode: Path) -> str:
    """Return the task in its first wording."""
    for folder in (episode, episode.parent.parent):
        path = folder / _WORDINGS
        if path.is_file():
            wordings = plain_pickle.load(path, ())
            if isinstance(wordings, list) and wordings and isinstance(wordings[0], str) and wordings[0].strip():
                return wordings[0]
            raise GenimaError(f"{path} holds no wordings of the task")
    raise GenimaError(f"{episode}: {_WORDINGS} with the task is missing; fetch the dataset again")
