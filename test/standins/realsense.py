"""What realsense2_camera shows of its colour cameras: images and camera_info, and drop-outs on request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import SetBool

from genima_nodes import messages
from genima_sim.rendering import SceneRenderer
from genima_sim.scene_node import camera_info
from genima_sim.simulation import Simulation

_DEPTH = QoSProfile(depth=10)  # realsense2_camera's SYSTEM_DEFAULT: reliable, volatile


class RealSenseDrivers:
    """All cameras of the scene, in one thread; one includes one camera each, under `cameras/<view>`."""

    def __init__(self, node: Node, simulation: Simulation, look: Callable[[], NDArray], fps: float) -> None:
        """``look`` gives the simulation's configuration, under its lock."""
        self._node, self._simulation, self._look, self._period = node, simulation, look, 1 / fps
        self.unplugged: set[str] = set()
        self._infos = {view: camera_info(camera) for view, camera in simulation.cameras.items()}
        topic = "cameras/{}/color/{}".format
        self._images = {v: node.create_publisher(Image, topic(v, "image_raw"), _DEPTH) for v in self._infos}
        self._told = {v: node.create_publisher(CameraInfo, topic(v, "camera_info"), _DEPTH) for v in self._infos}
        for view in self._infos:
            node.create_service(SetBool, f"cameras/{view}/standin/unplug", self._unplugging(view))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._film, name="cameras", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ending.set()
        self._thread.join()

    def _unplugging(self, view: str):  # type: ignore[no-untyped-def]
        def on_request(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
            (self.unplugged.add if request.data else self.unplugged.discard)(view)
            response.success = True
            return response

        return on_request

    def _film(self) -> None:
        renderer = SceneRenderer(self._simulation.model, self._simulation.cameras)
        due = time.monotonic()
        while not self._ending.is_set():
            due = max(due + self._period, time.monotonic())
            self._ending.wait(due - time.monotonic())
            stamp = messages.now(self._node)
            for view, image in renderer.render(self._look()).items():
                if view in self.unplugged:
                    continue
                self._images[view].publish(messages.image_message(image, stamp, f"{view}_color_optical_frame"))
                info = self._infos[view]
                info.header.stamp = messages.time_message(stamp)
                self._told[view].publish(info)
        renderer.close()
