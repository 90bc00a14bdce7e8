"""Stack with stand-ins for the drivers: causes of reflexes, and the loop through the command guard."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ros_graph import Graph, overrides
from sensor_msgs.msg import JointState
from standins import arm as standin_arm
from standins import interfaces
from standins.arm import PERIOD, Crisp, Gello, PositionWatch, TorqueArm, Trajectory
from std_srvs.srv import SetBool, Trigger

from genima.control.command_guard import CommandGuard
from genima.control.jerk_limited_motion import JerkLimitedMotion, MotionLimits, minimum_jerk
from genima.control.limit_violations import count_violations
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command, Joints
from genima_interfaces.msg import GuardStatus
from genima_interfaces.srv import SelectSource
from genima_nodes.arm_adapter import ArmAdapterNode
from genima_nodes.arm_recovery import ArmRecoveryNode
from genima_nodes.command_guard import CommandGuardNode
from genima_nodes.gripper_adapter import GripperAdapterNode
from genima_nodes.ros import messages, qos
from genima_sim.simulation import Simulation

FR3 = RobotModel.load("fr3")


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(FR3)


@pytest.fixture
def arm(simulation: Simulation) -> Iterator[TorqueArm]:
    arm = TorqueArm(simulation, FR3)
    yield arm
    arm.close()


# -------------------------------------------------------------------------------------------------------- stand-ins


def motion(rate: float, seconds: float, share: float = 0.99) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Yield guarded commands from home: time, positions, velocities; within a share of the limits."""
    guarded = JerkLimitedMotion(MotionLimits.of(FR3, share, share, share), 1 / rate)
    guarded.reset(FR3.home)
    goal = FR3.home + 0.3
    for k in range(int(seconds * rate)):
        guarded.step_toward(goal, np.zeros(7))
        yield k / rate, guarded.position, guarded.velocity


