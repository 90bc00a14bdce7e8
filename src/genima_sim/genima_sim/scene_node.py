"""Base class of simulator nodes: a robot, its cameras and a scene that can be reset."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, JointState
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import String

from genima.cameras.camera import Camera
from genima.errors import GenimaError
from genima.types import Command, Image, Joints
from genima_interfaces.msg import SceneStatus
from genima_interfaces.srv import ResetScene
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.paced_thread import STEADY, PacedThread
from genima_nodes.ros.transform_messages import pose_message

_MAX_CAMERA_RATE = 100.0  # Hz
_STATUS_PERIOD = 0.1  # s
_FACTOR_WINDOW = 1.0  # s over which the real-time factor is measured
_BEFORE_RESET = 1.0  # s: an older stamp means that the clock was set back


class Scene(Protocol):
    """Scene whose time passes only in :meth:`step`, for one thread at a time."""

    @property
    def instruction(self) -> str:
        """Instruction of the episode."""

    @property
    def success(self) -> bool:
        """Return whether the task was accomplished since it started."""

    def reset(self, task: str, seed: int) -> None:
        """Start an episode; raise a GenimaError for an unknown task."""

    def start_task(self) -> None:
        """Judge success from now on; it is true at once where the goal state holds already."""

    def bodies(self) -> Mapping[str, NDArray[np.float64]]:
        """Return the poses of the objects' bodies by name, (4, 4) in the base frame each."""

    def command(self, positions: NDArray[np.floating], gripper: float) -> None:
        """Set the joint position targets (n,) in rad and the gripper's open fraction; held until the next."""

    def step(self, seconds: float) -> None:
        """Let time pass."""

    def joints(self) -> Joints:
        """Return the joints as measured now, stamped by the scene's time."""


