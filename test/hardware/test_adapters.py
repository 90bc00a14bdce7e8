"""Adapters between command guard and drivers, in one process; the test publishes as the drivers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import rclpy
from rclpy.action import ActionServer, CancelResponse
from rclpy.qos import qos_profile_sensor_data
from ros_graph import Graph, overrides
from sensor_msgs.msg import JointState
from standins import interfaces
from standins.robotiq import FreeGripper, RobotiqDriver
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from genima.errors import GenimaError
from genima.robot.backend import GripperAction, GripperBackend
from genima.robot.model import RobotModel
from genima.types import Command
from genima_nodes import arm_adapter, gripper_adapter
from genima_nodes.arm_adapter import ArmAdapterNode
from genima_nodes.gripper_adapter import GripperAdapterNode
from genima_nodes.ros import messages, optional_messages, qos

FR3 = RobotModel.load("fr3")
VELOCITIES = np.linspace(-0.1, 0.1, 7)
TARGETS: dict[str, tuple[type, str]] = {
    "crisp": (JointState, "/target_joint"),
    "gello": (JointState, "/arm_adapter/target"),
    "jtc": (JointTrajectory, "/joint_trajectory_controller/joint_trajectory"),
    "multipanda": (Float64MultiArray, "/joint_impedance/joints_desired"),
}
GELLO = "gello/joint_states"  # published by a GELLO, subscribed by its controller


# ------------------------------------------------------------------------------------------------------ arm adapter


class Arm:
    """Stand-ins for driver, gripper and guard of an arm adapter."""

    def __init__(self, graph: Graph, backend: str) -> None:
        self.graph = graph
        self.adapter = graph.add(ArmAdapterNode(parameter_overrides=overrides(backend=backend)))
        self.targets = graph.subscribe(*TARGETS[backend], 10)  # type: ignore[arg-type]
        self.joint_states = graph.subscribe(JointState, "joint_states", qos_profile_sensor_data)
        self._publish_arm = graph.publisher(JointState, "/franka/joint_states", 1)  # type: ignore[arg-type]
        self._publish_gripper = graph.publisher(JointState, "gripper/joint_states", qos.JOINT_STATES)
        self._publish_command = graph.publisher(JointState, "joint_command", qos.JOINT_COMMAND)
        self.q = FR3.home.copy()

    def publish_joint_states(self) -> None:
        """Publish the joint states of driver and gripper."""
        self._publish_gripper(JointState(name=[FR3.gripper_joint], position=[0.35]))
        state = JointState(name=list(reversed(FR3.joint_names)), position=self.q[::-1].tolist())
        state.header.stamp = messages.time_message(time.time())
        self._publish_arm(state)

    def publish_command(
        self,
        offset: float = 0.01,
        corrupt: Callable[[JointState], None] | None = None,
        age: float = 0.0,
        since: float | None = None,
    ) -> None:
        """Publish joint states, and a command of the guard."""
        self.publish_joint_states()
        stamp = time.time() - age
        command = Command(stamp, FR3.home + offset, np.zeros(7), 0.5)
        if since is not None:
            command = Command(stamp, FR3.home + offset + VELOCITIES * (stamp - since), VELOCITIES, 0.5)
        message = messages.command_message(command, FR3)
        if corrupt is not None:
            corrupt(message)
        self._publish_command(message)

    def positions(self, k: int = -1) -> np.ndarray:
        message = self.targets[k]
        if isinstance(message, JointTrajectory):
            return np.array(message.points[0].positions)
        return np.array(message.data if isinstance(message, Float64MultiArray) else message.position)

    def velocities(self, k: int = -1) -> np.ndarray:
        message = self.targets[k]
        return np.array(message.points[0].velocities if isinstance(message, JointTrajectory) else message.velocity)

    def follows(self, offset: float = 0.01) -> bool:
        return bool(self.targets) and np.allclose(self.positions(), FR3.home + offset, atol=1e-3)


@pytest.mark.parametrize("backend", ["crisp", "gello", "jtc"])
def test_commands_become_controller_targets(graph, backend: str) -> None:
    arm = Arm(graph, backend)
    graph.until(lambda: arm.targets, "the arm is not held at its position", arm.publish_joint_states)
    np.testing.assert_allclose(arm.positions(0), FR3.home)  # a controller that is activated now holds the arm
    graph.until(arm.follows, "commands do not reach the controller", arm.publish_command)
    message = arm.targets[-1]
    if backend == "jtc":
        assert tuple(message.joint_names) == FR3.joint_names and len(message.points) == 1
        assert messages.seconds(message.points[0].time_from_start) == 0.04
        assert messages.seconds(message.header.stamp) == 0  # at once, by its own clock
    else:
        assert tuple(message.name) == FR3.joint_names and len(message.position) == 7  # read by index: no gripper
        assert abs(messages.seconds(message.header.stamp) - time.time()) < 5
    begin = time.time()
    moves = (lambda: not arm.follows()) if backend == "gello" else lambda: np.array_equal(arm.velocities(), VELOCITIES)
    graph.until(moves, "commands are not forwarded", lambda: arm.publish_command(since=begin))

    # the guard crashes: the arm comes to rest near the last command
    last, follower = arm.positions(), graph.nodes[0]._follower
    graph.until(lambda: follower.at_rest, "the arm is not stopped", arm.publish_joint_states)
    target_count = len(arm.targets)

    def is_silent() -> bool:
        count = len(arm.targets)
        time.sleep(0.3)
        return len(arm.targets) == count

    if backend == "gello":  # its controller ends the whole driver when it receives nothing for 0.5 s
        graph.until(lambda: len(arm.targets) > target_count + 5, "no further targets")
    else:
        graph.until(is_silent, "targets are still published")
    np.testing.assert_allclose(arm.positions(), last, atol=0.02)
    assert arm.positions().tolist() == follower.position.tolist()
    if backend == "gello":
        assert not len(message.velocity)
        assert time.time() - messages.seconds(arm.targets[-1].header.stamp) < 0.5 + 2.0  # a busy machine
    else:
        np.testing.assert_array_equal(arm.velocities(), 0)


def test_arm_and_gripper_joint_states_are_merged(graph) -> None:
    arm = Arm(graph, "multipanda")
    graph.until(lambda: arm.joint_states, "no joint states", arm.publish_joint_states)
    joints = messages.joints_from(arm.joint_states[-1], FR3)
    np.testing.assert_allclose(joints.positions, FR3.home)
    assert joints.gripper == pytest.approx(0.5)
    graph.until(arm.follows, "commands do not reach the controller", arm.publish_command)
    assert len(arm.targets[-1].data) == 7 and arm.targets[-1].data[0] != 0


@contextmanager
def rival(topic: str, kind: type = JointState) -> Iterator[None]:
    """Second publisher on a topic; not in the graph, which must not spin while the publisher is destroyed."""
    node = rclpy.create_node("rival")
    node.create_publisher(kind, topic, 1)
    yield
    node.destroy_node()


def test_invalid_messages_hold_arm_and_are_reported(graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm_adapter, "_START_TIMEOUT", 0.5)
    arm = Arm(graph, "crisp")
    graph.until(arm.follows, "commands do not reach the controller", arm.publish_command)
    for corrupt, age, expected in (
        (lambda m: m.position.__setitem__(3, np.nan), 0.0, "not finite (fr3_joint4)"),
        (lambda m: (m.name.pop(), m.position.pop(), m.velocity.pop()), 0.0, "joints missing (finger_joint)"),
        (None, 5.0, "clocks of two machines"),
    ):
        graph.until(
            graph.reports_fault("arm_adapter", expected),
            expected,
            lambda s=corrupt, a=age: arm.publish_command(0.03, s, a),
        )
        assert arm.follows() and np.allclose(arm.velocities(), 0)
        graph.until(lambda: graph.has_no_fault("arm_adapter")() and arm.follows(), "no recovery", arm.publish_command)

    arm.q = FR3.home - 0.2  # a reflex: no joint states for a while, then another position
    graph.until(graph.reports_fault("arm_adapter", "no joint states from its driver"), "fault not reported")
    time.sleep(0.6)
    graph.until(graph.reports_fault("arm_adapter", "call resume"), "fault not reported", arm.publish_command)
    np.testing.assert_allclose(arm.positions(), arm.q)  # not back to the former position
    graph.until(lambda: arm.follows(-0.19), "no recovery", lambda: arm.publish_command(-0.19))

    with rival("/joint_states"):  # the driver's joint_state_publisher
        graph.until(
            graph.reports_fault("arm_adapter", "/rival publishes it, too"),
            "fault not reported",
            arm.publish_joint_states,
        )
    has_no_fault = graph.has_no_fault("arm_adapter")
    graph.until(lambda: has_no_fault() and arm.follows(-0.18), "no recovery", lambda: arm.publish_command(-0.18))


@pytest.mark.parametrize("backend", ["crisp", "gello", "jtc", "multipanda"])
def test_publisher_bypassing_guard_is_reported_and_holds_arm(graph, backend: str) -> None:
    """A second publisher to the controller or on joint_command is reported, and the arm held meanwhile."""
    arm = Arm(graph, backend)
    graph.until(arm.follows, "commands do not reach the controller", arm.publish_command)
    kind, target = TARGETS[backend]
    for topic, message_type, expected in (
        (target, kind, f"/rival publishes on {target}, bypassing the command guard"),
        ("joint_command", JointState, "/rival publishes on joint_command, too"),
    ):
        with rival(topic, message_type):
            graph.until(graph.reports_fault("arm_adapter", expected), "fault not reported", arm.publish_command)
            for _ in range(5):
                arm.publish_command(0.03)
                time.sleep(0.02)
            assert arm.follows()
        graph.until(lambda: graph.has_no_fault("arm_adapter")() and arm.follows(), "no recovery", arm.publish_command)


def test_leader_does_not_reach_gello_controller(graph) -> None:
    """A GELLO's joint names are those of the controller's targets."""
    arm = Arm(graph, "gello")
    with rival(GELLO):
        graph.until(lambda: arm.follows() and graph.has_no_fault("arm_adapter")(), "arm held", arm.publish_command)


@pytest.mark.any_pace
def test_missing_controller_is_reported(graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arm_adapter, "_START_TIMEOUT", 0.3)
    graph.add(ArmAdapterNode(parameter_overrides=overrides(backend="crisp")))
    expected = "controller joint_impedance_controller: no subscriber on /target_joint"
    graph.until(graph.reports_fault("arm_adapter", expected), "fault not reported")


# -------------------------------------------------------------------------------------------------- gripper adapter


class Hand:
    """Stand-in for the guard of a gripper adapter."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.joint_states = graph.subscribe(JointState, "gripper/joint_states", qos.JOINT_STATES)
        self._publish = graph.publisher(JointState, "joint_command", qos.JOINT_COMMAND)

    def publish_command(self, fraction: float) -> None:
        command = Command(time.time(), FR3.home, np.zeros(7), fraction)
        self._publish(messages.command_message(command, FR3))

    def measured(self) -> float:
        return FR3.open_fraction(self.joint_states[-1].position[0]) if self.joint_states else np.nan


