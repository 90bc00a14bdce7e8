"""Calibration samples from a recorded demo (rosbag2): one image per stationary pose."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from genima.data.episodes.bag import JOINT_STATES, BagReader, camera_info_topic, header_stamp, image_topic, view_of
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.frames import decode
from genima.errors import GenimaError
from genima.robot.model import RobotModel, select_by_name
from genima.types import Joints
from genima_calibration.sample_folder import CameraInfo, RawSample
from genima_calibration.stationary_detector import StationaryDetector

Array = NDArray[np.float64]
_READING_PERIOD = 0.01  # s between joint readings that are used
_AVERAGING_TIME = 0.1  # s before and after an image over which its joints are averaged
_SETTLING_TIME = 0.02  # s after an image in which the arm must be stationary, too
_MIN_DISTANCE = 0.05  # rad between two poses


@dataclass(frozen=True)
class StationaryPose:
    """Image of the stationary arm."""

    stamp: int  # ns, of the image
    joints: Array  # (n,) rad
    gripper: float  # open fraction; NaN: not in joint_states


@dataclass(frozen=True)
class BagSamples:
    """Calibration samples of one view in a bag."""

    folder: Path
    view: str
    views: Collection[str]  # all recorded views
    topic: str  # of the images
    info: CameraInfo
    robot: RobotModel
    stops: list[StationaryPose]  # far from each other, by time
    start: int  # ns, of the first image

    @classmethod
    def find(cls, folder: Path, view: str, robot: RobotModel, most: int) -> BagSamples:
        """Return at most ``most`` stationary poses, far from each other.

        Raises:
            GenimaError: for a bag that cannot be read, or without the view, camera_info or this robot's joints.
        """
        with BagReader(folder) as bag:
            views = sorted({known for topic in bag.types if (known := view_of(topic)) is not None})
            if view not in views:
                raise EpisodeError(folder, f"no images of {view} (views: {', '.join(views) or 'none'})")
            topic, info_topic = image_topic(bag.types, view), camera_info_topic(view)
            topics = (topic, JOINT_STATES, info_topic)
            images, readings, info = list[int](), list[Joints](), None
            joints_problem: GenimaError | None = None
            for message in tqdm(bag.messages(topics), desc="read", unit="message", disable=None, leave=False):
                if message.topic == topic:
                    images.append(header_stamp(message.cdr))
                elif message.topic == info_topic:
                    info = info or CameraInfo.of(bag.deserialize(message))
                else:
                    seconds = header_stamp(message.cdr) * 1e-9
                    if readings and 0 <= seconds - readings[-1].stamp < _READING_PERIOD:
                        continue
                    state = bag.deserialize(message)
                    try:
                        positions = select_by_name("joint state", state.name, state.position, robot.joint_names)
                    except GenimaError as error:
                        joints_problem = joints_problem or error
                    else:
                        by_name = dict(zip(state.name, state.position, strict=False))
                        gripper = by_name.get(robot.gripper_joint)
                        opened = np.nan if gripper is None else robot.open_fraction(gripper)
                        readings.append(Joints(seconds, positions, opened))
        if not readings:
            what = f"none of {robot.name} ({joints_problem})" if joints_problem else "no messages"
            raise EpisodeError(folder, what, JOINT_STATES)
        if info is None:
            raise EpisodeError(folder, "no messages; record it with the images", info_topic)
        if not images:
            raise EpisodeError(folder, "no messages", topic)
        stops = _stationary_images(sorted(images), sorted(readings, key=lambda joints: joints.stamp))
        return cls(folder, view, views, topic, info, robot, _farthest_points(stops, most), min(images))

    def __len__(self) -> int:
        return len(self.stops)

    def __iter__(self) -> Iterator[RawSample]:
        """Yield the samples, named by their times in s since the first image."""
        by_stamp = {stop.stamp: stop for stop in self.stops}
        with BagReader(self.folder) as bag:
            for message in bag.messages({self.topic}):
                if stop := by_stamp.get(header_stamp(message.cdr)):
                    joints = self.robot.joints_by_name(stop.joints, self.robot.gripper_position(stop.gripper))
                    if np.isnan(stop.gripper):
                        del joints[self.robot.gripper_joint]
                    name = f"{(stop.stamp - self.start) * 1e-9:.1f}s"
                    yield RawSample(name, self.view, decode(bag.deserialize(message)), joints, self.info)


def _stationary_images(images: list[int], readings: list[Joints]) -> list[StationaryPose]:
    """Return the middle image of each stationary interval, by time."""
    detector, intervals, i, was_stationary = StationaryDetector(), list[list[int]](), 0, False
    for stamp in images:
        seconds = stamp * 1e-9
        while i < len(readings) and readings[i].stamp <= seconds + _SETTLING_TIME:
            detector.update(readings[i])
            i += 1
        is_stationary = detector.covers(seconds) and readings[i - 1].stamp > seconds - _AVERAGING_TIME
        if is_stationary and was_stationary:
            intervals[-1].append(stamp)
        elif is_stationary:
            intervals.append([stamp])
        was_stationary = is_stationary
    times = np.array([joints.stamp for joints in readings])
    positions = np.array([joints.positions for joints in readings])
    gripper = np.array([joints.gripper for joints in readings])
    stops = []
    for interval in intervals:
        middle = interval[len(interval) // 2]
        near = np.abs(times - middle * 1e-9) <= _AVERAGING_TIME
        known = gripper[near & np.isfinite(gripper)]
        stops.append(StationaryPose(middle, positions[near].mean(0), float(known.mean()) if known.size else np.nan))
    return stops


def _farthest_points(stops: list[StationaryPose], most: int) -> list[StationaryPose]:
    """Return at most ``most`` stationary poses by farthest-point sampling.

    Source: Gonzalez, Clustering to minimize the maximum intercluster distance, Theoretical Computer Science 38, 1985.
    """
    if not stops:
        return []
    joints = np.array([stop.joints for stop in stops])
    chosen, distance = [0], np.linalg.norm(joints - joints[0], axis=1)
    while len(chosen) < most and distance.max() > _MIN_DISTANCE:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(joints - joints[chosen[-1]], axis=1))
    return [stops[i] for i in sorted(chosen)]
