"""Property tests of all nodes: malformed messages, requests and parameters neither end nor block a node."""

from __future__ import annotations

import array
import copy
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from domains import free_domain
from policy_standins import StandInAgent, StandInController
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from ros_graph import overrides
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Joints
from genima_calibration.calibration_watch import CalibrationWatchNode
from genima_calibration.calibrator import CalibratorNode
from genima_cli.graph_client import GraphClient
from genima_cli.operator import Operator
from genima_nodes.arm_adapter import ArmAdapterNode
from genima_nodes.camera_transforms import CameraTransformsNode
from genima_nodes.checkup import CheckupNode
from genima_nodes.clock_watch import ClockWatchNode
from genima_nodes.command_guard import CommandGuardNode
from genima_nodes.controller import ControllerNode
from genima_nodes.diffusion_agent import DiffusionAgentNode
from genima_nodes.gripper_adapter import GripperAdapterNode
from genima_nodes.jog import JogNode
from genima_nodes.policy import PolicyNode
from genima_nodes.recorder import RecorderNode
from genima_nodes.replay import ReplayNode
from genima_nodes.ros import messages
from genima_nodes.ros.topic_listener import TopicListener
from genima_nodes.rviz_markers import RvizMarkersNode
from genima_nodes.scene_overlay import SceneOverlayNode
from genima_nodes.task_runner import TaskRunnerNode
from genima_nodes.teleop import TeleopNode
from genima_sim.sim_leader import ExpertLeader
from genima_sim.sim_node import SimNode

_MESSAGES, _REQUESTS = 60, 8  # of each subscription and service
_SLOW = 2.0  # s of processor time for one message

_TEXTS = ("", "x" * 100_000, "\x1b[2J", "a\nb", "../../etc/passwd", "käfig 漢", "-", "/", "rgb8", "panda_joint1", "[]")
_NUMBERS = (float("nan"), float("inf"), float("-inf"), 0.0, -1.0, 1e308, 1e-308, 3.14, 100.0)


def _with(kind: Callable[..., Node], **values: Any) -> Callable[[], Node]:
    return lambda: kind(parameter_overrides=overrides(**values))


NODES: dict[str, Callable[[], Any]] = {
    "arm_adapter": ArmAdapterNode,
    "arm_adapter_jtc": _with(ArmAdapterNode, backend="jtc"),
    "calibration_watch": CalibrationWatchNode,
    "calibrator": _with(CalibratorNode, parent="base"),
    "camera_transforms": CameraTransformsNode,
    "checkup": CheckupNode,
    "clock_watch": ClockWatchNode,
    "command_guard": CommandGuardNode,
    "controller": lambda: ControllerNode(StandInController(), parameter_overrides=overrides(calibration="")),  # type: ignore[arg-type]
    "controller_of_chunks": _with(ControllerNode, input="action_chunk"),
    "diffusion_agent": lambda: DiffusionAgentNode(StandInAgent()),  # type: ignore[arg-type]
    "driver": lambda: GraphClient("driver"),
    "gripper_adapter": GripperAdapterNode,
    "jog": JogNode,
    "listener": lambda: TopicListener("listener"),
    "operator": Operator,
    "policy": _with(PolicyNode, policy="expert"),
    "recorder": _with(RecorderNode, folder="demos"),
    "rviz_markers": RvizMarkersNode,
    "scene_overlay": SceneOverlayNode,
    "sim_leader": ExpertLeader,
    "sim_node": SimNode,
    "task_runner": TaskRunnerNode,
    "teleop": TeleopNode,
    "teleop_gello": _with(TeleopNode, leader="gello"),
}


@pytest.fixture(autouse=True)
def _ros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    rclpy.init(domain_id=free_domain())
    yield
    rclpy.try_shutdown()


# ------------------------------------------------------------------------------------------------------- messages