@pytest.mark.parametrize("kind", [GripperAction.PARALLEL, GripperAction.POSITION])
def test_robotiq_gripper_follows_open_fraction(graph, kind: GripperAction) -> None:
    interfaces.provide()
    gripper = FreeGripper()
    driver = RobotiqDriver(graph.probe, GripperBackend.load("robotiq_2f140"), gripper.read, gripper.move, kind)
    graph.add(GripperAdapterNode())
    hand = Hand(graph)
    graph.until(
        lambda: hand.joint_states and hand.joint_states[-1].name == ["finger_joint"],
        "the gripper's joint state is not published",
    )
    graph.until(lambda: "action" in values(graph) and values(graph)["action"] == kind.value, "action type not detected")
    assert not driver.goals  # no command yet

    for _ in range(30):  # a stream of equal commands gives one goal
        hand.publish_command(0.3)
        time.sleep(0.01)
    graph.until(
        lambda: abs(hand.measured() - 0.3) < 0.05,
        "goal not reached",
        lambda: hand.publish_command(0.3),
    )
    assert driver.goals == [pytest.approx(0.7 * 0.695)]
    hand.publish_command(0.31)  # below the threshold of a change
    hand.publish_command(0.0)
    graph.until(lambda: len(driver.goals) == 2, "the gripper does not close", lambda: hand.publish_command(0.0))
    # while the gripper moves
    graph.until(lambda: driver.goals[-1] == 0.0, "the goal is not replaced", lambda: hand.publish_command(1.0))
    graph.until(lambda: hand.measured() > 0.98, "the gripper does not open", lambda: hand.publish_command(1.0))
    assert graph.has_no_fault("gripper_adapter")()

    gripper.blocked_below = 0.4  # it grasps something: no fault
    graph.until(
        lambda: graph.nodes[0]._goal.ended and driver.goals[-1] > 0.6, "no end", lambda: hand.publish_command(0.0)
    )
    assert graph.has_no_fault("gripper_adapter")()
    for _ in range(20):  # a command at the measured opening: the grasp is kept
        hand.publish_command(hand.measured())
        time.sleep(0.01)
    assert driver.goals[-1] > 0.6
    driver.rejects_goals = True
    expected = "goal: rejected by the gripper (80% open)"
    graph.until(
        graph.reports_fault("gripper_adapter", expected), "fault not reported", lambda: hand.publish_command(0.8)
    )
    driver.rejects_goals = False  # the adapter retries
    graph.until(graph.has_no_fault("gripper_adapter"), "no recovery", lambda: hand.publish_command(0.8))


