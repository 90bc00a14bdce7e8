"""Node: the only publisher of `joint_command`. Commands of the owner in, safe set-points out at a fixed rate."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from genima.control.collision import ForbiddenRegion, SelfCollision, Workspace
from genima.control.command_guard import CommandGuard, GuardOutput, GuardSettings
from genima.control.guard_status import INTENDED, GuardReason, GuardState
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Joints
from genima_interfaces.srv import SelectSource
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.advice import call
from genima_nodes.ros.clock import StampClock
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.node_process import CONTROL_NICENESS, run
from genima_nodes.ros.paced_thread import STEADY, PacedThread

SOURCES = ("controller", "teleop", "calibrator")
NOBODY = "none"
_STOPPING = 0.5  # s, more than the arm needs to come to rest
_PHASE = 0.4  # of a period after the controller's command was due: by then it is here, and hardly old
_LOOK_ROUND = 0.05  # s between looks at who publishes


class CommandGuardNode(Node):
    """Passes on what the owner wishes, within the limits of the arm."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters that make no sense.
        """
        super().__init__("command_guard", **options)
        self._robot = RobotModel.load(parameters.text(self, "robot", "panda"))
        rate = parameters.rate(self)
        settings = parameters.settings(self, GuardSettings())
        self._guard = CommandGuard(self._robot, rate, SOURCES, settings, self._keep_outs())
        self._rivals: set[str] = set()  # sources that more than one publisher speaks for
        self._lock = threading.Lock()
        self._stamp_clock = StampClock(self)
        self._last = GuardOutput(None, GuardState.HELD, GuardReason.NO_OWNER)

        self._health = DiagnosticUpdater(self)
        self._sent = self._health.meter("joint_command")
        self._wishes = {source: self._health.meter(f"{source}/command") for source in SOURCES}
        self._health.value("real-time scheduling", lambda: self._pace.real_time)
        self._health.value("late set-points", lambda: self._pace.late)
        self._health.value("due set-points", lambda: self._pace.ticks)
        self._age = self._health.latency("command to guard")
        self._health.value("owner", lambda: self._guard.owner or NOBODY)
        self._health.value("verdict", lambda: self._last.verdict.value)
        self._health.value("reason", lambda: self._last.reason.value)
        for reason in GuardReason:
            if reason is not GuardReason.NONE:
                self._health.value(f"count: {reason.value}", partial(self._guard.counts.__getitem__, reason))

        self._publisher = self.create_publisher(JointState, "joint_command", qos.JOINT_COMMAND)
        self._owner = self.create_publisher(String, "command_guard/owner", qos.TASK)
        self._tell_owner()
        JointStates(self, self._health, self._robot, self._on_joints)
        for source in SOURCES:
            callback = self._command_callback(source)
            self.create_subscription(JointState, f"{source}/command", callback, qos.JOINT_COMMAND)
        self.create_service(SelectSource, "command_guard/select", self._on_select)
        self.create_service(Trigger, "command_guard/stop", self._on_stop)
        self.create_service(Trigger, "command_guard/resume", self._on_resume)
        recovery = parameters.service(self, "recovery")  # service of who brings a robot back after a reflex
        self._recovery = self.create_client(Trigger, recovery) if recovery else None
        self._recovering: Future | None = None
        self.create_timer(_LOOK_ROUND, self._look_round, clock=STEADY)
        self._pace = PacedThread(1 / rate, self._tick, "set-points", phase=_PHASE)
        self._pace.start()

    def close(self) -> None:
        """Bring the arm to rest, then end the paced thread."""
        with self._lock:
            self._guard.stop()
        deadline = time.monotonic() + _STOPPING
        while not self._guard.at_rest and time.monotonic() < deadline:
            time.sleep(0.01)
        self._pace.close()

    def _keep_outs(self) -> list[ForbiddenRegion]:
        places: list[ForbiddenRegion] = []
        box = parameters.numbers(self, "workspace", [0.0])
        if box != [0.0]:
            places.append(Workspace(self._robot, box[:3], box[3:]))
        if parameters.flag(self, "self_collision", False):
            places.append(SelfCollision(self._robot))
        return places

    def _on_joints(self, joints: Joints) -> None:
        with self._lock:
            self._guard.measure(joints)

    def _command_callback(self, source: str) -> Callable[[JointState], None]:
        about = f"{source}/command"

        def on_command(message: JointState) -> None:
            self._wishes[source].tick()
            if source in self._rivals:
                self._wishes[source].drop()
                return
            if not message.name and not message.position:  # it rests on purpose
                self._health.clear(about)
                with self._lock:
                    self._guard.pause(source)
                return
            try:
                command = messages.command_from(message, self._robot)
            except GenimaError as error:
                self._wishes[source].drop()
                self._health.fault(about, str(error))
                with self._lock:
                    self._guard.refuse(source)
                return
            self._health.clear(about)
            self._age.add(messages.now(self) - command.stamp)
            with self._lock:
                self._guard.offer(source, command)

        return on_command

    def _look_round(self) -> None:
        """Nobody else may speak to the robot, nor two for one source: between them the arm would be torn."""
        for source in SOURCES:
            if self.count_publishers(f"{source}/command") <= 1:
                self._rivals.discard(source)
                continue
            self._rivals.add(source)
            with self._lock:
                self._guard.refuse(source, GuardReason.RIVALS)
        owner = self._guard.owner
        silent = self._last.reason in (GuardReason.COMMAND_LOST, GuardReason.PAUSED)
        if owner and silent and not self.count_publishers(f"{owner}/command"):
            with self._lock:
                self._guard.select(None)
            self._tell_owner()
            self.get_logger().warning(f"{owner} has ended; nobody may move the arm")
        if (others := self.count_publishers("joint_command") - 1) > 0:
            self._health.fault("joint_command", f"{others} other publishers speak to the robot behind the guard's back")
        else:
            self._health.clear("joint_command")

    def _on_select(self, request: SelectSource.Request, response: SelectSource.Response) -> SelectSource.Response:
        try:
            with self._lock:
                self._guard.select(None if request.source in ("", NOBODY) else request.source)
        except GenimaError as error:
            response.success, response.message = False, str(error)
        else:
            response.success, response.message = True, f"{self._guard.owner or 'nobody'} may move the arm"
            self._tell_owner()
        self.get_logger().info(response.message)
        return response

    def _tell_owner(self) -> None:
        """To whom the arm was taken from, and to whoever else must know."""
        self._owner.publish(String(data=self._guard.owner or NOBODY))

    def _on_stop(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._recovering = None  # who stops the arm while the robot recovers wants it to stay
        with self._lock:
            self._guard.stop()
        response.success, response.message = True, f"stopped; go on with {call(self, 'resume')}"
        self.get_logger().warning(response.message)
        return response

    def _on_resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            if self._recovery is None:
                self._resume()
                response.message = "going on with the next command near the arm"
            else:
                self._recover(self._recovery)
                response.message = "the robot recovers first; then going on with the next command near the arm"
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
        """Ask for the robot's recovery; the arm goes on when that has succeeded. Nothing waits for it here."""
        if not recovery.service_is_ready():
            raise GenimaError(f"nobody serves {recovery.srv_name}, which brings the robot back after a reflex")
        with self._lock:
            if not self._guard.at_rest:
                raise GenimaError("the arm is still moving; resume when it is at rest")
            self._guard.stop()  # also where it was none that stopped: nobody moves a robot that recovers
        self._recovering = recovery.call_async(Trigger.Request())
        self._recovering.add_done_callback(self._on_recovered)

    def _on_recovered(self, answer: Future) -> None:
        if answer is not self._recovering:
            return  # meanwhile it was asked for again, or stopped
        if not answer.result().success:
            self._health.fault("recovery", answer.result().message)
            return
        self._health.clear("recovery")
        self.get_logger().info(answer.result().message)
        with self._lock:
            self._guard.begin_anew()
            self._guard.resume()

    def _tick(self, deadline: float, periods: int) -> bool:
        due = self._stamp_clock.stamp(deadline)
        with self._lock:
            self._last = self._guard.step(due, periods)
        if self._last.verdict in (GuardState.HELD, GuardState.STOPPED) and self._last.reason not in INTENDED:
            remedy = f"; go on with {call(self, 'resume')}" if self._last.reason is GuardReason.REQUESTED else ""
            self._health.fault("arm", f"{self._last.verdict.value}: {self._last.reason.value}{remedy}")
        else:
            self._health.clear("arm")
        if self._last.command is None:
            return False
        self._publisher.publish(messages.command_message(self._last.command, self._robot))
        self._sent.tick()
        return True


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(CommandGuardNode, args, CONTROL_NICENESS, real_time=True, role="command_guard")


if __name__ == "__main__":
    sys.exit(main())
