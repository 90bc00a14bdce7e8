"""Progress along a trajectory of arms that follow, trail, start late, are held, or are blocked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from genima.control.joint_trajectory import JointTrajectory
from genima.control.trajectory_progress import TrajectoryProgress

PERIOD = 0.08  # s between observations
SPEED = 0.4  # rad/s
TIMES = np.linspace(0.0, 2.0, 41)
TRAJECTORY = JointTrajectory(TIMES, np.outer(SPEED * np.minimum(TIMES, 1.8), [1.0, -1.0]), np.ones(41))


def seconds_until_end(position: Callable[[float, float], float], limit: float = 6.0) -> float:
    """Return when the arm has arrived; ``position`` is the commanded time that it is at, of s and the progress."""
    progress, now, where = TrajectoryProgress(TRAJECTORY), 0.0, 0.0
    while not progress.finished and now < limit:
        now += PERIOD
        where = position(now, progress.elapsed)
        progress.advance(PERIOD, TRAJECTORY.at(where)[0])
        lead = TRAJECTORY.at(progress.elapsed)[0][0] - TRAJECTORY.at(where)[0][0]
        assert lead < 0.2  # rad: commands stay near the arm
    return now


@pytest.mark.parametrize("lag", [0.0, 0.1, 0.2])
def test_time_passes_while_the_arm_follows(lag: float) -> None:
    def trail(now: float, elapsed: float) -> float:
        return elapsed + PERIOD - lag

    assert seconds_until_end(trail) == pytest.approx(2.0, abs=2 * PERIOD)


def test_motion_begins_when_the_arm_does() -> None:
    def start_late(now: float, elapsed: float) -> float:
        return elapsed if now > 1.0 else 0.0

    assert 2.5 < seconds_until_end(start_late) < 3.3


def test_motion_waits_for_an_arm_that_is_held() -> None:
    place = [0.0]

    def hold(now: float, elapsed: float) -> float:
        if not 0.8 < now < 2.8:
            place[0] = elapsed
        return place[0]

    assert 3.6 < seconds_until_end(hold) < 4.3


def test_blocked_arm_does_not_arrive_and_a_pressed_one_does() -> None:
    assert seconds_until_end(lambda now, elapsed: min(elapsed, 1.2)) > 6.0
    assert seconds_until_end(lambda now, elapsed: min(elapsed, 1.75)) < 2.3  # 0.02 rad short
