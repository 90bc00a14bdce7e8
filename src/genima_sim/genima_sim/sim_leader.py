"""Node: a leader arm in simulation, moved by the scripted experts.

It knows the scene as the simulator does, from the same task and seed, and stands where episodes begin until it is told
to play (`leader/play`). `leader/joint_states` carries its joints at 200 Hz, with their speeds.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
from rclpy.node import Node
from scipy.interpolate import CubicSpline
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima_interfaces.msg import SceneStatus
from genima_nodes import messages, parameters, qos
from genima_nodes.answering import answering
from genima_nodes.health import Health
from genima_nodes.pacing import PacedThread
from genima_nodes.running import CONTROL_NICENESS, run
from genima_sim.experts import DEMO_HZ, Expert, Trajectory, waypoints
from genima_sim.simulation import Simulation


class SimLeader(Node):
    """Plays one expert's trajectory at a time."""

    def __init__(self) -> None:
        """Raises:
        GenimaError: for a rate out of range.
        """
        super().__init__("sim_leader")
        self._robot = RobotModel.load(self.declare_parameter("robot", "panda").value)
        self._rate = parameters.number(self, "rate", 200.0, 20.0, 1000.0)
        self._simulation = Simulation(self._robot)  # only to know where the objects stand
        self._expert = Expert(self._robot)
        self._scene: SceneStatus | None = None
        self._lock = threading.Lock()  # of the three below
        self._way: Way | None = None
        self._rest, self._gripper = self._robot.home.copy(), 1.0
        self._health = Health(self)
        self._said = self._health.meter("leader/joint_states")
        self._health.value("late samples", lambda: self._pace.late)
        self._publisher = self.create_publisher(JointState, "leader/joint_states", qos.JOINT_STATES)
        self._playing = self.create_publisher(Bool, "leader/playing", qos.TASK)
        self._playing.publish(Bool(data=False))
        self.create_subscription(SceneStatus, "sim/status", self._on_scene, qos.STATUS)
        self.create_service(Trigger, "leader/play", answering(self._play))
        self.create_service(Trigger, "leader/home", answering(self._home))
        self._pace = PacedThread(1 / self._rate, self._speak, "leader")
        self._pace.start()

    def close(self) -> None:
        """End the paced thread."""
        self._pace.close()

    def _on_scene(self, message: SceneStatus) -> None:
        self._scene = message

    def _play(self) -> str:
        scene = self._scene
        if scene is None or not scene.task:
            raise GenimaError("there is no scene; reset the simulator first (sim/reset)")
        if self._way is not None:
            raise GenimaError("it plays already")
        self._simulation.reset(scene.task, scene.seed)
        plan = self._expert.plan(waypoints(scene.task, self._simulation.layout), self._rest)
        with self._lock:
            self._way = Way(plan, self._rest, messages.now(self))
        self._playing.publish(Bool(data=True))
        return f"plays {scene.task} for {len(plan.gripper) / DEMO_HZ:.1f} s"

    def _home(self) -> str:
        """Stand where episodes begin, at once: it has no weight."""
        with self._lock:
            self._way, self._rest, self._gripper = None, self._robot.home.copy(), 1.0
        self._playing.publish(Bool(data=False))
        return "at home"

    # The paced thread.

    def _speak(self, deadline: float, periods: int) -> bool:
        now = messages.now(self)
        velocities = np.zeros_like(self._rest)
        ended = False
        with self._lock:
            if self._way is not None:
                self._rest, velocities, self._gripper = self._way.at(now)
                if ended := now >= self._way.end:
                    self._way = None
            positions, gripper = self._rest, self._gripper
        if ended:
            self._playing.publish(Bool(data=False))
        message = JointState(name=[*self._robot.joint_names, self._robot.gripper_joint])
        message.header.stamp = messages.time_message(now)
        message.position = [*positions, self._robot.gripper_position(gripper)]
        message.velocity = [*velocities, 0.0]
        self._publisher.publish(message)
        self._said.tick()
        return True


class Way:
    """A trajectory from ``start`` on, smooth between its commands; times are s on one clock."""

    def __init__(self, plan: Trajectory, start: np.ndarray, begin: float) -> None:
        times = np.arange(len(plan.positions) + 1) / DEMO_HZ
        self._begin, self._plan = begin, plan
        self._spline = CubicSpline(times, np.vstack([start, plan.positions]), bc_type="clamped")
        self.end = begin + float(times[-1])

    def at(self, now: float) -> tuple[np.ndarray, np.ndarray, float]:
        """Positions (n,) rad, velocities (n,) rad/s and the gripper's open fraction."""
        elapsed = float(np.clip(now - self._begin, 0.0, self.end - self._begin))
        gripper = self._plan.gripper[min(int(elapsed * DEMO_HZ), len(self._plan.gripper) - 1)]
        return self._spline(elapsed), self._spline(elapsed, 1), float(gripper)


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(SimLeader, args, CONTROL_NICENESS)


if __name__ == "__main__":
    sys.exit(main())
