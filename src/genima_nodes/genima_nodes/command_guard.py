"""Node: limit the owner's commands and publish them on `joint_command` at a fixed rate, as its only publisher."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger

from genima.control.collision import ForbiddenRegion, SelfCollision, Workspace
from genima.control.command_guard import CommandGuard, GuardOutput, GuardSettings
from genima.control.guard_status import INTENDED, GuardReason, GuardState
from genima.errors import GenimaError
from genima.robot.body import has_meshes
from genima.types import Joints
from genima_interfaces.msg import GuardStatus
from genima_interfaces.srv import SelectSource
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.clock import StampClock
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.paced_thread import STEADY, PacedThread
from genima_nodes.ros.services import call_command

SOURCES = (SelectSource.Request.CONTROLLER, SelectSource.Request.TELEOP, SelectSource.Request.CALIBRATOR)
_STOP_TIME = 0.5  # s, more than the arm needs to come to rest
_PHASE = 0.4  # of a period after the controller's command is due: by then it has arrived
_CHECK_PERIOD = 0.05  # s between checks of the publishers, and from a change of the status to its publication
_STATUS_PERIOD = 0.5  # s between publications of an unchanged status


class CommandGuardNode(Node):
    """Final filter between the sources of commands and the robot; only publisher of `joint_command`."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for a parameter out of range.
        """
        super().__init__("command_guard", **options)
        cell = parameters.cell(self)
        self._robot = cell.robot
        rate = parameters.rate(self, cell.guard.rate)
        settings = parameters.settings(self, GuardSettings())
        self._guard = CommandGuard(
            self._robot, rate, SOURCES, settings, self._forbidden_regions(cell.guard.self_collision)
        )
        self._contested: set[str] = set()  # sources with more than one publisher
        self._lock = threading.Lock()
        self._stamp_clock = StampClock(self)
        self._last = GuardOutput(None, GuardState.HELD, GuardReason.NO_OWNER)

        self._diagnostics = DiagnosticUpdater(self)
        self._sent = self._diagnostics.add_topic("joint_command")
        self._received = {source: self._diagnostics.add_topic(f"{source}/command") for source in SOURCES}
        self._diagnostics.add_value("real-time scheduling", lambda: self._pace.real_time)
        self._diagnostics.add_value("late set-points", lambda: self._pace.late)
        self._diagnostics.add_value("due set-points", lambda: self._pace.ticks)
        self._age = self._diagnostics.add_latency("command to guard")
        self._diagnostics.add_value("owner", lambda: self._guard.owner or SelectSource.Request.NONE)
        self._diagnostics.add_value("state", lambda: self._last.state.name)
        self._diagnostics.add_value("reason", lambda: self._last.reason.name)

        self._publisher = self.create_publisher(JointState, "joint_command", qos.JOINT_COMMAND)
        self._status = self.create_publisher(GuardStatus, "command_guard/status", qos.GUARD_STATUS)
        self._published: tuple[object, ...] = ()  # owner, state and reason of the last status
        self._published_at = float("-inf")  # monotonic s
        JointStates(self, self._diagnostics, self._robot, self._on_joints)
        for source in SOURCES:
            callback = self._command_callback(source)
            self.create_subscription(JointState, f"{source}/command", callback, qos.JOINT_COMMAND)
        self.create_service(SelectSource, "command_guard/select", self._on_select)
        self.create_service(Trigger, "command_guard/stop", self._on_stop)
        self.create_service(Trigger, "command_guard/resume", self._on_resume)
        recovery = parameters.service(self, "recovery")  # service that recovers a robot after a reflex
        self._recovery = self.create_client(Trigger, recovery) if recovery else None
        self._recovering: Future | None = None
        self.create_timer(_CHECK_PERIOD, self._check_publishers, clock=STEADY)
        self._pace = PacedThread(1 / rate, self._tick, "set-points", phase=_PHASE)
        self._pace.start()
        self._publish_status()

    def close(self) -> None:
        """Bring the arm to rest, then end the paced thread."""
        with self._lock:
            self._guard.stop()
        deadline = time.monotonic() + _STOP_TIME
        while not self._guard.at_rest and time.monotonic() < deadline:
            time.sleep(0.01)
        self._pace.close()

    def _forbidden_regions(self, self_collision: bool | None) -> list[ForbiddenRegion]:
        regions: list[ForbiddenRegion] = []
        box = parameters.numbers(self, "workspace", [0.0])
        if box != [0.0]:
            regions.append(Workspace(self._robot, box[:3], box[3:]))
        known = has_meshes(self._robot)
        if parameters.flag(self, "self_collision", known if self_collision is None else self_collision):
            regions.append(SelfCollision(self._robot))
        elif not known:
            self.get_logger().warning(
                f"self-collision: not checked (no meshes of {self._robot.name} with {self._robot.gripper}); "
                "limit the arm by the parameter workspace"
            )
        return regions

    def _on_joints(self, joints: Joints) -> None:
        with self._lock:
            self._guard.update_joints(joints)

    def _command_callback(self, source: str) -> Callable[[JointState], None]:
        key = f"{source}/command"

        def on_command(message: JointState) -> None:
            self._received[source].tick()
            if source in self._contested:
                self._received[source].drop()
                return
            if not message.name and not message.position:  # a pause
                self._diagnostics.clear_fault(key)
                with self._lock:
                    self._guard.pause(source)
                return
            try:
                command = messages.command_from(message, self._robot)
            except GenimaError as error:
                self._received[source].drop()
                self._diagnostics.set_fault(key, str(error))
                with self._lock:
                    self._guard.reject(source)
                return
            self._diagnostics.clear_fault(key)
            self._age.add(messages.now(self) - command.stamp)
            with self._lock:
                self._guard.submit(source, command)

        return on_command

    def _check_publishers(self) -> None:
        """Reject sources with several publishers, release the arm of an owner that ended, and publish the status."""
        for source in SOURCES:
            if self.count_publishers(f"{source}/command") <= 1:
                self._contested.discard(source)
                continue
            self._contested.add(source)
            with self._lock:
                self._guard.reject(source, GuardReason.MULTIPLE_PUBLISHERS)
        owner = self._guard.owner
        no_commands = self._last.reason in (GuardReason.COMMAND_LOST, GuardReason.PAUSED)
        if owner and no_commands and not self.count_publishers(f"{owner}/command"):
            with self._lock:
                self._guard.select(None)
            self.get_logger().warning(f"owner: {owner} has ended; the arm has no owner")
        if (others := self.count_publishers("joint_command") - 1) > 0:
            self._diagnostics.set_fault("joint_command", f"published by other nodes, too ({others}); end them")
        else:
            self._diagnostics.clear_fault("joint_command")
        changed = self._published != (self._guard.owner, self._last.state, self._last.reason)
        if changed or time.monotonic() - self._published_at >= _STATUS_PERIOD:
            self._publish_status()

    def _on_select(self, request: SelectSource.Request, response: SelectSource.Response) -> SelectSource.Response:
        try:
            with self._lock:
                self._guard.select(None if request.source in ("", SelectSource.Request.NONE) else request.source)
        except GenimaError as error:
            response.success, response.message = False, str(error)
        else:
            response.success, response.message = True, f"owner: {self._guard.owner or SelectSource.Request.NONE}"
            self._publish_status()
        self.get_logger().info(response.message)
        return response

    def _publish_status(self) -> None:
        owner, last = self._guard.owner, self._last
        topics = [self._received[source] for source in SOURCES]
        status = GuardStatus(
            owner=owner or "",
            sources=list(SOURCES),
            state=last.state.value,
            reason=last.reason.value,
            text=f"{last.state.name}: {last.reason.text}".removesuffix(": "),
            reason_counts=[self._guard.counts[reason] for reason in GuardReason],
            received=[topic.total for topic in topics],
            rejected=[topic.dropped for topic in topics],
            sent=self._sent.total,
            late=self._pace.late,
        )
        status.header.stamp = self.get_clock().now().to_msg()
        self._status.publish(status)
        self._published, self._published_at = (owner, last.state, last.reason), time.monotonic()

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._recovering = None  # a stop during the recovery remains in force
        with self._lock:
            self._guard.stop()
        response.success, response.message = True, f"stopped; resume with {call_command(self, 'resume')}"
        self.get_logger().warning(response.message)
        return response

    def _on_resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if self._recovery is None:
                self._resume()
                response.message = "resumed: the next command near the arm moves it"
            else:
                self._recover(self._recovery)
                response.message = "recovering the robot; then the next command near the arm moves it"
        except GenimaError as error:
            response.success, response.message = False, str(error)
        else:
            response.success = True
        self.get_logger().info(response.message)
        return response

    def _resume(self) -> None:
        with self._lock:
            self._guard.resume()

    def _recover(self, recovery: Client) -> None:
        """Request the robot's recovery without waiting; the arm is resumed when it has succeeded."""
        if not recovery.service_is_ready():
            raise GenimaError(f"{recovery.srv_name}: service not available; start the robot's driver")
        with self._lock:
            if not self._guard.at_rest:
                raise GenimaError("command_guard resume: the arm is still moving; retry when it is at rest")
            self._guard.stop()  # no command may move a robot that recovers
        self._recovering = recovery.call_async(Trigger.Request())
        self._recovering.add_done_callback(self._on_recovered)

    def _on_recovered(self, answer: Future) -> None:
        if answer is not self._recovering:
            return  # requested again, or stopped, meanwhile
        if not answer.result().success:
            self._diagnostics.set_fault("recovery", answer.result().message)
            return
        self._diagnostics.clear_fault("recovery")
        self.get_logger().info(answer.result().message)
        with self._lock:
            self._guard.restart()
            self._guard.resume()

    def _tick(self, deadline: float, periods: int) -> bool:
        due = self._stamp_clock.stamp(deadline)
        with self._lock:
            self._last = self._guard.step(due, periods)
        state, reason = self._last.state, self._last.reason
        if state in (GuardState.HELD, GuardState.STOPPED) and reason not in INTENDED:
            remedy = f"; resume with {call_command(self, 'resume')}" if reason is GuardReason.STOP_REQUESTED else ""
            self._diagnostics.set_fault("arm", f"{state.name}: {reason.text}{remedy}", reason.name)
        else:
            self._diagnostics.clear_fault("arm")
        if self._last.command is None:
            return False
        self._publisher.publish(messages.command_message(self._last.command, self._robot))
        self._sent.tick()
        return True


main = node_main(CommandGuardNode, CONTROL_NICENESS, real_time=True, role="command_guard")
