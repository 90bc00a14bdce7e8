"""Tests of the command guard: its output obeys the limits for any input."""

from collections.abc import Sequence
from dataclasses import replace

import mujoco
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genima.control.collision import ForbiddenRegion, SelfCollision, Workspace
from genima.control.command_guard import CommandGuard, GuardOutput, GuardSettings
from genima.control.guard_status import INTENDED, GuardReason, GuardState
from genima.control.limit_violations import largest_excess
from genima.errors import GenimaError
from genima.robot.body import robot_spec
from genima.robot.model import RobotModel
from genima.types import Command, Joints

RATE = 50
DT = 1 / RATE
PANDA, FR3 = RobotModel.load("panda"), RobotModel.load("fr3")
STILL = np.zeros(7)


def command_at(stamp: float, positions: np.ndarray = PANDA.home, gripper: float = 1.0) -> Command:
    return Command(stamp, positions, STILL, gripper)


class Bench:
    """Guard in simulated time with an ideal arm."""

    def __init__(self, robot: RobotModel = PANDA, forbidden_regions: Sequence[ForbiddenRegion] = ()) -> None:
        self.guard = CommandGuard(robot, RATE, forbidden_regions=forbidden_regions)
        self.tick = 0
        self.arm = robot.home.copy()
        self.executed: list[np.ndarray] = []
        self.state_runs = True

    @property
    def now(self) -> float:
        return self.tick * DT

    def step(self, command: Command | None = None, periods: int = 1) -> GuardOutput:
        self.tick += periods
        if self.state_runs:
            self.guard.update_joints(Joints(self.now, self.arm, 1.0))
        if command is not None:
            self.guard.submit("controller", command)
        result = self.guard.step(self.now, periods)
        if result.command is not None:
            self.arm = result.command.positions
            self.executed.append(self.arm)
        return result

    def follow(self, ticks: int, speed: float = 0.3) -> GuardOutput:
        """Valid commands: all joints at ``speed`` rad/s from the present position."""
        start, first = self.arm.copy(), self.tick
        for _ in range(ticks):
            ahead = start + speed * (self.tick + 1 - first) * DT
            result = self.step(Command(self.now + DT, ahead, np.full(7, speed), 1.0))
        return result


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.guard.select("controller")
    return bench


def test_valid_command_passes_unchanged(bench: Bench) -> None:
    result = bench.follow(40)
    assert result.state is GuardState.OK
    assert result.command is not None
    np.testing.assert_allclose(result.command.positions, PANDA.home + 0.3 * 40 * DT, atol=1e-4)


def test_arm_holds_without_owner() -> None:
    bench = Bench()
    result = bench.step(command_at(0.02))
    assert (result.command, result.state, result.reason) == (None, GuardState.HELD, GuardReason.NO_OWNER)
    with pytest.raises(GenimaError, match="unknown source \\('gamepad'\\)"):
        bench.guard.select("gamepad")


def test_only_owner_moves_arm(bench: Bench) -> None:
    bench.follow(5)
    bench.guard.submit("teleop", command_at(bench.now, PANDA.home + 0.3))
    bench.guard.select("teleop")
    assert bench.step(command_at(bench.now)).reason is GuardReason.HAND_OVER  # it still moves
    reasons = [bench.step(command_at(bench.now)).reason for _ in range(20)]
    assert reasons[-1] is GuardReason.NO_COMMAND


def test_new_owner_starts_from_rest(bench: Bench) -> None:
    bench.follow(20, speed=0.5)
    bench.guard.select("teleop")
    waited = 0
    while True:
        bench.guard.submit("teleop", command_at(bench.now + DT, bench.arm + 0.2))
        if (result := bench.step()).reason is not GuardReason.HAND_OVER:
            break
        waited += 1
    assert waited >= 1 and (result.state, result.reason) == (GuardState.STOPPED, GuardReason.REJOIN)
    np.testing.assert_array_equal(bench.executed[-1], bench.executed[-2])
    bench.guard.submit("teleop", command_at(bench.now + DT, bench.arm + 0.01))
    assert bench.step().state in (GuardState.OK, GuardState.LIMITED)


