"""Comparison of an existing demo with the demo that a command would write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genima.data.episodes.bag import JOINT_STATES, TASK, BagReader
from genima.robot.model import RobotModel
from genima.types import Joints


def is_demo_of(folder: Path, robot: RobotModel, instruction: str, moments: Sequence[Joints]) -> bool:
    """Return whether a written demo has this task and these measured joints.

    Raises:
        EpisodeError: when the demo cannot be read.
    """
    words: list[str] = []
    found: list[NDArray[np.float64]] = []
    with BagReader(folder) as bag:
        if bag.counts.get(JOINT_STATES) != len(moments):
            return False
        for message in bag.messages({TASK, JOINT_STATES}):
            content = bag.deserialize(message)
            if message.topic == TASK:
                words.append(content.data)
            else:
                found.append(content.position)
    expected = [np.append(each.positions, robot.gripper_position(each.gripper)) for each in moments]
    return words == [instruction] and all(map(np.array_equal, found, expected))


def is_cut_of(copy: Path, folder: Path) -> bool:
    """Return whether a demo is a cut of another one: same task, and a subset of its joint states.

    Raises:
        EpisodeError: when one of them cannot be read.
    """
    return _messages(copy) <= _messages(folder)


def _messages(folder: Path) -> set[tuple[str, bytes]]:
    with BagReader(folder) as bag:
        return {(message.topic, message.cdr) for message in bag.messages({TASK, JOINT_STATES})}
