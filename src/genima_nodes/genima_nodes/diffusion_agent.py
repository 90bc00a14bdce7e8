"""Node: four synchronised images and the task's words in, drawn targets out, as fast as the model draws."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from rclpy.node import Node
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from genima.checkpoint import DIFFUSION_AGENT, read_pair
from genima.diffusion import DiffusionAgent
from genima.errors import GenimaError
from genima.observation import DrawnTarget, Image, Joints, Observation
from genima.views import untile
from genima_interfaces.msg import DrawnTarget as DrawnTargetMessage
from genima_nodes import messages, qos
from genima_nodes.health import Health
from genima_nodes.newest import Newest
from genima_nodes.running import DRAWING_NICENESS, run

_SILENT = 1.0  # s without an image after which a camera counts as stopped
_STALE_JOINTS = 0.1  # s


@dataclass(frozen=True)
class View:
    """One image as it came in."""

    stamp: float
    arrival: float  # monotonic s
    image: Image


class DiffusionAgentNode(Node):
    """Draws for the newest set of images while a task is in force."""

    def __init__(self, agent: DiffusionAgent | None = None) -> None:
        """Args:
        agent: what draws; loaded from the parameter ``checkpoint`` if None.
        """
        super().__init__("diffusion_agent")
        checkpoint = self.declare_parameter("checkpoint", "").value
        device = self.declare_parameter("device", "cpu").value
        self._seed = int(self.declare_parameter("seed", 0).value)
        self._tolerance = float(self.declare_parameter("sync_tolerance", 0.02).value)
        torch.set_num_threads(int(self.declare_parameter("threads", 1).value))
        self._agent = agent or DiffusionAgent.from_pretrained(read_pair(checkpoint)[1][DIFFUSION_AGENT], device)
        self._task = ""
        self._views: dict[str, View] = {}
        # Unknown until measured; only a virtual view looks at them, and refuses to draw what is not finite.
        self._joints = Joints(0.0, np.full(len(self._agent.robot.joint_names), np.nan), np.nan)
        self._sets: Newest[dict[str, View]] = Newest()

        self._health = Health(self)
        self._drawn = self._health.meter("drawn targets")
        self._latency = self._health.latency("image to drawn target")
        self._cameras = {view: self._health.meter(f"image {view}") for view in self._agent.camera_views}
        self._health.value("skipped observations", lambda: self._sets.skipped)
        self._health.watch(self._watch_cameras)

        self._publisher = self.create_publisher(DrawnTargetMessage, "drawn_target", qos.DRAWN_TARGET)
        self._eyes = {
            view: self.create_publisher(ImageMessage, f"drawn_target/{view}/image", qos.IMAGE)
            for view in self._agent.views
        }
        self.create_subscription(String, "task", self._on_task, qos.TASK)
        for view in self._agent.camera_views:
            self.create_subscription(
                ImageMessage, f"cameras/{view}/color/image_raw", self._image_callback(view), qos.IMAGE
            )
        if self._agent.camera_views != self._agent.views:  # the virtual view shows the measured joints
            self.create_subscription(JointState, "joint_states", self._on_joints, qos.JOINT_STATES)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._draw_forever, name="drawing", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the drawing thread after its current drawing."""
        self._stop.set()
        self._thread.join()

    def _on_task(self, message: String) -> None:
        self._task = message.data.strip()
        self._sets.clear()

    def _on_joints(self, message: JointState) -> None:
        try:
            self._joints = messages.joints_from(message, self._agent.robot)
        except GenimaError as error:
            self._health.fault("joint_states", str(error))
            return
        self._health.clear("joint_states")

    def _image_callback(self, view: str) -> Callable[[ImageMessage], None]:
        def on_image(message: ImageMessage) -> None:
            self._cameras[view].tick()
            try:
                image = messages.image_from(message, self._agent.camera_size)
            except GenimaError as error:
                self._health.fault(f"camera {view}", str(error))
                self._views.pop(view, None)
                return
            self._health.clear(f"camera {view}")
            self._views[view] = View(messages.seconds(message.header.stamp), time.monotonic(), image)
            self._offer_set()

        return on_image

    def _offer_set(self) -> None:
        """Pass the newest images on if they are of one moment and a task is in force."""
        if not self._task or len(self._views) < len(self._agent.camera_views):
            return
        stamps = [view.stamp for view in self._views.values()]
        if max(stamps) - min(stamps) <= self._tolerance:
            self._sets.put(dict(self._views))
            self._views.clear()  # every image counts once

    def _watch_cameras(self) -> None:
        for view, meter in self._cameras.items():
            about = f"camera {view} silent"
            if meter.age > _SILENT:
                self._health.fault(about, f"no image for {meter.age:.1f} s" if meter.total else "no image yet")
            else:
                self._health.clear(about)

    def _draw_forever(self) -> None:
        while not self._stop.is_set():
            views, task = self._sets.take(timeout=0.1), self._task
            if views and task:
                self._draw(views, task)

    def _draw(self, views: dict[str, View], task: str) -> None:
        stamp = min(view.stamp for view in views.values())
        observation = Observation(stamp, {name: view.image for name, view in views.items()}, self._joints, task)
        try:
            self._require_joints_of(stamp)
            drawn = self._agent.draw(observation, self._seed + self._drawn.total)
        except GenimaError as error:
            self._health.fault("drawing", str(error))
            return
        self._health.clear("drawing")
        if task == self._task:
            self._publish(drawn, time.monotonic() - max(view.arrival for view in views.values()))

    def _require_joints_of(self, stamp: float) -> None:
        """A virtual view of an old state would show the arm where it is not."""
        if self._agent.camera_views != self._agent.views and abs(stamp - self._joints.stamp) > _STALE_JOINTS:
            raise GenimaError(f"no joint states within {_STALE_JOINTS} s of the images, for the virtual view")

    def _publish(self, drawn: DrawnTarget, latency: float) -> None:
        self._publisher.publish(messages.drawn_target_message(drawn, latency, self._sets.skipped))
        self._drawn.tick()
        self._latency.add(latency)
        if any(eye.get_subscription_count() for eye in self._eyes.values()):
            for view, image in untile(drawn.tile, drawn.views).items():
                self._eyes[view].publish(messages.image_message(image, drawn.stamp, f"{view}_color_optical_frame"))


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(DiffusionAgentNode, args, DRAWING_NICENESS)


if __name__ == "__main__":
    sys.exit(main())
