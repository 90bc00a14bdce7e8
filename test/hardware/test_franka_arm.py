"""The Franka driver of our own, on a stand-in that has pylibfranka's interface: no robot is needed."""

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
from rclpy.parameter import Parameter
from ros_graph import Graph, diagnostic_values
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

FR3 = RobotModel.load("fr3_franka_hand")  # what the cell fr3_own_driver holds
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
    return pylibfranka.put_at(HERE, FR3, FR3.home)


@pytest.fixture
def arm(cell: Any) -> FrankaArm:
    arm = FrankaArm(HERE, FR3)
    arm.connect()
    return arm


def at(positions: np.ndarray, now: float = 0.0) -> Command:
    return Command(now, np.asarray(positions, float), np.zeros(7), 1.0)


def run(arm: FrankaArm, milliseconds: int) -> None:
    for _ in range(milliseconds):
        arm.read()


# ---------------------------------------------------------------------------------------------------- the stand-in


def test_the_stand_in_has_what_the_real_module_has_and_nothing_else() -> None:
    for name, members in signatures((STANDINS / "pylibfranka.py").read_text()).items():
        assert name in RECORD, f"{name} is not of pylibfranka"
        for member, arguments in members.items():
            if member == "__init__" and member not in RECORD[name]:
                continue  # how the stand-in makes what the real module only returns
            assert member in RECORD[name], f"{name}.{member} is not of pylibfranka"
            assert RECORD[name][member] == arguments, f"{name}.{member} takes {RECORD[name][member]}"


def test_the_record_is_of_the_module_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pylibfranka")
    spec = importlib.util.find_spec("pylibfranka")
    if spec is None or spec.origin is None:
        pytest.skip("pylibfranka is not installed")
    real = signatures((Path(spec.origin).parent / "_pylibfranka.pyi").read_text())
    assert {name: real.get(name) for name in RECORD} == RECORD


# ------------------------------------------------------------------------------------------------------- following


def test_the_state_is_the_robots(arm: FrankaArm) -> None:
    state = arm.read()
    assert np.allclose(state.positions, FR3.home) and np.allclose(state.velocities, 0) and state.mode == "Idle"
    assert not arm.following and not arm.stopped and arm.missed == 0


def test_it_follows_a_guards_set_points_within_the_limits_and_stays_where_they_end(arm: FrankaArm, cell: Any) -> None:
    """A sweep of two joints through the guard at 50 Hz, at its limits; then no commands."""
    guard = CommandGuard(FR3, 50.0)
    guard.select("controller")
    now, wish = 0.0, FR3.home.copy()
    for tick in range(100):
        state = arm.read()
        guard.update_joints(Joints(now, state.positions, 1.0))
        wish = FR3.home + 0.4 * np.sin(2.0 * now) * np.array([1, 0, 0, 1, 0, 0, 0])
        guard.submit("controller", Command(now, wish, np.zeros(7), 1.0))
        guarded = guard.step(now)
        if guarded.command is not None:
            assert arm.follow(guarded.command, now), arm.refused
        run(arm, 19)
        now += 0.02
        assert not arm.stopped, f"at {tick}"
    last = cell.targets[-1][1]
    run(arm, 500)
    assert np.allclose(arm.read().positions, last, atol=1e-4), "held at the last set-point"
    motion = np.array(cell.motion)
    assert np.abs(motion[:, 0] - FR3.home[0]).max() > 0.3, "it moved"
    assert largest_excess(1e-3 * np.arange(len(motion)), motion, FR3) <= 1.001
    assert cell.settings[0][0] == "collision" and len(cell.settings) == 2, "set once"
    arm.close()
    assert cell.needless_stops == 0 and not cell.errors


def test_commands_that_are_old_or_far_are_not_followed(arm: FrankaArm, cell: Any) -> None:
    near, far = FR3.home + 0.05, FR3.home + [0, 0, 0, 0.3, 0, 0, 0]
    assert not arm.follow(at(near, now=1.0), now=1.2) and "0.20 s old" in arm.refused
    assert not arm.follow(at(far), now=0.0)
    assert "fr3_joint4 0.30 rad from the arm" in arm.refused and not arm.following
    assert not arm.follow(at(np.full(7, np.nan)), now=0.0) and arm.refused
    assert arm.follow(at(near), now=0.0) and arm.following and not arm.refused
    assert not arm.follow(at(FR3.home + 0.9), now=0.0), "nor one that leaps away later"
    assert len(cell.targets) == 1
    arm.close()


@pytest.mark.parametrize("moving", [False, True])
def test_closing_ends_at_rest_and_as_libfranka_wants_it(arm: FrankaArm, cell: Any, moving: bool) -> None:
    assert arm.follow(at(FR3.home + 0.08), now=0.0)
    run(arm, 20 if moving else 1000)
    arm.close()
    assert cell.mode is pylibfranka.RobotMode.Idle and cell.needless_stops == 0 and not cell.errors