@pytest.mark.parametrize("rate, error", [(1000, None), (200, "joint_motion_generator_velocity_discontinuity")])
def test_position_steps_trip_fr3_position_interface(rate: int, error: str | None) -> None:
    """Reason why no backend streams positions to the robot's position interface."""
    watch, errors = PositionWatch(FR3, FR3.home), set()
    for _, positions, _ in motion(rate, 0.3):
        for _ in range(1000 // rate):
            errors.add(watch.error(positions))
    assert errors == {None} if error is None else error in errors


@pytest.mark.parametrize(
    "step, error",
    [
        (np.eye(7)[3] * 3.0, "joint_motion_generator_position_limits_violation"),
        (np.eye(7)[0] * 0.01, "joint_motion_generator_velocity_limits_violation"),
        (np.eye(7)[0] * 0.001, "joint_motion_generator_velocity_discontinuity"),
        (np.eye(7)[0] * 9e-6, "joint_motion_generator_acceleration_discontinuity"),
        (np.eye(7)[0] * 4e-6, None),  # from rest, 5e-6 rad are allowed
    ],
)
def test_position_interface_trips_as_fr3(step: np.ndarray, error: str | None) -> None:
    assert PositionWatch(FR3, FR3.home).error(FR3.home + step) == error


@pytest.mark.parametrize("kind", [Crisp, Gello, Trajectory])
def test_each_controller_follows_guarded_motion(arm: TorqueArm, kind: Callable[..., Any]) -> None:
    controller = kind(FR3)
    arm.switch(controller, 0.0)
    offset = arm.q - FR3.home
    clock, worst = 0.0, 0.0
    for due, positions, velocities in motion(100, 1.5, 0.2):
        controller.target(clock, clock, offset + positions, velocities, 0.02)
        while clock < due + 0.01:
            arm.step(clock)
            clock += PERIOD
        worst = max(worst, float(np.abs(arm.q - offset - positions).max()))
    assert not arm.error and arm.controller is controller
    assert worst < 0.15  # GELLO's controller has no velocity feed-forward
    np.testing.assert_allclose(arm.q, offset + FR3.home + 0.3, atol=0.02)


def test_gello_controller_ends_after_stale_targets() -> None:
    controller = Gello(FR3)
    controller.activate(10.0, FR3.home)
    controller.target(10.1, 10.1, FR3.home, None, 0)
    for now in (10.2, 10.21):
        controller.torques(now, FR3.home, np.zeros(7))
    assert not controller.shut_down
    controller.target(10.7, 10.7, FR3.home, None, 0)  # 0.6 s after the one before
    controller.torques(10.71, FR3.home, np.zeros(7))
    assert controller.shut_down


def test_installed_trajectory_controller_rejects_moving_points() -> None:
    controller = Trajectory(FR3, moving_end=False)
    controller.activate(0.0, FR3.home)
    controller.target(0.0, 0.0, FR3.home, np.full(7, 0.1), 0.04)
    assert controller.rejected == 1
    controller.target(0.0, 0.0, FR3.home + 0.01, np.zeros(7), 0.04)
    assert controller.rejected == 1
    np.testing.assert_allclose(controller.desired(0.04)[0], FR3.home + 0.01)


def test_unguarded_step_trips_arm(arm: TorqueArm) -> None:
    controller = Crisp(FR3)
    controller.rate, controller.max_torque = 1.0, 80.0
    arm.switch(controller, 0.0)
    controller.target(0.0, 0.0, arm.q + [2.5, 0, 0, 0, 0, 0, 0], np.zeros(7), 0)
    for k in range(1500):
        arm.step(k * PERIOD)
        if arm.error:
            break
    assert arm.error == "joint_velocity_violation" and arm.controller is None


# -------------------------------------------------------------------------------------------------------------- loop


class Cell:
    """Guard, adapters and a stand-in for the hardware, with scripted commands instead of a teleoperator's."""

    def __init__(self, graph: Graph, simulation: Simulation, backend: str) -> None:
        interfaces.provide()
        from standins.hardware import Hardware

        self.graph = graph
        self.targets = graph.subscribe(JointState, "joint_command", qos.COMMAND_LOG)
        self.driver = Hardware(simulation, parameter_overrides=overrides(backend=backend, state_every=5))
        for node in (
            self.driver,
            ArmAdapterNode(parameter_overrides=overrides(backend=backend)),
            GripperAdapterNode(),
            ArmRecoveryNode(parameter_overrides=overrides(backend=backend)),
            CommandGuardNode(parameter_overrides=overrides(cell="fr3_crisp", recovery="robot/recover")),
        ):
            graph.add(node)
        self._publish = graph.publisher(JointState, "teleop/command", qos.SOURCE_COMMAND)
        self._begin: float | None = None
        self._start = self.driver.arm.q
        self.offset = np.array([0.15, -0.1, 0.1, 0.1, -0.1, 0.15, 0.2])
        self.seconds = 1.5
        self.gripper = 1.0

    def select_source(self) -> None:
        response = self.graph.call(SelectSource, "command_guard/select", SelectSource.Request(source="teleop"))
        assert response.success

    def begin_motion(self, offset: float) -> None:
        """Begin a motion at the arm's present position."""
        self._start, self._begin = self.driver.arm.q, time.time()
        self.goal = self._start + offset * self.offset

    def publish_command(self) -> None:
        """Publish the present command of the script."""
        assert self._begin is not None
        progress = minimum_jerk(np.clip((time.time() - self._begin) / self.seconds, 0, 1))
        positions = self._start + float(progress) * (self.goal - self._start)
        if np.abs(positions - self.driver.arm.q).max() > 0.09:  # held meanwhile: a busy machine
            self._start, self._begin = self.driver.arm.q, time.time()
            positions = self._start
        command = Command(time.time(), positions, np.zeros(7), self.gripper)
        self._publish(messages.command_message(command, FR3))

    def arrived(self) -> bool:
        return bool(np.abs(self.driver.arm.q - self.goal).max() < 0.03)

    def diagnostics(self, node: str) -> dict[str, str]:
        status = self.graph.diagnostics.get(node)
        return {pair.key: pair.value for pair in status.values} if status else {}


@pytest.mark.parametrize("backend", ["crisp", "gello", "jtc"])
def test_guarded_loop_does_not_trip_arm_and_recovers_reflex(
    graph, simulation: Simulation, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standin_arm, "_STALE", 5.0)  # s: a busy machine must not end GELLO's controller
    cell = Cell(graph, simulation, backend)
    hardware = cell.driver
    graph.until(graph.has_no_fault("arm_recovery"), "the robot is not ready")
    cell.select_source()
    cell.begin_motion(0.0)
    graph.until(lambda: cell.targets, "the guard does not publish", cell.publish_command)
    cell.begin_motion(1.0)
    cell.gripper = 0.2
    graph.until(cell.arrived, "the arm does not follow", cell.publish_command)
    graph.until(
        lambda: abs(hardware.arm.joints.gripper - 0.2) < 0.1, "the gripper does not follow", cell.publish_command
    )
    assert not hardware.franka.reflexes

    # the guard enforced the limits, and the targets of the arm have no steps
    time.sleep(0.3)  # the probe receives it later
    targets = list(cell.targets)  # more of them arrive
    stamps = np.array([messages.seconds(message.header.stamp) for message in targets])
    assert count_violations(stamps, np.array([m.position[:7] for m in targets]), FR3) == 0
    targets = np.array([positions for _, positions in hardware.franka.targets])
    assert np.abs(np.diff(targets, axis=0)).max() < 0.05  # also where the stream restarts after a pause

    # a collision
    graph.call(Trigger, "standin/trip", Trigger.Request())
    expected = "robot: controller"
    graph.until(graph.reports_fault("arm_recovery", expected), "the reflex is not reported", cell.publish_command)
    graph.until(graph.guard_reports(GuardStatus.STOP_REQUESTED), "the guard is not stopped", cell.publish_command)
    assert "call resume" in graph.diagnostics["arm_recovery"].message
    target_count = len(hardware.franka.targets)
    stopped_at = hardware.arm.q
    assert "recovering the robot" in graph.resume()
    graph.until(lambda: hardware.franka.controllers[hardware.franka._backend.controller] == "active", "no recovery")
    graph.until(graph.has_no_fault("arm_recovery"), "the recovery is not reported")
    assert "joint_velocity_violation" in cell.diagnostics("arm_recovery")["last error"]
    np.testing.assert_allclose(hardware.arm.q, stopped_at, atol=0.03)  # the arm remains where it stopped
    cell.begin_motion(-0.5)
    graph.until(cell.arrived, "the arm does not resume", cell.publish_command)
    assert len(hardware.franka.targets) > target_count
    assert hardware.franka.reflexes == ["joint_velocity_violation"]  # of standin/trip


def test_restarted_guard_begins_at_arm_position() -> None:
    guard = CommandGuard(FR3, 100, ("teleop",))
    displaced = FR3.home + 0.3
    guard.select("teleop")
    for positions in (FR3.home, displaced):
        for k in range(5):
            guard.update_joints(Joints(k / 100, positions, 1.0))
            guard.submit("teleop", Command(k / 100, positions, np.zeros(7), 1.0))
            command = guard.step(k / 100).command
        assert command is not None
        np.testing.assert_allclose(command.positions, positions, atol=1e-9)
        guard.stop()
        guard.update_joints(Joints(0.05, displaced, 1.0))  # a reflex, and gravity
        stopped = guard.step(0.05).command
        assert stopped is not None and np.allclose(stopped.positions, positions)  # not to be followed now
        guard.restart()
        assert guard.step(0.06).command is None
        guard.resume()


def test_emergency_stop_is_recovered_only_when_released(graph, simulation: Simulation) -> None:
    cell = Cell(graph, simulation, "crisp")
    graph.until(graph.has_no_fault("arm_recovery"), "the robot is not ready")
    graph.call(SetBool, "standin/user_stop", SetBool.Request(data=True))
    graph.until(graph.guard_reports(GuardStatus.STOP_REQUESTED), "the guard is not stopped")
    graph.resume()
    graph.until(graph.reports_fault("command_guard", "recovery: the robot's error recovery: failed"), "no fault")
    assert graph.reports_fault("command_guard", "release the emergency stop")()
    graph.call(SetBool, "standin/user_stop", SetBool.Request(data=False))
    graph.resume()
    graph.until(graph.has_no_fault("arm_recovery"), "no recovery")
    cell.select_source()
    cell.begin_motion(0.5)
    graph.until(cell.arrived, "the arm does not resume", cell.publish_command)
    again = graph.call(Trigger, "robot/recover", Trigger.Request())
    assert again.success and again.message == "robot: already active"


def test_resume_reports_missing_recovery_service(graph) -> None:
    graph.add(CommandGuardNode(parameter_overrides=overrides(cell="fr3_crisp", recovery="robot/recover")))
    response = graph.call(Trigger, "command_guard/resume", Trigger.Request())
    assert not response.success and "robot/recover: service not available" in response.message


def test_backend_without_recovery_has_no_recovery_node(graph) -> None:
    with pytest.raises(GenimaError, match="multipanda: no recovery"):
        ArmRecoveryNode(parameter_overrides=overrides(backend="multipanda"))


def test_messages_are_built_with_installed_ros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sourced workspace stays on the search paths: it has ament_cmake."""
    used: list[dict[str, str]] = []

    def run(command: list[str], env: dict[str, str], **_: Any) -> SimpleNamespace:
        used.append(env)
        return SimpleNamespace(returncode=0, stdout="", stderr="")

    for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
        monkeypatch.setenv(name, "/opt/ros/jazzy")
    monkeypatch.setattr(interfaces.subprocess, "run", run)
    interfaces._build("franka_msgs", tmp_path)
    assert len(used) == 3
    for environment in used:
        for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"):
            assert environment[name].split(os.pathsep) == [sys.prefix, "/opt/ros/jazzy"]
