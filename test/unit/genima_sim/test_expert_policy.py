"""Experts and recorded episodes as policies in the closed loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genima.closed_loop import run_episode
from genima.control.chunk_stream import ChunkStream
from genima.control.command_guard import CommandGuard
from genima.errors import GenimaError
from genima.policy.base import Policy
from genima.policy.registry import PolicyOptions, load_policy
from genima.robot.model import RobotModel
from genima.types import Joints, Observation
from genima_cli import evaluate
from genima_sim.environment import Environment
from genima_sim.tasks import TASKS

RATE = 50.0  # Hz


def run(environment: Environment, policy: Policy, robot: RobotModel, latency: float) -> int:
    return run_episode(
        environment, policy, ChunkStream(robot, RATE), CommandGuard(robot, RATE),
        command_rate=RATE, latency=latency, time_limit=12.0, seed=0,
    )  # fmt: skip


@pytest.mark.parametrize("task", ["push_button", "take_lid_off_saucepan", "open_drawer"])
def test_expert_completes_every_task(environment: Environment, robot: RobotModel, task: str) -> None:
    policy = load_policy("expert")
    for seed, latency in ((0, 0.0), (1, 0.2)):
        environment.reset(task, seed)
        run(environment, policy, robot, latency)
        assert environment.done, seed


def test_episode_is_replayed(environment: Environment, robot: RobotModel, demos_folder: Path) -> None:
    folder = demos_folder / "push_button-1"
    environment.reset("push_button", 100_001)  # the scene that it was recorded in
    run(environment, load_policy("replay", PolicyOptions(episode=str(folder))), robot, 0.0)
    assert environment.done


def test_expert_rejects_unknown_instructions_and_missing_positions(robot: RobotModel) -> None:
    policy, joints = load_policy("expert"), Joints(0.0, robot.home, 1.0)
    with pytest.raises(GenimaError, match="instruction of no task .'dance'"):
        policy.predict_chunk(Observation(0.0, {}, joints, "dance"))
    with pytest.raises(GenimaError, match="pose of button missing; use experts with a simulator"):
        policy.predict_chunk(Observation(0.0, {}, joints, TASKS["push_button"].instruction))


def test_eval_runs_any_policy(shared_environment: Environment, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    options = ["--task", "push_button", "--episodes", "1", "--policy", "expert", "--out", str(out)]
    assert evaluate.main(options) == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["policy"] == "expert" and result["successes"] == 1
    assert evaluate.main([*options, "--ensemble", "0.01", "--horizon", "10", "--overwrite"]) == 0
    for invalid, expected in (
        (["--policy", "expret"], "unknown"),
        (["--policy", "expert", "--blank-targets"], "only policy"),
    ):
        with pytest.raises(GenimaError, match=expected):
            evaluate.main(["--task", "push_button", *invalid])


def test_observations_contain_poses_of_bodies(environment: Environment) -> None:
    environment.reset("take_lid_off_saucepan", 3)
    bodies = environment.observe().bodies
    np.testing.assert_allclose(bodies["button"][:2, 3], environment.simulation.placements["button"].xy)
