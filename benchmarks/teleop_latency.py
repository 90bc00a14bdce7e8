"""Latency from a leader's sample to the follower's command, over DDS, through the command guard.

This process is the leader and the follower; `teleop` and `command_guard` are processes of their own, as on a robot.
Every sample is a hair's breadth from the one before it, so that a set-point tells which sample it obeys. The limit is
what the messages' two hops take: this process publishes to itself, twice.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from tqdm import tqdm

from genima.errors import GenimaError
from genima_bringup.node_specs import NodeSpec
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_environment import ros_environment

_STEP = 1e-5  # rad between samples
_SAMPLES = 8000  # there and back
_READY = 60.0  # s


@dataclass
class Options(ReportOptions):
    """Time leader samples until they arrive at the robot's input."""

    rate: float = 200.0
    """Rate of the leader and of the command guard, Hz."""
    seconds: float = 30.0
    """Duration."""


@dataclass(frozen=True)
class Result:
    p50: float  # ms
    p99: float  # ms
    longest: float  # ms
    samples: int


def main() -> None:
    options = tyro.cli(Options)
    if not 50 <= options.rate <= 200 or not options.seconds > 0:
        raise GenimaError("--rate must be from 50 to 200 and --seconds positive")
    require_report(options.out, "leading", options.overwrite)
    os.environ.update(ros_environment())
    processes = [
        NodeSpec("genima_nodes", "command_guard", {"rate": options.rate}),
        NodeSpec("genima_nodes", "teleop", {"leader": "same"}),
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        Supervisor(processes, Path(folder), ros_environment()) as supervisor,
    ):
        results = _measure(options, supervisor)
    print(f"{options.rate:g} Hz for {options.seconds:g} s, from the leader's sample to")
    print(f"{'':<34}{'p50 ms':>10}{'p99 ms':>10}{'longest':>10}{'samples':>10}")
    for name, r in results.items():
        print(f"{name:<34}{r.p50:>10.2f}{r.p99:>10.2f}{r.longest:>10.2f}{r.samples:>10}")
    if options.out:
        content = {"rate": options.rate, "results": {name: asdict(r) for name, r in results.items()}}
        write_report(options.out, "leading", content)


def _measure(options: Options, supervisor: Supervisor) -> dict[str, Result]:
    import rclpy
    from rclpy.qos import QoSProfile
    from rclpy.signals import SignalHandlerOptions
    from sensor_msgs.msg import JointState

    from genima.robot.model import RobotModel
    from genima.types import Joints
    from genima_cli.operator import Operator
    from genima_nodes.ros import messages, qos
    from genima_nodes.ros.paced_thread import CALLBACKS, PacedThread, schedule_in_real_time

    robot = RobotModel.load("panda")
    names = [*robot.joint_names, robot.gripper_joint]
    schedule_in_real_time(CALLBACKS)  # like the nodes
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    operator = Operator()
    sent: list[float] = []  # monotonic s of every sample
    lock = threading.Lock()
    heard: dict[str, dict[int, float]] = {"teleop/command": {}, "joint_command": {}, "(one hop, to itself)": {}}
    here = robot.home.copy()
    moving = threading.Event()

    def place(k: int) -> float:
        return float(robot.home[0] + _STEP * (_SAMPLES - abs(k % (2 * _SAMPLES) - _SAMPLES)))

    leader = operator.create_publisher(JointState, "leader/joint_states", qos.JOINT_STATES)
    states = operator.create_publisher(JointState, "joint_states", qos.JOINT_STATES)

    def speak(deadline: float, periods: int) -> bool:
        k = len(sent) if moving.is_set() else 0
        message = JointState(name=names)
        message.position = [place(k), *robot.home[1:], 0.0]
        message.velocity = [0.0] * len(names)
        states.publish(messages.joints_message(Joints(messages.now(operator), here, 1.0), robot))
        message.header.stamp = messages.time_message(messages.now(operator))
        if moving.is_set():
            with lock:
                sent.append(time.monotonic())
        leader.publish(message)
        return True

    def hear(topic: str, times: dict[int, float], profile: QoSProfile) -> None:
        def on_message(message: JointState) -> None:
            now = time.monotonic()
            position = message.position[0]
            if topic == "joint_command":
                here[:] = message.position[: len(here)]
            with lock:
                last = len(sent) - 1
            for k in range(last, max(-1, last - 40), -1):  # the newest sample that it may obey
                if abs(place(k) - position) < _STEP / 4:
                    times.setdefault(k, now)
                    break

        operator.create_subscription(JointState, topic, on_message, profile)

    hear("teleop/command", heard["teleop/command"], qos.JOINT_COMMAND)
    hear("joint_command", heard["joint_command"], qos.JOINT_COMMAND)
    hear("leader/joint_states", heard["(one hop, to itself)"], qos.JOINT_STATES)
    pace = PacedThread(1 / options.rate, speak, "leader")
    try:
        pace.start()
        operator.wait_ready(["teleop", "command_guard"], _READY, supervisor.check)
        operator.lead(_READY, supervisor.check)
        moving.set()
        with tqdm(total=round(options.seconds), unit="s", disable=None) as progress:
            for _ in range(progress.total):
                operator.spin_until(lambda: False, 1.0, supervisor.check)
                progress.update()
    finally:
        pace.close()
        operator.close()
        rclpy.try_shutdown()
    return {name: _result(sent, times) for name, times in heard.items()}


def _result(sent: list[float], heard: dict[int, float]) -> Result:
    late = 1e3 * np.array([time - sent[k] for k, time in heard.items()])
    if not len(late):
        raise GenimaError("nothing was heard")
    return Result(float(np.median(late)), float(np.percentile(late, 99)), float(late.max()), len(late))


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
