"""Node that drives a RealSense camera without realsense2_camera, on the same topics and with the same frames.

Images are published by a thread of their own. An unplugged camera is a fault until it is connected again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage
from tf2_msgs.msg import TFMessage

from genima.cameras.frame_tree import T_LINK_OPTICAL
from genima.errors import GenimaError
from genima_nodes.drivers.librealsense_camera import OPTIONS, ColorCamera, ColorProfile, Frame, Opened
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import FILMING_NICENESS, node_main
from genima_nodes.ros.transform_messages import transform_message

_WAIT = 0.2  # s: how long the end may have to wait for an image
_AGAIN = 1.0  # s between checks for a camera that is not there
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # as tf2 publishes what stays
_CLOCKS = 0.5  # s between the stamp of an image and now from which the clocks cannot be right


class RealSenseCameraNode(Node):
    """Drives one camera."""

    def __init__(self, plugged_in: Callable[[], Iterable[Any]] | None = None, **options: Any) -> None:
        """Args:
        plugged_in: the devices that there are; by default those of this machine.
        options: of a node.

        Raises:
            GenimaError: for parameters that make no sense, and a camera that is not there.
        """
        super().__init__("realsense_camera", **options)
        self._view = parameters.view(self)
        profile = ColorProfile.of(parameters.text(self, "rgb_camera.color_profile", "640x480x30"))
        self._camera = ColorCamera(self._serial(), profile, self._sensor_options(), plugged_in)
        self._opened, self._times = self._camera.open(), 0
        self._ending = threading.Event()

        self._diagnostics = DiagnosticUpdater(self)
        self._frames = self._diagnostics.add_topic("frames")
        self._age = self._diagnostics.add_latency("exposure to publication")
        self._diagnostics.add_value("wanted rate [Hz]", lambda: profile.rate)
        for name in ("serial", "model", "firmware", "usb"):
            self._diagnostics.add_value(name, partial(self._known, name))
        self._diagnostics.add_value("clock", lambda: self._camera.clock)
        self._diagnostics.add_value("times opened", lambda: self._times)

        self._image = self.create_publisher(ImageMessage, f"cameras/{self._view}/color/image_raw", qos.IMAGE)
        self._info = self.create_publisher(CameraInfo, f"cameras/{self._view}/color/camera_info", qos.IMAGE)
        self._transforms = self.create_publisher(TFMessage, "/tf_static", _LATCHED)
        self._publish_diagnostics(self._opened)
        self._thread = threading.Thread(target=self._capture, name="images", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and free the camera."""
        self._ending.set()
        self._thread.join()
        self._camera.close()

    def _known(self, name: str) -> object:
        return getattr(self._opened, name)

    def _serial(self) -> str:
        """Return the serial number without the ROS driver's leading ``_``: ROS parses digits as a number."""
        return parameters.digits(self, "serial_no").removeprefix("_")

    def _sensor_options(self) -> dict[str, float]:
        """Return the sensor options that are set, by the ROS driver's names."""
        options = {}
        for name in OPTIONS:
            if (value := parameters.optional_number(self, f"rgb_camera.{name}")) is not None:
                options[name] = value
        return options

    def _publish_diagnostics(self, opened: Opened) -> None:
        self._times += 1
        log = self.get_logger()
        log.info(f"{opened.model} {opened.serial}, firmware {opened.firmware}, USB {opened.usb}, is {self._view}")
        if opened.on_usb2:
            log.warning(
                f"camera {opened.serial} is on USB {opened.usb}: images will be lost or late; "
                "use a USB 3 port, without a hub, and the cable that came with it"
            )
        self._info_message = CameraInfo(**opened.info)
        self._info_message.header.frame_id = self._optical
        link, color = f"{self._view}_link", f"{self._view}_color_frame"
        stamp = messages.now(self)
        self._transforms.publish(
            TFMessage(
                transforms=[
                    transform_message(stamp, link, color, opened.T_link_color),
                    transform_message(stamp, color, self._optical, T_LINK_OPTICAL),
                ]
            )
        )

    @property
    def _optical(self) -> str:
        return f"{self._view}_color_optical_frame"

    # The thread of the images.

    def _capture(self) -> None:
        running = True
        while not self._ending.is_set():
            try:
                if not running:
                    self._opened = self._camera.open()
                    self._publish_diagnostics(self._opened)
                    running = True
                frame = self._camera.read(_WAIT)
            except GenimaError as error:
                self._diagnostics.set_fault("camera", str(error))
                self._camera.close()
                running = False
                self._ending.wait(_AGAIN)
                continue
            if frame is not None:
                self._diagnostics.clear_fault("camera")
                self._publish(frame)

    def _publish(self, frame: Frame) -> None:
        for _ in range(frame.lost):
            self._frames.drop()
        self._frames.tick()
        age = time.time() - frame.stamp
        self._age.add(age)
        if abs(age) > _CLOCKS:
            line = f"images are stamped {age:.1f} s before now; the camera's clock was not followed"
            self._diagnostics.set_fault("clock", line)
        else:
            self._diagnostics.clear_fault("clock")
        self._info_message.header.stamp = messages.time_message(frame.stamp)
        if self._image.get_subscription_count():  # to make a message of an image takes longer than all the rest
            self._image.publish(messages.image_message(frame.image, frame.stamp, self._optical))
        self._info.publish(self._info_message)


main = node_main(RealSenseCameraNode, FILMING_NICENESS)