def test_settings_that_make_no_sense_are_refused() -> None:
    for settings in (ArmSettings(speed=0.0), ArmSettings(speed=2.0), ArmSettings(stiffness=(1, 2)),
                     ArmSettings(collision_forces=(20, 20, 20, 25, 25, -1))):  # fmt: skip
        with pytest.raises(GenimaError, match="franka_arm: "):
            FrankaArm(HERE, FR3, settings)


# ---------------------------------------------------------------------------------------------- stopped, and going on


def test_a_reflex_stops_the_arm_with_its_reason_until_it_is_recovered_near_the_arm(arm: FrankaArm, cell: Any) -> None:
    assert arm.follow(at(FR3.home + 0.08), now=0.0)
    run(arm, 50)
    cell.touch(joint=4)
    run(arm, 1)
    assert "reflex" in arm.stopped and "touched something" in arm.stopped and "contact at joint 4" in arm.stopped
    assert cell.needless_stops == 0 and not arm.following
    stands = cell.q
    assert not arm.follow(at(stands), now=0.0) and "arm: stopped" in arm.refused
    run(arm, 100)
    assert np.allclose(cell.q, stands)
    assert "robot: recovered" in arm.recover()
    assert not arm.follow(at(stands + 0.2), now=0.0), "not to where it was going"
    assert arm.follow(at(stands + 0.01), now=0.0)
    run(arm, 500)
    assert np.allclose(cell.q, stands + 0.01, atol=1e-4)
    assert arm.recover() == "arm: not stopped"
    arm.close()


def test_it_recovers_only_at_rest_and_with_the_user_stop_released(arm: FrankaArm, cell: Any) -> None:
    assert arm.follow(at(FR3.home + 0.08), now=0.0)
    run(arm, 60)
    assert arm.recover() == "arm: not stopped" and arm.following
    cell.touch(joint=1)
    cell.coast(0.1)
    run(arm, 1)
    with pytest.raises(GenimaError, match="still moving"):
        arm.recover()
    cell.coast(0.0)
    run(arm, 1)
    arm.recover()
    cell.press_user_stop(True)
    run(arm, 1)
    assert "user stop is pressed" in arm.stopped
    with pytest.raises(GenimaError, match="release"):
        arm.recover()
    cell.press_user_stop(False)
    run(arm, 10)
    assert arm.stopped, "releasing it does not move the arm"
    assert not arm.follow(at(cell.q), now=0.0)
    arm.recover()
    assert arm.follow(at(cell.q), now=0.0)
    arm.close()


def test_an_arm_that_is_guided_by_hand_is_not_commanded(arm: FrankaArm, cell: Any) -> None:
    cell.mode = pylibfranka.RobotMode.Guiding
    run(arm, 1)
    assert "by hand" in arm.stopped
    with pytest.raises(GenimaError, match="release it"):
        arm.recover()
    cell.mode = pylibfranka.RobotMode.Idle
    run(arm, 1)
    arm.recover()
    assert not arm.stopped


def test_a_target_outside_a_range_is_told_by_its_name(arm: FrankaArm, cell: Any) -> None:
    q = np.array(FR3.home)
    q[0] = FR3.position_max[0] - 0.02
    cell.push(q)
    run(arm, 1)
    q[0] += 0.05
    arm.follow(at(q), now=0.0)
    run(arm, 1)
    assert "outside a joint's range" in arm.stopped
    arm.recover()


@pytest.mark.parametrize("trips", [True, False])
def test_a_lost_connection_is_a_reason_too_and_recovers_when_it_is_back(arm: FrankaArm, cell: Any, trips: bool) -> None:
    arm.follow(at(FR3.home + 0.05), now=0.0)
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
    assert arm.stopped and not arm.follow(at(cell.q), now=0.0), "it does not go on by itself"
    arm.recover()
    assert arm.follow(at(cell.q), now=0.0)
    arm.close()


def test_reasons_in_words() -> None:
    state = pylibfranka.RobotState()
    state.robot_mode = pylibfranka.RobotMode.Idle
    assert stop_reason(state) == "" and flags(state.current_errors) == set()
    state.current_errors.start_elbow_sign_inconsistent = True
    assert "start elbow sign inconsistent" in stop_reason(state), "a flag without words of its own"
    state.robot_mode = pylibfranka.RobotMode.Reflex
    state.joint_collision, state.cartesian_collision = [0, 1, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 0]
    assert "contact at joint 2, 7; contact at the hand along z" in stop_reason(state)


