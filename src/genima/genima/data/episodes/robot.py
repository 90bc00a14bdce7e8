"""Robot models of episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from genima.data.episodes.bag import JOINT_STATES, ROBOT_MODEL, BagReader
from genima.data.episodes.errors import EpisodeError
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel


def load_episode_robot(folder: Path, default: RobotModel | None = None) -> RobotModel:
    """Load the robot model that an episode was recorded with.

    Args:
        folder: of the episode.
        default: robot of an episode that holds no model; None: the one of ``config/robots`` whose joints it has.

    Raises:
        EpisodeError: when the bag cannot be read, its model is damaged, or no model or several fit its joints.
        GenimaError: for a damaged file in ``config/robots``.
    """
    with BagReader(folder) as bag:

        def first(topic: str) -> Any:
            return bag.deserialize(next(iter(bag.messages({topic})))) if bag.counts.get(topic) else None

        return select_robot(folder, first, default)


def select_robot(folder: Path, first: Callable[[str], Any], default: RobotModel | None) -> RobotModel:
    """Return the robot model of an episode whose messages are read already.

    Args:
        folder: of the episode.
        first: returns the first message of a topic, or None.
        default: as of :func:`load_episode_robot`, and the errors likewise.
    """
    if (model := first(ROBOT_MODEL)) is not None:
        return _parse(folder, model)
    if default is not None:
        return default
    if (joints := first(JOINT_STATES)) is not None:
        return _find(folder, joints)
    raise EpisodeError(folder, "no robot model, and no joints to find it by; name its cell with --cell", JOINT_STATES)


def load_common_robot(folders: Sequence[Path], default: RobotModel | None = None) -> RobotModel:
    """Load the robot model of the first episode that can be read; the arguments as of :func:`load_episode_robot`.

    Raises:
        GenimaError: when there is none, and for a damaged file in ``config/robots``.
    """
    first: EpisodeError | None = None
    for folder in folders:
        try:
            return load_episode_robot(folder, default)
        except EpisodeError as error:  # it is named when the episode itself is read
            first = first or error
    if first is not None and len(folders) == 1:
        raise first
    raise GenimaError(f"none of the {len(folders)} demos can be read; the first: {first}")


def require_episode_robot(folder: Path, robot: RobotModel) -> None:
    """Check that an episode was recorded with a robot; one without a model is one of its joints.

    Raises:
        EpisodeError: where it was not, and when the bag cannot be read.
    """
    require_same_robot(folder, load_episode_robot(folder, robot), robot)


def require_same_robot(folder: Path, recorded: RobotModel, robot: RobotModel) -> None:
    """Check that the robot that an episode was recorded with has the kinematics of another model.

    Raises:
        EpisodeError: where it has not.
    """
    if not recorded.has_kinematics(robot):
        why = f"of robot {recorded.name}, not {robot.name}"
        if recorded.name == robot.name:
            why = f"of another {robot.name}: its kinematics differ"
        raise EpisodeError(folder, f"{why}; choose another demo, or name its robot", ROBOT_MODEL)


def _parse(folder: Path, message: Any) -> RobotModel:
    try:
        return RobotModel.parse(message.data, "robot model")
    except GenimaError as error:
        raise EpisodeError(folder, f"{error}; choose another demo", ROBOT_MODEL) from None


def _find(folder: Path, message: Any) -> RobotModel:
    known = [RobotModel.load(file) for file in paths.yaml_files("config", "robots")]
    matches = [model for model in known if {*model.joint_names, model.gripper_joint} <= set(message.name)]
    if len(matches) != 1:
        found = ", ".join(model.name for model in matches) or "none"
        names = ", ".join(message.name) or "none"
        what = f"no robot model; with its joints ({names}) in config/robots: {found}; name its cell with --cell"
        raise EpisodeError(folder, what, JOINT_STATES)
    return matches[0]
