"""Index of a demo, faulty or not: everything but its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genima.data.episodes.alignment import Stream
from genima.data.episodes.bag import (
    JOINT_COMMAND,
    JOINT_STATES,
    ROBOT_MODEL,
    SUCCESS,
    TASK,
    BagReader,
    header_stamp,
    image_topic,
    view_of,
)
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.judgement import read_judgement
from genima.data.episodes.reader import require_plausible
from genima.data.episodes.robot import select_robot
from genima.robot.model import RobotModel

_KEPT = {"sensor_msgs/msg/JointState", "std_msgs/msg/String", "std_msgs/msg/Bool"}  # all messages of these types


@dataclass(frozen=True)
class EpisodeIndex:
    """Demo without its images."""

    folder: Path
    types: Mapping[str, str]  # of the messages, by topic, also of empty topics
    counts: Mapping[str, int]  # of the messages, by topic
    start_ns: int  # the episode's start: the first stamp of its images, joint states and commands
    streams: Mapping[str, Stream]  # of non-empty topics with headers; messages only of joints
    delays: Mapping[str, NDArray[np.float64]]  # by topic, (N,) s from stamp to recording
    words: Mapping[str, str]  # last text of each text topic
    tasks: tuple[str, ...]  # different instructions
    success: bool | None  # None: not judged
    robot_model: Any  # first message of the robot model; None: none
    first_images: Mapping[str, Any]  # a message by topic
    unread: Mapping[str, str]  # reason why a topic cannot be deserialized

    @cached_property
    def views(self) -> dict[str, str]:
        """Return the image topics by view, sorted, empty views included."""
        views = {view for topic in self.types if (view := view_of(topic)) is not None}
        return {view: image_topic(self.streams, view) for view in sorted(views)}

    @property
    def seconds(self) -> float:
        """Return the time from the first to the last stamp of images, joint states and commands."""
        return max((s.times.max() for s in _required_topics(self.streams).values()), default=0.0)

    @classmethod
    def of(cls, folder: Path) -> EpisodeIndex:
        """Read a bag.

        Raises:
            EpisodeError: for a bag that cannot be read, and a known topic of another type.
        """
        stamps: dict[str, list[tuple[int, int]]] = {}
        kept: dict[str, list[Any]] = {}
        first_images: dict[str, Any] = {}
        with BagReader(folder) as bag:
            stamped = {topic for topic in bag.types if bag.stamped(topic)}
            counts = dict.fromkeys(bag.types, 0)
            for message in bag.messages(bag.types):
                topic = message.topic
                counts[topic] += 1
                if topic in stamped:
                    stamps.setdefault(topic, []).append((header_stamp(message.cdr), message.log_ns))
                if bag.types[topic] in _KEPT and topic not in bag.unread:
                    kept.setdefault(topic, []).append(bag.deserialize(message))
                elif topic not in first_images and view_of(topic) is not None:
                    first_images[topic] = bag.deserialize(message)
            types, unread = dict(bag.types), dict(bag.unread)
        nanoseconds = {topic: np.array(pairs, np.int64) for topic, pairs in stamps.items()}
        require_plausible(folder, {topic: pairs[:, 0] for topic, pairs in _required_topics(nanoseconds).items()})
        start = min((int(pairs[0, 0]) for pairs in (_required_topics(nanoseconds) or nanoseconds).values()), default=0)
        judged = read_judgement(folder)
        if judged is None and SUCCESS in kept:
            judged = bool(kept[SUCCESS][-1].data)
        return cls(
            folder=folder,
            types=types,
            counts=counts,
            start_ns=start,
            streams={
                topic: Stream(folder, topic, (pairs[:, 0] - start) / 1e9, kept.get(topic, ()))
                for topic, pairs in nanoseconds.items()
            },
            delays={topic: (pairs[:, 1] - pairs[:, 0]) / 1e9 for topic, pairs in nanoseconds.items()},
            words={topic: each[-1].data for topic, each in kept.items() if types[topic] == "std_msgs/msg/String"},
            tasks=tuple(dict.fromkeys(message.data for message in kept.get(TASK, ()))),
            success=judged,
            robot_model=next(iter(kept.get(ROBOT_MODEL, ())), None),
            first_images=first_images,
            unread=unread,
        )

    def load_robot(self, default: RobotModel | None = None) -> RobotModel:
        """Load the robot model; arguments and errors as of :func:`genima.data.episodes.robot.load_episode_robot`."""
        joints = self.streams.get(JOINT_STATES)
        first = {ROBOT_MODEL: self.robot_model, JOINT_STATES: joints.messages[0] if joints else None}
        return select_robot(self.folder, first.__getitem__, default)

    def fault(self, what: str, topic: str | None = None) -> EpisodeError:
        """Return a fault without a time."""
        return EpisodeError(self.folder, what, topic)


def _required_topics(by_topic: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of the topics that an episode requires."""
    joints = (JOINT_STATES, JOINT_COMMAND)
    return {topic: value for topic, value in by_topic.items() if topic in joints or view_of(topic) is not None}
