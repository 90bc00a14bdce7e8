"""Tests of the command stream of chunks."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genima.control.chunk_interpolation import ChunkInterpolation
from genima.control.chunk_stream import ChunkStream
from genima.control.jerk_limited_motion import JerkLimitedMotion, MotionLimits
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import ActionChunk, Joints

RATE = 50
DT = 1 / RATE
PANDA = RobotModel.load("panda")
AT_HOME = Joints(0.0, PANDA.home, 1.0)
AMPLITUDE = np.array([0.4, 0.3, 0.2, 0.4, 0.1, 0.3, 0.5])


def reference(time: float) -> np.ndarray:
    return PANDA.home + AMPLITUDE * (1 - np.cos(1.5 * time))


def chunk(stamp: float, offset: float = 0.0, open_probability: float = 1.0) -> ActionChunk:
    due = stamp + 0.05 * np.arange(1, 21)
    return ActionChunk(stamp, 0.05, np.stack([reference(t) for t in due]) + offset, np.full(20, open_probability))


def over_limits(positions: np.ndarray) -> list[float]:
    """Largest finite difference of orders 1 to 3 as a share of the robot's limit."""
    limits = (PANDA.velocity_max, PANDA.acceleration_max, PANDA.jerk_max)
    return [float(np.max(np.abs(np.diff(positions, n, axis=0) / DT**n) / m)) for n, m in enumerate(limits, start=1)]


def test_no_command_before_first_chunk() -> None:
    stream = ChunkStream(PANDA, RATE, execution_horizon=1)
    assert stream.command(0.0, AT_HOME) is None
    stream.reset(AT_HOME)
    assert stream.command(0.0, AT_HOME) is None


def test_chunk_passes_through_actions() -> None:
    plan = chunk(3.0)
    path = ChunkInterpolation(plan)
    for k in (0, 7, 19):
        position, _ = path.at(3.0 + (k + 1) * 0.05)
        np.testing.assert_allclose(position, plan.positions[k])
    np.testing.assert_allclose(path.at(99.0)[1], 0, atol=1e-12)


def test_overlapping_late_chunks_stay_in_phase() -> None:
    stream = ChunkStream(PANDA, RATE, execution_horizon=1)
    stream.reset(AT_HOME)
    commands = []
    for tick in range(500):
        if tick % 10 == 5:
            stream.add(chunk(tick * DT - 0.25))
        if command := stream.command(tick * DT, AT_HOME):
            commands.append(command)
    settled = commands[50:]
    error = [np.max(np.abs(c.positions - reference(c.stamp))) for c in settled]
    assert max(error) < 0.02
    slopes = np.diff([c.positions for c in settled], axis=0) / DT
    midway = (np.array([c.velocities for c in settled])[1:] + np.array([c.velocities for c in settled])[:-1]) / 2
    assert np.max(np.abs(slopes - midway)) < 0.02


def test_stream_stops_smoothly_at_last_action() -> None:
    stream = ChunkStream(PANDA, RATE, execution_horizon=1)
    stream.reset(AT_HOME)
    only = chunk(0.0)
    stream.add(only)
    positions = np.array([stream.command(k * DT, AT_HOME).positions for k in range(150)])  # type: ignore[union-attr]
    np.testing.assert_allclose(positions[-1], only.positions[-1], atol=1e-6)
    np.testing.assert_allclose(positions[-1], positions[-2], atol=1e-6)
    assert max(over_limits(positions)) <= 1 + 1e-6


def test_expired_chunk_is_skipped_and_counted() -> None:
    stream = ChunkStream(PANDA, RATE, execution_horizon=1)
    stream.reset(AT_HOME)
    stream.add(chunk(0.0))
    assert stream.command(5.0, AT_HOME) is None
    assert stream.expired == 1