def values(graph: Graph) -> dict[str, str]:
    status = graph.diagnostics.get("gripper_adapter")
    return {pair.key: pair.value for pair in status.values} if status else {}


def test_stalled_gripper_is_reported(graph) -> None:
    interfaces.provide()
    gripper = FreeGripper()
    gripper.move(0.2)
    time.sleep(0.6)
    driver = RobotiqDriver(graph.probe, GripperBackend.load("robotiq_2f140"), gripper.read, lambda fraction: None)
    graph.add(GripperAdapterNode())
    hand = Hand(graph)
    expected = "goal: 100% open not reached (20% open): stalled"
    graph.until(
        graph.reports_fault("gripper_adapter", expected), "fault not reported", lambda: hand.publish_command(1.0)
    )
    assert len(driver.goals) == 1


@pytest.mark.any_pace
def test_gripper_joint_in_other_unit_is_rejected(graph) -> None:
    graph.add(GripperAdapterNode())
    publish = graph.publisher(JointState, "/robotiq/joint_states", qos.JOINT_STATES)
    hand = Hand(graph)
    expected = "joint state: finger_joint: outside its travel (40, 0.695 closed .. 0 open)"  # deg
    graph.until(
        graph.reports_fault("gripper_adapter", expected),
        "fault not reported",
        lambda: publish(JointState(name=["finger_joint"], position=[40.0])),
    )
    assert not hand.joint_states, "an invalid joint state is published"
    expected = "joint_command: open fraction: out of range (100)"
    graph.until(
        graph.reports_fault("gripper_adapter", expected), "fault not reported", lambda: hand.publish_command(100.0)
    )


