"""Tests of the set-point follower: gaps in the guard's stream stay within the arm's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genima.control.command_guard import CommandGuard
from genima.control.limit_violations import count_violations, largest_excess
from genima.control.setpoint_follower import PERIOD, SetpointFollower
from genima.robot.model import RobotModel
from genima.types import Command, Joints

ROBOTS = {name: RobotModel.load(name) for name in ("panda", "fr3")}
ENDING = 1.0  # s


def stream(robot: RobotModel, rate: float, seconds: float, seed: int, rest: float = 0.0) -> Iterator[Command]:
    """Set-points of a guard whose source demands the largest motion; it ends at rest."""
    rng = np.random.default_rng(seed)
    guard = CommandGuard(robot, rate)
    guard.select("controller")
    q = rng.uniform(0.8 * robot.position_min + 0.2 * robot.home, 0.8 * robot.position_max + 0.2 * robot.home)
    offset = np.zeros_like(q)
    for tick in range(round((seconds + rest) * rate)):
        now = tick / rate
        if now >= seconds:
            guard.stop()
        if tick % round(rate / 4) == 3:  # at rest until then
            offset = rng.uniform(-0.3, 0.3, len(q))
        guard.update_joints(Joints(now, q, 1.0))
        target = np.clip(q + offset, robot.position_min, robot.position_max)
        guard.submit("controller", Command(now, target, np.zeros_like(q)))
        command = guard.step(now).command
        assert command is not None
        q = command.positions
        yield command


class Listener:
    """Set-points of a follower that ticks like the adapter, unsynchronised with the stream."""

    def __init__(self, robot: RobotModel, first: Command) -> None:
        self.robot, self.follower = robot, SetpointFollower(robot)
        self.now = first.stamp - 0.4 * PERIOD
        self.sent = [self.follower.rest_at(self.now, first.positions)]

    def wait_until(self, now: float) -> None:
        while self.now + PERIOD < now:
            self.now += PERIOD
            if self.follower.overdue(self.now):
                self.follower.hold()
            self._record(self.follower.advance(self.now))

    def receive(self, command: Command) -> None:
        self._record(self.follower.follow(command))

    def _record(self, command: Command | None) -> None:
        if command is not None:
            self.sent.append(command)

    @property
    def violations(self) -> int:
        return count_violations(self.stamps, self.positions, self.robot)

    @property
    def stamps(self) -> np.ndarray:
        return np.array([command.stamp for command in self.sent])

    @property
    def positions(self) -> np.ndarray:
        return np.array([command.positions for command in self.sent])


def play(
    robot: RobotModel, commands: list[Command], arrives: Callable[[int], bool], commands_rejected: bool
) -> Listener:
    """Set-points with losses: ``arrives`` is false for each that is rejected or missing."""
    listener = Listener(robot, commands[0])
    for k, command in enumerate(commands):
        listener.wait_until(command.stamp)
        if arrives(k):
            listener.receive(command)
        elif commands_rejected:
            listener.follower.hold()
    listener.wait_until(commands[-1].stamp + ENDING)
    return listener


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize("rate", [50.0, 200.0])
@settings(max_examples=4)
@given(seed=st.integers(0, 2**31), end=st.integers(10, 150), commands_rejected=st.booleans())
def test_ended_stream_stops_within_limits(name: str, rate: float, seed: int, end: int, commands_rejected: bool) -> None:
    robot = ROBOTS[name]
    commands = list(stream(robot, rate, 160 / rate, seed))
    listener = play(robot, commands, lambda k: k < end, commands_rejected)
    assert listener.violations == 0
    assert listener.follower.at_rest and not listener.sent[-1].velocities.any()


@pytest.mark.parametrize("name", ROBOTS)
@pytest.mark.parametrize("rate", [50.0, 200.0])
@settings(max_examples=4)
@given(
    seed=st.integers(0, 2**31),
    gaps=st.lists(st.tuples(st.integers(5, 140), st.integers(1, 40)), min_size=1, max_size=4),
    commands_rejected=st.booleans(),
)
def test_gaps_keep_limits_and_follower_becomes_synchronous(
    name: str, rate: float, seed: int, gaps: list[tuple[int, int]], commands_rejected: bool
) -> None:
    robot = ROBOTS[name]
    commands = list(stream(robot, rate, 160 / rate, seed, rest=1.0))
    lost = {k for begin, length in gaps for k in range(begin, begin + length)}
    listener = play(robot, commands, lambda k: k not in lost, commands_rejected)
    assert listener.violations == 0
    np.testing.assert_array_equal(listener.positions[-1], commands[-1].positions)


def test_synchronous_set_points_pass_unchanged() -> None:
    robot = ROBOTS["fr3"]
    commands = list(stream(robot, 200.0, 0.5, 1))
    listener = play(robot, commands, lambda k: True, commands_rejected=False)
    passed = {id(command) for command in listener.sent}
    assert all(id(command) in passed for command in commands[2:])


@pytest.mark.parametrize("jump", [-2.0, -0.3, -0.03, 0.5, 2.0])
@pytest.mark.parametrize("k", [3, 60])  # before it is in step, and in step
def test_clock_jump_keeps_following_within_limits(jump: float, k: int) -> None:
    robot = ROBOTS["fr3"]
    commands = list(stream(robot, 200.0, 0.6, 1, rest=1.0))
    follower, sent = SetpointFollower(robot), []
    follower.rest_at(commands[0].stamp - PERIOD, commands[0].positions)
    for i, command in enumerate(commands):
        set_by = jump if i >= k else 0.0
        target = follower.follow(replace(command, stamp=command.stamp + set_by))
        assert target is not None and target.stamp == command.stamp + set_by
        sent.append(target.positions)
    stamps = np.array([command.stamp for command in commands])
    assert count_violations(stamps, np.array(sent), robot) == 0
    np.testing.assert_array_equal(sent[-1], commands[-1].positions)


def test_ended_stream_without_follower_breaks_limits() -> None:
    """Without the follower, the gap exceeds the arm's limits."""
    robot = ROBOTS["fr3"]
    commands = list(stream(robot, 200.0, 0.15, 1))
    stays = [Command(commands[-1].stamp + k / 200, commands[-1].positions) for k in range(1, 5)]
    sent = [*commands, *stays]
    stamps, positions = np.array([c.stamp for c in sent]), np.array([c.positions for c in sent])
    assert largest_excess(stamps, positions, robot) > 10
