"""Node: publish camera extrinsics on `/tf_static`, as parents of the drivers' own frames.

A calibration is of the optical frame, whose parent the driver publishes: this node publishes the pose of the driver's
root frame, `<camera>_link`. Without a driver, as in the simulator, the link is at the optical frame, and both are
published. A camera whose link has another parent is a fault and not published: a frame has one parent.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from genima.cameras.calibration_file import CameraCalibration, Frames, calibration_files, calibration_folder
from genima.cameras.frame_tree import FrameAttachment, FrameTree, attach_camera, camera_link, require_frame
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import node_main
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.transform_messages import transform_from, transform_message

_STATIC_SUBSCRIBER = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # as tf2: several publishers
_MOVING = QoSProfile(depth=100)
_CHECK_PERIOD, _DISCOVERY = 0.2, 2.0  # s: between checks, and for a driver's frames to arrive


class CameraTransformsNode(Node):
    """Publisher of a camera's transform once its own frames are known; then monitor of these."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters out of range, and calibrations that contradict each other.
        """
        super().__init__("camera_transforms", **options)
        cell = parameters.calibrated_cell(self)
        folder, robot = cell.calibration, cell.robot
        self._wait = parameters.number(self, "wait", 5.0, -1.0)  # s for a driver's frames; below 0: without end
        self._prefix = parameters.frame_prefix(self, "prefix")  # of the robot's frames
        self._frame_names = {  # of the robot, if different from franka_description and the calibration file
            parent: parameters.text(self, f"{parent}_frame", "") for parent in ("base", "flange")
        }
        views = parameters.texts(self, "views", cell.views)
        self._cameras = self._load(folder, robot, views)
        self._tree = FrameTree()  # frames of other publishers
        self._published: dict[str, list[FrameAttachment]] = {}  # by view
        self._begin = time.monotonic()
        self._diagnostics = DiagnosticUpdater(self)
        self._received = self._diagnostics.add_topic("transforms")
        self._diagnostics.add_value("cameras in tf", lambda: ", ".join(self._published) or "none")
        self._publisher = self.create_publisher(TFMessage, "/tf_static", qos.LATCHED)
        self.create_subscription(TFMessage, "/tf_static", self._on_transforms, _STATIC_SUBSCRIBER)
        self.create_subscription(TFMessage, "/tf", self._on_moving_transforms, _MOVING)
        self.create_timer(_CHECK_PERIOD, self._publish_known, clock=STEADY)

    def close(self) -> None:
        """Do nothing: the node has no threads."""

    def _load(
        self, folder: str, robot: RobotModel, views: Collection[str]
    ) -> Mapping[str, tuple[Frames, NDArray[np.float64]]]:
        """Load frame names and ``T_parent_optical`` (4, 4) by view; without ``views``, of all calibrations."""
        cameras: dict[str, tuple[Frames, NDArray[np.float64]]] = {}
        skipped: list[str] = []
        for path in calibration_files(calibration_folder(folder)):
            calibration = CameraCalibration.load(path)
            camera = calibration.camera
            if views and camera.view not in views:
                skipped.append(camera.view)
                continue
            frames = calibration.frames or Frames.of(robot, camera.parent, f"{camera.view}_color_optical_frame")
            prefix = "" if frames.parent.startswith(self._prefix) else self._prefix  # the file may contain it
            parent = self._frame_names[camera.parent] or prefix + frames.parent
            frames = Frames(require_frame(parent, "camera_transforms: parent frame"), frames.camera)
            for view, (others, _) in cameras.items():
                if others.camera == frames.camera:
                    raise GenimaError(
                        f"camera_transforms: calibrations of {view} and {camera.view} in {folder} have the same frame "
                        f"({frames.camera}); correct one of them"
                    )
            cameras[camera.view] = frames, camera.T_parent_camera
        if not cameras:
            of = f" of {', '.join(views)}" if views else ""
            raise GenimaError(f"camera_transforms: no calibration{of} (*.yaml) in {folder}")
        if skipped:
            self.get_logger().info(f"calibrations: not among the views, skipped ({', '.join(skipped)})")
        return cameras

    def _on_transforms(self, message: TFMessage) -> None:
        self._received.tick()
        own = {each.child: each for attachments in self._published.values() for each in attachments}
        for transform in message.transforms:
            parent, child = transform.header.frame_id.removeprefix("/"), transform.child_frame_id.removeprefix("/")
            try:
                T = transform_from(transform)
                if (attachment := own.get(child)) is None:
                    self._tree.add(parent, child, T)
                elif parent != attachment.parent or not np.allclose(T, attachment.T_parent_child):
                    raise GenimaError(  # otherwise it is this node's own message
                        f"published under {parent} by another node, too; end that node, or restart camera_transforms "
                        "if it is a driver that started late"
                    )
            except GenimaError as error:
                self._received.drop()
                self._diagnostics.set_fault(f"frame {child}", str(error))

    def _on_moving_transforms(self, message: TFMessage) -> None:
        """Store new frames of the robot's moving transforms; only their parents are used."""
        message.transforms = [
            transform
            for transform in message.transforms
            if self._tree.parent(transform.child_frame_id) != transform.header.frame_id
        ]
        if message.transforms:
            self._on_transforms(message)

    def _publish_known(self) -> None:
        """Publish the cameras whose own frames are known."""
        count = len(self._published)
        for view in self._cameras.keys() - self._published.keys():
            frames, T_parent_optical = self._cameras[view]
            try:
                if not self._is_ready(frames.camera):
                    continue
                self._published[view] = attach_camera(self._tree, frames.parent, frames.camera, T_parent_optical)
            except GenimaError as error:
                self._diagnostics.set_fault(view, str(error))
                continue
            self._diagnostics.clear_fault(view)
            self.get_logger().info(f"{view}: {self._describe(view, frames.camera)}")
        if len(self._published) > count:
            self._publish()

    def _is_ready(self, optical: str) -> bool:
        """Return True if the frames around a camera's optical frame are known, or the wait for them is over."""
        link, has_no_parent = camera_link(optical), self._tree.parent(optical) is None
        if link is not None and link in self._tree.ancestors(optical):
            return True
        waited = time.monotonic() - self._begin
        if self._wait >= 0:
            return waited >= self._wait
        if has_no_parent and waited > _DISCOVERY:
            raise GenimaError(f"no publisher of the frame {optical}; start the camera's driver")
        return not has_no_parent and waited > _DISCOVERY

    def _describe(self, view: str, optical: str) -> str:
        names = ", ".join(f"{each.parent} -> {each.child}" for each in self._published[view])
        if self._tree.parent(optical) is not None:
            return f"{names} (with the driver's {optical})"
        return f"{names} (no frames from a driver; link and optical frame at the same place)"

    def _publish(self) -> None:
        """Publish all transforms at once: late subscribers receive only the last message."""
        message = partial(transform_message, messages.now(self))
        attachments = [each for published in self._published.values() for each in published]
        transforms = [message(each.parent, each.child, each.T_parent_child) for each in attachments]
        self._publisher.publish(TFMessage(transforms=transforms))


main = node_main(CameraTransformsNode)
