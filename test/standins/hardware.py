"""Stand-in for the drivers of arm, gripper and cameras in one process, with the simulator's physics.

`python -m standins.hardware --ros-args -p backend:=crisp -p fps:=10.0`

A file as in config/cameras has the cameras' serial numbers; `plugged_in` lists those that are connected.
"""

from __future__ import annotations

import sys
import threading

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import UInt32
from std_srvs.srv import Trigger

from genima.cameras.camera_devices import load_camera_devices
from genima.robot.backend import ArmBackend, GripperBackend
from genima.robot.model import RobotModel
from genima_interfaces.msg import SceneStatus
from genima_interfaces.srv import ResetScene
from genima_nodes.ros import messages, qos
from genima_nodes.ros.node_process import CONTROL_NICENESS, run
from genima_nodes.ros.paced_thread import STEADY, PacedThread
from genima_sim.simulation import Simulation
from standins.arm import PERIOD, TorqueArm
from standins.franka import FrankaDriver
from standins.realsense import RealSenseDrivers
from standins.robotiq import RobotiqDriver

_BATCH = 5  # ms per physics batch: Python threads do not wake up 1000 times a second
_CATCH_UP = 200  # batches: a second
_STATUS_PERIOD = 0.1  # s


class Hardware(Node):
    """Scene and success with the simulator's topic names; everything else with the drivers' names."""

    def __init__(self, simulation: Simulation | None = None, **options: object) -> None:
        """``simulation`` has the joint names of the parameter ``robot``; it is built if None."""
        super().__init__("hardware", **options)  # type: ignore[arg-type]
        robot = RobotModel.load(self.declare_parameter("robot", "fr3").value)
        backend = ArmBackend.load(self.declare_parameter("backend", "crisp").value)
        gripper = GripperBackend.load(self.declare_parameter("gripper", "robotiq_2f140").value)
        fps = self.declare_parameter("fps", 0.0).value  # 0: no cameras
        state_every = self.declare_parameter("state_every", 1).value  # ms
        cameras = self.declare_parameter("cameras", "four_d415").value
        plugged_in = list(self.declare_parameter("plugged_in", ["all"]).value)
        depth = self.declare_parameter("depth", False).value
        lost = self.declare_parameter("lost", 0.0).value  # share of the images
        self._lock = threading.Lock()
        self._simulation = simulation or Simulation(robot)
        self.arm = TorqueArm(self._simulation, robot)
        self._seed, self._task, self._resets = 0, "", 0
        self.franka = FrankaDriver(self, self.arm, backend, self._lock, state_every)
        # A node of its own: it awaits, which the other executor cannot before rclpy 7.1.9; this one costs four times
        # as much per callback.
        self._gripper_node = Node("gripper_driver", context=self.context)
        self.gripper = RobotiqDriver(self._gripper_node, gripper, self._open_fraction, self._move_gripper)
        self._gripper_executor = SingleThreadedExecutor(context=self.context)
        self._gripper_executor.add_node(self._gripper_node)
        self._gripper_thread = threading.Thread(target=self._spin_gripper, name="gripper", daemon=True)
        self.cameras: RealSenseDrivers | None = None
        if fps:
            serials = {view: device.serial for view, device in load_camera_devices(cameras).items()}
            connected = set(serials.values()) if plugged_in == ["all"] else set(plugged_in)
            self.cameras = RealSenseDrivers(
                self, self._simulation, self._read_qpos, fps, serials, connected, depth, lost
            )
        self._status = self.create_publisher(SceneStatus, "sim/status", qos.STATUS)
        self._reflexes = self.create_publisher(UInt32, "standin/reflexes", qos.TASK)
        self.create_service(ResetScene, "sim/reset", self._on_reset)
        self.create_service(Trigger, "standin/trip", self._on_trip)
        self.create_timer(_STATUS_PERIOD, self._publish_status, clock=STEADY)
        self._physics = PacedThread(_BATCH * PERIOD, self._advance, "physics")
        self._physics.start()
        self._ending = threading.Event()
        self._gripper_thread.start()

    def close(self) -> None:
        """End all threads."""
        self._ending.set()
        self._gripper_thread.join()
        self._gripper_executor.shutdown()
        self._gripper_node.destroy_node()
        self._physics.close()
        self.arm.close()
        if self.cameras is not None:
            self.cameras.close()

    def _spin_gripper(self) -> None:
        while not self._ending.is_set():
            self._gripper_executor.spin_once(timeout_sec=0.1)

    def _advance(self, deadline: float, periods: int) -> bool:
        steps = _BATCH * min(periods, _CATCH_UP)
        now = messages.now(self) - steps * PERIOD
        joint_states: list[JointState] = []
        with self._lock:
            for k in range(steps):
                if (message := self.franka.step(now + (k + 1) * PERIOD)) is not None:
                    joint_states.append(message)
        for message in joint_states:
            self.franka.publish(message)
        return True

    def _open_fraction(self) -> float:
        with self._lock:
            return self.arm.joints.gripper

    def _move_gripper(self, fraction: float) -> None:
        with self._lock:
            self.arm.gripper = fraction

    def _read_qpos(self):  # type: ignore[no-untyped-def]
        with self._lock:
            return self._simulation.qpos()

    def _on_reset(self, request: ResetScene.Request, response: ResetScene.Response) -> ResetScene.Response:
        """Reset the scene and move the arm to its start."""
        with self._lock:
            self.arm.reset(request.task, request.seed)
            self.arm.gripper = 1.0
            self.franka.restart()
        self._task, self._seed, self._resets = request.task, request.seed, self._resets + 1
        response.success, response.instruction = True, self._simulation.instruction
        return response

    def _on_trip(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Simulate a collision."""
        with self._lock:
            self.arm.trip("joint_velocity_violation", messages.now(self))
            self.franka.enter_reflex("joint_velocity_violation")
        response.success = True
        return response

    def _publish_status(self) -> None:
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
    return run(Hardware, args, CONTROL_NICENESS, real_time=True)


if __name__ == "__main__":
    sys.exit(main())