def test_several_publishers_hold_arm(bench: Bench) -> None:
    bench.follow(20)
    bench.guard.reject("controller", GuardReason.MULTIPLE_PUBLISHERS)
    assert bench.step().reason is GuardReason.MULTIPLE_PUBLISHERS
    assert bench.step(command_at(bench.now + DT, bench.arm)).reason is not GuardReason.MULTIPLE_PUBLISHERS
    bench.guard.reject("teleop", GuardReason.MULTIPLE_PUBLISHERS)
    assert bench.step(command_at(bench.now + DT, bench.arm)).reason is not GuardReason.MULTIPLE_PUBLISHERS


@pytest.mark.parametrize(
    "settings",
    [{"margin": -0.1}, {"jump": np.nan}, {"late": 0.0}, {"late": 1.0}, {"lost": np.inf}]
    + [{"margin": 1e9}, {"jump": 1e9}, {"distance": 100.0}, {"rejoin": np.inf}, {"lost": 3600.0}],
)
def test_invalid_settings_are_rejected(settings: dict[str, float]) -> None:
    with pytest.raises(GenimaError, match=f"command_guard {next(iter(settings))}: "):
        CommandGuard(PANDA, RATE, settings=GuardSettings(**settings))


def test_margin_without_range_is_rejected() -> None:
    narrow = replace(PANDA, position_min=PANDA.home - 0.3, position_max=PANDA.home + 0.3)
    with pytest.raises(GenimaError, match="margin: no range left for panda_joint1"):
        CommandGuard(narrow, RATE, settings=GuardSettings(margin=0.4))


def test_pause_is_no_fault_and_resumes_near_arm(bench: Bench) -> None:
    bench.follow(20)
    bench.guard.pause("teleop")
    assert bench.step(command_at(bench.now + DT, bench.arm)).reason is not GuardReason.PAUSED, "another source's pause"
    bench.guard.pause("controller")
    results = [bench.step() for _ in range(80)]
    assert {result.reason for result in results} == {GuardReason.PAUSED} <= INTENDED
    np.testing.assert_array_equal(bench.executed[-1], bench.executed[-2])
    far = bench.step(command_at(bench.now + DT, bench.arm + 0.2))
    assert (far.state, far.reason) == (GuardState.STOPPED, GuardReason.REJOIN)  # as after any stop
    assert bench.step(command_at(bench.now + DT, bench.arm)).state is GuardState.OK
    assert [bench.step().reason for _ in range(40)][-1] is GuardReason.COMMAND_LOST, "silence is a fault again"


def test_limited_commands_are_counted(bench: Bench) -> None:
    bench.follow(5, speed=0.0)
    result = bench.step(Command(bench.now + DT, bench.arm, STILL, 100.0))  # percent
    assert (result.state, result.reason) == (GuardState.LIMITED, GuardReason.GRIPPER_RANGE)
    assert result.command is not None and result.command.gripper == 1.0
    assert bench.guard.counts[GuardReason.GRIPPER_RANGE] == 1
    speedy = Command(bench.now + DT, bench.arm, 50 * np.eye(7)[0], 1.0)  # deg/s
    assert bench.step(speedy).reason is GuardReason.RATE_LIMIT


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["positions", "velocities", "gripper"])
def test_non_finite_command_holds_arm(bench: Bench, bad: float, field: str) -> None:
    bench.follow(20)
    values = {"positions": bench.arm.copy(), "velocities": STILL.copy(), "gripper": 1.0}
    if field == "gripper":
        values["gripper"] = bad
    else:
        values[field][3] = bad  # type: ignore[index]
    result = bench.step(Command(bench.now + DT, **values))  # type: ignore[arg-type]
    assert (result.state, result.reason) == (GuardState.HELD, GuardReason.COMMAND_NOT_FINITE)
    assert bench.step(command_at(bench.now + DT, bench.arm)).reason in (GuardReason.NONE, GuardReason.RATE_LIMIT)


def test_jump_holds_arm(bench: Bench) -> None:
    bench.follow(20)
    for _ in range(30):
        result = bench.step(command_at(bench.now + DT, bench.arm + 1.0))
        assert (result.state, result.reason) == (GuardState.HELD, GuardReason.COMMAND_JUMP)
    np.testing.assert_array_equal(bench.executed[-1], bench.executed[-2])


