"""Synchronise camera images, joints and the task of one moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _CameraImage:
    """Image with its stamp and time of arrival."""

    stamp: float
    arrival: float  # monotonic s
    image: Image


@dataclass(frozen=True)
class _ImageChange:
    """First image of a run of equal images."""

    image: Image
    joints: NDArray[np.float64]  # (n,) rad, measured then; NaN where unknown


@dataclass(frozen=True)
class TimedObservation:
    """Observation with its time of arrival and task number."""

    observation: Observation
    arrival: float  # monotonic s, of the newest image
    task_number: int  # of the task message in force


class ObservationSynchronizer:
    """Latest set of images of one moment, with the joints and the task, while a task runs.

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
    ) -> None:
        """Args:
        node: node that subscribes and publishes.
        diagnostics: of the node.
        robot: model of the observed joints.
        views: views that need a camera.
        camera_size: width and height in px that images must have; None: any.
        joints_required: an observation without measured joints is an error.
        calibration: of the cameras, to undistort images; empty: images are not undistorted.

        Raises:
            GenimaError: for parameters out of range, and a calibration that is damaged or lacks a view.
        """
        self._tolerance = parameters.number(node, "sync_tolerance", 0.034)  # cameras at 30 Hz have no common trigger
        self._straggler_timeout = parameters.number(node, "straggler_timeout", 0.1)  # after the first image of a set
        self._diagnostics, self._camera_views = diagnostics, tuple(views)
        self._camera_size, self._joints_required = camera_size, joints_required
        self._task, self.task_number = "", 0
        self._views: dict[str, _CameraImage] = {}
        self._changes: dict[str, _ImageChange] = {}
        self._problems: dict[str, str] = {}  # by view
        self._undistorters = self._load_undistorters(node, calibration) if calibration else {}  # by view
        self._camera_infos: dict[str, bytes] = {}  # content of each camera's last camera_info, by view
        self._mismatches: dict[str, str] = {}  # difference between that and the calibration, by view
        self._stamps: dict[str, float] = {}  # of the newest images, valid or not
        self._last_set, self._set_stamp = float("-inf"), 0.0  # monotonic s; stamp
        # Without measured joints, a virtual view is not rendered, and no camera counts as frozen.
        self._unknown = Joints(0.0, np.full(len(robot.joint_names), np.nan), np.nan)
        self._sets: LatestValue[tuple[dict[str, _CameraImage], str, int]] = LatestValue()

        self._spread = diagnostics.add_latency("image set spread")
        self._cameras = {view: diagnostics.add_topic(f"image {view}") for view in self._camera_views}
        diagnostics.add_skipped("observations", lambda: self._sets.skipped)
        diagnostics.add_check(self._watch_cameras)

        self._observed = node.create_publisher(Observed, "observed", qos.OBSERVED)
        node.create_timer(_HEARTBEAT, self._publish_observed, clock=STEADY)
        node.create_subscription(String, "task", self._on_task, qos.TASK)
        for view in self._camera_views:
            node.create_subscription(
                ImageMessage, f"cameras/{view}/color/image_raw", self._image_callback(view), qos.IMAGE
            )
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
        views, task, number = taken
        stamp = min(view.stamp for view in views.values())
        joints = self._joints.at(stamp, _STALE_JOINTS)
        if joints is None and self._joints_required:
            raise GenimaError(f"joint_states: none within {_STALE_JOINTS} s of the images")
        images = {name: self._undistort(name, view.image) for name, view in views.items()}
        observation = Observation(stamp, images, joints or self._unknown, task)
        return TimedObservation(observation, max(view.arrival for view in views.values()), number)

    def _load_undistorters(self, node: Node, calibration: str) -> dict[str, Undistorter]:
        cameras = load_cameras(calibration)
        if missing := [view for view in self._camera_views if view not in cameras]:
            raise GenimaError(f"{node.get_name()}: calibration {calibration} has no {', '.join(missing)}")
        return {view: Undistorter(cameras[view]) for view in self._camera_views}

    def _undistort(self, view: str, image: Image) -> Image:
        return self._undistorters[view](image) if view in self._undistorters else image

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

    def _image_callback(self, view: str) -> Callable[[ImageMessage], None]:
        def on_image(message: ImageMessage) -> None:
            self._cameras[view].tick()
            stamp = self._stamps[view] = messages.seconds(message.header.stamp)
            try:
                image = messages.image_from(message, self._camera_size)
                if view in self._mismatches:
                    raise GenimaError(self._mismatches[view])
                self._require_change(view, stamp, image)
            except GenimaError as error:
                self._cameras[view].drop()
                self._problems[view] = f"camera {view}: {error}"
                self._diagnostics.set_fault(f"camera {view}", str(error))
                self._views.pop(view, None)
                self._publish_observed()
                return
            self._problems.pop(view, None)
            self._diagnostics.clear_fault(f"camera {view}")
            self._views[view] = _CameraImage(stamp, time.monotonic(), image)
            self._offer_set()

        return on_image

    def _publish_observed(self) -> None:
        """Publish the heartbeat: the stamp of the last valid set and the problems of the images."""
        message = Observed(problem="; ".join([*self._problems.values(), *self._stragglers()]))
        message.header.stamp = messages.time_message(self._set_stamp)
        self._observed.publish(message)

    def _stragglers(self) -> Iterator[str]:
        """Yield the cameras whose images are late for the set of the other views."""
        views = list(self._views.items())
        if views and time.monotonic() - min(view.arrival for _, view in views) > self._straggler_timeout:
            newest = max(view.stamp for _, view in views)
            present = [name for name, view in views if newest - view.stamp <= self._tolerance]
            if missing := [view for view in self._camera_views if view not in present]:
                yield f"camera {', '.join(missing)}: no image within {1000 * self._tolerance:g} ms of the other views"

    def _require_change(self, view: str, stamp: float, image: Image) -> None:
        """Raise a GenimaError for a camera whose image does not change while the arm moves."""
        last = self._changes.get(view)
        joints = (self._joints.at(stamp, _JOINT_TOLERANCE) or self._unknown).positions
        same = last is not None and np.array_equal(image, last.image)
        if last is None or not same or np.isnan(last.joints).any():
            self._changes[view] = _ImageChange(image, joints)
        elif np.max(np.abs(joints - last.joints)) > _MIN_MOTION:
            raise GenimaError("frozen; the image has not changed while the arm moved")

    def _offer_set(self) -> None:
        """Offer the newest images as a set if they are of one moment and a task runs."""
        if len(self._views) < len(self._camera_views):
            return
        stamps = [view.stamp for view in self._views.values()]
        if max(stamps) - min(stamps) > self._tolerance:
            return
        self._last_set, self._set_stamp = time.monotonic(), min(stamps)
        self._spread.add(self._last_set - min(view.arrival for view in self._views.values()))
        self._publish_observed()
        if self._task:
            self._sets.put((dict(self._views), self._task, self.task_number))
        self._views.clear()  # every image is used once

    def _watch_cameras(self) -> None:
        timed_out = False
        for view, stats in self._cameras.items():
            key = f"camera {view} timeout"
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
            self._diagnostics.set_fault("cameras", f"images not synchronised; {last} is {behind:.1f} s behind")
        else:
            self._diagnostics.clear_fault("cameras")
