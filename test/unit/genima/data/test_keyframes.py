"""Keyframes of demos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genima.data.episodes.scene_states import SceneDemo
from genima.data.keyframes import find_keyframes
from genima.robot.model import RobotModel
from genima_sim.demo_recorder import DemoRecorder

PERIOD = 0.05  # s


def motion(goals: list[float], seconds: float = 1.0) -> np.ndarray:
    """Return positions (T, 1) rad of minimum-jerk motions from 0 through goals, each followed by 0.2 s of rest."""
    s = np.linspace(0, 1, round(seconds / PERIOD))
    ease = s**3 * (10 - 15 * s + 6 * s**2)
    parts, at = [np.zeros(3)], 0.0
    for goal in goals:
        parts += [at + ease * (goal - at), np.full(4, goal)]
        at = goal
    return np.concatenate(parts)[:, None]


@pytest.mark.parametrize("goals", [[0.5], [0.5, -0.2, 0.4], [0.2, 0.3, 0.4, 0.5]])
def test_rests_between_motions_are_keyframes(goals: list[float]) -> None:
    positions = motion(goals)
    stamps = np.arange(len(positions)) * PERIOD
    keyframes = find_keyframes(stamps, positions, np.ones(len(stamps)))
    assert len(keyframes) == len(goals) and keyframes[-1] == len(stamps) - 1
    np.testing.assert_allclose(positions[keyframes, 0], goals, atol=5e-3)


@pytest.mark.parametrize("change", [1, 10, 24, 26, 40])
def test_changes_of_the_gripper_are_keyframes(change: int) -> None:
    positions = motion([0.5, 1.0])
    stamps = np.arange(len(positions)) * PERIOD
    gripper = np.where(np.arange(len(stamps)) < change, 1.0, 0.0)
    keyframes = find_keyframes(stamps, positions, gripper)
    assert change in keyframes and keyframes[-1] == len(stamps) - 1
    assert len(keyframes) == (2 if 21 < change < 29 else 3)  # a change at rest, and that rest, are one


@pytest.mark.parametrize("samples", [0, 1, 50])
def test_a_demo_without_motion_has_no_keyframes(samples: int) -> None:
    stamps = np.arange(samples) * PERIOD
    assert len(find_keyframes(stamps, np.zeros((samples, 7)), np.ones(samples))) == 0


@pytest.mark.parametrize(
    ("task", "grippers"),
    [
        ("push_button", [0, 0]),  # above the button, on it
        ("take_lid_off_saucepan", [1, 0, 0]),  # above the knob, closed, lifted
        ("open_drawer", [1, 0, 0]),
        ("phone_on_base", [1, 0, 0, 0, 1]),
    ],
)
def test_keyframes_of_an_expert_are_the_ends_of_its_motions(
    task: str, grippers: list[int], tmp_path: Path, robot: RobotModel
) -> None:
    recorder = DemoRecorder(images="none")
    assert recorder.record(tmp_path / "demo", task, 100_001)
    recorder.close()
    demo = SceneDemo.load(tmp_path / "demo", robot)
    keyframes = demo.keyframes()
    assert [int(demo.commands[i].gripper) for i in keyframes] == grippers
    tips = robot.link_poses(np.array([demo.joints[i].positions for i in keyframes]))[:, -1, :3, 3]
    assert np.linalg.norm(np.diff(tips, axis=0), axis=1).min() > 0.02  # m
