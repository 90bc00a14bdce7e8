"""Every task: its expert within the arm's limits, its near misses, and arms that do nothing of use."""

from __future__ import annotations

import numpy as np
import pytest

from genima.control.limit_violations import largest_excess
from genima.errors import GenimaError
from genima_sim.demo_recorder import DemoRecorder
from genima_sim.motions import MoveTo, radial_grasp
from genima_sim.simulation import Simulation
from genima_sim.task import RelativePose
from genima_sim.task_checks import near_miss_counts, random_motion_succeeds, resting_arm_succeeds, run_expert
from genima_sim.tasks import DEMO_HZ, TASKS, find_task, get_task, variation_names

VARIATIONS = variation_names()
NEAR_MISSES = [(task, name) for task in TASKS for name in TASKS[task].near_misses]
DAILY, NIGHTLY = range(2000, 2002), range(2000, 2010)  # seeds


@pytest.mark.parametrize("task", TASKS)
def test_expert_accomplishes_task_within_limits(recorder: DemoRecorder, task: str) -> None:
    for seed in DAILY:
        attempt = run_expert(recorder.environment.simulation, recorder.expert, task, seed)
        assert attempt.excess <= 1
        if attempt.success:  # an expert may fail once in a while
            assert attempt.simulated < 10
            return
    raise AssertionError(attempt)


@pytest.mark.nightly
@pytest.mark.parametrize("task", VARIATIONS)
def test_expert_accomplishes_every_variation(recorder: DemoRecorder, task: str) -> None:
    attempts = [run_expert(recorder.environment.simulation, recorder.expert, task, seed) for seed in NIGHTLY]
    assert sum(attempt.success for attempt in attempts) >= 8, attempts
    assert max(attempt.excess for attempt in attempts) <= 1
    assert max(attempt.simulated for attempt in attempts if attempt.success) < 10  # s: 200 steps at 20 Hz


@pytest.mark.parametrize(("task", "name"), NEAR_MISSES)
def test_near_miss_does_not_count(simulation: Simulation, task: str, name: str) -> None:
    assert not near_miss_counts(simulation, task, TASKS[task].near_misses[name])


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_near_misses(task: str) -> None:
    assert len(TASKS[task].near_misses) >= 3


@pytest.mark.parametrize("task", TASKS)
def test_resting_arm_never_succeeds(simulation: Simulation, task: str) -> None:
    assert not resting_arm_succeeds(simulation, task, 0)


@pytest.mark.nightly
@pytest.mark.parametrize("task", TASKS)
def test_random_motion_never_succeeds(simulation: Simulation, task: str) -> None:
    assert not random_motion_succeeds(simulation, task, 0)


def test_instructions_name_one_task_and_variation() -> None:
    for name in VARIATIONS:
        task = get_task(name)
        for sentence in task.sentences:
            found = find_task(sentence)
            assert found is not None and found.name == name, sentence
    assert find_task("dance") is None


def test_states_beyond_the_threshold_count(simulation: Simulation) -> None:
    assert near_miss_counts(simulation, "open_drawer", {"drawer_bottom": 0.16})
    assert near_miss_counts(simulation, "open_drawer@2", {"drawer_top": 0.16})
    assert not near_miss_counts(simulation, "open_drawer@2", {"drawer_bottom": 0.16})


def test_near_miss_with_unknown_name_is_rejected(simulation: Simulation) -> None:
    for changes in ({"drawer": 0.1}, {"drawer_bottom": 0.1, "cube": RelativePose("handle_top")}):
        with pytest.raises(GenimaError, match="task open_drawer: near miss: unknown name"):
            near_miss_counts(simulation, "open_drawer", changes)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("open_drawer@3", "task open_drawer: unknown variation .3.; use 0 to 2"),
        ("open_drawer@x", "unknown variation .'x'."),
        ("open_drawr@1", "unknown; known: .*did you mean open_drawer"),
    ],
)
def test_unknown_variation_is_rejected(name: str, expected: str) -> None:
    with pytest.raises(GenimaError, match=expected):
        get_task(name)


def test_plan_slows_down_for_the_arms_limits(recorder: DemoRecorder) -> None:
    """A motion that is asked to take no time takes as much as the limits demand."""
    robot = recorder.expert.robot
    motions = [MoveTo(radial_grasp([0.5, y, 0.3]), 0.05, 1.0, straight) for y in (0.3, -0.3) for straight in (0, 1)]
    plan = recorder.expert.plan(motions, robot.home)
    positions = np.vstack([np.tile(robot.home, (3, 1)), plan.positions])
    excess = largest_excess(np.arange(len(positions)) / DEMO_HZ, positions, robot)
    assert 0.5 < excess <= 1 and len(plan.positions) > 2 * DEMO_HZ