# ------------------------------------------------------------------------------------------------- another robot, none


def test_a_robot_that_cannot_be_reached_or_is_another_one_is_refused() -> None:
    with pytest.raises(GenimaError, match=r"robot 10.0.0.9: Connection timeout.*check the address"):
        FrankaArm("10.0.0.9", FR3).connect()
    longer = RobotModel.load("fr3")
    object.__setattr__(longer, "flange_offset", FR3.flange_offset + 0.05)
    pylibfranka.put_at(HERE, longer, FR3.home)
    with pytest.raises(GenimaError, match="not a fr3 .its flange is 50 mm from"):
        FrankaArm(HERE, FR3).connect()
    panda = RobotModel.load("panda")
    q = np.array(FR3.home)
    q[5] = 4.2  # more than a Panda can
    pylibfranka.put_at(HERE, FR3, q)
    with pytest.raises(GenimaError, match="outside the range of a panda .panda_joint6"):
        FrankaArm(HERE, panda).connect()


def test_a_version_that_does_not_fit_says_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    def old(*_: object) -> None:
        raise pylibfranka.FrankaException("libfranka: Incompatible library version (server version: 5, library: 10).")

    monkeypatch.setattr(pylibfranka, "Robot", old)
    with pytest.raises(GenimaError, match="Incompatible library version.*needs an FR3 with system 5.9"):
        FrankaArm(HERE, FR3).connect()


# ---------------------------------------------------------------------------------------------------------- the hand


def test_the_hand_opens_to_a_width_and_closes_with_a_force_once_each(cell: Any) -> None:
    hand = FrankaHand(HERE, force=30.0, speed=0.1)
    assert hand.measure() == 1.0
    cell.hand.object = 0.02
    assert hand.move_to(0.0) and not hand.move_to(0.1)
    assert cell.hand.done == [("grasp", (0.0, 0.1, 30.0, 0.08, 0.08))]
    assert hand.measure() == pytest.approx(0.25)
    assert hand.move_to(0.75) and not hand.move_to(0.8)
    what, (width, _) = cell.hand.done[-1]
    assert what == "move" and width == pytest.approx(0.06)


def test_a_hand_that_is_wished_as_it_is_keeps_what_it_holds(cell: Any) -> None:
    hand = FrankaHand(HERE, force=30.0, speed=0.1)
    cell.hand.width = 0.02
    assert hand.measure() == 0.25 and not hand.move_to(0.25), "nobody has asked for anything yet"
    assert hand.move_to(1.0)
    cell.hand.object = 0.075
    assert hand.move_to(0.0) and hand.measure() == pytest.approx(0.9375)
    assert not hand.move_to(0.94) and not hand.move_to(0.9)
    assert hand.move_to(1.0) and [what for what, _ in cell.hand.done] == ["move", "grasp", "move"]


def test_what_a_hand_does_not_do_is_told_and_tried_again(cell: Any) -> None:
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


# --------------------------------------------------------------------------------------------------------- the nodes


