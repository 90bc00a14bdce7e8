"""Stand-in for realsense2_camera (4.58): topics of its cameras, and behaviour when they are disconnected.

Topics, frames and metadata are those of realsense-ros's ros_sensor.cpp, rs_node_setup.cpp and tfs.cpp. As in its
realsense_node_factory.cpp, the node of a missing camera runs and retries, without the camera's topics. The depth sensor
is next to the colour lens and has its intrinsics.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import SetBool
from tf2_msgs.msg import TFMessage

from genima.cameras.camera import Camera
from genima.cameras.frame_tree import T_LINK_OPTICAL
from genima.robot.rigid_transforms import pose
from genima_nodes.ros import messages
from genima_nodes.ros.optional_messages import message_type
from genima_nodes.ros.paced_thread import INFERENCE, schedule_in_real_time
from genima_nodes.ros.transform_messages import transform_message
from genima_sim.rendering import SceneRenderer
from genima_sim.scene_node import camera_info
from genima_sim.simulation import Simulation

_DEPTH = QoSProfile(depth=10)  # its SYSTEM_DEFAULT: reliable, volatile
_LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
T_LINK_COLOR = pose(np.eye(3), np.array([0.0, 0.015, 0.0]))  # a D415's link is where its depth sensor is


@dataclass(frozen=True)
class Stream:
    """Publishers of one stream, while its camera runs."""

    image: Publisher
    info: Publisher
    metadata: Publisher
    frame: str

    @classmethod
    def of(cls, node: Node, view: str, name: str, image: str) -> Stream:
        """Create the publishers of a stream; ``image`` is the name of its image topic."""
        metadata = message_type("realsense2_camera_msgs/msg/Metadata")
        kinds = {image: Image, "camera_info": CameraInfo, "metadata": metadata}
        topics = [node.create_publisher(kind, f"cameras/{view}/{name}/{end}", _DEPTH) for end, kind in kinds.items()]
        return cls(*topics, frame=f"{view}_{name}_optical_frame")

    def publish(self, image: Image, info: CameraInfo, number: int) -> None:
        """Publish a stamped frame."""
        image.header.frame_id = info.header.frame_id = self.frame
        info.header.stamp = image.header.stamp
        milliseconds = 1e3 * messages.seconds(image.header.stamp)
        metadata = {"frame_number": number, "clock_domain": "global_time", "frame_timestamp": milliseconds}
        self.image.publish(image)
        self.info.publish(info)
        self.metadata.publish(self.metadata.msg_type(header=image.header, json_data=json.dumps(metadata)))

    def end(self, node: Node) -> None:
        """Destroy the publishers, as the driver does when its camera is disconnected."""
        for publisher in (self.image, self.info, self.metadata):
            node.destroy_publisher(publisher)


class RealSenseDrivers:
    """One driver per view under `cameras/<view>`, all in one thread."""

    def __init__(
        self,
        node: Node,
        simulation: Simulation,
        read_qpos: Callable[[], NDArray[np.float64]],
        fps: float,
        serials: Mapping[str, str] | None = None,
        plugged_in: set[str] | None = None,
        depth: bool = False,
        lost: float = 0.0,
    ) -> None:
        """Args:
        node: node of the publishers.
        simulation: scene of the cameras.
        read_qpos: returns the simulation's configuration, under its lock.
        fps: Hz.
        serials: serial numbers to open, by view.
        plugged_in: serial numbers of the connected cameras; those above if None.
        depth: publish depth images.
        lost: fraction of the images that are lost, as on a full bus.
        """
        self._node, self._simulation, self._read_qpos, self._period = node, simulation, read_qpos, 1 / fps
        self._serials = dict(serials or {view: str(number) for number, view in enumerate(simulation.cameras, start=1)})
        self._plugged_in = set(self._serials.values()) if plugged_in is None else plugged_in
        self._depth, self._lost, self._random = depth, lost, np.random.default_rng(0)
        self._streams: dict[str, dict[str, Stream]] = {}  # of the running cameras; used by the thread only
        self._number = 0
        self._transforms = node.create_publisher(TFMessage, "/tf_static", _LATCHED)
        for view in self._serials:
            node.create_service(SetBool, f"cameras/{view}/standin/unplug", self._unplug_callback(view))
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._publish_images, name="cameras", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ending.set()
        self._thread.join()

    def _unplug_callback(self, view: str):  # type: ignore[no-untyped-def]
        def on_request(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
            (self._plugged_in.discard if request.data else self._plugged_in.add)(self._serials[view])
            response.success = True
            return response

        return on_request

    # The thread.

    def _publish_images(self) -> None:
        schedule_in_real_time(INFERENCE)  # real cameras do not compete for this machine's processors
        cameras = self._simulation.cameras
        renderer = SceneRenderer(self._simulation.model, cameras)
        depths = DepthRenderer(self._simulation.model, cameras) if self._depth else None
        due = time.monotonic()
        for view, serial in self._serials.items():
            if serial not in self._plugged_in:
                self._log(f"The requested device with serial number {serial} is NOT found. Will Try again. ({view})")
        while not self._ending.is_set():
            due = max(due + self._period, time.monotonic())
            self._ending.wait(due - time.monotonic())
            self._update_streams()
            stamp, qpos = messages.now(self._node), self._read_qpos()
            self._number += 1
            images, distances = renderer.render(qpos, self._simulation.model), depths.render(qpos) if depths else {}
            for view, streams in self._streams.items():
                if self._random.random() < self._lost:
                    continue
                info = camera_info(cameras[view])
                streams["color"].publish(messages.image_message(images[view], stamp), info, self._number)
                if self._depth:
                    streams["depth"].publish(messages.depth_message(distances[view], stamp), info, self._number)
        renderer.close()
        if depths:
            depths.close()

    def _update_streams(self) -> None:
        for view, serial in self._serials.items():
            connected, running = serial in self._plugged_in, view in self._streams
            if connected and not running:
                self._streams[view] = {"color": Stream.of(self._node, view, "color", "image_raw")}
                if self._depth:
                    self._streams[view]["depth"] = Stream.of(self._node, view, "depth", "image_rect_raw")
                self._publish_frames()
            elif running and not connected:
                self._log(f"The device has been disconnected! ({view})")
                for stream in self._streams.pop(view).values():
                    stream.end(self._node)

    def _publish_frames(self) -> None:
        """Publish all frames at once: the real drivers have a latched publisher each."""
        stamp, transforms = messages.now(self._node), []
        for view, streams in self._streams.items():
            for name in streams:
                frame = f"{view}_{name}_frame"
                T_link_frame = T_LINK_COLOR if name == "color" else np.eye(4)
                transforms.append(transform_message(stamp, f"{view}_link", frame, T_link_frame))
                transforms.append(transform_message(stamp, frame, f"{view}_{name}_optical_frame", T_LINK_OPTICAL))
        self._transforms.publish(TFMessage(transforms=transforms))

    def _log(self, line: str) -> None:
        self._node.get_logger().error(line)


class DepthRenderer:
    """Distances along the optical axis from the cameras' depth sensors. Belongs to the thread that made it."""

    def __init__(self, model: mujoco.MjModel, cameras: Mapping[str, Camera]) -> None:
        (size,) = {(camera.height, camera.width) for camera in cameras.values()}
        self._renderer = mujoco.Renderer(model, *size)
        self._renderer.enable_depth_rendering()
        self._model, self._data, self._views = model, mujoco.MjData(model), tuple(cameras)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = [1, 1, 0, 0, 0, 0]

    def render(self, qpos: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
        """Return depth images by view, (h, w) m."""
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        depth_images = {}
        for view in self._views:
            index = self._data.cam(view).id
            R_world_camera = self._data.cam_xmat[index].reshape(3, 3)  # x right, y up
            self._data.cam_xpos[index] += R_world_camera @ [T_LINK_COLOR[1, 3], 0, 0]  # to the right of the colour lens
            self._renderer.update_scene(self._data, view, self._options)
            depth_images[view] = self._renderer.render().copy()
        return depth_images

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()
