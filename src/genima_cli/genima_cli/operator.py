"""Operator of teleoperation and recording: client node of their services."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from geometry_msgs.msg import TwistStamped
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, JointState
from std_msgs.msg import Float32
from std_srvs.srv import SetBool, Trigger

from genima.errors import GenimaError
from genima.teleop.leader_follower import FollowerState
from genima_cli.graph_client import GraphClient
from genima_interfaces.msg import CalibratorStatus, LeaderStatus, RecorderStatus, SceneStatus, TeleopStatus
from genima_interfaces.srv import DropSample, ResetScene, StartEpisode
from genima_nodes.ros import messages, qos

_SERVICES = {
    Trigger: [
        *("teleop/start", "teleop/pause", "teleop/end"),
        *("leader/home", "leader/approach", "leader/play"),
        *("recorder/stop", "recorder/discard"),
        *("calibrator/take", "calibrator/compute", "calibrator/save"),
    ],
    SetBool: ["recorder/mark", "calibrator/auto"],
    DropSample: ["calibrator/drop"],
    StartEpisode: ["recorder/start"],
    ResetScene: ["sim/reset"],
}
_RETRY_PERIOD = 0.3  # s between attempts to align the follower
_SETTLE_TIME = 1.0  # s that the follower has after its leader
_RECEIVE_TIMEOUT = 5.0  # s for the leader to receive the scene, and for its status to arrive
_PLAY_TIMEOUT = 120.0  # s for an expert to play, or to move to its start
_RENDER_TIMEOUT = 3.0  # s for images that are still being rendered


class Operator(GraphClient):
    """Client node; its callbacks run only while it spins."""

    def __init__(self, namespace: str = "") -> None:
        super().__init__("operator", namespace)
        self.status: TeleopStatus | None = None
        self.recorder: RecorderStatus | None = None
        self.calibrator: CalibratorStatus | None = None
        self._scene = SceneStatus()
        self.leader = LeaderStatus()  # simulated, or a replay
        self._image_stamp = 0.0  # s, of the newest image
        self._gripper: float | None = None  # commanded open fraction; None until one is received
        for kind, names in _SERVICES.items():
            for name in names:
                self.client(kind, name)
        self._push = self.create_publisher(TwistStamped, "leader/jog", qos.JOINT_COMMAND)
        self._grip = self.create_publisher(Float32, "leader/jog/gripper", qos.JOINT_COMMAND)
        self.create_subscription(TeleopStatus, "teleop/status", partial(setattr, self, "status"), qos.STATUS)
        self.create_subscription(RecorderStatus, "recorder/status", partial(setattr, self, "recorder"), qos.STATUS)
        self.create_subscription(
            CalibratorStatus, "calibrator/status", partial(setattr, self, "calibrator"), qos.STATUS
        )
        self.create_subscription(SceneStatus, "sim/status", partial(setattr, self, "_scene"), qos.STATUS)
        self.create_subscription(CameraInfo, "cameras/front/color/camera_info", self._on_camera, qos.IMAGE)
        self.create_subscription(LeaderStatus, "leader/status", partial(setattr, self, "leader"), qos.LATCHED)
        self.create_subscription(JointState, "teleop/command", self._on_command, qos.JOINT_COMMAND)

    @property
    def has_follower(self) -> bool:
        """Return whether a follower node runs."""
        return self.count_publishers("teleop/status") > 0

    @property
    def has_jog(self) -> bool:
        """Return whether a jog leader runs."""
        return self.count_subscribers("leader/jog") > 0

    @property
    def following(self) -> bool:
        """Return whether the follower follows or approaches the leader."""
        return self.status is not None and self.status.state in (TeleopStatus.ALIGNING, TeleopStatus.MIRRORING)

    @property
    def success(self) -> bool:
        """Return the simulator's task success."""
        return bool(self._scene.success)

    def reset(self, task: str, seed: int, alive: Callable[[], None]) -> str:
        """Reset the scene of a task, and wait until all nodes have received it; return its instruction."""
        instruction = super().reset(task, seed, alive)
        begin = messages.now(self)
        self.spin_until(lambda: messages.seconds(self._scene.header.stamp) > begin, _SETTLE_TIME, alive)
        return instruction

    def lead(self, timeout: float, alive: Callable[[], None]) -> None:
        """Take the follower, and wait until it mirrors.

        Raises:
            GenimaError: when teleop/start is rejected, or it does not mirror within ``timeout`` s.
        """
        deadline, started = time.monotonic() + timeout, False
        self.status = None  # earlier messages do not count
        while time.monotonic() < deadline:
            if self._state() != TeleopStatus.ALIGNING:  # no leader message yet, or a short gap held the follower
                answer = self.trigger("teleop/start", alive)
                started, self.status = started or answer.success, None
            if self.spin_until(lambda: self._state() == TeleopStatus.MIRRORING, _RETRY_PERIOD, alive):
                return
        if not started:
            raise GenimaError("; ".join([answer.message, *self.faults()]))
        raise GenimaError(f"teleop: not mirroring after {timeout:.0f} s; {self._state_text()}")

    def require_following(self) -> None:
        """Raise a GenimaError when the follower does not mirror its leader."""
        if self.status is None or self.status.state != TeleopStatus.MIRRORING:
            raise GenimaError(f"teleop: not mirroring; {self._state_text()}")

    def _state(self) -> int | None:
        return self.status.state if self.status else None

    def _state_text(self) -> str:
        if self.status is None:
            return "no status received"
        reason = f" ({self.status.reason})" if self.status.reason else ""
        return "; ".join([f"follower {FollowerState(self.status.state).name}{reason}", *self.faults()])

    def move_home(self, alive: Callable[[], None]) -> None:
        """Move the simulated leader near the start of its demo."""
        if not self.spin_until(lambda: self.leader.resets >= self._scene.resets, _RECEIVE_TIMEOUT, alive):
            raise GenimaError(f"leader: scene not received within {_RECEIVE_TIMEOUT:.0f} s")
        self.call_trigger("leader/home", alive)

    def approach(self, alive: Callable[[], None]) -> None:
        """Move the leader to the start of its demo."""
        self._await_leader("leader/approach", alive, _PLAY_TIMEOUT)

    def play(self, alive: Callable[[], None], timeout: float = _PLAY_TIMEOUT) -> float:
        """Play the leader's demo to its end; return its duration in s.

        Raises:
            GenimaError: when it refuses, or still plays after ``timeout`` s.
        """
        begin = time.monotonic()
        self._await_leader("leader/play", alive, timeout)
        self.spin_until(lambda: self.success, _SETTLE_TIME, alive)
        return time.monotonic() - begin

    def await_images(self, alive: Callable[[], None]) -> None:
        """Wait until the simulator has rendered all past camera images."""
        now = messages.now(self)
        self.spin_until(lambda: self._image_stamp > now, _RENDER_TIMEOUT, alive)

    def _await_leader(self, service: str, alive: Callable[[], None], timeout: float) -> None:
        self.require(self.trigger(service, alive))
        self.spin_until(lambda: self.leader.playing, _RECEIVE_TIMEOUT, alive)
        if not self.spin_until(lambda: not self.leader.playing, timeout, alive):
            raise GenimaError(f"{service}: leader still playing after {timeout:.0f} s; wait for its end, or restart it")

    def start_episode(self, request: StartEpisode.Request, alive: Callable[[], None]) -> Path:
        """Start to record; return the folder of the episode."""
        answer = self.call(StartEpisode, "recorder/start", request, alive)
        self.require(answer)
        return Path(answer.folder)

    def finish_episode(self, success: bool | None, alive: Callable[[], None]) -> str:
        """Complete the episode, with a judgement where there is one; return the recorder's message."""
        if success is not None:  # an ended recording takes no mark
            self.call(SetBool, "recorder/mark", SetBool.Request(data=success), alive)
        return self.call_trigger("recorder/stop", alive)

    def drop_sample(self, name: str, alive: Callable[[], None]) -> str:
        """Remove a sample of the calibration, by default the last; return the calibrator's message."""
        answer = self.call(DropSample, "calibrator/drop", DropSample.Request(name=name), alive)
        self.require(answer)
        return str(answer.message)

    def run_automatic_calibration(self, on: bool, alive: Callable[[], None]) -> str:
        """Start or stop the automatic calibration; return the calibrator's message."""
        answer = self.call(SetBool, "calibrator/auto", SetBool.Request(data=on), alive)
        self.require(answer)
        return str(answer.message)

    def call_trigger(self, service: str, alive: Callable[[], None]) -> str:
        """Return the response of a service without a message."""
        answer = self.trigger(service, alive)
        self.require(answer)
        return str(answer.message)

    def push(self, twist: NDArray[np.float64]) -> None:
        """Jog the tip, (6,) m/s and rad/s; the motion ends by itself soon."""
        message = TwistStamped()
        message.header.stamp = self.get_clock().now().to_msg()
        linear, angular = message.twist.linear, message.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = map(float, twist)
        self._push.publish(message)

    def toggle_gripper(self) -> str:
        """Toggle the gripper; return the motion's name.

        Raises:
            GenimaError: while it is not known how far it is open.
        """
        if self._gripper is None:
            raise GenimaError("gripper: opening unknown; start to follow first")
        self._gripper = 0.0 if self._gripper > 0.5 else 1.0
        self._grip.publish(Float32(data=self._gripper))
        return "the gripper opens" if self._gripper else "the gripper closes"

    @staticmethod
    def require(answer: Trigger.Response | SetBool.Response | StartEpisode.Response | DropSample.Response) -> None:
        """Raise a GenimaError with the message of a service that failed."""
        if not answer.success:
            raise GenimaError(answer.message)

    def _on_command(self, message: JointState) -> None:
        if message.name and len(message.position) and math.isfinite(message.position[-1]):  # without it the arm rests
            self._gripper = float(message.position[-1])  # the gripper's joint is the last, its open fraction

    def _on_camera(self, message: CameraInfo) -> None:
        self._image_stamp = messages.seconds(message.header.stamp)  # rclpy's Time refuses negative ones
