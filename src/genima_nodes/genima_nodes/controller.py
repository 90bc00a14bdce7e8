"""Node: follow drawn targets or action chunks with commands at a fixed rate.

::

    drawn_target ──► Controller ──► consistency check ──► action_chunk
    action_chunk of any policy ─────────────────────────────┴──► ChunkStream ──► controller/command
    observed, joint_states: are the observations still valid? ──────┘ paced, never waits for the rest
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, cast

from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from genima.control.chunk_stream import ChunkStream, Mode
from genima.errors import GenimaError
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
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.paced_thread import INFERENCE, STEADY, PacedThread, schedule_in_real_time
from genima_nodes.ros.trajectory_messages import chunk_from, chunk_message

if TYPE_CHECKING:
    from genima.policy.controller.controller import Controller

_SILENT = 0.08  # s without a word about what the diffusion agent sees
_ASTRAY, _FOR = 0.2, 0.5  # rad between where the arm was sent and where it is, for so many s: it does not follow
_STALE = 0.1  # s: joints older than this are not worth acting on
_LOOK_ROUND = 0.5  # s between looks at whether somebody could still end the task
_CLOCK_STEP = 0.05  # s: a clock that is corrected by more at once has jumped


DRAWN_TARGET, ACTION_CHUNK = "drawn_target", "action_chunk"  # values of the parameter ``input``


class ControllerNode(Node):
    """Follows the newest drawn target, or the newest action chunk of a policy node, while a task runs."""

    def __init__(self, controller: Controller | None = None, **options: Any) -> None:
        """Args:
        controller: predicts chunks; loaded from the parameter ``checkpoint`` if None and drawn targets are followed.
        options: those of a node.

        Raises:
            GenimaError: for parameters out of range.
        """
        super().__init__("controller", **options)
        drawn_targets = parameters.text(self, "input", DRAWN_TARGET, (DRAWN_TARGET, ACTION_CHUNK)) == DRAWN_TARGET
        checkpoint = parameters.text(self, "checkpoint", "")
        device = parameters.text(self, "device", "cpu")
        rate = parameters.rate(self)
        mode = cast(Mode, parameters.text(self, "mode", "overlapped"))  # ChunkStream checks it
        execution_horizon = parameters.integer(self, "execution_horizon", 0)  # actions; 0: all
        ensemble = parameters.flag(self, "ensemble", False)
        ensemble_m = parameters.number(self, "ensemble_m", 0.01, float("-inf"))
        self._ensemble = TemporalEnsemble(ensemble_m) if ensemble else None
        self._observation_timeout = parameters.number(self, "observation_timeout", 0.2)  # s
        self._least_agreement = parameters.number(self, "least_agreement", 0.45, 0.0, 1.0)
        cell = parameters.calibrated_cell(self)
        self._threads = parameters.integer(self, "threads", 1, 1, 1024)
        self._consistency: TargetConsistency | None = None
        if drawn_targets:
            if controller is None:
                controller = _load_controller(checkpoint, device, self._threads)
                cell.require_policy(controller.spec, f"the checkpoint {checkpoint or 'of Genima'}")
            if cell.calibration:
                self._consistency = TargetConsistency(controller.spec, cell.robot, cell.load_cameras())
        self._robot, self._controller = cell.robot, controller
        self._stream = ChunkStream(self._robot, rate, execution_horizon or None, mode)
        self._stream_lock = threading.Lock()  # also of the task
        self._targets: LatestValue[DrawnTarget] = LatestValue()
        self._observed: tuple[float, Observed] = float("-inf"), Observed()  # monotonic s of its arrival
        self._task = ""
        self._task_start = 0.0
        self._near = 0.0  # monotonic s, when the arm was near its set-point last
        self._guard = GuardStatus()
        self._restart = True  # the stream must begin anew, where the arm is
        self._stamp_clock = StampClock(self)

        self._diagnostics = DiagnosticUpdater(self)
        self._chunks = self._diagnostics.add_topic("chunks")
        self._commands = self._diagnostics.add_topic("commands")
        self._inputs = self._diagnostics.add_topic(DRAWN_TARGET if drawn_targets else ACTION_CHUNK)
        self._sets = self._diagnostics.add_topic("observed")
        self._gaps = self._diagnostics.add_latency("between words of what is seen")
        self._sight = self._diagnostics.add_latency("image to observed")
        self._latency = self._diagnostics.add_latency("image to command")
        self._reading = self._diagnostics.add_latency("reading")
        self._diagnostics.add_value("late commands", lambda: self._pace.late)
        self._diagnostics.add_value("due commands", lambda: self._pace.ticks)
        self._diagnostics.add_value("real-time scheduling", lambda: self._pace.real_time)
        self._diagnostics.add_skipped("drawn targets", lambda: self._targets.skipped)
        self._diagnostics.add_value("expired chunks", lambda: self._stream.expired)
        self._diagnostics.add_value("checks drawings", lambda: self._consistency is not None)

        self._publisher = self.create_publisher(JointState, "controller/command", qos.SOURCE_COMMAND)
        self._chunk_publisher = None
        if drawn_targets:
            self._chunk_publisher = self.create_publisher(JointTrajectory, "action_chunk", qos.DRAWN_TARGET)
            self.create_subscription(DrawnTargetMessage, "drawn_target", self._on_drawn_target, qos.DRAWN_TARGET)
        else:
            self.create_subscription(JointTrajectory, "action_chunk", self._on_action_chunk, qos.DRAWN_TARGET)
        self.create_subscription(String, "task", self._on_task, qos.TASK)
        self.create_timer(_LOOK_ROUND, self._look_round, clock=STEADY)
        self.create_subscription(GuardStatus, "command_guard/status", self._on_guard_status, qos.GUARD_STATUS)
        self._joints = JointStates(self, self._diagnostics, self._robot)
        self.create_subscription(Observed, "observed", self._on_observed, qos.OBSERVED)
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
        self._diagnostics.clear_fault("reading")
        self._diagnostics.clear_fault("action_chunk")
        self._diagnostics.clear_fault("task")

    def _look_round(self) -> None:
        """A task that nobody can take out of force any more must not go on."""
        if self._task and self.count_publishers("task") == 0:
            self._on_task(String(data=""))
            self._diagnostics.set_fault("task", "whoever put it in force has ended; the arm is held")

    def _begin_at(self, stamp: float) -> None:
        """Nothing that was drawn from what was seen before counts; the stream's lock is held."""
        self._task_start = stamp
        self._targets.clear()
        if self._ensemble:
            self._ensemble.reset()

    def _on_guard_status(self, message: GuardStatus) -> None:
        self._guard = message

    def _on_observed(self, message: Observed) -> None:
        self._gaps.add(min(1.0, self._sets.age))
        self._sets.tick()
        if message.header.stamp != self._observed[1].header.stamp:
            self._sight.add(messages.now(self) - messages.seconds(message.header.stamp))
        self._observed = time.monotonic(), message

    def _on_drawn_target(self, message: DrawnTargetMessage) -> None:
        self._inputs.tick()
        try:
            drawn = messages.drawn_target_from(message)
            if drawn.stamp > messages.now(self) + _STALE:  # followed, it would bar all that come until then
                raise GenimaError("it is stamped in the future; ignored")
        except GenimaError as error:
            self._inputs.drop()
            self._diagnostics.set_fault("drawn_target", str(error))
            return
        self._diagnostics.clear_fault("drawn_target")
        if drawn.instruction == self._task and drawn.stamp >= self._task_start:
            self._targets.put(drawn)

    def _on_action_chunk(self, message: JointTrajectory) -> None:
        self._inputs.tick()
        try:
            chunk = chunk_from(message, self._robot)
            if chunk.stamp > messages.now(self) + _STALE:
                raise GenimaError("it is stamped in the future; ignored")
            self._require_range(chunk)
        except GenimaError as error:
            self._inputs.drop()
            self._diagnostics.set_fault("action_chunk", f"{error}; the arm is held")
            with self._stream_lock:
                self._stream.hold()
                self._begin_at(self._task_start)
            return
        self._diagnostics.clear_fault("action_chunk")
        self._follow(chunk)

    def _require_range(self, chunk: ActionChunk) -> None:
        for extreme in (chunk.positions.min(axis=0), chunk.positions.max(axis=0)):
            self._robot.require_in_range(extreme)  # the stream would stop at the limit instead, without an error

    def _follow(self, chunk: ActionChunk) -> None:
        self._chunks.tick()
        with self._stream_lock:
            if self._task and chunk.stamp >= self._task_start:
                self._stream.add(self._ensemble.average(chunk) if self._ensemble else chunk)

    # The reading thread.

    def _read_forever(self) -> None:
        schedule_in_real_time(INFERENCE, computing=self._threads == 1)
        while not self._stop.is_set():
            drawn = self._targets.take(timeout=0.1)
            if drawn is not None and self._joints.newest:
                self._read(drawn)

    def _read(self, drawn: DrawnTarget) -> None:
        start = time.monotonic()
        then = self._joints.at(drawn.stamp, _STALE)
        try:
            if then is None:
                raise GenimaError(f"no joint state within {_STALE:.1f} s of the observation")
            assert self._controller is not None  # else nothing subscribes to drawn targets
            chunk = self._controller.predict_chunk(drawn, then)
            self._require_range(chunk)
            self._require_agreement(drawn, chunk, then)
        except GenimaError as error:
            self._inputs.drop()
            self._diagnostics.set_fault("reading", f"{error}; the arm is held")
            with self._stream_lock:  # what comes instead of the target may mean anything
                self._stream.hold()
                self._begin_at(self._task_start)
            return
        self._diagnostics.clear_fault("reading")
        self._reading.add(time.monotonic() - start)
        self._follow(chunk)
        if self._chunk_publisher is not None and self._chunk_publisher.get_subscription_count():
            self._chunk_publisher.publish(chunk_message(chunk, self._robot))

    def _require_agreement(self, drawn: DrawnTarget, chunk: ActionChunk, then: Joints) -> None:
        if self._consistency is None:
            return
        agreement = self._consistency(drawn.tile, chunk.positions[-1], bool(chunk.gripper[-1] > 0.5), then.positions)
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
                for about in (DRAWN_TARGET, ACTION_CHUNK, "observed", "reading", "following"):
                    self._diagnostics.clear_fault(about)
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
            self._diagnostics.clear_fault("observed")
            return
        self._stream.hold()
        self._diagnostics.set_fault("observed", f"{problem}; the arm is held")

    def _watch_following(self, joints: Joints) -> None:
        """An arm that is held by others must not find its set-point far away when it is let go."""
        if self._stream.distance(joints) <= _ASTRAY:
            self._diagnostics.clear_fault("following")
            self._near = time.monotonic()
        elif time.monotonic() - self._near > _FOR:
            self._stream.reset(joints)
            guard = f" (command guard: {self._guard.text})" if self._guard.text else ""
            text = f"the arm is {_ASTRAY:g} rad or more from its set-point{guard}; restarting there"
            self._diagnostics.set_fault("following", text)

    def _fresh_joints(self, now: float) -> Joints | None:
        joints = self._joints.newest
        if joints is not None and abs(now - joints.stamp) <= _STALE:
            self._diagnostics.clear_fault("joint_states late")
            return joints
        self._restart = True
        if not self._task:
            self._diagnostics.clear_fault("joint_states late")
        else:
            age = "yet" if joints is None else f"within {_STALE:.1f} s of now"
            self._diagnostics.set_fault("joint_states late", f"no good joint state {age}; the arm is held")
        return None


def _load_controller(checkpoint: str, device: str, threads: int) -> Controller:
    import torch

    from genima.policy.controller.controller import Controller  # here: action chunks are followed without PyTorch

    torch.set_num_threads(threads)
    return Controller.from_pretrained(read_pair(checkpoint)[1][CONTROLLER], device)


main = node_main(ControllerNode, CONTROL_NICENESS, real_time=True, role="controller")
