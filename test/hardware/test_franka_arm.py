"""Our own Franka driver, with a stand-in for pylibfranka instead of a robot."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from ros_graph import Graph, diagnostic_values, overrides
from sensor_msgs.msg import JointState
from standins import pylibfranka
from standins.signatures import Signatures, signatures
from std_srvs.srv import Trigger

from genima.control.command_guard import CommandGuard
from genima.control.limit_violations import largest_excess
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command, Joints
from genima_interfaces.msg import GuardStatus
from genima_interfaces.srv import SelectSource
from genima_nodes.command_guard import CommandGuardNode
from genima_nodes.drivers.franka_errors import flags, stop_reason
from genima_nodes.drivers.libfranka_arm import ArmSettings, FrankaArm
from genima_nodes.drivers.libfranka_hand import FrankaHand
from genima_nodes.franka_arm import FrankaArmNode
from genima_nodes.franka_hand import FrankaHandNode
from genima_nodes.ros import messages, qos

FR3 = RobotModel.load("fr3_franka_hand")  # of the cell fr3_own_driver
HERE = "robot.here"
STANDINS = Path(__file__).resolve().parents[1] / "standins"
RECORD: Signatures = json.loads((STANDINS / "pylibfranka-0.21.3.json").read_text())


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "pylibfranka", pylibfranka)
    yield
    pylibfranka._robots.clear()


@pytest.fixture
def cell() -> Any:
    """Robot at its home pose."""
    return pylibfranka.add_robot(HERE, FR3, FR3.home)


@pytest.fixture
def arm(cell: Any) -> FrankaArm:
    arm = FrankaArm(HERE, FR3)
    arm.connect()
    return arm


def command_at(positions: np.ndarray, now: float = 0.0) -> Command:
    return Command(now, np.asarray(positions, float), np.zeros(7), 1.0)


def run(arm: FrankaArm, milliseconds: int) -> None:
    for _ in range(milliseconds):
        arm.read()


# ---------------------------------------------------------------------------------------------------- the stand-in


def test_stand_in_signatures_match_pylibfranka() -> None:
    for name, members in signatures((STANDINS / "pylibfranka.py").read_text()).items():
        assert name in RECORD, f"{name} is not of pylibfranka"
        for member, arguments in members.items():
            if member == "__init__" and member not in RECORD[name]:
                continue  # how the stand-in makes what the real module only returns
            assert member in RECORD[name], f"{name}.{member} is not of pylibfranka"
            assert RECORD[name][member] == arguments, f"{name}.{member} takes {RECORD[name][member]}"


def test_recorded_signatures_match_installed_pylibfranka(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pylibfranka")
    spec = importlib.util.find_spec("pylibfranka")
    if spec is None or spec.origin is None:
        pytest.skip("pylibfranka is not installed")
    real = signatures((Path(spec.origin).parent / "_pylibfranka.pyi").read_text())
    assert {name: real.get(name) for name in RECORD} == RECORD


# ------------------------------------------------------------------------------------------------------- following


def test_arm_state_equals_robot_state(arm: FrankaArm) -> None:
    state = arm.read()
    assert np.allclose(state.positions, FR3.home) and np.allclose(state.velocities, 0) and state.mode == "Idle"
    assert not arm.following and not arm.stopped and arm.missed == 0


def test_arm_follows_guard_within_limits_and_holds_last_command(arm: FrankaArm, cell: Any) -> None:
    """A sweep of two joints through the guard at 50 Hz, at its limits; then no commands."""
    guard = CommandGuard(FR3, 50.0)
    guard.select("controller")
    now, target = 0.0, FR3.home.copy()
    for tick in range(100):
        state = arm.read()
        guard.update_joints(Joints(now, state.positions, 1.0))
        target = FR3.home + 0.4 * np.sin(2.0 * now) * np.array([1, 0, 0, 1, 0, 0, 0])
        guard.submit("controller", Command(now, target, np.zeros(7), 1.0))
        guarded = guard.step(now)
        if guarded.command is not None:
            assert arm.follow(guarded.command, now), arm.refused
        run(arm, 19)
        now += 0.02
        assert not arm.stopped, f"at {tick}"
    last = cell.targets[-1][1]
    run(arm, 500)
    assert np.allclose(arm.read().positions, last, atol=1e-4), "the arm is not held at the last command"
    motion = np.array(cell.motion)
    assert np.abs(motion[:, 0] - FR3.home[0]).max() > 0.3, "the arm did not move"
    assert largest_excess(1e-3 * np.arange(len(motion)), motion, FR3) <= 1.001
    assert cell.settings[0][0] == "collision" and len(cell.settings) == 2, "the settings are set more than once"
    arm.close()
    assert cell.needless_stops == 0 and not cell.errors


def test_stale_and_distant_commands_are_rejected(arm: FrankaArm, cell: Any) -> None:
    near, far = FR3.home + 0.05, FR3.home + [0, 0, 0, 0.3, 0, 0, 0]
    assert not arm.follow(command_at(near, now=1.0), now=1.2) and "0.20 s old" in arm.refused
    assert not arm.follow(command_at(far), now=0.0)
    assert "fr3_joint4 0.30 rad from the arm" in arm.refused and not arm.following
    assert not arm.follow(command_at(np.full(7, np.nan)), now=0.0) and arm.refused
    assert arm.follow(command_at(near), now=0.0) and arm.following and not arm.refused
    assert not arm.follow(command_at(FR3.home + 0.9), now=0.0), "a distant command is followed after a valid one"
    assert len(cell.targets) == 1
    arm.close()


@pytest.mark.parametrize("moving", [False, True])
def test_close_stops_arm_without_libfranka_errors(arm: FrankaArm, cell: Any, moving: bool) -> None:
    assert arm.follow(command_at(FR3.home + 0.08), now=0.0)
    run(arm, 20 if moving else 1000)
    arm.close()
    assert cell.mode is pylibfranka.RobotMode.Idle and cell.needless_stops == 0 and not cell.errors


def test_invalid_settings_are_rejected() -> None:
    for settings in (ArmSettings(speed=0.0), ArmSettings(speed=2.0), ArmSettings(stiffness=(1, 2)),
                     ArmSettings(collision_forces=(20, 20, 20, 25, 25, -1))):  # fmt: skip
        with pytest.raises(GenimaError, match="franka_arm: "):
            FrankaArm(HERE, FR3, settings)


# -------------------------------------------------------------------------------------------------- stop and recovery


def test_reflex_stops_arm_until_recovery(arm: FrankaArm, cell: Any) -> None:
    assert arm.follow(command_at(FR3.home + 0.08), now=0.0)
    run(arm, 50)
    cell.collide(joint=4)
    run(arm, 1)
    assert "reflex" in arm.stopped and "touched something" in arm.stopped and "contact at joint 4" in arm.stopped
    assert cell.needless_stops == 0 and not arm.following
    stopped_at = cell.q
    assert not arm.follow(command_at(stopped_at), now=0.0) and "arm: stopped" in arm.refused
    run(arm, 100)
    assert np.allclose(cell.q, stopped_at)
    assert "robot: recovered" in arm.recover()
    assert not arm.follow(command_at(stopped_at + 0.2), now=0.0), "the former target is followed after the recovery"
    assert arm.follow(command_at(stopped_at + 0.01), now=0.0)
    run(arm, 500)
    assert np.allclose(cell.q, stopped_at + 0.01, atol=1e-4)
    assert arm.recover() == "arm: not stopped"
    arm.close()


def test_recovery_requires_rest_and_released_user_stop(arm: FrankaArm, cell: Any) -> None:
    assert arm.follow(command_at(FR3.home + 0.08), now=0.0)
    run(arm, 60)
    assert arm.recover() == "arm: not stopped" and arm.following
    cell.collide(joint=1)
    cell.set_velocity(0.1)
    run(arm, 1)
    with pytest.raises(GenimaError, match="still moving"):
        arm.recover()
    cell.set_velocity(0.0)
    run(arm, 1)
    arm.recover()
    cell.press_user_stop(True)
    run(arm, 1)
    assert "user stop is pressed" in arm.stopped
    with pytest.raises(GenimaError, match="release"):
        arm.recover()
    cell.press_user_stop(False)
    run(arm, 10)
    assert arm.stopped, "releasing the user stop resumes the arm"
    assert not arm.follow(command_at(cell.q), now=0.0)
    arm.recover()
    assert arm.follow(command_at(cell.q), now=0.0)
    arm.close()


def test_hand_guided_arm_is_not_commanded(arm: FrankaArm, cell: Any) -> None:
    cell.mode = pylibfranka.RobotMode.Guiding
    run(arm, 1)
    assert "by hand" in arm.stopped
    with pytest.raises(GenimaError, match="release it"):
        arm.recover()
    cell.mode = pylibfranka.RobotMode.Idle
    run(arm, 1)
    arm.recover()
    assert not arm.stopped


def test_target_outside_joint_range_is_reported(arm: FrankaArm, cell: Any) -> None:
    q = np.array(FR3.home)
    q[0] = FR3.position_max[0] - 0.02
    cell.move_by_hand(q)
    run(arm, 1)
    q[0] += 0.05
    arm.follow(command_at(q), now=0.0)
    run(arm, 1)
    assert "outside a joint's range" in arm.stopped
    arm.recover()


@pytest.mark.parametrize("trips", [True, False])
def test_lost_connection_stops_arm_until_recovery(arm: FrankaArm, cell: Any, trips: bool) -> None:
    arm.follow(command_at(FR3.home + 0.05), now=0.0)
    cell.cable = False
    with pytest.raises(GenimaError, match="robot robot.here: connection lost"):
        arm.read()
    assert not arm.connected
    with pytest.raises(GenimaError, match="lost"):
        arm.read()
    with pytest.raises(GenimaError, match="Connection timeout.*check the address"):
        arm.recover()
    cell.cable = True
    if trips:
        cell.reflex("communication_constraints_violation")
    arm.connect()
    assert arm.stopped and not arm.follow(command_at(cell.q), now=0.0), "the arm resumes without recovery"
    arm.recover()
    assert arm.follow(command_at(cell.q), now=0.0)
    arm.close()


def test_stop_reasons_are_described() -> None:
    state = pylibfranka.RobotState()
    state.robot_mode = pylibfranka.RobotMode.Idle
    assert stop_reason(state) == "" and flags(state.current_errors) == set()
    state.current_errors.start_elbow_sign_inconsistent = True
    assert "start elbow sign inconsistent" in stop_reason(state), "a flag without its own description is missing"
    state.robot_mode = pylibfranka.RobotMode.Reflex
    state.joint_collision, state.cartesian_collision = [0, 1, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]
    assert "contact at joint 2, 7; contact at the hand along z" in stop_reason(state)


# ------------------------------------------------------------------------------------------- other and missing robots


def test_unreachable_and_other_robots_are_rejected() -> None:
    with pytest.raises(GenimaError, match=r"robot 10.0.0.9: Connection timeout.*check the address"):
        FrankaArm("10.0.0.9", FR3).connect()
    longer = RobotModel.load("fr3")
    object.__setattr__(longer, "flange_offset", FR3.flange_offset + 0.05)
    pylibfranka.add_robot(HERE, longer, FR3.home)
    with pytest.raises(GenimaError, match="not a fr3 .its flange is 50 mm from"):
        FrankaArm(HERE, FR3).connect()
    panda = RobotModel.load("panda")
    q = np.array(FR3.home)
    q[5] = 4.2  # beyond a Panda's range
    pylibfranka.add_robot(HERE, FR3, q)
    with pytest.raises(GenimaError, match="outside the range of a panda .panda_joint6"):
        FrankaArm(HERE, panda).connect()


def test_incompatible_version_is_reported_with_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_incompatible(*_: object) -> None:
        raise pylibfranka.FrankaException("libfranka: Incompatible library version (server version: 5, library: 10).")

    monkeypatch.setattr(pylibfranka, "Robot", raise_incompatible)
    with pytest.raises(GenimaError, match="Incompatible library version.*needs an FR3 with system 5.9"):
        FrankaArm(HERE, FR3).connect()


# -------------------------------------------------------------------------------------------------------------- hand


def test_hand_moves_to_open_and_grasps_to_close(cell: Any) -> None:
    hand = FrankaHand(HERE, force=30.0, speed=0.1)
    assert hand.measure() == 1.0
    cell.hand.object = 0.02
    assert hand.move_to(0.0) and not hand.move_to(0.1)
    assert cell.hand.done == [("grasp", (0.0, 0.1, 30.0, 0.08, 0.08))]
    assert hand.measure() == pytest.approx(0.25)
    assert hand.move_to(0.75) and not hand.move_to(0.8)
    action, (width, _) = cell.hand.done[-1]
    assert action == "move" and width == pytest.approx(0.06)


def test_hand_keeps_grasp_without_new_goal(cell: Any) -> None:
    hand = FrankaHand(HERE, force=30.0, speed=0.1)
    cell.hand.width = 0.02
    assert hand.measure() == 0.25 and not hand.move_to(0.25), "a goal is sent without a changed command"
    assert hand.move_to(1.0)
    cell.hand.object = 0.075
    assert hand.move_to(0.0) and hand.measure() == pytest.approx(0.9375)
    assert not hand.move_to(0.94) and not hand.move_to(0.9)
    assert hand.move_to(1.0) and [action for action, _ in cell.hand.done] == ["move", "grasp", "move"]


def test_failed_hand_command_is_reported_and_retried(cell: Any) -> None:
    hand = FrankaHand(HERE, 30.0, 0.1)
    cell.hand.max_width = 0.0
    with pytest.raises(GenimaError, match="./genima call home"):
        hand.measure()
    assert hand.home() == "hand: homed" and hand.measure() == 1.0
    cell.hand.fails = True
    with pytest.raises(GenimaError, match="command failed"):
        hand.move_to(0.0)
    cell.hand.fails = False
    assert hand.move_to(0.0)
    with pytest.raises(GenimaError, match="Connection timeout"):
        FrankaHand("nowhere", 30.0, 0.1).measure()


# ------------------------------------------------------------------------------------------------------------- nodes


class Cell:
    """Arm and hand nodes with a real-time stand-in of the robot."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.arm = pylibfranka.add_robot(HERE, FR3, FR3.home, real_time=True)
        options = {"parameter_overrides": overrides(robot_ip=HERE)}
        self.node = graph.add(FrankaArmNode(**options))
        self.hand = graph.add(FrankaHandNode(**options))
        self.states = graph.subscribe(JointState, "joint_states", qos.JOINT_STATES)

    @cached_property
    def publish(self) -> Callable[[JointState], None]:
        return self.graph.publisher(JointState, "joint_command", qos.JOINT_COMMAND)

    def publisher_of(self, positions: np.ndarray, gripper: float = 1.0) -> Callable[[], None]:
        def send() -> None:
            self.publish(messages.command_message(Command(time.time(), positions, np.zeros(7), gripper), FR3))

        return send