class SceneNode(Node):
    """Step a scene in real time in a thread; publish joints, images and the state of the task."""

    def __init__(self, name: str, camera_rate: float = 10.0, **options: Any) -> None:
        """Args:
        name: of the node.
        camera_rate: Hz; default of the parameter of that name.
        options: those of a node.
        """
        super().__init__(name, **options)
        self._cell = parameters.cell(self)
        self._robot = self._cell.robot
        self._exposure = 1 / parameters.number(self, "camera_rate", camera_rate, 0.1, _MAX_CAMERA_RATE)  # s between two
        self._lock = threading.Lock()  # of the scene and the three below
        self._command: Command | None = None
        self._seed = self._resets = 0
        self._reset_time = 0.0
        self._task = ""
        self._next_exposure = 0.0  # monotonic s
        self._diagnostics = DiagnosticUpdater(self)
        self._frames = self._diagnostics.add_topic("frames")
        self._commands = self._diagnostics.add_topic("joint_command")

    def _simulate(self, scene: Scene, cameras: Mapping[str, Camera], period: float, catch_up: int = 1) -> None:
        """Start.

        Args:
            scene: the scene to step.
            cameras: its cameras, by view.
            period: s between steps, and between joint states.
            catch_up: periods that are simulated at once, at most, after an interruption.
        """
        self._scene, self._period, self._catch_up = scene, period, catch_up
        # monotonic and scene's s
        self._steps: deque[tuple[float, float]] = deque(maxlen=round(_FACTOR_WINDOW / period) + 1)
        self._diagnostics.add_value("real-time factor", lambda: self.real_time_factor)
        self._diagnostics.add_value("late physics steps", lambda: self._physics.late)
        self._set_cameras(cameras)
        self._images = {
            v: self.create_publisher(ImageMessage, f"cameras/{v}/color/image_raw", qos.IMAGE) for v in cameras
        }
        self._depth = {
            v: self.create_publisher(ImageMessage, messages.depth_topic(v), qos.IMAGE)
            for v in (cameras if self._cell.depth else ())
        }
        self._info_publishers = {
            v: self.create_publisher(CameraInfo, f"cameras/{v}/color/camera_info", qos.IMAGE) for v in cameras
        }
        self._states = self.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._status = self.create_publisher(SceneStatus, "sim/status", qos.STATUS)
        self.create_subscription(JointState, "joint_command", self._on_command, qos.JOINT_COMMAND)
        self.create_subscription(String, "task", self._on_task, qos.TASK)
        self.create_service(ResetScene, "sim/reset", self._on_reset)
        self.create_timer(_STATUS_PERIOD, self._publish_status, clock=STEADY)
        self._physics = PacedThread(period, self._advance, "physics", phase=0.5)
        self._physics.start()

    def _set_cameras(self, cameras: Mapping[str, Camera]) -> None:
        """Set what camera_info publishes."""
        self._infos = {view: camera_info(camera) for view, camera in cameras.items()}

    def close(self) -> None:
        """End the thread."""
        self._physics.close()

    @property
    def real_time_factor(self) -> float:
        """Simulated seconds per second over the last second."""
        steps = list(self._steps)
        return (steps[-1][1] - steps[0][1]) / (time.monotonic() - steps[0][0]) if len(steps) > 1 else 0.0

    @abstractmethod
    def _expose(self, stamp: float) -> None:
        """Take images of all cameras at ``stamp`` in s. Called in the physics thread, which holds the lock."""

    def _publish_joints(self, joints: Joints, stamp: float) -> None:
        message = messages.joints_message(joints, self._robot)
        message.header.stamp = messages.time_message(stamp)
        self._states.publish(message)

    def _depth_views(self) -> list[str]:
        """Return the views whose depth images are subscribed to."""
        return [view for view, publisher in self._depth.items() if publisher.get_subscription_count()]

    def _publish_images(
        self, images: Mapping[str, Image], stamp: float, depth: Mapping[str, NDArray[np.float32]] | None = None
    ) -> None:
        """Publish images, and depth images (h, w) in m, by view."""
        for view, image in images.items():
            self._images[view].publish(messages.image_message(image, stamp, f"{view}_color_optical_frame"))
            if depth and view in depth:
                message = messages.depth_message(depth[view], stamp, f"{view}_color_optical_frame")
                self._depth[view].publish(message)
            info = self._infos[view]
            info.header.stamp = messages.time_message(stamp)
            self._info_publishers[view].publish(info)
        self._frames.tick()

    def _due_command(self) -> Command | None:
        """Return the command to carry out now; None: keep the targets."""
        return self._command

    def _on_command(self, message: JointState) -> None:
        self._commands.tick()
        try:
            command = messages.command_from(message, self._robot)
        except GenimaError as error:
            self._commands.drop()
            self._diagnostics.set_fault("joint_command", f"{error}; ignored")
            return
        self._diagnostics.clear_fault("joint_command")
        with self._lock:
            before_reset = self._reset_time - _BEFORE_RESET < command.stamp <= self._reset_time
            if not before_reset:  # a command for the scene before is dropped
                self._command = command

    def _on_task(self, message: String) -> None:
        if message.data:
            with self._lock, contextlib.suppress(GenimaError):  # a lost connection is reported by the physics thread
                self._scene.start_task()

    def _reset_scene(self, task: str, seed: int) -> None:
        """Start an episode; raise a GenimaError for an unknown task."""
        self._scene.reset(task, seed)

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        try:
            with self._lock:
                self._reset_scene(request.task, request.seed)
                self._steps.clear()  # the scene's time starts at 0
                self._command, self._reset_time = None, messages.now(self)
                self._task, self._seed, self._resets = request.task, request.seed, self._resets + 1
        except GenimaError as error:
            response.success, response.message = False, str(error)
        else:
            response.success, response.instruction = True, self._scene.instruction
        return response

    def _publish_status(self) -> None:
        with self._lock:
            status = SceneStatus(
                task=self._task,
                seed=self._seed,
                instruction=self._scene.instruction,
                success=self._scene.success,
                real_time_factor=self.real_time_factor,
                resets=self._resets,
            )
            try:
                bodies = self._scene.bodies()
            except GenimaError as error:
                bodies = {}
                self._diagnostics.set_fault("bodies", str(error))
            else:
                self._diagnostics.clear_fault("bodies")
            status.bodies = list(bodies)
            status.poses = [pose_message(T) for T in bodies.values()]
            status.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(status)

    # The physics thread.

    def _advance(self, deadline: float, periods: int) -> bool:
        with self._lock:
            if command := self._due_command():
                self._scene.command(command.positions, command.gripper)
            self._scene.step(min(periods, self._catch_up) * self._period)
            joints = self._scene.joints()
            stamp = messages.now(self)
            self._steps.append((time.monotonic(), joints.stamp))
            self._publish_joints(joints, stamp)  # before the images, which may take their time
            if deadline >= self._next_exposure:
                due = self._next_exposure + self._exposure
                self._next_exposure = due if due > deadline else deadline + self._exposure
                self._expose(stamp)
        return True


def camera_info(camera: Camera) -> CameraInfo:
    """Return the calibration of a camera as a message."""
    fields = camera.camera_info()
    info = CameraInfo(**fields | {"d": fields["d"].tolist()})
    info.header.frame_id = f"{camera.view}_color_optical_frame"
    return info
