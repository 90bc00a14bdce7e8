"""Synchronise camera images, joints and the task of one moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import String

from genima.cameras.calibration_file import load_cameras
from genima.cameras.intrinsics import CameraIntrinsics
from genima.cameras.undistortion import Undistorter
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Image, Joints, Observation
from genima_interfaces.msg import Observed
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.latest_value import LatestValue
from genima_nodes.ros.paced_thread import STEADY

_HEARTBEAT = 0.02  # s between messages on `observed`
_IMAGE_TIMEOUT = 1.0  # s without an image after which a camera counts as stopped
_STALE_JOINTS = 0.1  # s between images and the joints of their observation
_MIN_MOTION = 0.004  # rad: a joint that turns more changes every image (0.0025 are enough in the simulation)
_JOINT_TOLERANCE = 0.03  # s between an image and the joints that it is compared with
_EQUAL_STAMPS = 1e-3  # s: a depth image has the stamp of its colour image; those of neighbours are within the tolerance


@dataclass(frozen=True)
class _CameraImage:
    """Image with its stamp and time of arrival."""

    stamp: float
    arrival: float  # monotonic s
    image: NDArray[Any]  # (h, w, 3), or of depth, (h, w)


@dataclass(frozen=True)
class _ImageChange:
    """First image of a run of equal images."""

    image: NDArray[Any]
    joints: NDArray[np.float64]  # (n,) rad, measured then; NaN where unknown


@dataclass(frozen=True)
class TimedObservation:
    """Observation with its time of arrival and task number."""

    observation: Observation
    arrival: float  # monotonic s, of the newest image
    task_number: int  # of the task message in force


class ObservationSynchronizer:
    """Latest set of images of one moment, with the joints and the task, while a task runs.

    With depth, each camera has two streams of images, which are synchronised alike: `<view>` and `<view> depth`.
    Publishes the validity of the images on `observed`, also while no task runs.
    Parameters: ``sync_tolerance`` and ``straggler_timeout`` in s.
    """

    def __init__(
        self,
        node: Node,
        diagnostics: DiagnosticUpdater,
        robot: RobotModel,
        views: Sequence[str],
        camera_size: tuple[int, int] | None,
        joints_required: bool,
        calibration: str = "",
        depth: bool = False,
    ) -> None:
        """Args:
        node: node that subscribes and publishes.
        diagnostics: of the node.
        robot: model of the observed joints.
        views: views that need a camera.
        camera_size: width and height in px that images must have; None: any.
        joints_required: an observation without measured joints is an error.
        calibration: of the cameras, to undistort images; empty: images are not undistorted.
        depth: observe the depth images of all views, too.

        Raises:
            GenimaError: for parameters out of range, and a calibration that is damaged or lacks a view.
        """
        self._tolerance = parameters.number(node, "sync_tolerance", 0.034)  # cameras at 30 Hz have no common trigger
        self._straggler_timeout = parameters.number(node, "straggler_timeout", 0.1)  # after the first image of a set
        self._diagnostics, self._camera_views = diagnostics, tuple(views)
        self._camera_size, self._joints_required = camera_size, joints_required
        self._task, self.task_number = "", 0
        self._depth_streams = {view: f"{view} depth" for view in views} if depth else {}  # by view
        self._streams = (*self._camera_views, *self._depth_streams.values())
        self._images: dict[str, _CameraImage] = {}  # by stream, as those below
        self._changes: dict[str, _ImageChange] = {}
        self._problems: dict[str, str] = {}
        self._undistorters = self._load_undistorters(node, calibration) if calibration else {}  # by view
        self._camera_infos: dict[str, bytes] = {}  # content of each camera's last camera_info, by view
        self._mismatches: dict[str, str] = {}  # difference between that and the calibration, by view
        self._stamps: dict[str, float] = {}  # of the newest images, valid or not
        self._last_set, self._set_stamp = float("-inf"), 0.0  # monotonic s; stamp
        # Without measured joints, a virtual view is not rendered, and no camera counts as frozen.
        self._unknown = Joints(0.0, np.full(len(robot.joint_names), np.nan), np.nan)
        self._sets: LatestValue[tuple[dict[str, _CameraImage], str, int]] = LatestValue()

        self._spread = diagnostics.add_latency("image set spread")
        self._cameras = {stream: diagnostics.add_topic(f"image {stream}") for stream in self._streams}
        diagnostics.add_skipped("observations", lambda: self._sets.skipped)
        diagnostics.add_check(self._watch_cameras)

        self._observed = node.create_publisher(Observed, "observed", qos.OBSERVED)
        node.create_timer(_HEARTBEAT, self._publish_observed, clock=STEADY)
        node.create_subscription(String, "task", self._on_task, qos.TASK)
        for view in self._camera_views:
            node.create_subscription(
                ImageMessage, f"cameras/{view}/color/image_raw", partial(self._on_color, view), qos.IMAGE
            )
        for view, stream in self._depth_streams.items():
            on_depth = partial(self._on_image, stream, partial(messages.depth_from, size=camera_size))
            node.create_subscription(ImageMessage, messages.depth_topic(view), on_depth, qos.IMAGE)
        for view in self._undistorters:
            node.create_subscription(
                CameraInfo, f"cameras/{view}/color/camera_info", self._info_callback(view), qos.IMAGE
            )
        self._joints = JointStates(node, diagnostics, robot)

    @property
    def skipped(self) -> int:
        """Number of observations that were replaced by newer ones before they were taken."""
        return self._sets.skipped

    def take(self, timeout: float) -> TimedObservation | None:
        """Wait up to ``timeout`` seconds for an observation of the task that runs, and remove it.

        Raises:
            GenimaError: when joints are required and unknown, or an image cannot be undistorted.
        """
        taken = self._sets.take(timeout)
        if taken is None:
            return None
        streams, task, number = taken
        stamp = min(each.stamp for each in streams.values())
        joints = self._joints.at(stamp, _STALE_JOINTS)
        if joints is None and self._joints_required:
            raise GenimaError(f"joint_states: none within {_STALE_JOINTS} s of the images")
        images = {view: self._undistort(view, streams[view].image) for view in self._camera_views}
        depth = {view: self._undistort(view, streams[stream].image) for view, stream in self._depth_streams.items()}
        observation = Observation(stamp, images, joints or self._unknown, task, depth=depth)
        return TimedObservation(observation, max(each.arrival for each in streams.values()), number)

    def _load_undistorters(self, node: Node, calibration: str) -> dict[str, Undistorter]:
        cameras = load_cameras(calibration)
        if missing := [view for view in self._camera_views if view not in cameras]:
            raise GenimaError(f"{node.get_name()}: calibration {calibration} has no {', '.join(missing)}")
        return {view: Undistorter(cameras[view]) for view in self._camera_views}

    def _undistort(self, view: str, image: NDArray[Any]) -> NDArray[Any]:
        if view not in self._undistorters:
            return image
        undistorter = self._undistorters[view]
        return undistorter(image) if image.ndim == 3 else undistorter.depth(image)

    # Callbacks of the executor's thread.

    def _on_task(self, message: String) -> None:
        self._task, self.task_number = message.data.strip(), self.task_number + 1
        self._sets.clear()

    def _info_callback(self, view: str) -> Callable[[CameraInfo], None]:
        def on_info(message: CameraInfo) -> None:
            content = bytes(f"{message.width} {message.height}", "ascii") + message.k.tobytes() + message.d.tobytes()
            if content == self._camera_infos.get(view):
                return
            self._camera_infos[view] = content
            self._mismatches.pop(view, None)
            if not message.k.any():  # the driver has no intrinsics
                return
            try:
                intrinsics = CameraIntrinsics.from_camera_info(
                    message.width, message.height, message.distortion_model, message.d, message.k
                )
                self._undistorters[view].require_intrinsics(intrinsics)
            except GenimaError as error:
                self._mismatches[view] = str(error)

        return on_info

    def _on_color(self, view: str, message: ImageMessage) -> None:
        def decode(message: ImageMessage) -> Image:
            image = messages.image_from(message, self._camera_size)
            if view in self._mismatches:
                raise GenimaError(self._mismatches[view])
            return image

        self._on_image(view, decode, message)

    def _on_image(self, stream: str, decode: Callable[[ImageMessage], NDArray[Any]], message: ImageMessage) -> None:
        self._cameras[stream].tick()
        stamp = self._stamps[stream] = messages.seconds(message.header.stamp)
        try:
            image = decode(message)
            self._require_change(stream, stamp, image)
        except GenimaError as error:
            self._cameras[stream].drop()
            self._problems[stream] = f"camera {stream}: {error}"
            self._diagnostics.set_fault(f"camera {stream}", str(error))
            self._images.pop(stream, None)
            self._publish_observed()
            return
        self._problems.pop(stream, None)
        self._diagnostics.clear_fault(f"camera {stream}")
        self._images[stream] = _CameraImage(stamp, time.monotonic(), image)
        self._offer_set()

    def _publish_observed(self) -> None:
        """Publish the heartbeat: the stamp of the last valid set and the problems of the images."""
        message = Observed(problem="; ".join([*self._problems.values(), *self._stragglers()]))
        message.header.stamp = messages.time_message(self._set_stamp)
        self._observed.publish(message)

    def _stragglers(self) -> Iterator[str]:
        """Yield the cameras whose images are late for the set of the other views."""
        images = list(self._images.items())
        if images and time.monotonic() - min(image.arrival for _, image in images) > self._straggler_timeout:
            newest = max(image.stamp for _, image in images)
            present = [stream for stream, image in images if newest - image.stamp <= self._tolerance]
            if missing := [stream for stream in self._streams if stream not in present]:
                yield f"camera {', '.join(missing)}: no image within {1000 * self._tolerance:g} ms of the other views"

    def _require_change(self, stream: str, stamp: float, image: NDArray[Any]) -> None:
        """Raise a GenimaError for a camera whose image does not change while the arm moves."""
        last = self._changes.get(stream)
        joints = (self._joints.at(stamp, _JOINT_TOLERANCE) or self._unknown).positions
        same = last is not None and np.array_equal(image, last.image)
        if last is None or not same or np.isnan(last.joints).any():
            self._changes[stream] = _ImageChange(image, joints)
        elif np.max(np.abs(joints - last.joints)) > _MIN_MOTION:
            raise GenimaError("frozen; the image has not changed while the arm moved")

    def _offer_set(self) -> None:
        """Offer the newest images as a set if they are of one moment and a task runs."""
        images = self._images
        if len(images) < len(self._streams):
            return
        stamps = [image.stamp for image in images.values()]
        if max(stamps) - min(stamps) > self._tolerance:
            return
        pairs = [(images[view].stamp, images[stream].stamp) for view, stream in self._depth_streams.items()]
        if any(abs(color - depth) > _EQUAL_STAMPS for color, depth in pairs):
            return
        self._last_set, self._set_stamp = time.monotonic(), min(stamps)
        self._spread.add(self._last_set - min(image.arrival for image in images.values()))
        self._publish_observed()
        if self._task:
            self._sets.put((dict(images), self._task, self.task_number))
        images.clear()  # every image is used once

    def _watch_cameras(self) -> None:
        timed_out = False
        for stream, stats in self._cameras.items():
            key = f"camera {stream} timeout"
            if stats.age > _IMAGE_TIMEOUT:
                timed_out = True
                self._diagnostics.set_fault(
                    key, f"no image for {_IMAGE_TIMEOUT:g} s" if stats.total else "no image yet"
                )
            else:
                self._diagnostics.clear_fault(key)
        if not timed_out and time.monotonic() - self._last_set > _IMAGE_TIMEOUT:
            last = min(self._stamps, key=self._stamps.__getitem__)
            behind = max(self._stamps.values()) - self._stamps[last]
            pairs = "; a depth image needs the stamp of its colour image" if self._depth_streams else ""
            self._diagnostics.set_fault("cameras", f"images not synchronised; {last} is {behind:.2g} s behind{pairs}")
        else:
            self._diagnostics.clear_fault("cameras")
