"""Node: four cameras that see at the same moment, as hardware that is synchronised: the hardest for who listens."""

from __future__ import annotations

import array
import sys
import time

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

from benchmarks.recording_source import FRAMES, IMAGES, INFOS, VIEWS, Source, numbered, pictures, write_number
from genima_nodes.ros import parameters, qos
from genima_nodes.ros.node_process import run


class Cameras(Source):
    """They publish as realsense2_camera does: reliably with a depth of 1, each with a transport of its own."""

    def __init__(self) -> None:
        super().__init__("recording_cameras", FRAMES)
        self._contexts = [Context() for _ in VIEWS]
        for view, image, info, context in zip(VIEWS, IMAGES, INFOS, self._contexts, strict=True):
            rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
            camera = Node(f"camera_{view}", context=context, start_parameter_services=False, enable_rosout=False)
            self.speak(Image, image, qos.IMAGE, camera)
            self.speak(CameraInfo, info, qos.IMAGE, camera)
        width, height = round(parameters.number(self, "width", 640)), round(parameters.number(self, "height", 480))
        self._data = [array.array("B", picture.tobytes()) for picture in pictures(width, height)]
        self._pixels = [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in self._data]
        self._image = Image(width=width, height=height, encoding="rgb8", step=3 * width)
        self._info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
        self._image.header.frame_id = self._info.header.frame_id = "camera_color_optical_frame"
        self._frame = 0
        self.start()

    def close(self) -> None:
        super().close()
        for context in self._contexts:
            context.try_shutdown()

    def tick(self, deadline: float, periods: int) -> bool:
        """A frame of every camera."""
        for view, (image, info) in enumerate(zip(IMAGES, INFOS, strict=True)):
            turn = (self._frame + view) % len(self._data)
            write_number(self._pixels[turn], numbered(view, self._frame))
            self._image.data = self._data[turn]
            stamp = time.time_ns()
            self.send(image, self._image, self._frame, stamp)
            self.send(info, self._info, self._frame, stamp)
        self._frame += 1
        return True


if __name__ == "__main__":
    sys.exit(run(Cameras, real_time=True))
