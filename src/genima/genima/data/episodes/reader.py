"""Reading of episodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genima.data.episodes.alignment import Stream, align
from genima.data.episodes.bag import (
    JOINT_COMMAND,
    JOINT_STATES,
    SCENE_STATE,
    SUCCESS,
    TASK,
    image_topic,
    raw_topic,
    read_messages,
    view_of,
)
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.frames import Frames
from genima.data.episodes.judgement import read_judgement
from genima.data.episodes.robot import require_same_robot, select_robot
from genima.errors import GenimaError
from genima.io.files import shorten
from genima.robot.model import RobotModel
from genima.types import Image

LONGEST = 86400  # s, of a demo


@dataclass(frozen=True)
class Episode:
    """Demo in memory: T samples at a nearly constant rate, aligned by :mod:`genima.data.episodes.alignment`."""

    folder: Path
    robot: RobotModel
    instruction: str
    stamps: NDArray[np.float64]  # (T,) s
    positions: NDArray[np.float64]  # (T, n) rad, measured
    gripper: NDArray[np.float64]  # (T,) measured open fraction
    command_positions: NDArray[np.float64]  # (T, n) rad; row t is the last command before moment t + 1
    command_gripper: NDArray[np.float64]  # (T,) commanded open fraction
    frames: Mapping[str, Frames]  # by view, T images each
    success: bool | None  # None: not judged

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def period(self) -> float:
        """Return the median sample period in s."""
        return float(np.median(np.diff(self.stamps)))

    @property
    def views(self) -> tuple[str, ...]:
        """Return the views, sorted."""
        return tuple(self.frames)

    def image(self, view: str, t: int) -> Image:
        """Return the (h, w, 3) rgb image of a view at sample t.

        Raises:
            EpisodeError: for an unknown view, and an image that cannot be decoded or changes its size.
        """
        if view not in self.frames:
            raise EpisodeError(self.folder, "no images", raw_topic(view))
        return self.frames[view].image(t)

    def require_robot(self, robot: RobotModel) -> None:
        """Check that the episode was recorded with a robot; EpisodeError where it was not."""
        require_same_robot(self.folder, self.robot, robot)

    @classmethod
    def load(cls, folder: Path, default: RobotModel | None = None, views: Collection[str] | None = None) -> Episode:
        """Read an episode; joints are matched by name, everything is aligned by ``header.stamp``.

        Images are kept encoded in memory and decoded on access.

        Args:
            folder: a rosbag2 folder.
            default: robot of an episode that holds no model, as of :func:`load_episode_robot`.
            views: required views, others are ignored; None: all recorded ones.

        Raises:
            EpisodeError: for a bag that cannot be read, a missing topic or instruction, joints that are missing,
                duplicate or not finite, topics that cannot be aligned, and a robot that is unknown.
        """
        messages, judged = read_messages(folder), read_judgement(folder)
        if judged is None and messages.get(SUCCESS):
            judged = bool(messages[SUCCESS][-1].data)
        if not any(messages.values()):
            raise EpisodeError(folder, "the bag is empty")
        if views is None:
            views = {view for topic in messages if (view := view_of(topic)) is not None}
        if not views:
            rendered = (
                "; render images from its states by ./genima episodes images" if messages.get(SCENE_STATE) else ""
            )
            raise EpisodeError(folder, f"no camera was recorded{rendered}", raw_topic("VIEW"))
        published = {topic for topic in messages if messages[topic]}
        topics = {view: image_topic(published, view) for view in sorted(views)}
        stamped = (*topics.values(), JOINT_STATES, JOINT_COMMAND)
        for topic in (*stamped, TASK):
            if topic not in published:
                raise EpisodeError(folder, "no messages", topic)
        instruction, *others = dict.fromkeys(message.data for message in messages[TASK])
        if others:
            raise EpisodeError(folder, several_tasks([instruction, *others]), TASK)
        if not instruction.strip():
            raise EpisodeError(folder, "empty instruction", TASK)

        stamps = {topic: np.array([_nanoseconds(message) for message in messages[topic]]) for topic in stamped}
        require_plausible(folder, stamps)
        start = min(each[0] for each in stamps.values())
        streams = {topic: Stream(folder, topic, (stamps[topic] - start) / 1e9, messages[topic]) for topic in stamped}
        states, commands = streams[JOINT_STATES], streams[JOINT_COMMAND]
        moments = align({view: streams[topic] for view, topic in topics.items()}, states, commands)

        robot = select_robot(folder, lambda topic: next(iter(messages.get(topic, ())), None), default)
        rows = _by_name(states, robot)
        for fault in measured_gripper(states, rows, robot)[1]:
            raise fault
        measured = np.column_stack([np.interp(moments.times, states.times, joint) for joint in rows.T])
        commanded = _by_name(commands, robot)
        for fault in gripper_faults(commands, commanded, robot):
            raise fault
        commanded = commanded[moments.commands]
        gripper = np.array([robot.open_fraction(position) for position in measured[:, -1]])
        nanoseconds = start + np.round(moments.times * 1e9).astype(np.int64)
        return cls(
            folder=folder,
            robot=robot,
            instruction=instruction,
            stamps=nanoseconds // 10**9 + nanoseconds % 10**9 * 1e-9,
            positions=measured[:, :-1],
            gripper=gripper,
            command_positions=commanded[:, :-1],
            command_gripper=commanded[:, -1],
            frames={view: Frames(streams[topics[view]].select(moments.images[view])) for view in topics},
            success=judged,
        )


def _nanoseconds(message: Any) -> int:
    stamp = message.header.stamp
    return stamp.sec * 10**9 + stamp.nanosec


def require_plausible(folder: Path, stamps: Mapping[str, NDArray[np.int64]]) -> None:
    """Check that the stamps (N,), in ns, of a demo's topics lie within a day.

    Raises:
        EpisodeError: with a topic that is far from the others.
    """
    if not stamps:
        return
    middle = int(np.median([np.median(each) for each in stamps.values()]))
    for topic, each in stamps.items():
        for stamp in (int(each.min()), int(each.max())):
            if abs(stamp - middle) > LONGEST * 10**9:
                what = f"a stamp of {stamp / 1e9:.3f} s, others are of {middle / 1e9:.3f} s: more than a day apart"
                raise EpisodeError(folder, what, topic)


def several_tasks(tasks: Sequence[str]) -> str:
    """Return the fault of a demo with several instructions."""
    return f"has different texts ({', '.join(repr(shorten(task)) for task in tasks[:3])}); record one task per demo"


def joints_by_name(stream: Stream, robot: RobotModel) -> tuple[NDArray[np.float64], list[EpisodeError]]:
    """Return the joints of messages, matched by name.

    Returns:
        (N, n + 1): the arm's joints in the robot's order and the gripper's, NaN in faulty messages; and the faults.
    """
    rows = np.full((len(stream.times), len(robot.joint_names) + 1), np.nan)
    faults = []
    for row, time, message in zip(rows, stream.times, stream.messages, strict=True):
        try:
            row[:-1], row[-1] = robot.select_joints(message.name, message.position)
        except GenimaError as error:
            faults.append(stream.fault(time, str(error)))
    return rows, faults


def gripper_faults(commands: Stream, rows: NDArray[np.float64], robot: RobotModel) -> list[EpisodeError]:
    """Return faults of commanded grippers outside 0..1; ``rows`` (N, n + 1) are of :func:`joints_by_name`."""
    fractions = rows[:, -1]
    return [
        commands.fault(commands.times[i], f"{robot.gripper_joint} is {fractions[i]:g}, an open fraction 0..1 is needed")
        for i in np.flatnonzero((fractions < 0) | (fractions > 1))
    ]


def measured_gripper(
    states: Stream, rows: NDArray[np.float64], robot: RobotModel
) -> tuple[NDArray[np.float64], list[EpisodeError]]:
    """Return open fractions (N,) of joint states; ``rows`` are of :func:`joints_by_name`.

    They are NaN where the gripper is unknown, or outside its travel, which is a fault.
    """
    fractions = np.full(len(rows), np.nan)
    faults = []
    for i in np.flatnonzero(np.isfinite(rows[:, -1])):
        try:
            fractions[i] = robot.open_fraction(rows[i, -1])
        except GenimaError as error:
            faults.append(states.fault(states.times[i], str(error)))
    return fractions, faults


def _by_name(stream: Stream, robot: RobotModel) -> NDArray[np.float64]:
    rows, faults = joints_by_name(stream, robot)
    if faults:
        raise faults[0]
    return rows