def test_missed_ticks_are_skipped(bench: Bench) -> None:
    """A missed tick is neither caught up (higher speed) nor skipped (step in velocity)."""
    bench.follow(20)
    start, first = bench.arm.copy(), bench.tick
    bench.tick += 2
    bench.guard.update_joints(Joints(bench.now, bench.arm, 1.0))
    bench.guard.submit("controller", Command(bench.now + DT, start + 0.3 * 3 * DT, np.full(7, 0.3), 1.0))
    bench.tick += 1
    result = bench.guard.step(bench.now, periods=bench.tick - first)
    assert result.command is not None
    np.testing.assert_allclose(result.command.positions, start + 0.3 * 3 * DT, atol=2e-3)


def test_late_guard_restarts_from_rest(bench: Bench) -> None:
    bench.follow(20, speed=0.5)
    bench.tick += 20
    result = bench.guard.step(bench.now, periods=20)
    assert (result.command, result.state, result.reason) == (None, GuardState.STOPPED, GuardReason.GUARD_LATE)
    bench.arm = bench.arm + 0.05  # where it came to rest
    assert bench.step(command_at(bench.now + DT, bench.arm + 0.2)).reason is GuardReason.REJOIN
    np.testing.assert_allclose(bench.arm, bench.executed[-1])
    assert bench.step(command_at(bench.now + DT, bench.arm)).state is GuardState.OK


def test_small_overshoot_is_limited(bench: Bench) -> None:
    bench.follow(5, speed=0.0)
    result = bench.step(command_at(bench.now + DT, bench.arm + 0.2))
    assert (result.state, result.reason) == (GuardState.LIMITED, GuardReason.RATE_LIMIT)


def test_positions_keep_margin(bench: Bench) -> None:
    for _ in range(400):
        result = bench.step(command_at(bench.now + DT, np.minimum(bench.arm + 0.09, PANDA.position_max + 0.09)))
    assert result.reason is GuardReason.POSITION_LIMIT
    np.testing.assert_allclose(bench.arm, PANDA.position_max - 0.02, atol=1e-6)


def test_late_commands_hold_and_lost_commands_stop(bench: Bench) -> None:
    bench.follow(20)
    reasons = [bench.step().reason for _ in range(40)]
    assert reasons[8] is GuardReason.COMMAND_LATE
    assert reasons[-1] is GuardReason.COMMAND_LOST
    np.testing.assert_array_equal(bench.executed[-1], bench.executed[-2])
    far = bench.step(command_at(bench.now + DT, bench.arm + 0.2))
    assert (far.state, far.reason) == (GuardState.STOPPED, GuardReason.REJOIN)
    assert bench.step(command_at(bench.now + DT, bench.arm + 0.001)).state in (GuardState.OK, GuardState.LIMITED)


def test_missing_joint_states_hold_arm(bench: Bench) -> None:
    bench.follow(20)
    bench.state_runs = False
    reasons = []
    for _ in range(30):
        reasons.append(bench.step(command_at(bench.now + DT, bench.arm)).reason)
    assert reasons[7] is GuardReason.STATE_LATE
    assert reasons[-1] is GuardReason.STATE_LOST
    bench.state_runs = True
    assert bench.step(command_at(bench.now + DT, bench.arm)).state is GuardState.OK


def test_command_far_from_measured_joints_holds_arm(bench: Bench) -> None:
    bench.step(command_at(DT))
    stuck = PANDA.home.copy()
    for _ in range(60):
        bench.arm = stuck  # the arm is held by something
        result = bench.step(command_at(bench.now + DT, bench.executed[-1] + 0.05))
    assert (result.state, result.reason) == (GuardState.HELD, GuardReason.COMMAND_FAR)


def test_stop_latches_until_resume(bench: Bench) -> None:
    bench.follow(20)
    bench.guard.stop()
    assert bench.step(command_at(bench.now + DT, bench.arm)).state is GuardState.STOPPED
    with pytest.raises(GenimaError, match="still moving"):
        bench.guard.resume()
    for _ in range(40):
        bench.step(command_at(bench.now + DT, bench.arm))
    assert bench.step(command_at(bench.now + DT, bench.arm)).reason is GuardReason.STOP_REQUESTED
    bench.guard.resume()
    assert bench.step(command_at(bench.now + DT, bench.arm + 0.2)).reason is GuardReason.REJOIN
    assert bench.step(command_at(bench.now + DT, bench.arm)).state is GuardState.OK


