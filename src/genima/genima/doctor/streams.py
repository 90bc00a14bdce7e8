"""Topic checks of a running graph: rates, jitter, losses, and stamps against the local clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera_devices import CameraDevice
from genima.doctor.findings import Finding, fail, ok, skipped, warn

_AHEAD = 0.005  # s that a stamp may be in the future: two clocks never agree fully
_LATE = 0.1  # s: images that are older when they come leave little time to draw
_STALE = 0.1  # s: joints that are older are not acted on
_SLOW, _TOO_SLOW = 0.9, 0.5  # of the expected rate
_JITTER = 0.25  # of a period, of the 99th percentile of intervals
_LEAST_JOINT_RATE = 50.0  # Hz, of commands
_CLOCKS = "synchronise the two machines' clocks (chrony); ./genima doctor --clock-of HOST measures it"


@dataclass(frozen=True)
class TopicPublisher:
    """Publisher of a topic."""

    node: str
    reliable: bool


@dataclass
class TopicSamples:
    """Messages of one topic in order of arrival."""

    publishers: Sequence[TopicPublisher] = ()
    stamps: list[float] = field(default_factory=list)  # s, of the messages' headers
    arrivals: list[float] = field(default_factory=list)  # s, of this machine's clock

    def add(self, stamp: float, arrival: float) -> None:
        """Add a message."""
        self.stamps.append(stamp)
        self.arrivals.append(arrival)

    @property
    def ages(self) -> NDArray[np.float64]:
        """Return (n,) s from stamp to arrival."""
        return np.subtract(self.arrivals, self.stamps)

    @property
    def intervals(self) -> NDArray[np.float64]:
        """Return (n - 1,) s between stamps."""
        return np.diff(self.stamps)

    @property
    def rate(self) -> float:
        """Return the rate in Hz by stamps; NaN where it is undefined."""
        span = self.stamps[-1] - self.stamps[0] if len(self.stamps) > 1 else 0.0
        return (len(self.stamps) - 1) / span if span > 0 else float("nan")


def missing_messages(what: str, topic: str, heard: TopicSamples, reliable: bool) -> Finding | None:
    """Return the reason why a topic has too few messages to be checked; None with enough.

    Args:
        what: is looked at.
        topic: its name.
        heard: on it.
        reliable: whether our nodes ask for reliable delivery there.
    """
    if not heard.publishers and not heard.stamps:
        remedy = "start its node; it may speak under another name (namespace), in another ROS_DOMAIN_ID, or unheard"
        return fail(what, f"nobody publishes {topic}", remedy)
    if reliable and heard.publishers and not any(speaker.reliable for speaker in heard.publishers):
        found = f"{heard.publishers[0].node} publishes {topic} as best effort, and our nodes read reliably"
        return fail(what, found, "have it publish reliably (realsense2_camera: color_qos:=SYSTEM_DEFAULT)")
    if len(heard.stamps) < 3:
        found = f"{topic}: {len(heard.stamps)} messages came, though {heard.publishers[0].node} publishes it"
        remedy = "is the driver alive? Do both have the same DDS profile (FASTRTPS_DEFAULT_PROFILES_FILE), no firewall?"
        return fail(what, found, remedy)
    if not (heard.intervals > 0).all():
        return fail(what, f"{topic}: stamps repeat or go back", "see the driver's clock settings; one publisher only")
    return None


def check_images(
    view: str, topic: str, heard: TopicSamples, size: tuple[int, int], encoding: str, device: CameraDevice | None
) -> Finding:
    """Check the image topic of a camera.

    Args:
        view: the camera's.
        topic: the images'.
        heard: on it.
        size: width and height of the newest image in px.
        encoding: of the newest image.
        device: what is expected, if anybody said.
    """
    if silent := missing_messages(view, topic, heard, reliable=True):
        return silent
    late, period = heard.ages, float(np.median(heard.intervals))
    lost = int((np.round(heard.intervals / period) - 1).sum())
    jitter = float(np.percentile(np.abs(heard.intervals - period), 99))
    found = (
        f"{heard.rate:.1f} Hz, jitter {1e3 * jitter:.1f} ms (99%), {lost} lost, {1e3 * np.median(late):.0f} ms old "
        f"(at most {1e3 * late.max():.0f}), {size[0]}x{size[1]} {encoding}"
    )
    if problem := _clash(view, found, heard) or _ahead(view, found, heard):
        return problem
    if encoding != "rgb8":
        return fail(view, found, "our nodes take rgb8 (realsense2_camera: rgb_camera.color_format:=RGB8)")
    if device is not None and size != (device.width, device.height):
        remedy = "run the driver as the cameras file says, or correct the file"
        return fail(view, f"{found}, but its profile is {device.width}x{device.height}", remedy)
    wanted = float(device.rate) if device is not None else 1 / period
    slow = "is the machine too busy? A real camera: USB 3? Low light lengthens exposures (auto_exposure_priority)"
    if heard.rate < _TOO_SLOW * wanted:
        return fail(view, f"{found}; {wanted:g} Hz are expected", slow)
    if heard.rate < _SLOW * wanted or lost > 0.01 * len(heard.stamps):
        return warn(view, f"{found}; {wanted:.3g} Hz are expected", slow)
    if np.median(late) > _LATE:
        remedy = f"is the machine or the network too busy? Else {_CLOCKS}"
        return warn(view, f"{found}: they come late, or the camera's clock is behind", remedy)
    if jitter > _JITTER * period:
        return warn(view, found, "stamps of the host's arrival jitter: have librealsense use the camera's own clock")
    return ok(view, found)


def check_joint_states(heard: TopicSamples, problem: str) -> Finding:
    """Check the joint states.

    Args:
        heard: on joint_states.
        problem: what is wrong with the newest message; empty where nothing is.
    """
    what = "joint_states"
    if silent := missing_messages(what, what, heard, reliable=False):
        return silent
    late = heard.ages
    found = (
        f"{heard.rate:.0f} Hz, longest gap {1e3 * heard.intervals.max():.0f} ms, {1e3 * np.median(late):.1f} ms old "
        f"(at most {1e3 * late.max():.0f})"
    )
    if clash := _clash(what, found, heard) or _ahead(what, found, heard):
        return clash
    if problem:
        return fail(what, problem, "is it the robot of the cell (--cell)? Do its joints have these names?")
    if np.median(late) > _STALE:
        return fail(what, f"{found}: the arm will not move on states older than {1e3 * _STALE:g} ms", _CLOCKS)
    if heard.intervals.max() > _STALE:
        held = f"the guard holds the arm in gaps of {1e3 * _STALE:g} ms"
        return warn(what, f"{found}: {held}", "is the machine too busy?")
    if heard.rate < _LEAST_JOINT_RATE:
        remedy = "franka_ros2: joint_state_rate:=200 (30 if not set)"
        return warn(what, f"{found}: {_LEAST_JOINT_RATE:g} Hz or more are needed for smooth control", remedy)
    return ok(what, found)


def _clash(what: str, found: str, heard: TopicSamples) -> Finding | None:
    if len(heard.publishers) < 2:
        return None
    who = ", ".join(sorted(speaker.node for speaker in heard.publishers))
    return fail(what, f"{len(heard.publishers)} nodes publish it ({who}); {found}", "end one, or give each a namespace")


def _ahead(what: str, found: str, heard: TopicSamples) -> Finding | None:
    """Check for stamps in the future, which come from another clock."""
    ahead = -float(heard.ages.min())
    if ahead <= _AHEAD:
        return None
    return fail(what, f"stamps are {1e3 * ahead:.0f} ms in the future; {found}", _CLOCKS)


def check_command_publishers(speakers: Sequence[TopicPublisher]) -> Finding:
    """Check that one node at most publishes commands to the robot."""
    what, who = "joint_command", ", ".join(sorted(speaker.node for speaker in speakers))
    if not speakers:
        return skipped(what, "nobody publishes it: no command_guard runs", "start it before the robot is to move")
    if len(speakers) > 1:
        remedy = "end one: command_guard alone may command; two stacks on one domain take another ROS_DOMAIN_ID each"
        return fail(what, f"{len(speakers)} nodes publish it: {who}", remedy)
    return ok(what, f"by {who} alone")


def check_duplicate_nodes(names: Sequence[str], own: str) -> Finding:
    """Check that no node runs twice.

    Args:
        names: full names of all nodes in the domain.
        own: the name of the one who asks.
    """
    what = "nodes in this domain"
    others = [name for name in names if name != own and not name.rpartition("/")[2].startswith("_ros2cli")]
    twice = sorted({name for name in others if others.count(name) > 1})
    if twice:
        remedy = "two stacks on one domain: end one, or give each a ROS_DOMAIN_ID or a namespace of its own"
        return fail(what, f"run twice: {', '.join(twice)}", remedy)
    if not others:
        return fail(what, "none: nothing runs, or it is not heard", "same ROS_DOMAIN_ID and DDS profile in all shells?")
    return ok(what, ", ".join(sorted(others)))
