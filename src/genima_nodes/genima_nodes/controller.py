"""Node: reads drawn targets into chunks in one thread, streams them as commands at a fixed rate from another.

::

    drawn_target ──► reading ──► chunk: does the drawing show what was read? ──► ChunkStream ──► controller/command
    observed, joint_states: is what we act on still true? ──────────────────────────┘ paced, never waits for the rest
"""

from __future__ import annotations

import sys
import threading
import time
from typing import cast

import torch
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from genima.cameras.calibration_file import load_cameras
from genima.control.chunk_stream import ChunkStream, Mode
from genima.errors import GenimaError
from genima.policy.controller.controller import Controller
from genima.policy.genima import TargetFollower
from genima.policy.spec import CONTROLLER, read_pair
from genima.policy.target_consistency import TargetConsistency
from genima.policy.temporal_ensemble import TemporalEnsemble
from genima.types import ActionChunk, DrawnTarget, Joints
from genima_interfaces.msg import DrawnTarget as DrawnTargetMessage
from genima_interfaces.msg import GuardStatus, Observed
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.clock import StampClock
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.latest_value import LatestValue
from genima_nodes.ros.node_process import CONTROL_NICENESS, run
from genima_nodes.ros.paced_thread import INFERENCE, STEADY, PacedThread, schedule_in_real_time
from genima_nodes.ros.trajectory_messages import chunk_message

_SILENT = 0.08  # s without a word about what the diffusion agent sees
_ASTRAY, _FOR = 0.2, 0.5  # rad between where the arm was sent and where it is, for so many s: it does not follow
_STALE = 0.1  # s: joints older than this are not worth acting on
_LOOK_ROUND = 0.5  # s between looks at whether somebody could still end the task
_CLOCK_STEP = 0.05  # s: a clock that is corrected by more at once has jumped