def test_owner_after_no_owner_starts_at_measured_joints(bench: Bench) -> None:
    bench.follow(10)
    bench.guard.select(None)
    while bench.step().command is not None:
        assert bench.tick < 100
    bench.arm = PANDA.home + 0.4  # moved by hand, or the scene was reset
    bench.guard.select("controller")
    result = bench.step(command_at(bench.now + DT, bench.arm))
    assert result.command is not None
    np.testing.assert_allclose(result.command.positions, PANDA.home + 0.4)


@pytest.mark.parametrize("stopped", [True, False])
def test_held_arm_moved_by_hand_is_not_pulled_back(bench: Bench, stopped: bool) -> None:
    bench.follow(10)
    if stopped:
        bench.guard.stop()
    for _ in range(40):
        held = bench.step()
    assert held.command is not None
    bench.arm = PANDA.home + 0.6  # by hand, or the scene was reset
    assert (moved := bench.step()).command is None and moved.reason is GuardReason.ARM_MOVED
    after = bench.step()
    if stopped:
        assert after.command is None and after.reason is GuardReason.STOP_REQUESTED
        bench.guard.resume()
        after = bench.step(command_at(bench.now + DT, bench.arm + 0.2))
        assert after.reason is GuardReason.REJOIN
    assert after.command is not None
    np.testing.assert_allclose(after.command.positions, PANDA.home + 0.6)
    assert bench.step(command_at(bench.now + DT, bench.arm)).state is GuardState.OK


def test_joint_states_in_future_hold_arm(bench: Bench) -> None:
    bench.follow(10)
    bench.state_runs = False
    bench.guard.update_joints(Joints(bench.now + 5.0, bench.arm, 1.0))
    result = bench.step(command_at(bench.now + DT, bench.arm))
    assert (result.state, result.reason) == (GuardState.HELD, GuardReason.STATE_FUTURE)


