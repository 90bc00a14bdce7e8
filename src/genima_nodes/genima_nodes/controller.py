"""Node: reads drawn targets into chunks in one thread, streams them as commands at a fixed rate from another."""

from __future__ import annotations

import sys
import threading
from collections import deque

import torch
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from genima.checkpoint import CONTROLLER, read_pair
from genima.chunks import ChunkStream
from genima.controller import Controller
from genima.errors import GenimaError
from genima.observation import DrawnTarget, Joints
from genima_interfaces.msg import DrawnTarget as DrawnTargetMessage
from genima_nodes import messages, qos
from genima_nodes.health import Health
from genima_nodes.newest import Newest
from genima_nodes.pacing import PacedThread
from genima_nodes.running import CONTROL_NICENESS, run

_STALE = 0.1  # s: joints older than this are not worth acting on
_HISTORY = 5000  # joint states kept, seconds even at 1 kHz: a drawing is read with the joints of its own moment


class ControllerNode(Node):
    """Follows the newest drawn target while a task is in force."""

    def __init__(self, controller: Controller | None = None) -> None:
        """Args:
        controller: what reads drawings; loaded from the parameter ``checkpoint`` if None.
        """
        super().__init__("controller")
        checkpoint = self.declare_parameter("checkpoint", "").value
        device = self.declare_parameter("device", "cpu").value
        rate = float(self.declare_parameter("rate", 50.0).value)
        horizon = float(self.declare_parameter("horizon", 1.0).value)  # s
        torch.set_num_threads(int(self.declare_parameter("threads", 1).value))
        self._controller = controller or Controller.from_pretrained(read_pair(checkpoint)[1][CONTROLLER], device)
        self._robot = self._controller.robot
        self._stream = ChunkStream(self._robot, rate, horizon)
        self._stream_lock = threading.Lock()  # also of the task
        self._drawings: Newest[DrawnTarget] = Newest()
        self._joints: deque[Joints] = deque(maxlen=_HISTORY)
        self._task = ""
        self._task_start = 0.0
        self._restart = True  # the stream must begin anew, where the arm is

        self._health = Health(self)
        self._chunks = self._health.meter("chunks")
        self._commands = self._health.meter("commands")
        self._states = self._health.meter("joint_states")
        self._latency = self._health.latency("image to command")
        self._reading = self._health.latency("reading")
        self._health.value("late commands", lambda: self._pace.late)
        self._health.value("due commands", lambda: self._pace.ticks)
        self._health.value("real-time scheduling", lambda: self._pace.real_time)
        self._health.value("skipped drawings", lambda: self._drawings.skipped)
        self._health.value("expired chunks", lambda: self._stream.expired)

        self._publisher = self.create_publisher(JointState, "controller/command", qos.SOURCE_COMMAND)
        self.create_subscription(String, "task", self._on_task, qos.TASK)
        self.create_subscription(JointState, "joint_states", self._on_joints, qos.JOINT_STATES)
        self.create_subscription(DrawnTargetMessage, "drawn_target", self._on_drawing, qos.DRAWN_TARGET)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_forever, name="reading", daemon=True)
        self._thread.start()
        self._pace = PacedThread(1 / rate, self._tick, "commands")
        self._pace.start()

    def close(self) -> None:
        """End both threads."""
        self._stop.set()
        self._pace.close()
        self._thread.join()

    # Callbacks only keep what is newest.

    def _on_task(self, message: String) -> None:
        with self._stream_lock:
            self._task, self._task_start, self._restart = message.data.strip(), messages.now(self), True
        self._drawings.clear()

    def _on_joints(self, message: JointState) -> None:
        self._states.tick()
        try:
            self._joints.append(messages.joints_from(message, self._robot))
        except GenimaError as error:
            self._health.fault("joint_states", str(error))
        else:
            self._health.clear("joint_states")

    def _on_drawing(self, message: DrawnTargetMessage) -> None:
        try:
            drawn = messages.drawn_target_from(message)
        except GenimaError as error:
            self._health.fault("drawn_target", str(error))
            return
        if drawn.stamp > messages.now(self) + _STALE:  # followed, it would bar all that come until then
            self._health.fault("drawn_target", "it is stamped in the future; ignored")
            return
        self._health.clear("drawn_target")
        if drawn.instruction == self._task and drawn.stamp >= self._task_start:
            self._drawings.put(drawn)

    # The reading thread.

    def _read_forever(self) -> None:
        while not self._stop.is_set():
            drawn = self._drawings.take(timeout=0.1)
            if drawn is not None and self._joints:
                self._read(drawn)

    def _read(self, drawn: DrawnTarget) -> None:
        start = messages.now(self)
        then = min(list(self._joints), key=lambda joints: abs(joints.stamp - drawn.stamp))
        try:
            if abs(then.stamp - drawn.stamp) > _STALE:
                raise GenimaError(f"no joint state within {_STALE:.1f} s of the observation")
            chunk = self._controller.read(drawn, then)
        except GenimaError as error:
            self._health.fault("reading", str(error))
            return
        self._health.clear("reading")
        self._reading.add(messages.now(self) - start)
        self._chunks.tick()
        with self._stream_lock:
            if drawn.stamp >= self._task_start:
                self._stream.add(chunk)

    # The paced thread.

    def _tick(self, lag: float) -> bool:
        due = messages.now(self) - lag
        with self._stream_lock:
            joints = self._fresh_joints(due)
            if not self._task or joints is None:
                return False  # nothing is said, and the guard holds the arm
            if self._restart:
                self._stream.reset(joints)
                self._restart = False
            followed = self._stream.stamp
            command = self._stream.command(due, joints)
        if command is None:
            return False
        self._publisher.publish(messages.command_message(command, self._robot))
        self._commands.tick()
        if self._stream.stamp != followed:  # the first command of a new chunk
            self._latency.add(messages.now(self) - (self._stream.stamp or 0.0))
        return True

    def _fresh_joints(self, now: float) -> Joints | None:
        joints = self._joints[-1] if self._joints else None
        if joints is not None and abs(now - joints.stamp) <= _STALE:
            self._health.clear("joint_states late")
            return joints
        self._restart = True
        if self._task:
            age = "yet" if joints is None else f"within {_STALE:.1f} s of now"
            self._health.fault("joint_states late", f"no good joint state {age}; the arm is held")
        return None


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(ControllerNode, args, CONTROL_NICENESS)


if __name__ == "__main__":
    sys.exit(main())
