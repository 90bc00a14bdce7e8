"""Node: four synchronised images and the task's words in, drawn targets out, as fast as the model draws."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import String

from genima.cameras.calibration_file import load_cameras
from genima.cameras.intrinsics import CameraIntrinsics
from genima.cameras.tiling import untile
from genima.cameras.undistortion import Undistorter
from genima.errors import GenimaError
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline
from genima.policy.diffusion_agent.execution_config import spare_threads
from genima.policy.diffusion_agent.sampling_options import CONTROLNET_EVERY, STEPS, STRENGTH, SamplingOptions
from genima.policy.spec import DIFFUSION_AGENT, read_pair
from genima.types import DrawnTarget, Image, Joints, Observation
from genima_interfaces.msg import DrawnTarget as DrawnTargetMessage
from genima_interfaces.msg import Observed
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.latest_value import LatestValue
from genima_nodes.ros.node_process import DRAWING_NICENESS, run
from genima_nodes.ros.paced_thread import STEADY, schedule_in_background

_TELL = 0.02  # s between words about what is seen
_SILENT = 1.0  # s without an image after which a camera counts as stopped
_STALE_JOINTS = 0.1  # s
_UNSEEN = 0.004  # rad that no joint can turn without a change of every picture (in the simulation 0.0025 suffice)
_SAME_MOMENT = 0.03  # s between an image and the joints that it shows


@dataclass(frozen=True)
class CameraView:
    """One image as it came in."""

    stamp: float
    arrival: float  # monotonic s
    image: Image


@dataclass(frozen=True)
class Change:
    """The first of a run of images that are all the same."""

    image: Image
    joints: NDArray[np.float64]  # (n,) rad, where the arm was; NaN where nobody knows


class DiffusionAgentNode(Node):
    """Draws for the newest set of images while a task is in force."""

    def __init__(self, agent: DiffusionAgent | None = None, **options: Any) -> None:
        """Args:
        agent: what draws; loaded from the parameter ``checkpoint`` if None.
        options: those of a node.

        Raises:
            GenimaError: for parameters that make no sense, a calibration that is damaged or lacks a view, and a device
                that cannot draw.
        """
        super().__init__("diffusion_agent", **options)
        checkpoint = parameters.text(self, "checkpoint", "")
        device = parameters.text(self, "device", "cpu")
        self._seed = parameters.integer(self, "seed", 0, 0, 2**62)
        self._tolerance = parameters.number(self, "sync_tolerance", 0.034)  # s; cameras at 30 Hz have no common trigger
        self._straggling = parameters.number(self, "straggler_timeout", 0.1)  # s after the first image of a set
        calibration = parameters.text(self, "calibration", "")  # empty: images are taken as they are
        torch.set_num_threads(parameters.integer(self, "threads", 0, 0, 1024) or spare_threads())
        shortcuts = SamplingOptions(
            steps=parameters.integer(self, "steps", 0, 0, STEPS[1]) or None,  # 0: the checkpoint's
            strength=parameters.number(self, "strength", 1.0, *STRENGTH),
            controlnet_every=parameters.integer(self, "controlnet_every", 1, *CONTROLNET_EVERY),
            tiny_decoder=parameters.text(self, "tiny_decoder", "") or None,
        )
        self._health = DiagnosticUpdater(self)
        if agent is None:
            agent = DiffusionAgent.from_pretrained(read_pair(checkpoint)[1][DIFFUSION_AGENT], device)
            engine = agent.engine = CompiledPipeline(agent, shortcuts)
            minutes = ", which takes minutes the first time" if engine.plan.compile else ""
            self.get_logger().info(f"preparing to draw with {engine.plan}{minutes}")
            engine.warm_up()  # before anyone waits for a drawing
            self._health.value("drawing", lambda: engine.plan)
        self._agent = agent
        self._former: DrawnTarget | None = None
        self._task = ""
        self._views: dict[str, CameraView] = {}
        self._changes: dict[str, Change] = {}
        self._problems: dict[str, str] = {}  # by view
        self._rectifiers = self._load_rectifiers(calibration) if calibration else {}  # by view
        self._lenses: dict[str, bytes] = {}  # what each camera_info said last, by view
        self._misfits: dict[str, str] = {}  # how that does not fit the calibration, by view
        self._stamps: dict[str, float] = {}  # of the newest images, good or not
        self._last_set, self._set_stamp = float("-inf"), 0.0  # monotonic s; stamp
        # Unknown until measured: a virtual view refuses to draw what is not finite, and no camera counts as frozen.
        self._unknown = Joints(0.0, np.full(len(self._agent.robot.joint_names), np.nan), np.nan)
        self._sets: LatestValue[dict[str, CameraView]] = LatestValue()

        self._drawn = self._health.meter("drawn targets")
        self._latency = self._health.latency("image to drawn target")
        self._apart = self._health.latency("images of a set apart")
        self._cameras = {view: self._health.meter(f"image {view}") for view in self._agent.camera_views}
        self._health.skipped("observations", lambda: self._sets.skipped)
        self._health.watch(self._watch_cameras)

        self._observed = self.create_publisher(Observed, "observed", qos.OBSERVED)
        self.create_timer(_TELL, self._tell, clock=STEADY)
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
        for view in self._rectifiers:
            self.create_subscription(
                CameraInfo, f"cameras/{view}/color/camera_info", self._info_callback(view), qos.IMAGE
            )
        self._joints = JointStates(self, self._health, self._agent.robot)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._draw_forever, name="drawing", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the drawing thread after its current drawing."""
        self._stop.set()
        self._thread.join()

    def _load_rectifiers(self, calibration: str) -> dict[str, Undistorter]:
        cameras = load_cameras(calibration)
        if missing := [view for view in self._agent.camera_views if view not in cameras]:
            raise GenimaError(f"diffusion_agent: calibration {calibration} lacks {', '.join(missing)}")
        return {view: Undistorter(cameras[view]) for view in self._agent.camera_views}

    def _on_task(self, message: String) -> None:
        self._task = message.data.strip()
        self._sets.clear()

    def _info_callback(self, view: str) -> Callable[[CameraInfo], None]:
        def on_info(message: CameraInfo) -> None:
            said = bytes(f"{message.width} {message.height}", "ascii") + message.k.tobytes() + message.d.tobytes()
            if said == self._lenses.get(view):
                return
            self._lenses[view] = said
            self._misfits.pop(view, None)
            if not message.k.any():  # of a driver that knows no lens
                return
            try:
                lens = CameraIntrinsics.from_camera_info(
                    message.width, message.height, message.distortion_model, message.d, message.k
                )
                self._rectifiers[view].require(lens)
            except GenimaError as error:
                self._misfits[view] = str(error)

        return on_info

    def _image_callback(self, view: str) -> Callable[[ImageMessage], None]:
        def on_image(message: ImageMessage) -> None:
            self._cameras[view].tick()
            stamp = self._stamps[view] = messages.seconds(message.header.stamp)
            try:
                image = messages.image_from(message, self._agent.camera_size)
                if view in self._misfits:
                    raise GenimaError(self._misfits[view])
                self._require_change(view, stamp, image)
            except GenimaError as error:
                self._cameras[view].drop()
                self._problems[view] = f"camera {view}: {error}"
                self._health.fault(f"camera {view}", str(error))
                self._views.pop(view, None)
                self._tell()
                return
            self._problems.pop(view, None)
            self._health.clear(f"camera {view}")
            self._views[view] = CameraView(stamp, time.monotonic(), image)
            self._offer_set()

        return on_image

    def _tell(self) -> None:
        """Say what is seen: silence is a bad sign."""
        problems = [*self._problems.values(), *self._stragglers()]
        message = Observed(problem="; ".join(problems))
        message.header.stamp = messages.time_message(self._set_stamp)
        self._observed.publish(message)

    def _stragglers(self) -> Iterator[str]:
        """The cameras whose images of this moment should have come with the others'."""
        views = list(self._views.items())
        if views and time.monotonic() - min(view.arrival for _, view in views) > self._straggling:
            newest = max(view.stamp for _, view in views)
            there = [name for name, view in views if newest - view.stamp <= self._tolerance]
            if missing := [view for view in self._agent.camera_views if view not in there]:
                yield f"no image of {', '.join(missing)} with the others'"

    def _require_change(self, view: str, stamp: float, image: Image) -> None:
        """A camera whose pictures stay the same while the arm moves shows the past."""
        last = self._changes.get(view)
        joints = (self._joints.at(stamp, _SAME_MOMENT) or self._unknown).positions
        same = last is not None and np.array_equal(image, last.image)
        if last is None or not same or np.isnan(last.joints).any():
            self._changes[view] = Change(image, joints)
        elif np.max(np.abs(joints - last.joints)) > _UNSEEN:
            raise GenimaError("the image has not changed while the arm moved: the camera is frozen")

    def _offer_set(self) -> None:
        """Pass the newest images on if they are of one moment and a task is in force."""
        if len(self._views) < len(self._agent.camera_views):
            return
        stamps = [view.stamp for view in self._views.values()]
        if max(stamps) - min(stamps) > self._tolerance:
            return
        self._last_set, self._set_stamp = time.monotonic(), min(stamps)
        self._apart.add(self._last_set - min(view.arrival for view in self._views.values()))
        self._tell()
        if self._task:
            self._sets.put(dict(self._views))
        self._views.clear()  # every image counts once

    def _watch_cameras(self) -> None:
        silent = False
        for view, meter in self._cameras.items():
            about = f"camera {view} silent"
            if meter.age > _SILENT:
                silent = True
                self._health.fault(about, f"no image for {_SILENT:g} s" if meter.total else "no image yet")
            else:
                self._health.clear(about)
        if not silent and time.monotonic() - self._last_set > _SILENT:
            last = min(self._stamps, key=self._stamps.__getitem__)
            behind = max(self._stamps.values()) - self._stamps[last]
            self._health.fault("cameras", f"no images of one moment; the oldest are of {last}, by {behind:.1f} s")
        else:
            self._health.clear("cameras")

    def _draw_forever(self) -> None:
        schedule_in_background(computing=torch.get_num_threads() == 1)  # only seeing has deadlines
        while not self._stop.is_set():
            views, task = self._sets.take(timeout=0.1), self._task
            if views and task:
                self._draw(views, task)

    def _draw(self, views: dict[str, CameraView], task: str) -> None:
        stamp = min(view.stamp for view in views.values())
        joints = self._joints.newest or self._unknown
        try:
            self._require_joints_of(stamp, joints)
            images = {name: self._rectified(name, view.image) for name, view in views.items()}
            observation = Observation(stamp, images, joints, task)
            drawn = self._former = self._agent.generate(observation, self._seed + self._drawn.total, self._former)
        except GenimaError as error:
            self._health.fault("drawing", str(error))
            return
        self._health.clear("drawing")
        if task == self._task:
            self._publish(drawn, time.monotonic() - max(view.arrival for view in views.values()))

    def _rectified(self, view: str, image: Image) -> Image:
        return self._rectifiers[view](image) if view in self._rectifiers else image

    def _require_joints_of(self, stamp: float, joints: Joints) -> None:
        """A virtual view of an old state would show the arm where it is not."""
        if self._agent.camera_views != self._agent.views and abs(stamp - joints.stamp) > _STALE_JOINTS:
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
    return run(DiffusionAgentNode, args, DRAWING_NICENESS, real_time=True, role="diffusion_agent")


if __name__ == "__main__":
    sys.exit(main())
