"""Node: a follower that mirrors a leader, `leader/joint_states` to `teleop/command`, through the command guard.

The operator starts, pauses and ends it by services; `teleop/status` tells how far apart the arms are. Whenever the
follower shall not follow, nothing is commanded, and the guard holds the arm; a pause is told to it by a command without
joints.
"""

from __future__ import annotations

import sys
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
from genima.robot.model import RobotModel, limit_fraction
from genima.teleop.leader_follower import FollowerState, LeaderFollower, LeaderFollowerSettings
from genima.teleop.leader_mapping import LeaderMapping, LeaderSample, toggled
from genima_interfaces.msg import GuardStatus, TeleopStatus
from genima_interfaces.srv import SelectSource
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.node_process import CONTROL_NICENESS, run
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.services import answer_service

SOURCE = SelectSource.Request.TELEOP
_LEADER = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # heard from reliable drivers, too
_BUTTONS = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)  # a short press must not be overtaken
_WATCH, _TELL = 0.02, 0.1  # s between looks at the leader's age, and between words to the operator
_STALE = 0.1  # s: a follower whose joints are older cannot be led
_RESTARTED = 2.0  # s of silence, after which the leader may have been restarted: its turns are not known any more


class TeleopNode(Node):
    """Mirrors at the leader's own rate: every sample is answered at once, in the executor's thread."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters or a leader's file that make no sense.
        """
        super().__init__("teleop", **options)
        self._robot = RobotModel.load(parameters.text(self, "robot", "panda"))
        self._leader = LeaderMapping.load(parameters.text(self, "leader", "panda"), self._robot)
        settings = parameters.settings(self, LeaderFollowerSettings())
        self._mirror, self._near = LeaderFollower(self._robot, settings), settings.near
        self._unwraps = parameters.flag(self, "unwrap_at_start", False) or self._leader.unwrap_at_start
        self._turns = np.zeros(len(self._robot.joint_names), np.int64)  # by which the leader's joints are turned back
        self._sample: LeaderSample | None = None  # the leader's newest
        self._strangers: list[str] = []  # joints that are not the leader's, on its topic
        self._gripper: float | None = None  # open fraction, where it comes apart from the arm's joints
        self._pressed = False  # the gripper's button
        self._awaited: Future | None = None  # the guard's answer, with which an alignment begins
        self._owner = ""  # of the arm; empty: none
        self._rests = True  # whether the guard knows that nothing is commanded
        self._limit = ""  # at which the follower stays
        self._stamped = True  # whether the leader's driver stamps its joints

        self._health = DiagnosticUpdater(self)
        self._heard = self._health.meter("leader/joint_states")
        self._said = self._health.meter("teleop/command")
        self._latency = self._health.latency("leader to command")
        self._health.value("phase", lambda: self._mirror.phase.value)
        self._health.value("reason", lambda: self._mirror.reason)
        self._health.value("turns taken back", lambda: " ".join(map(str, self._turns)))
        self._health.value("leader's stamps", lambda: "its own" if self._stamped else "of arrival: it gives none")
        self._health.value("leader's velocities", self._velocities)
        self._publisher = self.create_publisher(JointState, f"{SOURCE}/command", qos.SOURCE_COMMAND)
        self._status = self.create_publisher(TeleopStatus, "teleop/status", qos.STATUS)
        self._select = self.create_client(SelectSource, "command_guard/select")
        self._joints = JointStates(self, self._health, self._robot)
        self.create_subscription(GuardStatus, "command_guard/status", self._on_guard_status, qos.GUARD_STATUS)
        self.create_subscription(JointState, "leader/joint_states", self._on_leader, _LEADER)
        self.create_subscription(Float32, "leader/gripper", self._on_gripper, _LEADER)
        if self._leader.gripper_button is not None:
            self.create_subscription(Joy, "leader/joy", partial(self._on_joy, self._leader.gripper_button), _BUTTONS)
        for name, act in {"start": self._start, "pause": self._pause, "end": self._end}.items():
            self.create_service(Trigger, f"teleop/{name}", answer_service(act))
        self.create_timer(_WATCH, self._watch, clock=STEADY)
        self.create_timer(_TELL, self._tell, clock=STEADY)

    def close(self) -> None:
        """Let go of the follower."""
        self._end()

    # The operator's wishes.

    def _start(self) -> str:
        if self._mirror.phase in (FollowerState.ALIGNING, FollowerState.MIRRORING):
            raise GenimaError(f"it is {self._mirror.phase.value} already")
        now = messages.now(self)
        if self._heard.age < _RESTARTED and (problem := self._health.problem("leader")):
            raise GenimaError(problem)
        if self._sample is None or now - self._sample.stamp > _STALE:
            topic, names = self.resolve_topic_name("leader/joint_states"), ", ".join(self._leader.joint_names)
            others = f" of {names}; only of {', '.join(self._strangers)}" if self._strangers else ""
            raise GenimaError(f"the leader says nothing on {topic}{others}")
        if (joints := self._joints.newest) is None or now - joints.stamp > _STALE:
            raise GenimaError(f"the follower says nothing on {self.resolve_topic_name('joint_states')}")
        unwrapped = self._unwrap(self._sample, joints.positions)
        if not self._select.service_is_ready():
            raise GenimaError("command_guard/select: service not available; start the command guard")
        self._awaited = self._select.call_async(SelectSource.Request(source=SOURCE))
        self._awaited.add_done_callback(self._on_given)
        return f"the follower comes to the leader{unwrapped}"

    def _unwrap(self, sample: LeaderSample, towards: NDArray[np.float64]) -> str:
        """Check that the leader is within the follower's range, with the turns taken back that it may be off.

        Returns:
            What was turned, in words.
        """
        leader = self._leader
        as_published = sample.positions - leader.turned(self._turns)
        turns, now = self._turns, sample.positions
        if self._unwraps and np.any(leader.unwrap(now, towards, self._near)):  # it was restarted, or never unwrapped
            turns = leader.unwrap(as_published, towards, self._near)
            now = as_published + leader.turned(turns)
        leader.require_within_range(now, self._near)
        if np.array_equal(turns, self._turns) and not np.any(turns):
            return ""
        self._turns, self._sample = turns, replace(sample, positions=now)
        rows = zip(leader.joint_names, turns, as_published, now, strict=True)
        told = [f"{name} by {k:+d} turns, {was:.2f} -> {new:.2f} rad" for name, k, was, new in rows if k]
        line = f"; unwrapped: {', '.join(told) or 'nothing any more'}"
        self.get_logger().info(line.removeprefix("; "))
        return line

    def _pause(self) -> str:
        awaited, self._awaited = self._awaited, None
        if awaited is None and self._mirror.phase not in (FollowerState.ALIGNING, FollowerState.MIRRORING):
            raise GenimaError(f"it is {self._mirror.phase.value}, there is nothing to pause")
        self._mirror.pause()
        self._say_rest()
        return "the follower rests; start to go on"

    def _say_rest(self) -> None:
        """Publish a command without joints: the guard pauses instead of waiting for commands."""
        if self._owner == SOURCE and not self._rests:
            message = JointState()
            message.header.stamp = messages.time_message(messages.now(self))
            self._publisher.publish(message)
            self._rests = True

    def _end(self) -> str:
        another = self._owner not in (SOURCE, "") and self._awaited is None
        self._awaited = None
        self._let_go()
        if another:
            return f"owner of the follower: {self._owner}"
        if self._select.service_is_ready():  # also without an owner: the status that it is ours may not be here yet
            self._select.call_async(SelectSource.Request(source=SelectSource.Request.NONE))
        return "owner of the follower: none"

    def _let_go(self, reason: str = "") -> None:
        self._mirror.end(reason)
        if self._leader.gripper_button is not None:  # what was pressed does not count for the next start
            self._gripper = None

    def _on_given(self, answer: Future) -> None:
        if answer is not self._awaited:
            return  # the operator has changed his mind
        self._awaited = None
        if answer.result().success:
            self._health.clear("command_guard")
            self._mirror.start()
        else:
            self._health.fault("command_guard", f"does not give the arm away: {answer.result().message}")

    def _on_guard_status(self, message: GuardStatus) -> None:
        if message.owner == self._owner:
            return
        self._owner = message.owner
        if self._owner != SOURCE and self._mirror.phase is not FollowerState.IDLE:
            self._let_go(f"the owner of the arm is {self._owner or SelectSource.Request.NONE} now")

    # The leader.

    def _on_gripper(self, message: Float32) -> None:
        try:
            self._gripper = limit_fraction(message.data)
        except GenimaError as error:
            self._health.fault("leader/gripper", str(error))
        else:
            self._health.clear("leader/gripper")

    def _on_joy(self, button: int, message: Joy) -> None:
        if button >= len(message.buttons):
            self._health.fault("leader/joy", f"has {len(message.buttons)} buttons, the gripper's is number {button}")
            return
        self._health.clear("leader/joy")
        pressed = bool(message.buttons[button])
        if pressed and not self._pressed:
            self._gripper = toggled(self._gripper, self._joints.newest)  # None while it is unknown
        self._pressed = pressed

    def _on_leader(self, message: JointState) -> None:
        if not self._leader.speaks_of_arm(message.name):
            self._strangers = list(message.name)
            self._on_gripper_apart(message)
            return
        self._heard.tick()
        now = messages.now(self)
        try:
            stamp = messages.seconds(message.header.stamp)
            self._stamped = stamp > 0  # some drivers do not stamp
            stamp = stamp if self._stamped else now
            sample = self._leader.sample(stamp, message.name, message.position, message.velocity)
            if abs(now - stamp) > _STALE:
                raise GenimaError(f"its stamps are {abs(now - stamp):.2f} s {'old' if now > stamp else 'ahead'}")
        except GenimaError as error:
            self._heard.drop()
            self._health.fault("leader", str(error))
            self._mirror.hold(str(error))
            return
        self._health.clear("leader")
        if self._sample is not None and stamp - self._sample.stamp > _RESTARTED:
            self._turns = np.zeros_like(self._turns)
        gripper = self._gripper if sample.gripper is None else sample.gripper
        sample = replace(sample, positions=sample.positions + self._leader.turned(self._turns), gripper=gripper)
        self._sample = sample
        joints = self._joints.newest
        if joints is None or now - joints.stamp > _STALE:
            self._mirror.hold("the follower is silent")
            return
        command = self._mirror.follow(sample, joints)
        if command is not None:
            self._publisher.publish(messages.command_message(command, self._robot))
            self._rests = False
            self._said.tick()
            self._latency.add(messages.now(self) - stamp)
        self._log_limit()

    def _on_gripper_apart(self, message: JointState) -> None:
        """Some drivers publish the gripper's joint apart from the arm's."""
        try:
            fraction = self._leader.gripper_in(message.name, message.position)
        except GenimaError as error:
            self._health.fault("leader's gripper", str(error))
            return
        if fraction is not None:
            self._gripper = fraction
            self._health.clear("leader's gripper")

    def _log_limit(self) -> None:
        """Log once when the follower comes to a limit at which the leader goes on."""
        limit = self._mirror.reason if self._mirror.phase is FollowerState.MIRRORING else ""
        if limit and not self._limit:
            self.get_logger().warning(limit)
        self._limit = limit

    def _velocities(self) -> str:
        if self._sample is None:
            return "unknown"
        return "its own" if self._sample.velocities is not None else "measured: it gives none that are finite"

    def _watch(self) -> None:
        self._mirror.watch(messages.now(self))
        if self._mirror.phase in (FollowerState.PAUSED, FollowerState.HELD):
            self._say_rest()
        if self._mirror.phase is FollowerState.HELD:
            self._health.fault("mirror", f"{self._mirror.reason}; the follower is held, start again to go on")
        else:
            self._health.clear("mirror")

    def _tell(self) -> None:
        now, sample, joints = messages.now(self), self._sample, self._joints.newest
        status = TeleopStatus(
            phase=self._mirror.phase.value,
            reason=self._mirror.reason,
            joints=list(self._robot.joint_names),
            leader_rate=self._heard.rate,
        )
        status.header.stamp = messages.time_message(now)
        if sample is not None and joints is not None and now - min(sample.stamp, joints.stamp) <= _STALE:
            status.distance = self._mirror.distance(sample, joints).tolist()
        self._status.publish(status)


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(TeleopNode, args, CONTROL_NICENESS, real_time=True, role="teleop")


if __name__ == "__main__":
    sys.exit(main())
