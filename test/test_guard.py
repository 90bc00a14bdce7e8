"""The command guard: whatever goes in, what comes out obeys the limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genima.errors import GenimaError
from genima.guard import CommandGuard, Guarded, Reason, Verdict
from genima.observation import Command, Joints
from genima.robot.model import RobotModel

RATE = 50
DT = 1 / RATE
PANDA = RobotModel.load("panda")
STILL = np.zeros(7)


def wish(stamp: float, positions: np.ndarray = PANDA.home, gripper: float = 1.0) -> Command:
    return Command(stamp, positions, STILL, gripper)


class Bench:
    """A guard in simulated time with an arm that follows perfectly."""

    def __init__(self) -> None:
        self.guard = CommandGuard(PANDA, RATE)
        self.tick = 0
        self.arm = PANDA.home.copy()
        self.heard: list[np.ndarray] = []
        self.state_runs = True

    @property
    def now(self) -> float:
        return self.tick * DT

    def step(self, command: Command | None = None) -> Guarded:
        self.tick += 1
        if self.state_runs:
            self.guard.measure(Joints(self.now, self.arm, 1.0))
        if command is not None:
            self.guard.offer("controller", command)
        result = self.guard.step(self.now)
        if result.command is not None:
            self.arm = result.command.positions
            self.heard.append(self.arm)
        return result

    def follow(self, ticks: int, speed: float = 0.3) -> Guarded:
        """Ordinary commands: all joints at ``speed`` rad/s from where the arm is."""
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


def test_an_ordinary_command_passes_untouched(bench: Bench) -> None:
    result = bench.follow(40)
    assert result.verdict is Verdict.OK
    assert result.command is not None
    np.testing.assert_allclose(result.command.positions, PANDA.home + 0.3 * 40 * DT, atol=1e-4)


def test_nobody_moves_the_arm_until_selected() -> None:
    bench = Bench()
    result = bench.step(wish(0.02))
    assert (result.command, result.verdict, result.reason) == (None, Verdict.HELD, Reason.NO_OWNER)
    with pytest.raises(GenimaError, match="unknown source 'gamepad'"):
        bench.guard.select("gamepad")


def test_only_the_owner_is_heard(bench: Bench) -> None:
    bench.follow(5)
    bench.guard.offer("teleop", wish(bench.now, PANDA.home + 0.3))
    bench.guard.select("teleop")
    assert bench.step(wish(bench.now)).reason is Reason.NO_COMMAND


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["positions", "velocities", "gripper"])
def test_a_command_that_is_not_finite_holds_the_arm(bench: Bench, bad: float, field: str) -> None:
    bench.follow(20)
    values = {"positions": bench.arm.copy(), "velocities": STILL.copy(), "gripper": 1.0}
    if field == "gripper":
        values["gripper"] = bad
    else:
        values[field][3] = bad  # type: ignore[index]
    result = bench.step(Command(bench.now + DT, **values))  # type: ignore[arg-type]
    assert (result.verdict, result.reason) == (Verdict.HELD, Reason.NOT_FINITE)
    assert bench.step(wish(bench.now + DT, bench.arm)).reason in (Reason.NONE, Reason.RATE)


def test_a_jump_is_refused_and_the_arm_comes_to_rest(bench: Bench) -> None:
    bench.follow(20)
    for _ in range(30):
        result = bench.step(wish(bench.now + DT, bench.arm + 1.0))
        assert (result.verdict, result.reason) == (Verdict.HELD, Reason.JUMP)
    np.testing.assert_array_equal(bench.heard[-1], bench.heard[-2])


def test_a_small_overshoot_is_limited_not_refused(bench: Bench) -> None:
    bench.follow(5, speed=0.0)
    result = bench.step(wish(bench.now + DT, bench.arm + 0.2))
    assert (result.verdict, result.reason) == (Verdict.LIMITED, Reason.RATE)


def test_positions_stay_a_margin_inside_the_range(bench: Bench) -> None:
    for _ in range(400):
        result = bench.step(wish(bench.now + DT, np.minimum(bench.arm + 0.1, PANDA.position_max + 0.1)))
    assert result.reason is Reason.POSITION
    np.testing.assert_allclose(bench.arm, PANDA.position_max - 0.02, atol=1e-6)


def test_late_commands_hold_and_lost_commands_stop_until_one_is_near(bench: Bench) -> None:
    bench.follow(20)
    reasons = [bench.step().reason for _ in range(40)]
    assert reasons[8] is Reason.COMMAND_LATE
    assert reasons[-1] is Reason.COMMAND_LOST
    np.testing.assert_array_equal(bench.heard[-1], bench.heard[-2])
    far = bench.step(wish(bench.now + DT, bench.arm + 0.2))
    assert (far.verdict, far.reason) == (Verdict.STOPPED, Reason.REJOIN)
    assert bench.step(wish(bench.now + DT, bench.arm + 0.001)).verdict in (Verdict.OK, Verdict.LIMITED)


def test_silent_joint_states_hold_the_arm(bench: Bench) -> None:
    bench.follow(20)
    bench.state_runs = False
    reasons = []
    for _ in range(30):
        reasons.append(bench.step(wish(bench.now + DT, bench.arm)).reason)
    assert reasons[7] is Reason.STATE_LATE
    assert reasons[-1] is Reason.STATE_LOST
    bench.state_runs = True
    assert bench.step(wish(bench.now + DT, bench.arm)).verdict is Verdict.OK


def test_a_command_far_from_the_measured_joints_is_refused(bench: Bench) -> None:
    bench.step(wish(DT))
    stuck = PANDA.home.copy()
    for _ in range(60):
        bench.arm = stuck  # the arm is held by something
        result = bench.step(wish(bench.now + DT, bench.heard[-1] + 0.05))
    assert (result.verdict, result.reason) == (Verdict.HELD, Reason.FAR)


def test_a_requested_stop_latches_until_resume(bench: Bench) -> None:
    bench.follow(20)
    bench.guard.stop()
    assert bench.step(wish(bench.now + DT, bench.arm)).verdict is Verdict.STOPPED
    with pytest.raises(GenimaError, match="still moving"):
        bench.guard.resume()
    for _ in range(40):
        bench.step(wish(bench.now + DT, bench.arm))
    assert bench.step(wish(bench.now + DT, bench.arm)).reason is Reason.REQUESTED
    bench.guard.resume()
    assert bench.step(wish(bench.now + DT, bench.arm + 0.2)).reason is Reason.REJOIN
    assert bench.step(wish(bench.now + DT, bench.arm)).verdict is Verdict.OK


def test_after_nobody_the_next_owner_starts_where_the_arm_is(bench: Bench) -> None:
    bench.follow(10)
    bench.guard.select(None)
    while bench.step().command is not None:
        assert bench.tick < 100
    bench.arm = PANDA.home + 0.4  # moved by hand, or the scene was reset
    bench.guard.select("controller")
    result = bench.step(wish(bench.now + DT, bench.arm))
    assert result.command is not None
    np.testing.assert_allclose(result.command.positions, PANDA.home + 0.4)


@pytest.mark.parametrize("stopped", [True, False])
def test_an_arm_that_was_moved_while_it_was_held_is_not_pulled_back(bench: Bench, stopped: bool) -> None:
    bench.follow(10)
    if stopped:
        bench.guard.stop()
    for _ in range(40):
        held = bench.step()
    assert held.command is not None
    bench.arm = PANDA.home + 0.6  # by hand, or the scene was reset
    assert (moved := bench.step()).command is None and moved.reason is Reason.MOVED
    after = bench.step()
    if stopped:
        assert after.command is None and after.reason is Reason.REQUESTED
        bench.guard.resume()
        after = bench.step(wish(bench.now + DT, bench.arm + 0.2))
        assert after.reason is Reason.REJOIN
    assert after.command is not None
    np.testing.assert_allclose(after.command.positions, PANDA.home + 0.6)
    assert bench.step(wish(bench.now + DT, bench.arm)).verdict is Verdict.OK


def test_joint_states_from_the_future_hold_the_arm(bench: Bench) -> None:
    bench.follow(10)
    bench.state_runs = False
    bench.guard.measure(Joints(bench.now + 5.0, bench.arm, 1.0))
    result = bench.step(wish(bench.now + DT, bench.arm))
    assert (result.verdict, result.reason) == (Verdict.HELD, Reason.STATE_FUTURE)


def test_reasons_are_counted(bench: Bench) -> None:
    bench.follow(3)
    bench.step(wish(bench.now + DT, PANDA.home + 1.0))
    assert bench.guard.counts[Reason.JUMP] == 1
    assert bench.guard.counts.total() == 4


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), wildness=st.sampled_from([0.01, 0.1, 0.3, 1.0, 10.0]))
def test_whatever_comes_in_the_limits_hold(seed: int, wildness: float) -> None:
    rng = np.random.default_rng(seed)
    bench = Bench()
    bench.arm = rng.uniform(PANDA.position_min + 0.02, PANDA.position_max - 0.02)
    bench.guard.select("controller")
    bench.step()  # the set-point is in force from here on
    for _ in range(150):
        burst = rng.integers(0, 4)
        for _ in range(burst):
            positions = bench.arm + rng.normal(0, wildness, 7)
            velocities = rng.normal(0, 10 * wildness, 7)
            if rng.random() < 0.05:
                positions[rng.integers(7)] = rng.choice([np.nan, np.inf, 1e300])
            stamp = bench.now + DT + rng.choice([0.0, 0.0, -0.05, -1.0, 0.05, 1e9])
            bench.guard.offer("controller", Command(stamp, positions, velocities, rng.normal()))
        bench.state_runs = bool(rng.random() < 0.95)
        match rng.integers(0, 60):
            case 0:
                bench.guard.stop()
            case 1:
                bench.guard.select("teleop")
            case 2 | 3:
                bench.guard.select("controller")
        result = bench.step()
        assert result.command is None or 0 <= result.command.gripper <= 1
    heard = np.array(bench.heard)
    assert np.all(heard >= PANDA.position_min) and np.all(heard <= PANDA.position_max)
    for order, limit in enumerate((PANDA.velocity_max, PANDA.acceleration_max, PANDA.jerk_max), start=1):
        assert np.all(np.abs(np.diff(heard, order, axis=0)) / DT**order <= limit * (1 + 1e-6))