def test_older_chunk_does_not_replace_newer() -> None:
    stream = ChunkStream(PANDA, RATE, execution_horizon=1)
    stream.reset(AT_HOME)
    stream.add(chunk(1.0))
    stream.command(1.2, AT_HOME)
    stream.add(chunk(0.9))
    stream.command(1.22, AT_HOME)
    assert stream.stamp == 1.0


def test_reset_drops_chunks_and_starts_at_measured_joints() -> None:
    stream = ChunkStream(PANDA, RATE, execution_horizon=1)
    stream.reset(AT_HOME)
    stream.add(chunk(0.0))
    stream.command(0.3, AT_HOME)
    elsewhere = Joints(1.0, PANDA.home + 0.2, 0.0)
    stream.reset(elsewhere)
    assert stream.command(1.0, elsewhere) is None
    stream.add(chunk(1.0, open_probability=0.5))
    command = stream.command(1.02, elsewhere)
    assert command is not None
    assert np.max(np.abs(command.positions - elsewhere.positions)) < 0.01
    assert command.gripper == 0.0


def test_gripper_has_hysteresis() -> None:
    stream = ChunkStream(PANDA, RATE, execution_horizon=1)
    stream.reset(AT_HOME)
    executed = []
    for k, probability in enumerate((0.9, 0.5, 0.3, 0.5, 0.7, 0.5)):
        stream.add(chunk(k * 0.1, open_probability=probability))
        command = stream.command(k * 0.1 + 0.05, AT_HOME)
        assert command is not None
        executed.append(command.gripper)
    assert executed == [1, 1, 0, 0, 1, 1]


def test_next_chunk_takes_over_after_horizon() -> None:
    for actions, until in ((1, 0.1), (4, 0.2), (20, 1.0), (None, 1.0)):
        stream = ChunkStream(PANDA, RATE, execution_horizon=actions)
        stream.reset(AT_HOME)
        stream.add(chunk(0.0))
        stream.command(0.0, AT_HOME)
        stream.add(chunk(0.1))
        took_over = [k * DT for k in range(5, 80) if stream.command(k * DT, AT_HOME) and stream.stamp == 0.1]
        assert abs(took_over[0] - until) < 1e-9


def test_serial_chunks_are_executed_completely() -> None:
    """The next chunk is accepted only if its observation is of the arm at rest."""
    stream = ChunkStream(PANDA, RATE, mode="serial")
    stream.reset(AT_HOME)
    late, again, fresh = chunk(0.0), chunk(0.9), chunk(1.6)
    stream.add(late)
    executed = []
    for k in range(25, 190):  # it arrives after half a second, and takes one
        now = k * DT
        if abs(now - 0.9) < 1e-9:
            stream.add(again)
        if abs(now - 1.7) < 1e-9:
            stream.add(fresh)
        command = stream.command(now, AT_HOME)
        assert command is not None
        executed.append((now, stream.stamp, command.positions))
    assert {stamp for _, stamp, _ in executed} == {0.0, 1.6}
    at_end = [q for now, stamp, q in executed if stamp == 0.0][-1]
    np.testing.assert_allclose(at_end, late.positions[-1], atol=1e-6)
    first = min(now for now, stamp, _ in executed if stamp == 1.6)
    assert abs(first - 1.7) < 1e-9
    np.testing.assert_allclose(executed[-1][2], fresh.positions[-1], atol=1e-6)
    assert max(over_limits(np.array([q for *_, q in executed]))) <= 1 + 1e-6


def test_serial_executes_only_horizon() -> None:
    stream = ChunkStream(PANDA, RATE, execution_horizon=5, mode="serial")
    stream.reset(AT_HOME)
    only = chunk(0.0)
    stream.add(only)
    commands = [stream.command(k * DT, AT_HOME) for k in range(100)]
    np.testing.assert_allclose(commands[-1].positions, only.positions[4], atol=1e-6)  # type: ignore[union-attr]