@pytest.fixture
def nodes(graph: Graph) -> Cell:
    return Cell(graph)


def test_nodes_follow_commands_and_publish_joint_states(graph: Graph, nodes: Cell) -> None:
    goal = FR3.home + 0.05
    graph.until(lambda: nodes.states, "no joint states")
    publish_goal = nodes.publisher_of(goal, gripper=0.0)
    graph.until(lambda: np.allclose(nodes.arm.q, goal, atol=1e-3), "the arm does not follow", publish_goal)
    graph.until(lambda: messages.joints_from(nodes.states[-1], FR3).gripper == 0.0, "hand not closed", publish_goal)
    measured = lambda: messages.joints_from(nodes.states[-1], FR3).positions  # noqa: E731
    graph.until(lambda: np.allclose(measured(), goal, atol=1e-4), "the joint states do not reach the goal")
    assert len(nodes.states[-1].velocity) == len(nodes.states[-1].effort) == 8
    stamps = np.array([messages.seconds(message.header.stamp) for message in nodes.states])
    assert np.median(np.diff(stamps)) == pytest.approx(0.005, abs=0.002)
    graph.until(graph.has_no_fault("franka_arm"), "fault reported")
    assert nodes.arm.hand.done[0][0] == "grasp"


def test_reflex_is_reported_and_stops_guard_until_recovery(graph: Graph, nodes: Cell) -> None:
    stops: list[int] = []

    def on_stop(_: Any, response: Trigger.Response) -> Trigger.Response:
        stops.append(1)
        return response

    graph.probe.create_service(Trigger, "command_guard/stop", on_stop)
    publish_home = nodes.publisher_of(FR3.home)
    graph.until(lambda: nodes.arm.targets, "the arm does not follow", publish_home)
    nodes.arm.collide(joint=2)
    graph.until(graph.reports_fault("franka_arm", "contact at joint 2"), "the reflex is not reported", publish_home)
    graph.until(lambda: stops, "the guard is not stopped", publish_home)
    response = graph.call(Trigger, "franka_arm/recover", Trigger.Request())
    assert response.success and "recovered" in response.message
    before = len(nodes.arm.targets)
    graph.until(lambda: len(nodes.arm.targets) > before, "the arm does not resume", publish_home)
    graph.until(graph.has_no_fault("franka_arm"), "fault reported", publish_home)
    assert stops == [1] and nodes.arm.needless_stops == 0


