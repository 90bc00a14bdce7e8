"""Robot model of an episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genima.data.episodes.bag import JOINT_STATES, ROBOT_MODEL, BagReader
from genima.data.episodes.errors import EpisodeError
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel

_HINT = "name its robot model with --robot"


def load_episode_robot(folder: Path, name_or_file: str = "") -> RobotModel:
    """Load the robot model that an episode was recorded with.

    It is the one that the recorder has stored, or the one of ``config/robots`` whose joints the episode has.

    Args:
        folder: of the episode.
        name_or_file: a robot model that is taken instead; empty: the episode's.

    Raises:
        EpisodeError: when the bag cannot be read, its model is damaged, or no model or several fit its joints.
        GenimaError: for ``name_or_file`` that cannot be read.
    """
    if name_or_file:
        return RobotModel.load(name_or_file)
    with BagReader(folder) as bag:
        for topic in (ROBOT_MODEL, JOINT_STATES):
            if bag.counts.get(topic):
                message = bag.deserialize(next(iter(bag.messages({topic}))))
                return _parse(folder, message) if topic == ROBOT_MODEL else _find(folder, message)
    raise EpisodeError(folder, f"no messages; {_HINT}", JOINT_STATES)


def _parse(folder: Path, message: Any) -> RobotModel:
    try:
        return RobotModel.parse(message.data, "robot model")
    except GenimaError as error:
        raise EpisodeError(folder, f"{error}; {_HINT}", ROBOT_MODEL) from None


def _find(folder: Path, message: Any) -> RobotModel:
    known = [RobotModel.load(file) for file in sorted(paths.shared("config", "robots").glob("*.yaml"))]
    fitting = [model for model in known if {*model.joint_names, model.gripper_joint} <= set(message.name)]
    if len(fitting) != 1:
        found = ", ".join(model.name for model in fitting) or "none"
        names = ", ".join(message.name) or "none"
        raise EpisodeError(folder, f"robot models with its joints ({names}): {found}; {_HINT}", JOINT_STATES)
    return fitting[0]
