"""One process that is a robot's cell to the drivers' users: an arm, a gripper, cameras; the simulator's physics behind.

`python -m standins.hardware --ros-args -p backend:=crisp -p fps:=10.0`
"""

from __future__ import annotations

import sys
import threading

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import UInt32
from std_srvs.srv import Trigger

from genima.robot.backend import ArmBackend, GripperBackend
from genima.robot.model import RobotModel
from genima_interfaces.msg import SceneStatus
from genima_interfaces.srv import ResetScene
from genima_nodes import messages, qos
from genima_nodes.pacing import STEADY, PacedThread
from genima_nodes.running import CONTROL_NICENESS, run
from genima_sim.simulation import Simulation
from standins.arm import PERIOD, TorqueArm
from standins.franka import FrankaDriver
from standins.realsense import RealSenseDrivers
from standins.robotiq import RobotiqDriver

_BATCH = 5  # ms that physics goes at once: threads of Python do not wake 1000 times a second
_STATUS_PERIOD = 0.1  # s


class Hardware(Node):
    """Scene and judge are the simulator's, under its own names; all else has the drivers' names."""

    def __init__(self, simulation: Simulation | None = None, **options: object) -> None:
        """``simulation`` has the joint names of the parameter ``robot``; it is built if None."""
        super().__init__("hardware", **options)  # type: ignore[arg-type]
        robot = RobotModel.load(self.declare_parameter("robot", "fr3").value)
        backend = ArmBackend.load(self.declare_parameter("backend", "crisp").value)
        gripper = GripperBackend.load(self.declare_parameter("gripper", "robotiq_2f140").value)
        fps = self.declare_parameter("fps", 0.0).value  # 0: no cameras
        every = self.declare_parameter("state_every", 1).value  # ms
        self._lock = threading.Lock()
        self._simulation = simulation or Simulation(robot)
        self.arm = TorqueArm(self._simulation, robot)
        self._seed, self._task, self._resets = 0, "", 0
        self.franka = FrankaDriver(self, self.arm, backend, self._lock, every)
        self.gripper = RobotiqDriver(self, gripper, self._open_fraction, self._move_gripper)
        self.cameras = RealSenseDrivers(self, self._simulation, self._look, fps) if fps else None
        self._status = self.create_publisher(SceneStatus, "sim/status", qos.STATUS)
        self._reflexes = self.create_publisher(UInt32, "standin/reflexes", qos.TASK)
        self.create_service(ResetScene, "sim/reset", self._on_reset)
        self.create_service(Trigger, "standin/trip", self._on_trip)
        self.create_timer(_STATUS_PERIOD, self._tell, clock=STEADY)
        self._physics = PacedThread(_BATCH * PERIOD, self._advance, "physics")
        self._physics.start()

    def close(self) -> None:
        """End all threads."""
        self._physics.close()
        self.arm.close()
        if self.cameras is not None:
            self.cameras.close()

    def _advance(self, deadline: float, periods: int) -> bool:
        now = messages.now(self) - _BATCH * PERIOD
        told: list[JointState] = []
        with self._lock:
            for k in range(_BATCH):
                if (message := self.franka.step(now + (k + 1) * PERIOD)) is not None:
                    told.append(message)
        for message in told:
            self.franka.publish(message)
        return True

    def _open_fraction(self) -> float:
        with self._lock:
            return self.arm.joints.gripper

    def _move_gripper(self, fraction: float) -> None:
        with self._lock:
            self.arm.gripper = fraction

    def _look(self):  # type: ignore[no-untyped-def]
        with self._lock:
            return self._simulation.qpos()

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        """The scene is set by hand, and the arm put to its start."""
        with self._lock:
            self.arm.reset(request.task, request.seed)
            self.arm.gripper = 1.0
            self.franka.restart()
        self._task, self._seed, self._resets = request.task, request.seed, self._resets + 1
        response.success, response.instruction = True, self._simulation.instruction
        return response

    def _on_trip(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Somebody bumps into the arm."""
        with self._lock:
            self.arm.trip("joint_velocity_violation", messages.now(self))
            self.franka.collapse("joint_velocity_violation")
        response.success = True
        return response

    def _tell(self) -> None:
        with self._lock:
            status = SceneStatus(
                task=self._task,
                seed=self._seed,
                instruction=self._simulation.instruction,
                success=self._simulation.success,
                resets=self._resets,
            )
        status.header.stamp = messages.time_message(messages.now(self))
        self._status.publish(status)
        self._reflexes.publish(UInt32(data=len(self.franka.reflexes)))


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(Hardware, args, CONTROL_NICENESS, SingleThreadedExecutor)


if __name__ == "__main__":
    sys.exit(main())
