"""Node: follow drawn targets or action chunks with commands at a fixed rate.

::

    drawn_target ──► Controller ──► consistency check ──► action_chunk
    action_chunk of any policy ─────────────────────────────┴──► ChunkStream ──► controller/command
    observed, joint_states: validity of the observations ───────────┘ paced, never blocked by the threads above
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
from genima.policy.spec import CONTROLLER, name_checkpoint, read_pair
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
    from genima.policy.controller import Controller

_OBSERVED_TIMEOUT = 0.08  # s between messages on `observed`
_FOLLOWING_ERROR, _FOLLOWING_TIME = 0.2, 0.5  # rad between set-point and arm; s for which it may last
_STALE = 0.1  # s: maximum age of joints
_TASK_CHECK_PERIOD = 0.5  # s between checks for a publisher of the task
_CLOCK_STEP = 0.05  # s: a larger correction of the clock counts as a jump

DRAWN_TARGET, ACTION_CHUNK = "drawn_target", "action_chunk"  # values of the parameter ``input``


class ControllerNode(Node):
    """Follow the newest drawn target, or the newest action chunk of a policy node, while a task runs."""

    def __init__(self, controller: Controller | None = None, **options: Any) -> None:
        """Args:
        controller: predicts chunks from drawn targets; None: loaded from the parameter ``checkpoint``.
        options: of a node.

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
                cell.require_policy(controller.spec, name_checkpoint(checkpoint))
            if cell.calibration:
                self._consistency = TargetConsistency(controller.spec, cell.robot, cell.load_cameras())
        self._robot, self._controller = cell.robot, controller
        self._stream = ChunkStream(self._robot, rate, execution_horizon or None, mode)
        self._stream_lock = threading.Lock()  # also of the task
        self._targets: LatestValue[DrawnTarget] = LatestValue()
        self._observed: tuple[float, Observed] = float("-inf"), Observed()  # monotonic s of its arrival
        self._task = ""
        self._task_start = 0.0
        self._following_time = 0.0  # monotonic s at which the arm was last near its set-point
        self._guard = GuardStatus()
        self._restart = True  # the stream must start again from the measured joints
        self._stamp_clock = StampClock(self)

        self._diagnostics = DiagnosticUpdater(self)
        self._chunks = self._diagnostics.add_topic("chunks")
        self._commands = self._diagnostics.add_topic("commands")
        self._inputs = self._diagnostics.add_topic(DRAWN_TARGET if drawn_targets else ACTION_CHUNK)
        self._observed_stats = self._diagnostics.add_topic("observed")
        self._observed_gap = self._diagnostics.add_latency("observed gap")
        self._observed_latency = self._diagnostics.add_latency("image to observed")
        self._latency = self._diagnostics.add_latency("image to command")
        self._prediction_latency = self._diagnostics.add_latency("prediction")
        self._diagnostics.add_value("late commands", lambda: self._pace.late)
        self._diagnostics.add_value("due commands", lambda: self._pace.ticks)
        self._diagnostics.add_value("real-time scheduling", lambda: self._pace.real_time)
        self._diagnostics.add_skipped("drawn targets", lambda: self._targets.skipped)
        self._diagnostics.add_value("expired chunks", lambda: self._stream.expired)
        self._diagnostics.add_value("consistency check", lambda: self._consistency is not None)

        self._publisher = self.create_publisher(JointState, "controller/command", qos.SOURCE_COMMAND)
        self._chunk_publisher = None
        if drawn_targets:
            self._chunk_publisher = self.create_publisher(JointTrajectory, "action_chunk", qos.DRAWN_TARGET)
            self.create_subscription(DrawnTargetMessage, "drawn_target", self._on_drawn_target, qos.DRAWN_TARGET)
        else:
            self.create_subscription(JointTrajectory, "action_chunk", self._on_action_chunk, qos.DRAWN_TARGET)
        self.create_subscription(String, "task", self._on_task, qos.TASK)
        self.create_timer(_TASK_CHECK_PERIOD, self._check_task_publisher, clock=STEADY)
        self.create_subscription(GuardStatus, "command_guard/status", self._on_guard_status, qos.GUARD_STATUS)
        self._joints = JointStates(self, self._diagnostics, self._robot)
        self.create_subscription(Observed, "observed", self._on_observed, qos.OBSERVED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._predict_forever, name="prediction", daemon=True)
        self._thread.start()
        self._pace = PacedThread(1 / rate, self._tick, "commands")
        self._pace.start()

    def close(self) -> None:
        """End both threads."""
        self._stop.set()
        self._pace.close()
        self._thread.join()

    # Callbacks of the executor: they only store the newest message.

    def _on_task(self, message: String) -> None:
        with self._stream_lock:
            self._task, self._restart = message.data.strip(), True
            self._discard_until(messages.now(self))
        self._diagnostics.clear_fault("prediction")
        self._diagnostics.clear_fault("action_chunk")
        self._diagnostics.clear_fault("task")

    def _check_task_publisher(self) -> None:
        """End a task whose publisher has ended: no node could end it later."""
        if self._task and self.count_publishers("task") == 0:
            self._on_task(String(data=""))
            self._diagnostics.set_fault("task", "publisher ended; holding")

    def _discard_until(self, stamp: float) -> None:
        """Discard targets and chunks of observations before ``stamp``; the caller holds the stream's lock."""
        self._task_start = stamp
        self._targets.clear()
        if self._ensemble:
            self._ensemble.reset()

    def _on_guard_status(self, message: GuardStatus) -> None:
        self._guard = message

    def _on_observed(self, message: Observed) -> None:
        self._observed_gap.add(min(1.0, self._observed_stats.age))
        self._observed_stats.tick()
        if message.header.stamp != self._observed[1].header.stamp:
            self._observed_latency.add(messages.now(self) - messages.seconds(message.header.stamp))
        self._observed = time.monotonic(), message

    def _on_drawn_target(self, message: DrawnTargetMessage) -> None:
        self._inputs.tick()
        try:
            drawn = messages.drawn_target_from(message)
            if drawn.stamp > messages.now(self) + _STALE:  # it would take precedence over all targets until then
                raise GenimaError("stamp in the future; dropped")
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
                raise GenimaError("stamp in the future; dropped")
            self._require_range(chunk)
        except GenimaError as error:
            self._inputs.drop()
            self._diagnostics.set_fault("action_chunk", f"{error}; holding")
            with self._stream_lock:
                self._stream.hold()
                self._discard_until(self._task_start)
            return
        self._diagnostics.clear_fault("action_chunk")
        self._follow(chunk)

    def _require_range(self, chunk: ActionChunk) -> None:
        for extreme in (chunk.positions.min(axis=0), chunk.positions.max(axis=0)):
            self._robot.require_in_range(extreme)  # the stream itself stops at the limit, without an error

    def _follow(self, chunk: ActionChunk) -> None:
        self._chunks.tick()
        with self._stream_lock:
            if self._task and chunk.stamp >= self._task_start:
                self._stream.add(self._ensemble.average(chunk) if self._ensemble else chunk)

    # The prediction thread.

    def _predict_forever(self) -> None:
        schedule_in_real_time(INFERENCE, computing=self._threads == 1)
        while not self._stop.is_set():
            drawn = self._targets.take(timeout=0.1)
            if drawn is not None and self._joints.newest:
                self._predict(drawn)

    def _predict(self, drawn: DrawnTarget) -> None:
        start = time.monotonic()
        joints = self._joints.at(drawn.stamp, _STALE)
        try:
            if joints is None:
                raise GenimaError(f"no joint state within {_STALE:.1f} s of the observation")
            assert self._controller is not None  # drawn targets are subscribed to only with a controller
            chunk = self._controller.predict_chunk(drawn, joints)
            self._require_range(chunk)
            self._require_agreement(drawn, chunk, joints)
        except GenimaError as error:
            self._inputs.drop()
            self._diagnostics.set_fault("prediction", f"{error}; holding")
            with self._stream_lock:  # later targets of the same observation may be wrong, too
                self._stream.hold()
                self._discard_until(self._task_start)
            return
        self._diagnostics.clear_fault("prediction")
        self._prediction_latency.add(time.monotonic() - start)
        self._follow(chunk)
        if self._chunk_publisher is not None and self._chunk_publisher.get_subscription_count():
            self._chunk_publisher.publish(chunk_message(chunk, self._robot))

    def _require_agreement(self, drawn: DrawnTarget, chunk: ActionChunk, joints: Joints) -> None:
        if self._consistency is None:
            return
        agreement = self._consistency(drawn.tile, chunk.positions[-1], bool(chunk.gripper[-1] > 0.5), joints.positions)
        if agreement < self._least_agreement:
            raise GenimaError(
                f"drawn target and chunk do not agree ({agreement:.0%} of the spheres' pixels; "
                f"{self._least_agreement:.0%} are needed)"
            )

    # The paced thread.

    def _tick(self, deadline: float, periods: int) -> bool:
        due = self._stamp_clock.stamp(deadline)
        with self._stream_lock:
            if abs(self._stamp_clock.step) > _CLOCK_STEP:
                self._on_clock_jump(due)
            joints = self._recent_joints(due)
            if not self._task or joints is None:
                for key in (DRAWN_TARGET, ACTION_CHUNK, "observed", "prediction", "following"):
                    self._diagnostics.clear_fault(key)
                return False  # without commands, the guard holds the arm
            if self._restart:
                self._stream.reset(joints)
                self._restart = False
            self._check_observations(due)
            self._check_following(joints)
            chunk_stamp = self._stream.stamp
            command = self._stream.command(due, joints, periods)
        if command is None:
            return False
        self._publisher.publish(messages.command_message(command, self._robot))
        self._commands.tick()
        if self._stream.stamp is not None and self._stream.stamp != chunk_stamp:  # first command of a new chunk
            self._latency.add(messages.now(self) - self._stream.stamp)
        return True

    def _on_clock_jump(self, now: float) -> None:
        """Hold the arm: stamps from before the jump cannot be compared with later ones."""
        self.get_logger().error(f"clock: jumped by {self._stamp_clock.step:.2f} s; holding until the next chunk")
        self._stream.hold()
        self._discard_until(now)

    def _check_observations(self, now: float) -> None:
        """Hold the arm when the images are not valid, also within a chunk."""
        arrival, observed = self._observed
        if time.monotonic() - arrival > _OBSERVED_TIMEOUT:
            problem = f"no message for {_OBSERVED_TIMEOUT:g} s; check the policy's node"
        elif observed.problem:
            problem = str(observed.problem)
        elif abs(now - messages.seconds(observed.header.stamp)) > self._observation_timeout:
            problem = f"no complete set of valid images within {self._observation_timeout:g} s"
        else:
            self._diagnostics.clear_fault("observed")
            return
        self._stream.hold()
        self._diagnostics.set_fault("observed", f"{problem}; holding")

    def _check_following(self, joints: Joints) -> None:
        """Restart the stream from the measured joints when the arm has not followed: it may be held by the guard."""
        if self._stream.distance(joints) <= _FOLLOWING_ERROR:
            self._diagnostics.clear_fault("following")
            self._following_time = time.monotonic()
        elif time.monotonic() - self._following_time > _FOLLOWING_TIME:
            self._stream.reset(joints)
            guard = f" (command guard: {self._guard.text})" if self._guard.text else ""
            text = (
                f"arm {_FOLLOWING_ERROR:g} rad or more from its set-point{guard}; restarting from the measured joints"
            )
            self._diagnostics.set_fault("following", text)

    def _recent_joints(self, now: float) -> Joints | None:
        joints = self._joints.newest
        if joints is not None and abs(now - joints.stamp) <= _STALE:
            self._diagnostics.clear_fault("joint_states late")
            return joints
        self._restart = True
        if not self._task:
            self._diagnostics.clear_fault("joint_states late")
        else:
            age = "yet" if joints is None else f"within {_STALE:.1f} s of now"
            self._diagnostics.set_fault("joint_states late", f"no valid joint state {age}; holding")
        return None


def _load_controller(checkpoint: str, device: str, threads: int) -> Controller:
    import torch

    from genima.policy.controller import Controller  # not needed, nor PyTorch, to follow action chunks

    torch.set_num_threads(threads)
    return Controller.from_pretrained(read_pair(checkpoint)[1][CONTROLLER], device)


main = node_main(ControllerNode, CONTROL_NICENESS, real_time=True, role="controller")