class Cell:
    """Arm and hand nodes with a real-time stand-in of the robot."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.arm = pylibfranka.put_at(HERE, FR3, FR3.home, real_time=True)
        options = {"parameter_overrides": [Parameter("robot_ip", value=HERE)]}
        self.node = graph.add(FrankaArmNode(**options))
        self.hand = graph.add(FrankaHandNode(**options))
        self.states = graph.subscribe(JointState, "joint_states", qos.JOINT_STATES)

    @cached_property
    def say(self) -> Callable[[JointState], None]:
        return self.graph.publisher(JointState, "joint_command", qos.JOINT_COMMAND)

    def command(self, positions: np.ndarray, gripper: float = 1.0) -> Callable[[], None]:
        def send() -> None:
            self.say(messages.command_message(Command(time.time(), positions, np.zeros(7), gripper), FR3))

        return send


@pytest.fixture
def nodes(graph: Graph) -> Cell:
    return Cell(graph)


def test_the_nodes_follow_commands_and_tell_all_joints(graph: Graph, nodes: Cell) -> None:
    goal = FR3.home + 0.05
    graph.until(lambda: nodes.states, "no joint states")
    say = nodes.command(goal, gripper=0.0)
    graph.until(lambda: np.allclose(nodes.arm.q, goal, atol=1e-3), "it does not follow", say)
    graph.until(lambda: messages.joints_from(nodes.states[-1], FR3).gripper == 0.0, "it does not close", say)
    measured = lambda: messages.joints_from(nodes.states[-1], FR3).positions  # noqa: E731
    graph.until(lambda: np.allclose(measured(), goal, atol=1e-4), "it does not say where it is")
    assert len(nodes.states[-1].velocity) == len(nodes.states[-1].effort) == 8
    stamps = np.array([messages.seconds(message.header.stamp) for message in nodes.states])
    assert np.median(np.diff(stamps)) == pytest.approx(0.005, abs=0.002)
    graph.until(graph.has_no_fault("franka_arm"), "not fine")
    assert nodes.arm.hand.done[0][0] == "grasp"


def test_a_reflex_is_told_stops_the_guard_and_is_recovered_from(graph: Graph, nodes: Cell) -> None:
    stops: list[int] = []

    def on_stop(_: Any, response: Trigger.Response) -> Trigger.Response:
        stops.append(1)
        return response

    graph.probe.create_service(Trigger, "command_guard/stop", on_stop)
    stay = nodes.command(FR3.home)
    graph.until(lambda: nodes.arm.targets, "it does not follow", stay)
    nodes.arm.touch(joint=2)
    graph.until(graph.reports_fault("franka_arm", "contact at joint 2"), "it does not report", stay)
    graph.until(lambda: stops, "the guard is not stopped", stay)
    response = graph.call(Trigger, "franka_arm/recover", Trigger.Request())
    assert response.success and "recovered" in response.message
    before = len(nodes.arm.targets)
    graph.until(lambda: len(nodes.arm.targets) > before, "it does not go on", stay)
    graph.until(graph.has_no_fault("franka_arm"), "not fine", stay)
    assert stops == [1] and nodes.arm.needless_stops == 0


def test_what_the_node_hears_wrong_is_told_and_not_followed(graph: Graph, nodes: Cell) -> None:
    graph.until(graph.has_no_fault("franka_arm"), "not fine")
    panda = RobotModel.load("panda")
    stay = nodes.command(FR3.home)
    rival = rclpy.create_node("rival")
    rival.create_publisher(JointState, "joint_command", qos.JOINT_COMMAND)
    graph.until(graph.reports_fault("franka_arm", "joint_command: 2 publishers"), "second publisher not reported", stay)
    followed = len(nodes.arm.targets)
    for _ in range(5):
        stay()
        time.sleep(0.02)
    assert len(nodes.arm.targets) == followed
    rival.destroy_node()
    graph.until(lambda: len(nodes.arm.targets) > followed, "it does not follow the one that is left", stay)
    wrong = messages.command_message(Command(time.time(), panda.home, np.zeros(7), 1.0), panda)
    graph.until(
        graph.reports_fault("franka_arm", "joints missing (fr3_joint1"),
        "the joints are another robot's",
        lambda: nodes.say(wrong),
    )
    nodes.arm.cable = False
    graph.until(graph.reports_fault("franka_arm", "connection lost"), "loss not reported")
    assert diagnostic_values(graph.diagnostics["franka_arm"])["following"] == "False"


@pytest.mark.any_pace
def test_a_node_without_its_robot_does_not_start(graph: Graph) -> None:
    with pytest.raises(GenimaError, match="robot 172.16.0.2: Connection timeout"):
        FrankaArmNode()


def test_behind_the_command_guard_a_reflex_ends_with_its_resume(graph: Graph, nodes: Cell) -> None:
    options = {"cell": "fr3_own_driver", "recovery": "franka_arm/recover", "rate": 100.0}
    overrides = [Parameter(name, value=value) for name, value in options.items()]
    graph.add(CommandGuardNode(parameter_overrides=overrides))
    say = graph.publisher(JointState, "controller/command", qos.JOINT_COMMAND)
    start = time.time()

    def wish() -> None:
        now = time.time()
        turned = 0.2 * (1 - np.cos(now - start)) * np.eye(7)[0]
        say(messages.command_message(Command(now, FR3.home + turned, np.zeros(7), 1.0), FR3))

    graph.until(lambda: nodes.states, "no joint states")
    graph.call(SelectSource, "command_guard/select", SelectSource.Request(source="controller"))
    graph.until(lambda: nodes.arm.q[0] > 0.1, "it does not move", wish)
    nodes.arm.touch(joint=1)
    graph.until(lambda: graph.guard.state == GuardStatus.STOPPED, "the guard is not stopped", wish)
    stands, followed = nodes.arm.q, len(nodes.arm.targets)
    start = time.time() - np.arccos(1 - stands[0] / 0.2)  # the source begins anew where the arm is
    assert graph.call(Trigger, "command_guard/resume", Trigger.Request()).success
    graph.until(lambda: len(nodes.arm.targets) > followed + 50, "it does not go on", wish)
    assert nodes.arm.mode is not pylibfranka.RobotMode.Reflex and nodes.arm.needless_stops == 0
    moves = np.abs(np.diff(np.array(nodes.arm.motion), axis=0)).max()
    assert moves <= 1.01e-3 * FR3.velocity_max.max()
