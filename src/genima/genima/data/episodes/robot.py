"""Robot model of an episode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genima.data.episodes.bag import JOINT_STATES, ROBOT_MODEL, BagReader
from genima.data.episodes.errors import EpisodeError
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel


def load_episode_robot(folder: Path) -> RobotModel:
    """Load the robot model that an episode was recorded with.

    It is the one that the recorder has stored, or the one of ``config/robots`` whose joints the episode has.

    Args:
        folder: of the episode.

    Raises:
        EpisodeError: when the bag cannot be read, its model is damaged, or no model or several fit its joints.
        GenimaError: for a damaged file in ``config/robots``.
    """
    with BagReader(folder) as bag:
        for topic in (ROBOT_MODEL, JOINT_STATES):
            if bag.counts.get(topic):
                message = bag.deserialize(next(iter(bag.messages({topic}))))
                return _parse(folder, message) if topic == ROBOT_MODEL else _find(folder, message)
    raise EpisodeError(folder, "no messages; choose another demo", JOINT_STATES)


def _parse(folder: Path, message: Any) -> RobotModel:
    try:
        return RobotModel.parse(message.data, "robot model")
    except GenimaError as error:
        raise EpisodeError(folder, f"{error}; choose another demo", ROBOT_MODEL) from None


def _find(folder: Path, message: Any) -> RobotModel:
    known = [RobotModel.load(file) for file in sorted(paths.shared("config", "robots").glob("*.yaml"))]
    fitting = [model for model in known if {*model.joint_names, model.gripper_joint} <= set(message.name)]
    if len(fitting) != 1:
        found = ", ".join(model.name for model in fitting) or "none"
        remedy = "leave one of them" if fitting else "add its robot model"
        names = ", ".join(message.name) or "none"
        words = f"robot models with its joints ({names}): {found}; {remedy} in config/robots"
        raise EpisodeError(folder, words, JOINT_STATES)
    return fitting[0]
