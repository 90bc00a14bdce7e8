"""Faults of the control loop, one at a time: injection and removal."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory

from genima.policy.names import GENIMA, REMOTE
from genima.policy.spec import PolicySpec
from genima_cli.faults.policy_server import PolicyServerProcess
from genima_cli.faults.relays import CHUNK, COMMAND, DRAWN, JOINTS, Relay, Relays, image_topic
from genima_cli.faults.shifted_clock import set_clock
from genima_cli.supervisor import Supervisor
from genima_interfaces.msg import DrawnTarget
from genima_nodes.ros import messages, qos

CAMERA_DELAY, POLICY_DELAY = 0.3, 3.0  # s
JUMP = 10.0  # s of the clock; whole seconds, see Relays.record
_DURATION = 2.0  # s for what holds the arm
_BURNERS = 4  # a core
_FLOOD = 500.0  # Hz


@dataclass(frozen=True)
class Scene:
    """Processes and relays that faults act on."""

    supervisor: Supervisor
    relays: Relays
    node: Node  # to publish with
    spec: PolicySpec
    clock: Path  # of the nodes, see set_clock
    server: PolicyServerProcess | None = None  # of policy remote


Onset = Callable[[], float | None]  # monotonic s of the first sample that is changed or missing; None: not yet


@dataclass(frozen=True)
class Fault:
    """Fault that lasts while its context is open."""

    name: str
    inject: Callable[[Scene], AbstractContextManager[Onset]]
    seconds: float = _DURATION
    must_hold: bool = True  # else the arm may continue
    restarts: str = ""  # the node that is started again when the context closes
    clock: bool = False  # needs nodes whose clock can be set


def all_faults(views: Sequence[str], policy: str = GENIMA) -> list[Fault]:
    """Return all faults of a policy's graph in the order of the bench."""
    # After a jump the controller holds until the next chunk, which comes before the stop has ended from a fast policy.
    must_hold = policy == GENIMA
    return [
        *(fault for view in views for fault in _camera_faults(view)),
        Fault("joint_states: silent", _message_fault(JOINTS, lambda message: None)),
        Fault("joint_states: a joint is missing", _message_fault(JOINTS, _remove_joint)),
        Fault("joint_states: NaN", _message_fault(JOINTS, _set_nan)),
        Fault("joint_states: joints in another order", _message_fault(JOINTS, _reverse_joints), must_hold=False),
        Fault("joint_states: time goes back", _reverse_time),
        *_policy_faults(policy),
        Fault("controller: killed", _kill_node("controller"), restarts="controller"),
        Fault("controller: NaN", _message_fault(COMMAND, _set_nan)),
        Fault("controller: jumps by 1 rad", _message_fault(COMMAND, _add_offset)),
        Fault("controller: two publishers at 500 Hz", _flood_commands),
        Fault("command_guard: killed", _kill_node("command_guard"), restarts="command_guard"),
        Fault("processor: starved", _starve_processor, seconds=5.0, must_hold=False),
        Fault("clock: 10 s ahead", _jump_clock(JUMP), seconds=4.0, must_hold=must_hold, clock=True),
        Fault("clock: 10 s back", _jump_clock(-JUMP), seconds=4.0, must_hold=must_hold, clock=True),
    ]


def _policy_faults(policy: str) -> list[Fault]:
    late = f"{POLICY_DELAY:.0f} s"
    if policy == GENIMA:
        return [
            Fault("diffusion_agent: killed", _kill_node("diffusion_agent"), restarts="diffusion_agent"),
            Fault("diffusion_agent: draws noise", _message_fault(DRAWN, _replace_by_noise)),
            Fault(f"diffusion_agent: {late} late", _delay_output(DRAWN), seconds=4.0),
        ]
    faults = [
        Fault("policy: killed", _kill_node("policy"), restarts="policy"),
        Fault("policy: NaN", _message_fault(CHUNK, _set_nan_in_chunk)),
        Fault(f"policy: {late} late", _delay_output(CHUNK), seconds=4.0),
    ]
    if policy == REMOTE:
        faults += [
            Fault(f"policy server: stalled for {late}", _stall_server, seconds=POLICY_DELAY),
            Fault("policy server: killed", _kill_server),
        ]
    return faults


def _camera_faults(view: str) -> list[Fault]:
    topic, name = image_topic(view), f"camera {view}"
    return [
        Fault(f"{name}: silent", _message_fault(topic, lambda message: None)),
        Fault(f"{name}: frozen", _freeze_image(topic)),
        Fault(f"{name}: size is no number", _message_fault(topic, _set_invalid_size)),
        Fault(f"{name}: {1000 * CAMERA_DELAY:.0f} ms late", _message_fault(topic, None, CAMERA_DELAY)),
    ]


# Messages.


def _message_fault(
    topic: str, message_fault: Callable[[Any], Any] | None, delay: float = 0.0
) -> Callable[[Scene], AbstractContextManager[Onset]]:
    @contextmanager
    def inject(scene: Scene) -> Iterator[Onset]:
        with _inject_message_fault(scene.relays.relays[topic], message_fault, delay) as relay:
            yield lambda: relay.first_fault

    return inject


@contextmanager
def _inject_message_fault(
    relay: Relay, message_fault: Callable[[Any], Any] | None, delay: float = 0.0
) -> Iterator[Relay]:
    relay.delay, relay.fault = delay, message_fault
    try:
        yield relay
    finally:
        relay.clear_fault()


