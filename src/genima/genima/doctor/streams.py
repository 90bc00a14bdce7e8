"""Topic checks of a running graph: rates, jitter, losses, and stamps against the local clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera_devices import CameraDevice
from genima.doctor.findings import Finding, fail, ok, skipped, warn

_AHEAD = 0.005  # s: tolerance of stamps in the future, for the difference of two clocks
_LATE = 0.1  # s: older images on arrival leave little time for inference
_STALE = 0.1  # s: older joints are rejected
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


def missing_messages(what: str, topic: str, samples: TopicSamples, reliable: bool) -> Finding | None:
    """Return the reason why a topic has too few messages to be checked; None with enough.

    Args:
        what: subject of the finding.
        topic: name of the topic.
        samples: of the topic.
        reliable: True where Genima's nodes subscribe with reliable QoS.
    """
    if not samples.publishers and not samples.stamps:
        remedy = "start its node; check its namespace, ROS_DOMAIN_ID and DDS profile"
        return fail(what, f"no publisher of {topic}", remedy)
    if reliable and samples.publishers and not any(publisher.reliable for publisher in samples.publishers):
        found = (
            f"{samples.publishers[0].node} publishes {topic} with best-effort QoS, Genima's nodes subscribe reliably"
        )
        return fail(what, found, "set reliable QoS (realsense2_camera: color_qos:=SYSTEM_DEFAULT)")
    if len(samples.stamps) < 3:
        found = f"{topic}: {len(samples.stamps)} messages received, though {samples.publishers[0].node} publishes it"
        remedy = "is the driver alive? Do both have the same DDS profile (FASTRTPS_DEFAULT_PROFILES_FILE), no firewall?"
        return fail(what, found, remedy)
    if not (samples.intervals > 0).all():
        return fail(what, f"{topic}: stamps repeat or go back", "check the driver's clock settings; use one publisher")
    return None


def check_images(
    view: str, topic: str, samples: TopicSamples, size: tuple[int, int], encoding: str, device: CameraDevice | None
) -> Finding:
    """Check the image topic of a camera.

    Args:
        view: of the camera.
        topic: of the images.
        samples: of the topic.
        size: width and height of the latest image in px.
        encoding: of the latest image.
        device: expected camera, if known.
    """
    if missing := missing_messages(view, topic, samples, reliable=True):
        return missing
    late, period = samples.ages, float(np.median(samples.intervals))
    lost = int((np.round(samples.intervals / period) - 1).sum())
    jitter = float(np.percentile(np.abs(samples.intervals - period), 99))
    found = (
        f"{samples.rate:.1f} Hz, jitter {1e3 * jitter:.1f} ms (99%), {lost} lost, {1e3 * np.median(late):.0f} ms old "
        f"(at most {1e3 * late.max():.0f}), {size[0]}x{size[1]} {encoding}"
    )
    if problem := _clash(view, found, samples) or _ahead(view, found, samples):
        return problem
    if encoding != "rgb8":
        return fail(view, found, "Genima's nodes take rgb8 (realsense2_camera: rgb_camera.color_format:=RGB8)")
    if device is not None and size != (device.width, device.height):
        remedy = "set the driver's profile as in the cameras file, or correct the file"
        return fail(view, f"{found}, but its profile is {device.width}x{device.height}", remedy)
    wanted = float(device.rate) if device is not None else 1 / period
    slow = "is the machine too busy? A real camera: USB 3? Low light lengthens exposures (auto_exposure_priority)"
    if samples.rate < _TOO_SLOW * wanted:
        return fail(view, f"{found}; {wanted:g} Hz are expected", slow)
    if samples.rate < _SLOW * wanted or lost > 0.01 * len(samples.stamps):
        return warn(view, f"{found}; {wanted:.3g} Hz are expected", slow)
    if np.median(late) > _LATE:
        remedy = f"is the machine or the network too busy? Else {_CLOCKS}"
        return warn(view, f"{found}: they arrive late, or the camera's clock is behind", remedy)
    if jitter > _JITTER * period:
        return warn(view, found, "stamps of arrival jitter: make librealsense use the camera's clock")
    return ok(view, found)


def check_joint_states(samples: TopicSamples, problem: str) -> Finding:
    """Check the joint states.

    Args:
        samples: of joint_states.
        problem: of the latest message; empty: none.
    """
    what = "joint_states"
    if missing := missing_messages(what, what, samples, reliable=False):
        return missing
    late = samples.ages
    found = (
        f"{samples.rate:.0f} Hz, longest gap {1e3 * samples.intervals.max():.0f} ms, "
        f"{1e3 * np.median(late):.1f} ms old (at most {1e3 * late.max():.0f})"
    )
    if clash := _clash(what, found, samples) or _ahead(what, found, samples):
        return clash
    if problem:
        return fail(what, problem, "is it the robot of the cell (--cell)? Do its joints have these names?")
    if np.median(late) > _STALE:
        return fail(what, f"{found}: the arm does not move on states older than {1e3 * _STALE:g} ms", _CLOCKS)
    if samples.intervals.max() > _STALE:
        held = f"the guard holds the arm in gaps of {1e3 * _STALE:g} ms"
        return warn(what, f"{found}: {held}", "is the machine too busy?")
    if samples.rate < _LEAST_JOINT_RATE:
        remedy = "franka_ros2: joint_state_rate:=200 (30 if not set)"
        return warn(what, f"{found}: {_LEAST_JOINT_RATE:g} Hz or more are needed for smooth control", remedy)
    return ok(what, found)


def _clash(what: str, found: str, samples: TopicSamples) -> Finding | None:
    if len(samples.publishers) < 2:
        return None
    nodes = ", ".join(sorted(publisher.node for publisher in samples.publishers))
    return fail(
        what, f"{len(samples.publishers)} nodes publish it ({nodes}); {found}", "stop one, or give each a namespace"
    )


def _ahead(what: str, found: str, samples: TopicSamples) -> Finding | None:
    """Check for stamps in the future, which come from another clock."""
    ahead = -float(samples.ages.min())
    if ahead <= _AHEAD:
        return None
    return fail(what, f"stamps are {1e3 * ahead:.0f} ms in the future; {found}", _CLOCKS)


def check_command_publishers(publishers: Sequence[TopicPublisher]) -> Finding:
    """Check that one node at most publishes commands to the robot."""
    what, nodes = "joint_command", ", ".join(sorted(publisher.node for publisher in publishers))
    if not publishers:
        return skipped(what, "no publisher: no command_guard runs", "start it before the robot is to move")
    if len(publishers) > 1:
        remedy = "stop one: only command_guard may publish it; give two stacks different ROS_DOMAIN_IDs"
        return fail(what, f"{len(publishers)} nodes publish it: {nodes}", remedy)
    return ok(what, f"published by {nodes}")


def check_duplicate_nodes(names: Sequence[str], own: str) -> Finding:
    """Check that no node runs twice.

    Args:
        names: full names of all nodes in the domain.
        own: full name of the calling node.
    """
    what = "nodes in this domain"
    others = [name for name in names if name != own and not name.rpartition("/")[2].startswith("_ros2cli")]
    twice = sorted({name for name in others if others.count(name) > 1})
    if twice:
        remedy = "two stacks on one domain: stop one, or give each its own ROS_DOMAIN_ID or namespace"
        return fail(what, f"run twice: {', '.join(twice)}", remedy)
    if not others:
        return fail(
            what, "none: nothing runs, or it is not discovered", "same ROS_DOMAIN_ID and DDS profile in all shells?"
        )
    return ok(what, ", ".join(sorted(others)))
