"""Unknown arm with six joints, described by YAML files alone, in guard, teleoperation and recorder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rclpy.parameter import Parameter
from ros_graph import Graph, overrides
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
    return overrides(cell=CELL, **values)


def state(positions: np.ndarray, graph: Graph, gripper: float = 0.0) -> JointState:
    message = JointState(name=[*UR5E.joint_names, UR5E.gripper_joint], position=[*positions.tolist(), gripper])
    message.header.stamp = messages.time_message(messages.now(graph.probe))
    return message


@pytest.mark.any_pace
def test_guard_limits_six_joints(graph: Graph) -> None:
    graph.add(CommandGuardNode(parameter_overrides=parameters()))
    states = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    command = graph.publisher(JointState, "controller/command", qos.SOURCE_COMMAND)
    received = graph.subscribe(JointState, "joint_command", qos.JOINT_COMMAND)
    assert graph.call(SelectSource, "command_guard/select", SelectSource.Request(source="controller")).success

    def publish() -> None:
        states(state(UR5E.home, graph))
        command(state(UR5E.home + 0.02, graph, 1.0))

    graph.until(lambda: len(received) > 20, "no set-points", publish)
    moved = np.array([message.position[:6] for message in received])
    assert list(received[0].name[:6]) == list(UR5E.joint_names)
    assert np.all(np.abs(moved - UR5E.home) <= 0.02 + 1e-6)


def test_teleop_and_recorder_load_unknown_arm(graph: Graph, tmp_path: Path) -> None:
    graph.add(TeleopNode(parameter_overrides=parameters(leader="same")))
    recorder = graph.add(RecorderNode(parameter_overrides=parameters(folder=str(tmp_path), calibration="")))
    assert "name: ur5e" in recorder._episode_files["/robot_model"] and recorder._views == ["wrist", "front"]
