"""Joint checks: invalid messages, range ends, commands that are not followed, and idle time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from genima.data.episodes.bag import JOINT_COMMAND, JOINT_STATES
from genima.data.episodes.checks.finding import Finding, Severity, as_finding, as_findings
from genima.data.episodes.episode_index import EpisodeIndex
from genima.data.episodes.idle import Activity, JointTrack
from genima.data.episodes.reader import gripper_faults, joints_by_name, measured_gripper
from genima.robot.model import RobotModel

MARGIN = 0.02  # rad at both ends of a joint's range, which the command guard keeps free
TRACKING_ERROR = 0.2  # rad between a command and the arm
FOLLOW_TIME = 0.3  # s after which the arm is within TRACKING_ERROR of a command
IDLE_TIME = 1.5  # s: longer rests are reported
_STEP = 0.05  # s between evaluated times


def find_joint_faults(index: EpisodeIndex, robot: RobotModel) -> Iterator[Finding]:
    """Return messages with missing or non-finite joints, or grippers outside 0..1."""
    for topic in (JOINT_STATES, JOINT_COMMAND):
        if topic in index.streams:
            stream = index.streams[topic]
            rows, faults = joints_by_name(stream, robot)
            yield from as_findings("error", faults)
            if topic == JOINT_STATES and (found := measured_gripper(stream, rows, robot)[1]):
                yield as_finding("error", found)
            if topic == JOINT_COMMAND and (found := gripper_faults(stream, rows, robot)):
                yield as_finding("error", found)


def find_limits(track: JointTrack, robot: RobotModel) -> Iterator[Finding]:
    """Return joints at or beyond the ends of their ranges."""
    room = np.minimum(track.positions - robot.position_min, robot.position_max - track.positions)
    for name, joint in zip(robot.joint_names, room.T, strict=True):
        if joint.min() < 0:
            yield _limit("error", track, joint < 0, f"{name} is up to {-joint.min():.3f} rad beyond its range")
        elif joint.min() < MARGIN:
            what = f"{name} comes as close as {joint.min():.3f} rad to the end of its range"
            yield _limit("warning", track, joint < MARGIN, what)


def find_tracking_errors(tracks: Mapping[str, JointTrack], robot: RobotModel) -> Iterator[Finding]:
    """Return commands that the arm did not approach in time."""
    if JOINT_STATES not in tracks or JOINT_COMMAND not in tracks:
        return
    measured, commanded = tracks[JOINT_STATES], tracks[JOINT_COMMAND]
    known = commanded.times <= measured.times[-1] - FOLLOW_TIME
    times = commanded.times[known]
    moments = (times + delay for delay in np.arange(0, FOLLOW_TIME + _STEP / 2, _STEP))
    near = np.min([np.abs(commanded.positions[known] - measured.at(moment)) for moment in moments], axis=0)
    far = (near > TRACKING_ERROR).any(axis=1)
    if far.any():
        time, joint = np.unravel_index(near.argmax(), near.shape)
        what = (
            f"{robot.joint_names[joint]} is still {near[time, joint]:.3f} rad from its command {FOLLOW_TIME:g} s later"
        )
        yield Finding("warning", f"{what} (at worst)", JOINT_COMMAND, float(times[far.argmax()]))


def find_idle_intervals(activity: Activity) -> Iterator[Finding]:
    """Return the idle intervals."""
    if activity.moving is None:
        yield Finding("warning", "nothing moves", None, activity.whole.begin)
        return
    for interval in activity.idle:
        if interval.seconds > IDLE_TIME:
            at_start, at_end = interval.begin == activity.whole.begin, interval.end == activity.whole.end
            where = "at the start" if at_start else "at the end" if at_end else "in between"
            yield Finding("warning", f"nothing moves for {interval.seconds:.2f} s {where}", None, interval.begin)


def _limit(severity: Severity, track: JointTrack, where: NDArray[np.bool_], what: str) -> Finding:
    return Finding(severity, what, track.topic, float(track.times[where.argmax()]))