def test_invalid_commands_are_reported_and_not_followed(graph: Graph, nodes: Cell) -> None:
    graph.until(graph.has_no_fault("franka_arm"), "fault reported")
    panda = RobotModel.load("panda")
    publish_home = nodes.publisher_of(FR3.home)
    rival = rclpy.create_node("rival")
    rival.create_publisher(JointState, "joint_command", qos.JOINT_COMMAND)
    graph.until(
        graph.reports_fault("franka_arm", "joint_command: 2 publishers"), "second publisher not reported", publish_home
    )
    followed = len(nodes.arm.targets)
    for _ in range(5):
        publish_home()
        time.sleep(0.02)
    assert len(nodes.arm.targets) == followed
    rival.destroy_node()
    graph.until(lambda: len(nodes.arm.targets) > followed, "the remaining publisher is not followed", publish_home)
    command_of_panda = messages.command_message(Command(time.time(), panda.home, np.zeros(7), 1.0), panda)
    graph.until(
        graph.reports_fault("franka_arm", "joints missing (fr3_joint1"),
        "joints of another robot are not reported",
        lambda: nodes.publish(command_of_panda),
    )
    nodes.arm.cable = False
    graph.until(graph.reports_fault("franka_arm", "connection lost"), "loss not reported")
    assert diagnostic_values(graph.diagnostics["franka_arm"])["following"] == "False"


