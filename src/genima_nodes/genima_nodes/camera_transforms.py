"""Node that publishes calibrated cameras on `/tf_static`, as parents of their drivers' own frames.

A calibration is of the optical frame, whose parent the driver publishes already: this node publishes the pose of the
driver's root frame, `<camera>_link`. Without a driver, as in the simulator, the link is placed at the optical frame,
and both are published. A camera that has a parent already is left alone, as a fault: a frame has one parent.
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
from genima_nodes.ros import messages, parameters
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import node_main
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.transform_messages import transform_from, transform_message

_OURS = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_THEIRS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # several publishers, as tf2 listens
_MOVING = QoSProfile(depth=100)
_LOOK, _SOON = 0.2, 2.0  # s: between checks, and for a driver's frames to arrive


class CameraTransformsNode(Node):
    """Publishes once a camera's own frames are known; then monitors them."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters that make no sense, and calibrations that contradict each other.
        """
        super().__init__("camera_transforms", **options)
        cell = parameters.calibrated_cell(self)
        folder, robot = cell.calibration, cell.robot
        self._wait = parameters.number(self, "wait", 5.0, -1.0)  # s for a driver's frames; below 0: for ever
        self._prefix = parameters.frame_prefix(self, "prefix")  # of the robot's frames
        self._named = {  # the robot's frames, where they are not called as in franka_description or in the file
            parent: parameters.text(self, f"{parent}_frame", "") for parent in ("base", "flange")
        }
        wanted = parameters.texts(self, "views", cell.views)
        self._cameras = self._load(folder, robot, wanted)
        self._tree = FrameTree()  # other publishers' frames
        self._published: dict[str, list[FrameAttachment]] = {}  # by view
        self._begin = time.monotonic()
        self._diagnostics = DiagnosticUpdater(self)
        self._received = self._diagnostics.add_topic("transforms")
        self._diagnostics.add_value("cameras in tf", lambda: ", ".join(self._published) or "none")
        self._publisher = self.create_publisher(TFMessage, "/tf_static", _OURS)
        self.create_subscription(TFMessage, "/tf_static", self._on_transforms, _THEIRS)
        self.create_subscription(TFMessage, "/tf", self._on_moving_transforms, _MOVING)
        self.create_timer(_LOOK, self._publish_known, clock=STEADY)

    def close(self) -> None:
        """Stop; there are no threads."""

    def _load(
        self, folder: str, robot: RobotModel, wanted: Collection[str]
    ) -> Mapping[str, tuple[Frames, NDArray[np.float64]]]:
        """Load names of frames and ``T_parent_optical`` (4, 4) by view, of the ``wanted`` views; none given: of all."""
        cameras: dict[str, tuple[Frames, NDArray[np.float64]]] = {}
        left_out: list[str] = []
        for path in calibration_files(calibration_folder(folder)):
            found = CameraCalibration.load(path)
            camera = found.camera
            if wanted and camera.view not in wanted:
                left_out.append(camera.view)
                continue
            frames = found.frames or Frames.of(robot, camera.parent, f"{camera.view}_color_optical_frame")
            prefix = "" if frames.parent.startswith(self._prefix) else self._prefix  # the file may have it already
            parent = self._named[camera.parent] or prefix + frames.parent
            frames = Frames(require_frame(parent, "camera_transforms: parent frame"), frames.camera)
            for view, (others, _) in cameras.items():
                if others.camera == frames.camera:
                    raise GenimaError(
                        f"camera_transforms: the calibrations of {view} and {camera.view} in {folder} are both of "
                        f"{frames.camera}: one of them is another camera's"
                    )
            cameras[camera.view] = frames, camera.T_parent_camera
        if not cameras:
            of = f" of {', '.join(wanted)}" if wanted else ""
            raise GenimaError(f"camera_transforms: there is no calibration{of} (*.yaml) in {folder}")
        if left_out:
            self.get_logger().info(f"calibrations left out, not among the views: {', '.join(left_out)}")
        return cameras

    def _on_transforms(self, message: TFMessage) -> None:
        self._received.tick()
        ours = {hanging.child: hanging for hung in self._published.values() for hanging in hung}
        for transform in message.transforms:
            parent, child = transform.header.frame_id.removeprefix("/"), transform.child_frame_id.removeprefix("/")
            try:
                T = transform_from(transform)
                if (hanging := ours.get(child)) is None:
                    self._tree.add(parent, child, T)
                elif parent != hanging.parent or not np.allclose(T, hanging.T_parent_child):
                    raise GenimaError(  # else it is our own message
                        f"another node publishes it under {parent}; a frame has one parent: end that node, or restart "
                        "this one if it is a driver that started late"
                    )
            except GenimaError as error:
                self._received.drop()
                self._diagnostics.set_fault(f"frame {child}", str(error))

    def _on_moving_transforms(self, message: TFMessage) -> None:
        """Store the robot's moving transforms: their values change, their parents do not."""
        message.transforms = [
            transform
            for transform in message.transforms
            if self._tree.parent(transform.child_frame_id) != transform.header.frame_id
        ]
        if message.transforms:
            self._on_transforms(message)

    def _publish_known(self) -> None:
        """Publish cameras whose own frames are known by now."""
        hung = len(self._published)
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
        if len(self._published) > hung:
            self._publish()

    def _is_ready(self, optical: str) -> bool:
        """Return whether the frames around a camera's optical frame are known, or their time is out."""
        link, alone = camera_link(optical), self._tree.parent(optical) is None
        if link is not None and link in self._tree.ancestors(optical):
            return True
        waited = time.monotonic() - self._begin
        if self._wait >= 0:
            return waited >= self._wait
        if alone and waited > _SOON:
            raise GenimaError(f"no publisher of {optical} in its camera; start its driver")
        return not alone and waited > _SOON

    def _describe(self, view: str, optical: str) -> str:
        names = ", ".join(f"{hanging.parent} -> {hanging.child}" for hanging in self._published[view])
        if self._tree.parent(optical) is not None:
            return f"{names}, as its driver has {optical} in it"
        return f"{names}; no driver publishes frames of it, so only its axes are turned"

    def _publish(self) -> None:
        """Publish all transforms at once: late subscribers receive only the last message."""
        message = partial(transform_message, messages.now(self))
        hangings = [hanging for hung in self._published.values() for hanging in hung]
        self._publisher.publish(TFMessage(transforms=[message(h.parent, h.child, h.T_parent_child) for h in hangings]))


main = node_main(CameraTransformsNode)