def test_reasons_are_counted(bench: Bench) -> None:
    bench.follow(3)
    bench.step(command_at(bench.now + DT, PANDA.home + 1.0))
    assert bench.guard.counts[GuardReason.COMMAND_JUMP] == 1
    assert bench.guard.counts.total() == 4


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    wildness=st.sampled_from([0.01, 0.1, 0.3, 1.0, 10.0]),
    robot=st.sampled_from([PANDA, FR3]),
)
def test_limits_hold_for_random_commands(seed: int, wildness: float, robot: RobotModel) -> None:
    """Limits also hold over missed ticks, measured by the set-points at their times of arrival."""
    rng = np.random.default_rng(seed)
    bench = Bench(robot)
    bench.arm = rng.uniform(robot.position_min + 0.02, robot.position_max - 0.02)
    bench.guard.select("controller")
    bench.step()  # the set-point is in force from here on
    segments: list[list[Command]] = [[]]  # between them the arm was at rest or left to itself
    for _ in range(150):
        burst = rng.integers(0, 4)
        for _ in range(burst):
            positions = bench.arm + rng.normal(0, wildness, 7)
            velocities = rng.normal(0, 10 * wildness, 7)
            if rng.random() < 0.05:
                positions[rng.integers(7)] = rng.choice([np.nan, np.inf, 1e300])
            stamp = bench.now + DT + rng.choice([0.0, 0.0, -0.05, -1.0, 0.05, 1e9])
            bench.guard.submit("controller", Command(stamp, positions, velocities, rng.normal()))
        bench.state_runs = bool(rng.random() < 0.95)
        match rng.integers(0, 60):
            case 0:
                bench.guard.stop()
            case 1:
                bench.guard.select("teleop")
            case 2 | 3:
                bench.guard.select("controller")
            case 4:
                bench.guard.reject("controller")
        result = bench.step(periods=int(rng.choice([1, 2, 4, 20], p=[0.9, 0.05, 0.04, 0.01])))
        if result.command is None:
            segments.append([])
        else:
            assert 0 <= result.command.gripper <= 1
            segments[-1].append(result.command)
    for segment in segments:
        stamps = np.array([command.stamp for command in segment])
        executed = np.array([command.positions for command in segment]).reshape(-1, 7)
        assert np.all(executed >= robot.position_min) and np.all(executed <= robot.position_max)
        assert largest_excess(stamps, executed, robot) <= 1 + 1e-6
        low, high = robot.velocity_limits(executed)
        velocities = np.array([command.velocities for command in segment]).reshape(-1, 7)
        assert np.all(velocities >= low - 1e-6) and np.all(velocities <= high + 1e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
@example(seed=56764629)  # leaves and comes back on its way to a rest inside, if only the rest is looked at
def test_arm_stays_in_its_workspace(seed: int) -> None:
    rng = np.random.default_rng(seed)
    box = Workspace(PANDA, [-0.2, -0.3, 0.1], [0.7, 0.3, 1.0])
    bench = Bench(forbidden_regions=[box])
    bench.guard.select("controller")
    assert box.depth(bench.arm) == 0
    goal = bench.arm
    for i in range(150):
        if i % 15 == 0:
            goal = bench.arm + rng.normal(0, 0.5, 7)
        step = np.clip(goal - bench.arm, -0.04, 0.04)
        result = bench.step(command_at(bench.now + DT, bench.arm + step))
        assert box.depth(bench.arm) < 2e-3
    assert result.command is not None


def test_arm_outside_workspace_may_only_return() -> None:
    box = Workspace(PANDA, [-0.2, -0.3, 0.1], [0.7, 0.3, 1.0])
    bench = Bench(forbidden_regions=[box])
    bench.arm = PANDA.home + np.array([0.8, 0, 0, 0, 0, 0, 0])  # turned out to the side
    bench.guard.select("controller")
    bench.step()
    assert box.depth(bench.arm) > 0.01
    further = bench.step(command_at(bench.now + DT, bench.arm + np.array([0.05, 0, 0, 0, 0, 0, 0])))
    assert (further.state, further.reason) == (GuardState.HELD, GuardReason.WORKSPACE)
    for _ in range(100):
        bench.step(command_at(bench.now + DT, bench.arm - np.array([0.05, 0, 0, 0, 0, 0, 0])))
    assert box.depth(bench.arm) == 0


@pytest.mark.parametrize("corners", [([0, 0], [1, 1]), ([0, 0, 0], [1, 1, 0]), ([0, 0, np.nan], [1, 1, 1])])
def test_invalid_workspace_is_rejected(corners: tuple[list[float], list[float]]) -> None:
    with pytest.raises(GenimaError, match="workspace: no box"):
        Workspace(PANDA, *corners)


@pytest.fixture(scope="module")
def touching() -> SelfCollision:
    return SelfCollision(PANDA)


def test_arm_brakes_before_self_collision(touching: SelfCollision) -> None:
    bench = Bench(forbidden_regions=[touching])
    bench.guard.select("controller")
    folded = np.array([0.0, 0.6, 0.0, -3.0, 0.0, 0.4, 0.785])  # the gripper in the base
    assert touching.depth(PANDA.home) == 0 and touching.depth(folded) > 0
    for _ in range(300):
        step = np.clip(folded - bench.arm, -0.03, 0.03)
        result = bench.step(command_at(bench.now + DT, bench.arm + step))
        assert touching.depth(bench.arm) < 2e-3
    assert result.reason is GuardReason.SELF_COLLISION
    np.testing.assert_array_equal(bench.executed[-1], bench.executed[-2])


def test_self_collision_matches_mujoco(touching: SelfCollision) -> None:
    """Collision model of the simulator's arm: adjacent links may touch, the gripper may not."""
    model = robot_spec(PANDA).compile()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        q = rng.uniform(PANDA.position_min, PANDA.position_max)
        for name, value in zip(PANDA.joint_names, q, strict=True):
            data.joint(name).qpos = value
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        bodies = [[model.geom_bodyid[g] for g in pair] for pair in data.contact.geom]
        links = [[model.body(b).name for b in pair] for pair in bodies]
        apart = [abs(int(a[4:]) - int(b[4:])) > 2 for a, b in links if a[:4] == b[:4] == "link"]
        found += any(apart)
        assert not any(apart) or touching.depth(q) > 0
    assert found > 3