@pytest.mark.any_pace
def test_node_without_robot_does_not_start(graph: Graph) -> None:
    with pytest.raises(GenimaError, match="robot 172.16.0.2: Connection timeout"):
        FrankaArmNode()


def test_guard_resume_recovers_reflex(graph: Graph, nodes: Cell) -> None:
    values = {"cell": "fr3_own_driver", "recovery": "franka_arm/recover", "rate": 100.0}
    graph.add(CommandGuardNode(parameter_overrides=overrides(**values)))
    publish = graph.publisher(JointState, "controller/command", qos.JOINT_COMMAND)
    start = time.time()

    def publish_command() -> None:
        now = time.time()
        offset = 0.2 * (1 - np.cos(now - start)) * np.eye(7)[0]
        publish(messages.command_message(Command(now, FR3.home + offset, np.zeros(7), 1.0), FR3))

    graph.until(lambda: nodes.states, "no joint states")
    graph.call(SelectSource, "command_guard/select", SelectSource.Request(source="controller"))
    graph.until(lambda: nodes.arm.q[0] > 0.1, "the arm does not move", publish_command)
    nodes.arm.collide(joint=1)
    graph.until(lambda: graph.guard.state == GuardStatus.STOPPED, "the guard is not stopped", publish_command)
    stopped_at, followed = nodes.arm.q, len(nodes.arm.targets)
    start = time.time() - np.arccos(1 - stopped_at[0] / 0.2)  # the source restarts at the arm's position
    graph.resume()
    graph.until(lambda: len(nodes.arm.targets) > followed + 50, "the arm does not resume", publish_command)
    assert nodes.arm.mode is not pylibfranka.RobotMode.Reflex and nodes.arm.needless_stops == 0
    moves = np.abs(np.diff(np.array(nodes.arm.motion), axis=0)).max()
    assert moves <= 1.01e-3 * FR3.velocity_max.max()
