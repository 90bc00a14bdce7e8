"""An arm of six joints that the project does not know, by files alone: guard, teleoperation and recorder take it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rclpy.parameter import Parameter
from ros_graph import Graph
from sensor_msgs.msg import JointState

from genima.cell import load_cell
from genima.robot.model import RobotModel
from genima_interfaces.srv import SelectSource
from genima_nodes.command_guard import CommandGuardNode
from genima_nodes.recorder import RecorderNode
from genima_nodes.ros import messages, qos
from genima_nodes.teleop import TeleopNode

CELL = str(Path(__file__).resolve().parents[3] / "docs" / "examples" / "ur5e_cell.yaml")
UR5E: RobotModel = load_cell(CELL).robot


def parameters(**values: object) -> list[Parameter]:
    return [Parameter(name, value=value) for name, value in ({"cell": CELL} | values).items()]


def state(positions: np.ndarray, graph: Graph, gripper: float = 0.0) -> JointState:
    message = JointState(name=[*UR5E.joint_names, UR5E.gripper_joint], position=[*positions.tolist(), gripper])
    message.header.stamp = messages.time_message(messages.now(graph.probe))
    return message


@pytest.mark.any_pace
def test_six_joints_pass_the_guard_within_their_limits(graph: Graph) -> None:
    graph.add(CommandGuardNode(parameter_overrides=parameters()))
    states = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    wish = graph.publisher(JointState, "controller/command", qos.SOURCE_COMMAND)
    heard = graph.subscribe(JointState, "joint_command", qos.JOINT_COMMAND)
    assert graph.call(SelectSource, "command_guard/select", SelectSource.Request(source="controller")).success

    def speak() -> None:
        states(state(UR5E.home, graph))
        wish(state(UR5E.home + 0.02, graph, 1.0))

    graph.until(lambda: len(heard) > 20, "no set-points", speak)
    moved = np.array([message.position[:6] for message in heard])
    assert list(heard[0].name[:6]) == list(UR5E.joint_names)
    assert np.all(np.abs(moved - UR5E.home) <= 0.02 + 1e-6)


def test_teleoperation_and_recorder_take_it(graph: Graph, tmp_path: Path) -> None:
    graph.add(TeleopNode(parameter_overrides=parameters(leader="same")))
    recorder = graph.add(RecorderNode(parameter_overrides=parameters(folder=str(tmp_path), calibration="")))
    assert "name: ur5e" in recorder._episode_files["/robot_model"] and recorder._views == ["wrist", "front"]
