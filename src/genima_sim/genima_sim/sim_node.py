"""Node: the simulated workcell in real time. Physics and joint states in one thread, cameras in another.

Cameras see the moment that they expose at, however long their images then take, as real ones do. What they exposed
meanwhile waits, up to the parameter ``camera_backlog``: none to act on what is new, some to record without gaps.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
from geometry_msgs.msg import Point
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, JointState

from genima import paths
from genima.errors import GenimaError
from genima.handeye.board import Board
from genima.observation import Command
from genima.robot.model import RobotModel
from genima.views import Camera
from genima_interfaces.msg import SceneStatus
from genima_interfaces.srv import ResetScene
from genima_nodes import messages, parameters, qos
from genima_nodes.health import Health
from genima_nodes.pacing import STEADY, PacedThread
from genima_nodes.running import CONTROL_NICENESS, run
from genima_sim.mounted_board import MountedBoard
from genima_sim.rendering import SceneRenderer
from genima_sim.simulation import Simulation

_STATE_RATE = 100.0  # Hz
_STATUS_PERIOD = 0.1  # s
_NO_BOARD = "none"
_BOARD_FILE = "calibration", "boards", "charuco_7x5_a4.yaml"
_BEFORE_RESET = 1.0  # s: what is older still was stamped after the clock was set back


class SimNode(Node):
    """A robot, four cameras and a scene that can be reset."""

    def __init__(self, simulation: Simulation | None = None) -> None:
        """Args:
        simulation: the scene; built for the parameters ``robot`` and ``board`` if None.
        """
        super().__init__("sim_node")
        self._robot = RobotModel.load(self.declare_parameter("robot", "panda").value)
        self._exposure = 1 / parameters.number(self, "camera_rate", 10.0, 0.1, _STATE_RATE)  # s between two
        backlog = round(parameters.number(self, "camera_backlog", 0.0, 0.0, 1000.0))
        board = self._calibration_board()
        self._simulation = simulation or Simulation(self._robot, board)
        self._lock = threading.Lock()  # of the simulation and the three below
        self._command: Command | None = None
        self._seed = self._resets = 0
        self._reset_time = 0.0
        self._task = ""
        self._steps: deque[float] = deque(maxlen=round(_STATE_RATE) + 1)  # when the last second's steps were made
        self._exposed: deque[tuple[np.ndarray, float]] = deque(maxlen=backlog + 1)  # configuration, stamp in s
        self._next_exposure = 0.0  # monotonic s
        self._seen = threading.Semaphore(0)  # counts exposures, and the end
        self._ending = False

        self._health = Health(self)
        self._frames = self._health.meter("frames")
        self._heard = self._health.meter("joint_command")
        self._rendering = self._health.latency("rendering")
        self._health.value("real-time factor", lambda: self.real_time_factor)
        self._health.value("late physics steps", lambda: self._physics.late)

        cameras = self._simulation.cameras
        self._infos = {view: camera_info(camera) for view, camera in cameras.items()}
        self._images = {v: self.create_publisher(Image, f"cameras/{v}/color/image_raw", qos.IMAGE) for v in cameras}
        self._info_publishers = {
            v: self.create_publisher(CameraInfo, f"cameras/{v}/color/camera_info", qos.IMAGE) for v in cameras
        }
        self._states = self.create_publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._status = self.create_publisher(SceneStatus, "sim/status", qos.STATUS)
        self.create_subscription(JointState, "joint_command", self._on_command, qos.JOINT_COMMAND)
        self.create_service(ResetScene, "sim/reset", self._on_reset)
        self.create_timer(_STATUS_PERIOD, self._publish_status, clock=STEADY)
        self._physics = PacedThread(1 / _STATE_RATE, self._advance, "physics", phase=0.5)
        self._filming = threading.Thread(target=self._film, name="cameras", daemon=True)
        self._physics.start()
        self._filming.start()

    def _calibration_board(self) -> MountedBoard | None:
        """For the parameters ``board`` (none, table or gripper) and ``board_file``."""
        place = self.declare_parameter("board", _NO_BOARD).value
        file = self.declare_parameter("board_file", "").value
        if place == _NO_BOARD:
            return None
        return MountedBoard.at(Board.load(Path(file) if file else paths.shared(*_BOARD_FILE)), place)

    def close(self) -> None:
        """End both threads."""
        self._physics.close()
        self._ending = True
        self._seen.release()
        self._filming.join()

    @property
    def real_time_factor(self) -> float:
        """Simulated seconds per second over the last second."""
        times = list(self._steps)
        return (len(times) - 1) / _STATE_RATE / (time.monotonic() - times[0]) if len(times) > 1 else 0.0

    def _on_command(self, message: JointState) -> None:
        self._heard.tick()
        try:
            command = messages.command_from(message, self._robot)
        except GenimaError as error:
            self._heard.drop()
            self._health.fault("joint_command", f"{error}; ignored")
            return
        self._health.clear("joint_command")
        with self._lock:
            before_reset = self._reset_time - _BEFORE_RESET < command.stamp <= self._reset_time
            if not before_reset:  # what was meant for the scene before does not count
                self._command = command

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        try:
            with self._lock:
                self._simulation.reset(request.task, request.seed)
                self._command, self._reset_time = None, messages.now(self)
                self._task, self._seed, self._resets = request.task, request.seed, self._resets + 1
        except GenimaError as error:
            response.success, response.message = False, str(error)
        else:
            response.success, response.instruction = True, self._simulation.instruction
        return response

    def _publish_status(self) -> None:
        with self._lock:
            status = SceneStatus(
                task=self._task,
                seed=self._seed,
                instruction=self._simulation.instruction,
                success=self._simulation.success,
                real_time_factor=self.real_time_factor,
                resets=self._resets,
            )
            for name, (x, y, z) in self._simulation.objects().items():
                status.objects.append(name)
                status.positions.append(Point(x=x, y=y, z=z))
            status.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(status)

    # The physics thread.

    def _advance(self, deadline: float, periods: int) -> bool:
        with self._lock:
            if self._command is not None:
                self._simulation.command(self._command.positions, self._command.gripper)
            self._simulation.step(1 / _STATE_RATE)
            joints = self._simulation.joints()
            stamp = messages.now(self)
            if deadline >= self._next_exposure:
                due = self._next_exposure + self._exposure
                self._next_exposure = due if due > deadline else deadline + self._exposure
                if len(self._exposed) == self._exposed.maxlen:
                    self._frames.drop()
                self._exposed.append((self._simulation.qpos(), stamp))
                self._seen.release()
        self._steps.append(time.monotonic())
        message = messages.joints_message(joints, self._robot)
        message.header.stamp = messages.time_message(stamp)
        self._states.publish(message)
        return True

    # The camera thread.

    def _film(self) -> None:
        renderer = SceneRenderer(self._simulation.model, self._simulation.cameras)
        while True:
            self._seen.acquire()
            if self._ending:
                renderer.close()
                return
            try:
                qpos, stamp = self._exposed.popleft()
            except IndexError:  # it was overtaken by a newer one
                continue
            start = time.monotonic()
            images = renderer.render(qpos)
            self._rendering.add(time.monotonic() - start)
            for view, image in images.items():
                self._images[view].publish(messages.image_message(image, stamp, f"{view}_color_optical_frame"))
                info = self._infos[view]
                info.header.stamp = messages.time_message(stamp)
                self._info_publishers[view].publish(info)
            self._frames.tick()


def camera_info(camera: Camera) -> CameraInfo:
    """The calibration of a camera without distortion."""
    info = CameraInfo(width=camera.width, height=camera.height, distortion_model="plumb_bob", d=[0.0] * 5)
    info.header.frame_id = f"{camera.view}_color_optical_frame"
    info.k, info.r, info.p = camera.K.ravel(), np.eye(3).ravel(), camera.P.ravel()
    return info


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(SimNode, args, CONTROL_NICENESS)


if __name__ == "__main__":
    sys.exit(main())
