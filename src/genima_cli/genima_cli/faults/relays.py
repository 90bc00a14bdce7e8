"""Relays between nodes that inject faults into messages, and record the robot's input.

::

    before_relay/TOPIC ──► TOPIC      joint_states, cameras/..., drawn_target or action_chunk, controller/command
    joint_command ──► Record
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.experimental import EventsExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima_interfaces.msg import DrawnTarget, Observed
from genima_nodes.ros import messages, qos
from genima_nodes.ros.paced_thread import PACED, schedule_in_real_time

MessageFault = Callable[[Any], Any]  # of a message; None drops it
COMMAND, DRAWN, CHUNK, JOINTS = "controller/command", "drawn_target", "action_chunk", "joint_states"
_OVERDUE = 0.05  # s without a message of the node that observes


def image_topic(view: str) -> str:
    """Return the image topic of a view."""
    return f"cameras/{view}/color/image_raw"


def remappings(node: str, views: Sequence[str]) -> dict[str, str]:
    """Return the remappings of a node whose messages pass a relay."""
    topics = {
        "sim_node": [JOINTS, *map(image_topic, views)],
        "diffusion_agent": [DRAWN],
        "policy": [CHUNK],
        "controller": [COMMAND],
    }
    return {topic: _before(topic) for topic in topics.get(node, ())}


def _before(topic: str) -> str:
    return f"before_relay/{topic}"


@dataclass
class Relay:
    """Relay of one topic."""

    publish: Callable[[Any], None]
    fault: MessageFault | None = None
    delay: float = 0.0  # s
    first_fault: float | None = None  # monotonic s, of the first changed or dropped message
    last: Any = None  # latest message forwarded unchanged

    def __call__(self, message: Any) -> None:
        """Forward a message, with the present fault."""
        if self.fault is None and self.delay == 0:
            self.last = message
            self.publish(message)
            return
        if self.first_fault is None:
            self.first_fault = time.monotonic()
        forwarded = message if self.fault is None else self.fault(message)
        if forwarded is None:
            return
        if self.delay:
            timer = threading.Timer(self.delay, self.publish, [forwarded])
            timer.daemon = True
            timer.start()
        else:
            self.publish(forwarded)

    def clear_fault(self) -> None:
        """Forward messages unchanged from now on."""
        self.fault, self.delay, self.first_fault = None, 0.0, None


@dataclass(frozen=True)
class Record:
    """Recorded commands to the robot."""

    times: NDArray[np.float64]  # (N,) monotonic s of arrival
    stamps: NDArray[np.float64]  # (N,) s, on one clock
    positions: NDArray[np.float64]  # (N, n) rad


class Relays(Node):
    """All relays, and the record of `joint_command`, in a thread of their own."""

    def __init__(self, robot: RobotModel, views: Sequence[str], output: str = DRAWN) -> None:
        """Args:
        robot: model of the arm.
        views: of the cameras.
        output: topic of the policy, DRAWN or CHUNK.
        """
        super().__init__("relays")
        self._robot = robot
        self.relays = {
            JOINTS: self._relay(JointState, JOINTS, qos.JOINT_STATES),
            output: self._relay(DrawnTarget if output == DRAWN else JointTrajectory, output, qos.DRAWN_TARGET),
            COMMAND: self._relay(JointState, COMMAND, qos.SOURCE_COMMAND),
            **{image_topic(view): self._relay(Image, image_topic(view), qos.IMAGE) for view in views},
        }
        self._received: list[tuple[float, float, NDArray[np.float64]]] = []
        self._observed: list[float] = []  # monotonic s
        self.create_subscription(Observed, "observed", self._on_observed, qos.OBSERVED)
        self.create_subscription(JointState, "joint_command", self._on_joint_command, qos.COMMAND_LOG)
        self._executor = EventsExecutor()
        self._executor.add_node(self)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._spin, name="relays", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ending.set()
        self._thread.join()
        self._executor.shutdown()
        self.destroy_node()

    def reset_record(self) -> None:
        """Restart the record."""
        self._received, self._observed = [], []

    def first_overdue(self, begin: float) -> float | None:
        """Return the monotonic time after ``begin`` at which a message of the node that observes became overdue."""
        times = [time for time in list(self._observed) if time >= begin]
        gaps = zip(times, [*times[1:], time.monotonic()], strict=True)
        return next((earlier for earlier, later in gaps if later - earlier > _OVERDUE), None)

    def record(self) -> Record:
        """Return the recorded commands, with stamps free of jumps by whole seconds."""
        received = list(self._received)
        times = np.array([time for time, _, _ in received])
        stamps = np.array([stamp for _, stamp, _ in received])
        positions = np.array([q for _, _, q in received]).reshape(len(received), len(self._robot.joint_names))
        if len(times):
            off = times - stamps
            stamps = stamps + np.round(off - off[0])
        return Record(times, stamps, positions)

    def _relay(self, kind: type, topic: str, profile: QoSProfile) -> Relay:
        relay = Relay(self.create_publisher(kind, topic, profile).publish)
        self.create_subscription(kind, _before(topic), relay, profile)
        return relay

    def _on_observed(self, message: Observed) -> None:
        self._observed.append(time.monotonic())

    def _on_joint_command(self, message: JointState) -> None:
        now = time.monotonic()
        try:
            positions = messages.command_from(message, self._robot).positions
        except GenimaError:  # counted as a limit violation
            positions = np.full(len(self._robot.joint_names), np.nan)
        self._received.append((now, messages.seconds(message.header.stamp), positions))

    def _spin(self) -> None:
        schedule_in_real_time(PACED)  # also while the nodes are starved
        while not self._ending.is_set():
            self._executor.spin_once(timeout_sec=0.1)