def test_franka_hand_grasps_to_close_and_moves_to_open(graph) -> None:
    interfaces.provide()
    from franka_msgs.action import Grasp, Move

    done: list[tuple[str, Any]] = []
    finger, blocked_at = [0.04], [0.0]  # m: finger position, position of an object

    def serve(kind: Any, name: str) -> None:
        async def execute(handle: Any) -> Any:
            done.append((name, handle.request))
            finger[0] = max(handle.request.width / 2, blocked_at[0])
            handle.succeed()
            return kind.Result(success=True)

        action = f"/franka_gripper/{name}"
        ActionServer(graph.probe, kind, action, execute, cancel_callback=lambda handle: CancelResponse.ACCEPT)

    serve(Grasp, "grasp")
    serve(Move, "move")
    graph.add(GripperAdapterNode(parameter_overrides=overrides(backend="franka_hand")))
    publish = graph.publisher(JointState, "/franka_gripper/joint_states", 1)  # type: ignore[arg-type]
    hand = Hand(graph)

    def publish_joints_and_command(fraction: float) -> None:
        publish(JointState(name=["fr3_finger_joint1", "fr3_finger_joint2"], position=[finger[0], finger[0]]))
        hand.publish_command(fraction)

    graph.until(lambda: hand.measured() < 0.02, "the gripper does not close", lambda: publish_joints_and_command(0.0))
    graph.until(lambda: hand.measured() > 0.7, "the gripper does not open", lambda: publish_joints_and_command(0.75))
    assert [name for name, _ in done] == ["grasp", "move"]
    grasp, move = done[0][1], done[1][1]
    assert (grasp.width, grasp.force) == (0.0, 40.0) and grasp.epsilon.outer >= 0.08
    assert move.width == pytest.approx(0.06) and move.speed == pytest.approx(0.1)
    blocked_at[0] = 0.016
    graph.until(lambda: len(done) == 3, "the gripper does not close again", lambda: publish_joints_and_command(0.0))
    # opens less than the measured opening
    graph.until(lambda: len(done) == 4, "no goal is sent", lambda: publish_joints_and_command(0.2))
    assert [name for name, _ in done[2:]] == ["grasp", "grasp"], "the grasp is released"


@pytest.mark.any_pace
def test_missing_gripper_server_is_reported(graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gripper_adapter, "_SERVER_TIMEOUT", 0.3)
    graph.add(GripperAdapterNode())
    expected = "server: action /robotiq/robotiq_gripper_controller/gripper_cmd: not available"
    graph.until(graph.reports_fault("gripper_adapter", expected), "fault not reported")


def test_missing_message_package_is_reported_with_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "control_msgs", None)
    monkeypatch.setitem(sys.modules, "control_msgs.action", None)
    with pytest.raises(GenimaError, match="sudo apt-get install ros-jazzy-control-msgs") as caught:
        optional_messages.message_type("control_msgs/action/GripperCommand")
    assert "\n" not in str(caught.value)
