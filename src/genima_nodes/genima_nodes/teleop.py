"""Node: leader-follower teleoperation, `leader/joint_states` to `teleop/command`, through the command guard.

The operator starts, pauses and ends teleoperation by services; `teleop/status` has the distance between the arms. While
the follower does not follow, no command is published and the guard holds the arm; a command without joints announces a
pause.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Float32
from std_srvs.srv import Trigger

from genima.errors import GenimaError
from genima.robot.model import limit_fraction
from genima.teleop.leader_follower import FollowerState, LeaderFollower, LeaderFollowerSettings
from genima.teleop.leader_mapping import LeaderMapping, LeaderSample, toggle_gripper
from genima_interfaces.msg import GuardStatus, TeleopStatus
from genima_interfaces.srv import SelectSource
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.services import trigger_callback

SOURCE = SelectSource.Request.TELEOP
_LEADER = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # compatible with reliable drivers, too
_BUTTONS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)  # a short press must not be lost
_CHECK_PERIOD, _STATUS_PERIOD = 0.02, 0.1  # s between checks of the leader's age, and between statuses
_STALE = 0.1  # s: maximum age of joints
_RESTARTED = 2.0  # s without samples, after which the leader may have been restarted: its turns are unknown


class TeleopNode(Node):
    """Leader-follower control at the leader's rate: one command for each sample, in the executor's thread."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for an invalid parameter or leader file.
        """
        super().__init__("teleop", **options)
        self._robot = parameters.cell(self).robot
        self._leader = LeaderMapping.load(parameters.text(self, "leader", "panda"), self._robot)
        settings = parameters.settings(self, LeaderFollowerSettings())
        self._follower, self._near = LeaderFollower(self._robot, settings), settings.near
        self._unwrap_at_start = parameters.flag(self, "unwrap_at_start", False) or self._leader.unwrap_at_start
        self._turns = np.zeros(len(self._robot.joint_names), np.int64)  # subtracted from the leader's joints
        self._sample: LeaderSample | None = None  # newest
        self._unknown_joints: list[str] = []  # names of a message on the leader's topic without the leader's joints
        self._gripper: float | None = None  # open fraction, where it is published separately
        self._pressed = False  # state of the gripper's button
        self._response: Future | None = None  # the guard's response, which starts an alignment
        self._owner = ""  # of the arm; empty: none
        self._pause_published = True
        self._limit = ""  # text of the limit at which the follower stays
        self._stamped = True  # False: the leader's driver does not set stamps

        self._diagnostics = DiagnosticUpdater(self)
        self._received = self._diagnostics.add_topic("leader/joint_states")
        self._published = self._diagnostics.add_topic("teleop/command")
        self._latency = self._diagnostics.add_latency("leader to command")
        self._diagnostics.add_value("state", lambda: self._follower.state.name)
        self._diagnostics.add_value("reason", lambda: self._follower.reason)
        self._diagnostics.add_value("turns subtracted", lambda: " ".join(map(str, self._turns)))
        self._diagnostics.add_value(
            "leader's stamps", lambda: "published" if self._stamped else "time of arrival (none published)"
        )
        self._diagnostics.add_value("leader's velocities", self._velocities)
        self._publisher = self.create_publisher(JointState, f"{SOURCE}/command", qos.SOURCE_COMMAND)
        self._status = self.create_publisher(TeleopStatus, "teleop/status", qos.STATUS)
        self._select = self.create_client(SelectSource, "command_guard/select")
        self._joints = JointStates(self, self._diagnostics, self._robot)
        self.create_subscription(GuardStatus, "command_guard/status", self._on_guard_status, qos.GUARD_STATUS)
        self.create_subscription(JointState, "leader/joint_states", self._on_leader, _LEADER)
        self.create_subscription(Float32, "leader/gripper", self._on_gripper, _LEADER)
        if self._leader.gripper_button is not None:
            self.create_subscription(Joy, "leader/joy", partial(self._on_joy, self._leader.gripper_button), _BUTTONS)
        for name, act in {"start": self._start, "pause": self._pause, "end": self._end}.items():
            self.create_service(Trigger, f"teleop/{name}", trigger_callback(act))
        self.create_timer(_CHECK_PERIOD, self._check, clock=STEADY)
        self.create_timer(_STATUS_PERIOD, self._publish_status, clock=STEADY)

    def close(self) -> None:
        """Release the follower."""
        self._end()

    # Services.

    def _start(self) -> str:
        if self._follower.state in (FollowerState.ALIGNING, FollowerState.MIRRORING):
            raise GenimaError(f"teleop/start: already {self._follower.state.name}")
        now = messages.now(self)
        if self._received.age < _RESTARTED and (problem := self._diagnostics.fault_text("leader")):
            raise GenimaError(problem)
        if self._sample is None or now - self._sample.stamp > _STALE:
            topic, names = self.resolve_topic_name("leader/joint_states"), ", ".join(self._leader.joint_names)
            others = f" with {names} (received: {', '.join(self._unknown_joints)})" if self._unknown_joints else ""
            raise GenimaError(f"leader: no joint states on {topic}{others}")
        if (joints := self._joints.newest) is None or now - joints.stamp > _STALE:
            raise GenimaError(f"follower: no joint states on {self.resolve_topic_name('joint_states')}")
        unwrapped = self._unwrap(self._sample, joints.positions)
        if not self._select.service_is_ready():
            raise GenimaError("command_guard/select: service not available; start the command guard")
        self._response = self._select.call_async(SelectSource.Request(source=SOURCE))
        self._response.add_done_callback(self._on_selected)
        return f"follower: aligning with the leader{unwrapped}"

    def _unwrap(self, sample: LeaderSample, towards: NDArray[np.float64]) -> str:
        """Check that the leader is within the follower's range, after unwrapping if that is configured.

        Returns:
            The unwrapped joints as text.
        """
        leader = self._leader
        as_published = sample.positions - leader.turn_offset(self._turns)
        turns, now = self._turns, sample.positions
        if self._unwrap_at_start and np.any(leader.unwrap(now, towards, self._near)):  # restarted, or not unwrapped yet
            turns = leader.unwrap(as_published, towards, self._near)
            now = as_published + leader.turn_offset(turns)
        leader.require_within_range(now, self._near)
        if np.array_equal(turns, self._turns) and not np.any(turns):
            return ""
        self._turns, self._sample = turns, replace(sample, positions=now)
        rows = zip(leader.joint_names, turns, as_published, now, strict=True)
        joints = [f"{name} by {k:+d} turns, {was:.2f} -> {new:.2f} rad" for name, k, was, new in rows if k]
        line = f"; unwrapped: {', '.join(joints) or 'none'}"
        self.get_logger().info(line.removeprefix("; "))
        return line

    def _pause(self) -> str:
        response, self._response = self._response, None
        if response is None and self._follower.state not in (FollowerState.ALIGNING, FollowerState.MIRRORING):
            raise GenimaError(f"teleop/pause: not active ({self._follower.state.name}); start first")
        self._follower.pause()
        self._publish_pause()
        return "follower: PAUSED"

    def _publish_pause(self) -> None:
        """Publish a command without joints: the guard pauses instead of waiting for commands."""
        if self._owner == SOURCE and not self._pause_published:
            message = JointState()
            message.header.stamp = messages.time_message(messages.now(self))
            self._publisher.publish(message)
            self._pause_published = True

    def _end(self) -> str:
        owned_by_other = self._owner not in (SOURCE, "") and self._response is None
        self._response = None
        self._release()
        if owned_by_other:
            return f"owner of the follower: {self._owner}"
        if self._select.service_is_ready():  # also without an owner: the status with this owner may not have arrived
            self._select.call_async(SelectSource.Request(source=SelectSource.Request.NONE))
        return "owner of the follower: none"

    def _release(self, reason: str = "") -> None:
        self._follower.end(reason)
        if self._leader.gripper_button is not None:  # presses before the next start do not count
            self._gripper = None

    def _on_selected(self, answer: Future) -> None:
        if answer is not self._response:
            return  # paused or ended meanwhile
        self._response = None
        if answer.result().success:
            self._diagnostics.clear_fault("command_guard")
            self._follower.start()
        else:
            self._diagnostics.set_fault(
                "command_guard", f"request of the arm for {SOURCE} refused ({answer.result().message})"
            )

    def _on_guard_status(self, message: GuardStatus) -> None:
        if message.owner == self._owner:
            return
        self._owner = message.owner
        if self._owner != SOURCE and self._follower.state is not FollowerState.IDLE:
            self._release(f"owner of the arm: {self._owner or SelectSource.Request.NONE}")

    # Leader

    def _on_gripper(self, message: Float32) -> None:
        try:
            self._gripper = limit_fraction(message.data)
        except GenimaError as error:
            self._diagnostics.set_fault("leader/gripper", str(error))
        else:
            self._diagnostics.clear_fault("leader/gripper")

    def _on_joy(self, button: int, message: Joy) -> None:
        if button >= len(message.buttons):
            self._diagnostics.set_fault(
                "leader/joy", f"button {button} of the gripper missing ({len(message.buttons)} buttons)"
            )
            return
        self._diagnostics.clear_fault("leader/joy")
        pressed = bool(message.buttons[button])
        if pressed and not self._pressed:
            self._gripper = toggle_gripper(self._gripper, self._joints.newest)  # None while it is unknown
        self._pressed = pressed

    def _on_leader(self, message: JointState) -> None:
        if not self._leader.has_arm_joints(message.name):
            self._unknown_joints = list(message.name)
            self._on_separate_gripper(message)
            return
        self._received.tick()
        now = messages.now(self)
        try:
            stamp = messages.seconds(message.header.stamp)
            self._stamped = stamp > 0  # some drivers do not set stamps
            stamp = stamp if self._stamped else now
            sample = self._leader.sample(stamp, message.name, message.position, message.velocity)
            if abs(now - stamp) > _STALE:
                raise GenimaError(f"stamps are {abs(now - stamp):.2f} s {'old' if now > stamp else 'ahead'}")
        except GenimaError as error:
            self._received.drop()
            self._diagnostics.set_fault("leader", str(error))
            self._follower.hold(str(error))
            return
        self._diagnostics.clear_fault("leader")
        if self._sample is not None and stamp - self._sample.stamp > _RESTARTED:
            self._turns = np.zeros_like(self._turns)
        gripper = self._gripper if sample.gripper is None else sample.gripper
        sample = replace(sample, positions=sample.positions + self._leader.turn_offset(self._turns), gripper=gripper)
        self._sample = sample
        joints = self._joints.newest
        if joints is None or now - joints.stamp > _STALE:
            self._follower.hold(f"no follower joints for {_STALE:g} s")
            return
        command = self._follower.follow(sample, joints)
        if command is not None:
            self._publisher.publish(messages.command_message(command, self._robot))
            self._pause_published = False
            self._published.tick()
            self._latency.add(messages.now(self) - stamp)
        self._log_limit()

    def _on_separate_gripper(self, message: JointState) -> None:
        """Store the gripper's opening from a joint state of the gripper alone."""
        try:
            fraction = self._leader.gripper_fraction(message.name, message.position)
        except GenimaError as error:
            self._diagnostics.set_fault("leader's gripper", str(error))
            return
        if fraction is not None:
            self._gripper = fraction
            self._diagnostics.clear_fault("leader's gripper")

    def _log_limit(self) -> None:
        """Log once when the follower reaches a limit."""
        limit = self._follower.reason if self._follower.state is FollowerState.MIRRORING else ""
        if limit and not self._limit:
            self.get_logger().warning(limit)
        self._limit = limit

    def _velocities(self) -> str:
        if self._sample is None:
            return "unknown"
        return "published" if self._sample.velocities is not None else "finite differences (none published)"

    def _check(self) -> None:
        self._follower.check_timeout(messages.now(self))
        if self._follower.state in (FollowerState.PAUSED, FollowerState.HELD):
            self._publish_pause()
        if self._follower.state is FollowerState.HELD:
            self._diagnostics.set_fault("follower", f"HELD: {self._follower.reason}; call teleop/start to continue")
        else:
            self._diagnostics.clear_fault("follower")

    def _publish_status(self) -> None:
        now, sample, joints = messages.now(self), self._sample, self._joints.newest
        status = TeleopStatus(
            state=self._follower.state.value,
            reason=self._follower.reason,
            joints=list(self._robot.joint_names),
            leader_rate=self._received.rate,
        )
        status.header.stamp = messages.time_message(now)
        if sample is not None and joints is not None and now - min(sample.stamp, joints.stamp) <= _STALE:
            status.distance = self._follower.distance(sample, joints).tolist()
        self._status.publish(status)


main = node_main(TeleopNode, CONTROL_NICENESS, real_time=True, role="teleop")
