"""Node: drive a RealSense camera without realsense2_camera, on the same topics and with the same frames.

A thread of its own publishes the images. An unplugged camera is a fault until it is connected again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage
from tf2_msgs.msg import TFMessage

from genima.cameras.frame_tree import T_LINK_OPTICAL
from genima.errors import GenimaError
from genima_nodes.drivers.librealsense_camera import OPTIONS, CameraProperties, Frame, ImageProfile, RealSenseCamera
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.transform_messages import transform_message

_READ_TIMEOUT = 0.2  # s: longest wait for an image, and thus for the end of the thread
_RETRY_PERIOD = 1.0  # s between attempts to open a missing camera
_MAX_AGE = 0.5  # s between the stamp of an image and now; more is a fault of a clock


class RealSenseCameraNode(Node):
    """Driver of one camera."""

    def __init__(self, query_devices: Callable[[], Iterable[Any]] | None = None, **options: Any) -> None:
        """Args:
        query_devices: returns the connected devices; by default those of this machine.
        options: of a node.

        Raises:
            GenimaError: for parameters out of range, and a camera that is not connected.
        """
        super().__init__("realsense_camera", **options)
        self._view = parameters.view(self)
        profile = ImageProfile.parse(parameters.text(self, "rgb_camera.color_profile", "640x480x30"))
        requested = parameters.text(self, "depth_module.depth_profile", "")
        depth_profile = ImageProfile.parse(requested) if requested else None  # None: no depth
        self._camera = RealSenseCamera(self._serial(), profile, self._sensor_options(), query_devices, depth_profile)
        self._properties, self._open_count = self._camera.open(), 0
        self._ending = threading.Event()

        self._diagnostics = DiagnosticUpdater(self)
        self._frames = self._diagnostics.add_topic("frames")
        self._age = self._diagnostics.add_latency("exposure to publication")
        self._diagnostics.add_value("requested rate [Hz]", lambda: profile.rate)
        for name in ("serial", "model", "firmware", "usb"):
            self._diagnostics.add_value(name, partial(self._property, name))
        self._diagnostics.add_value("clock", lambda: self._camera.clock)
        self._diagnostics.add_value("times opened", lambda: self._open_count)

        self._image = self.create_publisher(ImageMessage, f"cameras/{self._view}/color/image_raw", qos.IMAGE)
        self._depth = None
        if depth_profile is not None:
            self._depth = self.create_publisher(ImageMessage, messages.depth_topic(self._view), qos.IMAGE)
        self._info = self.create_publisher(CameraInfo, f"cameras/{self._view}/color/camera_info", qos.IMAGE)
        self._transforms = self.create_publisher(TFMessage, "/tf_static", qos.LATCHED)
        self._on_open(self._properties)
        self._thread = threading.Thread(target=self._capture, name="images", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and free the camera."""
        self._ending.set()
        self._thread.join()
        self._camera.close()

    def _property(self, name: str) -> object:
        return getattr(self._properties, name)

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

    def _on_open(self, properties: CameraProperties) -> None:
        self._open_count += 1
        log = self.get_logger()
        model = f"{properties.model} {properties.serial}"
        log.info(f"camera {self._view}: {model}, firmware {properties.firmware}, USB {properties.usb}")
        if properties.on_usb2:
            log.warning(
                f"camera {properties.serial}: on USB {properties.usb}, images will be lost or late; "
                "use a USB 3 port without a hub, and the cable of the camera"
            )
        self._info_message = CameraInfo(**properties.info)
        self._info_message.header.frame_id = self._optical
        link, color = f"{self._view}_link", f"{self._view}_color_frame"
        stamp = messages.now(self)
        self._transforms.publish(
            TFMessage(
                transforms=[
                    transform_message(stamp, link, color, properties.T_link_color),
                    transform_message(stamp, color, self._optical, T_LINK_OPTICAL),
                ]
            )
        )

    @property
    def _optical(self) -> str:
        return f"{self._view}_color_optical_frame"

    # The image thread.

    def _capture(self) -> None:
        running = True
        while not self._ending.is_set():
            try:
                if not running:
                    self._properties = self._camera.open()
                    self._on_open(self._properties)
                    running = True
                depth = self._depth is not None and self._depth.get_subscription_count() > 0
                frame = self._camera.read(_READ_TIMEOUT, depth)
            except GenimaError as error:
                self._diagnostics.set_fault("camera", str(error))
                self._camera.close()
                running = False
                self._ending.wait(_RETRY_PERIOD)
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
        if abs(age) > _MAX_AGE:
            self._diagnostics.set_fault("clock", f"image stamps are {age:.1f} s old; check this machine's clock")
        else:
            self._diagnostics.clear_fault("clock")
        self._info_message.header.stamp = messages.time_message(frame.stamp)
        if self._image.get_subscription_count():  # the conversion of an image takes most of the time
            self._image.publish(messages.image_message(frame.image, frame.stamp, self._optical))
        if self._depth is not None and frame.depth is not None:
            self._depth.publish(messages.depth_message(frame.depth, frame.stamp, self._optical))
        self._info.publish(self._info_message)


main = node_main(RealSenseCameraNode, CONTROL_NICENESS, real_time=True)