def test_hold_stops_smoothly_and_next_chunk_continues() -> None:
    stream = ChunkStream(PANDA, RATE, execution_horizon=1)
    stream.reset(AT_HOME)
    stream.add(chunk(0.0))
    positions = []
    for k in range(120):
        if k == 40:
            stream.hold()
        if k == 80:
            stream.add(chunk(k * DT - 0.2))
        positions.append(stream.command(k * DT, AT_HOME).positions)  # type: ignore[union-attr]
    assert max(over_limits(np.array(positions))) <= 1 + 1e-6
    np.testing.assert_array_equal(positions[46], positions[79])  # the whole of the arm's limits brakes
    np.testing.assert_array_equal(positions[70], positions[79])
    assert np.abs(positions[-1] - positions[79]).max() > 0.1


def test_missed_ticks_are_skipped() -> None:
    regular, lame = (ChunkStream(PANDA, RATE, execution_horizon=1) for _ in range(2))
    for stream in (regular, lame):
        stream.reset(AT_HOME)
        stream.add(chunk(0.0))
    due = {1, 2, 3, 7, 8, 11, 30, 31}
    last = 0
    for k in range(1, 32):
        whole = regular.command(k * DT, AT_HOME)
        if k in due and k < 30:
            part = lame.command(k * DT, AT_HOME, periods=k - last)
            last = k
            np.testing.assert_allclose(part.positions, whole.positions)  # type: ignore[union-attr]
    measured = Joints(30 * DT, PANDA.home + 0.1, 1.0)
    after = lame.command(30 * DT, measured, periods=19)  # so long that the arm has come to rest
    assert np.abs(after.positions - measured.positions).max() < 2e-3  # type: ignore[union-attr]


@pytest.mark.parametrize("arguments", [{"mode": "both"}, {"execution_horizon": -1}, {"execution_horizon": 0}])
def test_invalid_modes_are_rejected(arguments: dict[str, Any]) -> None:
    with pytest.raises(GenimaError, match="mode: unknown|at least 1"):
        ChunkStream(PANDA, RATE, **arguments)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), jump=st.floats(0, 3))
def test_stream_keeps_limits_for_random_chunks(seed: int, jump: float) -> None:
    rng = np.random.default_rng(seed)
    stream = ChunkStream(PANDA, RATE, execution_horizon=1)
    stream.reset(AT_HOME)
    positions = [PANDA.home]
    for tick in range(200):
        if rng.random() < 0.1:
            wild = rng.uniform(-jump, jump, (20, 7)).cumsum(axis=0)
            stream.add(ActionChunk(tick * DT - rng.uniform(0, 0.5), 0.05, PANDA.home + wild, rng.random(20)))
        if command := stream.command(tick * DT, AT_HOME):
            positions.append(command.positions)
    executed = np.array(positions)
    assert np.all(executed >= PANDA.position_min - 1e-6) and np.all(executed <= PANDA.position_max + 1e-6)
    assert max(over_limits(executed), default=0) <= 1 + 1e-6


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), period=st.sampled_from([0.005, 0.01, 0.02, 0.05]))
def test_motion_near_limits_does_not_cross_them(seed: int, period: float) -> None:
    rng = np.random.default_rng(seed)
    limits = MotionLimits.of(PANDA, 1.0, 1.0, 1.0, margin=0.02)
    motion = JerkLimitedMotion(limits, period)
    low, high = limits.position_min, limits.position_max
    motion.reset(rng.uniform(low, high))
    for _ in range(150):
        choice = rng.random()
        if choice < 0.1:
            motion.stop()
            continue
        goal = np.where(rng.random(7) < 0.5, low, high) if choice < 0.5 else motion.position + rng.normal(0, 0.1, 7)
        motion.step_toward(goal, rng.normal(0, 2, 7), period)
        assert np.all(motion.position >= low - 1e-6) and np.all(motion.position <= high + 1e-6)
        assert np.all(np.abs(motion.velocity) <= limits.velocity * (1 + 1e-6))
        assert np.all(np.abs(motion.acceleration) <= limits.acceleration * (1 + 1e-6))