def _value(kind: str, rng: random.Random, deep: bool = False) -> Any:
    """Return an extreme value of a field's type, by its name in ``get_fields_and_field_types``."""
    if kind.startswith("sequence<"):
        inner = kind[len("sequence<") :].rsplit(">", 1)[0].split(",")[0]
        if inner in ("uint8", "octet", "byte"):
            return array.array("B", bytes(rng.choice((0, 1, 3 * 16 * 16, 1_000_003))))
        count = rng.choice((0, 1, 2, 3) if deep else (0, 1, 2, 7, 8, 1000))
        return [_value(inner, rng, True) for _ in range(min(count, 9) if "/" in inner else count)]
    if kind.endswith("]"):
        inner, _, count = kind[:-1].rpartition("[")
        return [_value(inner, rng, True) for _ in range(int(count))]
    if "string" in kind:
        return rng.choice(_TEXTS)
    if kind in ("double", "float"):
        return float(np.clip(rng.choice(_NUMBERS), -3e38, 3e38)) if kind == "float" else rng.choice(_NUMBERS)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind in ("octet", "byte"):
        return bytes([rng.randrange(256)])
    if "int" in kind and "/" not in kind:
        bits = int(kind.rpartition("int")[2])
        low, high = (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        return rng.choice((low, high, 0, 1, min(high, 640)))
    package, _, name = kind.partition("/")
    return _random(getattr(import_module(f"{package}.msg"), name.rpartition("/")[2]), rng, True)


def _random(kind: Any, rng: random.Random, deep: bool = False) -> Any:
    message = kind()
    for field, its_kind in kind.get_fields_and_field_types().items():
        setattr(message, field, _value(its_kind, rng, deep))
    return message


def _valid(kind: Any, node: Any) -> Any:
    """Return a message as a working robot sends it."""
    robot = getattr(node, "_robot", None)
    robot = robot if isinstance(robot, RobotModel) else RobotModel.load("panda")
    if kind is JointState:
        return messages.joints_message(Joints(time.time(), robot.home, 1.0), robot)
    if kind is Image:
        return messages.image_message(np.full((16, 16, 3), 200, np.uint8), time.time())
    message = kind()
    if kind is String:
        message.data = "push down the maroon button"
    elif kind is CameraInfo:
        message.width = message.height = 16
        message.k, message.d = [20.0, 0.0, 8.0, 0.0, 20.0, 8.0, 0.0, 0.0, 1.0], [0.0] * 5
        message.distortion_model = "plumb_bob"
    elif kind is DiagnosticArray:
        message.status = [DiagnosticStatus(name="command_guard: status", message="ok")]
    if hasattr(message, "header"):
        message.header.stamp = messages.time_message(time.time())
    return message


def _mutated(message: Any, rng: random.Random) -> Any:
    """Return a copy with an extreme value in one field or one item of it."""
    message = part = copy.deepcopy(message)
    while True:
        field, kind = rng.choice(list(part.get_fields_and_field_types().items()))
        value = getattr(part, field)
        if hasattr(value, "get_fields_and_field_types") and rng.random() < 0.8:
            part = value
            continue
        extreme = _value(kind, rng)
        if kind.startswith("sequence<double") and len(value) and rng.random() < 0.7:
            value[rng.randrange(len(value))] = rng.choice(_NUMBERS)
        else:
            setattr(part, field, extreme)
        return message


@pytest.mark.parametrize("name", NODES)
def test_malformed_messages_and_requests_do_not_end_node(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda error: failed.append(f"thread: {error.exc_value!r}"))
    rng = random.Random(0)
    node = NODES[name]()
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def attempt(what: str, call: Callable[[], Any]) -> Any:
        begin = time.thread_time()
        try:
            return call()
        except Exception as error:
            failed.append(f"{what}: {error!r}")
        finally:
            if (took := time.thread_time() - begin) > _SLOW:
                failed.append(f"{what}: took {took:.1f} s")

    try:
        for subscription in list(node.subscriptions):
            for count in range(_MESSAGES):
                valid = _valid(subscription.msg_type, node)
                made = (_random(subscription.msg_type, rng), _mutated(valid, rng), _mutated(valid, rng), valid)[
                    count % 4
                ]
                attempt(subscription.topic_name, partial(subscription.callback, made))
                if count % 10 == 0:
                    attempt("timers", partial(executor.spin_once, 0))
        for service in list(node.services):
            if "parameter" in service.srv_name or "type_description" in service.srv_name:
                continue  # rclpy's own
            for _ in range(_REQUESTS):
                request, response = _random(service.srv_type.Request, rng), service.srv_type.Response()
                answer = attempt(service.srv_name, partial(service.callback, request, response))
                if answer is not None:
                    attempt(service.srv_name, partial(serialize_message, answer))
        for _ in range(10):
            attempt("timers", partial(executor.spin_once, 0.02))
    finally:
        if hasattr(node, "close"):
            node.close()
        executor.shutdown()
        node.destroy_node()
    assert not failed, "\n".join(sorted(set(failed)))[:3000]


# ------------------------------------------------------------------------------------------------------ parameters


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]


def test_replay_without_episode_leaves_no_thread() -> None:
    before = _threads()
    with pytest.raises(GenimaError):
        ReplayNode()
    assert _threads() == before


@pytest.mark.parametrize("name", NODES)
def test_rejected_parameter_leaves_no_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread of a node that raised would publish while ROS ends, and crash the process."""
    declared: dict[str, Any] = {}
    original = Node.declare_parameter

    def declare(node: Node, name: str, *rest: Any, **options: Any) -> Any:
        declared[name] = None
        if name == extreme:
            return Parameter(name, value=[True, False])  # a type that no parameter has
        return original(node, name, *rest, **options)

    extreme = ""
    monkeypatch.setattr(Node, "declare_parameter", declare)
    node = NODES[name]()
    if hasattr(node, "close"):
        node.close()
    node.destroy_node()
    before = _threads()
    for extreme in [name for name in declared if name not in ("use_sim_time", "start_type_description_service")]:
        with pytest.raises(GenimaError):
            NODES[name]()
        assert _threads() == before, extreme