def _freeze_image(topic: str) -> Callable[[Scene], AbstractContextManager[Onset]]:
    """Repeat the last valid image with new stamps."""

    @contextmanager
    def inject(scene: Scene) -> Iterator[Onset]:
        relay = scene.relays.relays[topic]
        frozen_image = relay.last

        def message_fault(message: Image) -> Image:
            frozen = copy.copy(message)
            frozen.data = frozen_image.data
            return frozen

        with _inject_message_fault(relay, message_fault):
            yield lambda: relay.first_fault

    return inject


@contextmanager
def _reverse_time(scene: Scene) -> Iterator[Onset]:
    """Publish every stamp earlier than the one before it."""
    relay = scene.relays.relays[JOINTS]
    first: list[float] = []

    def message_fault(message: JointState) -> JointState:
        stamp = messages.seconds(message.header.stamp)
        first.append(stamp)
        message.header.stamp = messages.time_message(2 * first[0] - stamp - 0.01)
        return message

    with _inject_message_fault(relay, message_fault):
        yield lambda: relay.first_fault


def _delay_output(topic: str) -> Callable[[Scene], AbstractContextManager[Onset]]:
    """Delay the policy's output; the arm may follow the last timely one to its end."""

    @contextmanager
    def inject(scene: Scene) -> Iterator[Onset]:
        relay = scene.relays.relays[topic]
        with _inject_message_fault(relay, None, POLICY_DELAY):
            end = _end(relay, scene)
            yield lambda: end

    return inject


def _end(relay: Relay, scene: Scene) -> float:
    """Return the monotonic time in s at which the last actions of the policy end."""
    reach = scene.spec.horizon / scene.spec.action_rate
    return messages.seconds(relay.last.header.stamp) + reach - time.time() + time.monotonic()


def _set_invalid_size(message: Image) -> Image:
    message.width = message.height = message.step = 2**31  # a NaN converted to an integer
    return message


def _remove_joint(message: JointState) -> JointState:
    message.name, message.position = message.name[1:], message.position[1:]
    return message


def _reverse_joints(message: JointState) -> JointState:
    message.name, message.position = message.name[::-1], message.position[::-1]
    return message


def _set_nan(message: JointState) -> JointState:
    message.position[2] = float("nan")
    return message


def _set_nan_in_chunk(message: JointTrajectory) -> JointTrajectory:
    message.points[0].positions[2] = float("nan")
    return message


def _add_offset(message: JointState) -> JointState:
    for i in range(len(message.position) - 1):  # the last is the gripper
        message.position[i] += 1.0
    return message


def _replace_by_noise(message: DrawnTarget) -> DrawnTarget:
    h, w = message.tile.height, message.tile.width
    garbage = np.random.default_rng().integers(0, 256, (h, w, 3)).astype(np.uint8)
    message.tile = messages.image_message(garbage, messages.seconds(message.header.stamp))
    return message


@contextmanager
def _flood_commands(scene: Scene) -> Iterator[Onset]:
    """Publish on the command topic from two more nodes, each with other positions."""
    publishers = [scene.node.create_publisher(JointState, COMMAND, qos.SOURCE_COMMAND) for _ in range(2)]
    relay = scene.relays.relays[COMMAND]
    ending = threading.Event()
    begin = time.monotonic()

    def flood() -> None:
        side = 1.0
        while not ending.is_set():
            for publisher in publishers:
                message = copy.deepcopy(relay.last)
                message.header.stamp = messages.time_message(messages.now(scene.node))
                for i in range(len(message.position) - 1):
                    message.position[i] += 0.1 * side
                side = -side
                publisher.publish(message)
            time.sleep(1 / _FLOOD)

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    try:
        yield lambda: begin
    finally:
        ending.set()
        thread.join()
        for publisher in publishers:
            scene.node.destroy_publisher(publisher)


# Processes and the machine.


@contextmanager
def _stall_server(scene: Scene) -> Iterator[Onset]:
    """Stall the policy server; the arm may follow its last chunk to its end."""
    assert scene.server is not None
    scene.server.pause()
    try:
        yield lambda: _end(scene.relays.relays[CHUNK], scene)
    finally:
        scene.server.resume()


@contextmanager
def _kill_server(scene: Scene) -> Iterator[Onset]:
    """Kill the policy server, and start it again; the arm may follow its last chunk to its end."""
    assert scene.server is not None
    scene.server.kill()
    try:
        yield lambda: _end(scene.relays.relays[CHUNK], scene)
    finally:
        scene.server.start(scene.supervisor.check)


def _kill_node(name: str) -> Callable[[Scene], AbstractContextManager[Onset]]:
    @contextmanager
    def inject(scene: Scene) -> Iterator[Onset]:
        begin = time.monotonic()
        scene.supervisor.kill(name)
        try:
            yield lambda: begin
        finally:
            scene.supervisor.start(name)

    return inject


@contextmanager
def _starve_processor(scene: Scene) -> Iterator[Onset]:
    """Run programs that use the processor without pause."""
    begin = time.monotonic()
    with ExitStack() as stack:
        for _ in range(_BURNERS * (psutil.cpu_count() or 1)):
            burner = subprocess.Popen([sys.executable, "-P", "-c", "while True: pass"])
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        yield lambda: scene.relays.first_overdue(begin)


def _jump_clock(by: float) -> Callable[[Scene], AbstractContextManager[Onset]]:
    @contextmanager
    def inject(scene: Scene) -> Iterator[Onset]:
        begin = time.monotonic()
        set_clock(scene.clock, by)
        try:
            yield lambda: begin
        finally:
            set_clock(scene.clock, 0.0)

    return inject