class ControllerNode(Node):
    """Follows the newest drawn target while a task is in force."""

    def __init__(self, controller: Controller | None = None) -> None:
        """Args:
        controller: what reads drawings; loaded from the parameter ``checkpoint`` if None.

        Raises:
            GenimaError: for parameters that make no sense.
        """
        super().__init__("controller")
        checkpoint = parameters.text(self, "checkpoint", "")
        device = parameters.text(self, "device", "cpu")
        rate = parameters.rate(self)
        mode = cast(Mode, parameters.text(self, "mode", "overlapped"))  # ChunkStream checks it
        execution_horizon = parameters.integer(self, "execution_horizon", 0)  # actions; 0: all
        self._ensemble = parameters.flag(self, "ensemble", False)
        self._ensemble_m = parameters.number(self, "ensemble_m", 0.01, float("-inf"))
        self._observation_timeout = parameters.number(self, "observation_timeout", 0.2)  # s
        self._least_agreement = parameters.number(self, "least_agreement", 0.45, 0.0, 1.0)
        calibration = parameters.text(self, "calibration", "")
        torch.set_num_threads(parameters.integer(self, "threads", 1, 1, 1024))
        self._controller = controller or Controller.from_pretrained(read_pair(checkpoint)[1][CONTROLLER], device)
        self._reads: TargetFollower = self._controller
        self._robot = self._controller.robot
        self._agreement: TargetConsistency | None = None
        if calibration:
            cameras = load_cameras(calibration)
            self._agreement = TargetConsistency(self._controller.spec, self._robot, cameras)
        self._stream = ChunkStream(self._robot, rate, execution_horizon or None, mode)
        self._stream_lock = threading.Lock()  # also of the task
        self._drawings: LatestValue[DrawnTarget] = LatestValue()
        self._observed: tuple[float, Observed] = float("-inf"), Observed()  # monotonic s of its arrival
        self._task = ""
        self._task_start = 0.0
        self._near = 0.0  # monotonic s, when the arm was near its set-point last
        self._guard = GuardStatus()
        self._restart = True  # the stream must begin anew, where the arm is
        self._stamp_clock = StampClock(self)

        self._health = DiagnosticUpdater(self)
        self._chunks = self._health.meter("chunks")
        self._commands = self._health.meter("commands")
        self._drawn = self._health.meter("drawn_target")
        self._sets = self._health.meter("observed")
        self._gaps = self._health.latency("between words of what is seen")
        self._sight = self._health.latency("image to observed")
        self._latency = self._health.latency("image to command")
        self._reading = self._health.latency("reading")
        self._health.value("late commands", lambda: self._pace.late)
        self._health.value("due commands", lambda: self._pace.ticks)
        self._health.value("real-time scheduling", lambda: self._pace.real_time)
        self._health.skipped("drawings", lambda: self._drawings.skipped)
        self._health.value("expired chunks", lambda: self._stream.expired)
        self._health.value("checks drawings", lambda: self._agreement is not None)

        self._publisher = self.create_publisher(JointState, "controller/command", qos.SOURCE_COMMAND)
        self._eye = self.create_publisher(JointTrajectory, "controller/chunk", qos.DRAWN_TARGET)
        self.create_subscription(String, "task", self._on_task, qos.TASK)
        self.create_timer(_LOOK_ROUND, self._look_round, clock=STEADY)
        self.create_subscription(GuardStatus, "command_guard/status", self._on_guard_status, qos.GUARD_STATUS)
        self._joints = JointStates(self, self._health, self._robot)
        self.create_subscription(Observed, "observed", self._on_observed, qos.OBSERVED)
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
            self._task, self._restart = message.data.strip(), True
            self._begin_at(messages.now(self))
        self._health.clear("reading")
        self._health.clear("task")

    def _look_round(self) -> None:
        """A task that nobody can take out of force any more must not go on."""
        if self._task and self.count_publishers("task") == 0:
            self._on_task(String(data=""))
            self._health.fault("task", "whoever put it in force has ended; the arm is held")

    def _begin_at(self, stamp: float) -> None:
        """Nothing that was drawn from what was seen before counts; the stream's lock is held."""
        self._task_start = stamp
        self._drawings.clear()
        self._reads = TemporalEnsemble(self._controller, self._ensemble_m) if self._ensemble else self._controller

    def _on_guard_status(self, message: GuardStatus) -> None:
        self._guard = message

    def _on_observed(self, message: Observed) -> None:
        self._gaps.add(min(1.0, self._sets.age))
        self._sets.tick()
        if message.header.stamp != self._observed[1].header.stamp:
            self._sight.add(messages.now(self) - messages.seconds(message.header.stamp))
        self._observed = time.monotonic(), message

    def _on_drawing(self, message: DrawnTargetMessage) -> None:
        self._drawn.tick()
        try:
            drawn = messages.drawn_target_from(message)
            if drawn.stamp > messages.now(self) + _STALE:  # followed, it would bar all that come until then
                raise GenimaError("it is stamped in the future; ignored")
        except GenimaError as error:
            self._drawn.drop()
            self._health.fault("drawn_target", str(error))
            return
        self._health.clear("drawn_target")
        if drawn.instruction == self._task and drawn.stamp >= self._task_start:
            self._drawings.put(drawn)

    # The reading thread.

    def _read_forever(self) -> None:
        schedule_in_real_time(INFERENCE, computing=torch.get_num_threads() == 1)
        while not self._stop.is_set():
            drawn = self._drawings.take(timeout=0.1)
            if drawn is not None and self._joints.newest:
                self._read(drawn)

    def _read(self, drawn: DrawnTarget) -> None:
        start = time.monotonic()
        then = self._joints.at(drawn.stamp, _STALE)
        try:
            if then is None:
                raise GenimaError(f"no joint state within {_STALE:.1f} s of the observation")
            chunk = self._reads.predict_chunk(drawn, then)
            for extreme in (chunk.positions.min(axis=0), chunk.positions.max(axis=0)):
                self._robot.require_in_range(extreme)  # the stream would lead to the limit instead, without a word
            self._require_agreement(drawn, chunk, then)
        except GenimaError as error:
            self._drawn.drop()
            self._health.fault("reading", f"{error}; the arm is held")
            with self._stream_lock:  # what comes instead of the target may mean anything
                self._stream.hold()
                self._begin_at(self._task_start)
            return
        self._health.clear("reading")
        self._reading.add(time.monotonic() - start)
        self._chunks.tick()
        with self._stream_lock:
            if drawn.stamp >= self._task_start:
                self._stream.add(chunk)
        if self._eye.get_subscription_count():
            self._eye.publish(chunk_message(chunk, self._robot))

    def _require_agreement(self, drawn: DrawnTarget, chunk: ActionChunk, then: Joints) -> None:
        if self._agreement is None:
            return
        agreement = self._agreement(drawn.tile, chunk.positions[-1], bool(chunk.gripper[-1] > 0.5), then.positions)
        if agreement < self._least_agreement:
            raise GenimaError(
                f"the drawing does not show what was read from it: {agreement:.0%} of the spheres' pixels are there, "
                f"{self._least_agreement:.0%} are needed"
            )

    # The paced thread.

    def _tick(self, deadline: float, periods: int) -> bool:
        due = self._stamp_clock.stamp(deadline)
        with self._stream_lock:
            if abs(self._stamp_clock.step) > _CLOCK_STEP:
                self._on_clock_jump(due)
            joints = self._fresh_joints(due)
            if not self._task or joints is None:
                for about in ("drawn_target", "observed", "reading", "following"):
                    self._health.clear(about)
                return False  # nothing is said, and the guard holds the arm
            if self._restart:
                self._stream.reset(joints)
                self._restart = False
            self._watch_observations(due)
            self._watch_following(joints)
            followed = self._stream.stamp
            command = self._stream.command(due, joints, periods)
        if command is None:
            return False
        self._publisher.publish(messages.command_message(command, self._robot))
        self._commands.tick()
        if self._stream.stamp is not None and self._stream.stamp != followed:  # the first command of a new chunk
            self._latency.add(messages.now(self) - self._stream.stamp)
        return True

    def _on_clock_jump(self, now: float) -> None:
        """Stamps from before cannot be compared with what comes after."""
        self.get_logger().error(f"the clock jumped by {self._stamp_clock.step:.2f} s; waiting for a new drawing")
        self._stream.hold()
        self._begin_at(now)

    def _watch_observations(self, now: float) -> None:
        """Without eyes the arm comes to rest, even if the chunk would go on."""
        arrival, observed = self._observed
        if time.monotonic() - arrival > _SILENT:
            problem = "the diffusion agent is silent"
        elif observed.problem:
            problem = str(observed.problem)
        elif abs(now - messages.seconds(observed.header.stamp)) > self._observation_timeout:
            problem = f"no complete set of good images within {self._observation_timeout:g} s"
        else:
            self._health.clear("observed")
            return
        self._stream.hold()
        self._health.fault("observed", f"{problem}; the arm is held")

    def _watch_following(self, joints: Joints) -> None:
        """An arm that is held by others must not find its set-point far away when it is let go."""
        if self._stream.distance(joints) <= _ASTRAY:
            self._health.clear("following")
            self._near = time.monotonic()
        elif time.monotonic() - self._near > _FOR:
            self._stream.reset(joints)
            guard = f" (command guard: {self._guard.text})" if self._guard.text else ""
            text = f"the arm is {_ASTRAY:g} rad or more from its set-point{guard}; restarting there"
            self._health.fault("following", text)

    def _fresh_joints(self, now: float) -> Joints | None:
        joints = self._joints.newest
        if joints is not None and abs(now - joints.stamp) <= _STALE:
            self._health.clear("joint_states late")
            return joints
        self._restart = True
        if not self._task:
            self._health.clear("joint_states late")
        else:
            age = "yet" if joints is None else f"within {_STALE:.1f} s of now"
            self._health.fault("joint_states late", f"no good joint state {age}; the arm is held")
        return None


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(ControllerNode, args, CONTROL_NICENESS, real_time=True, role="controller")


if __name__ == "__main__":
    sys.exit(main())
