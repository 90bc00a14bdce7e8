"""Tests of loading policies by name, from a user's module, or from a checkpoint folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genima.control.joint_trajectory import JointTrajectory
from genima.errors import GenimaError
from genima.policy.genima import GenimaPolicy
from genima.policy.names import GENIMA
from genima.policy.registry import POLICIES, PolicyOptions, load_policy, require_policy
from genima.policy.spec import PolicySpec
from genima.policy.trajectory_policy import TrajectoryPolicy
from genima.robot.model import RobotModel
from genima.types import Joints, Observation

PANDA = RobotModel.load("panda")
SPEC = PolicySpec("panda", PANDA.joint_names)

USERS = """
import numpy as np
from genima.policy.registry import PolicyOptions
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.types import ActionChunk

class Stay:
    def __init__(self, robot):
        self.spec = PolicySpec(robot, RobotModel.load(robot).joint_names)
    def reset(self, seed=0):
        pass
    def predict_chunk(self, observation):
        return ActionChunk(observation.stamp, 0.05, np.tile(observation.joints.positions, (20, 1)), np.ones(20))

def load(options: PolicyOptions):
    return Stay(options.robot)
"""


def observation(stamp: float, instruction: str = "wave") -> Observation:
    return Observation(stamp, {}, Joints(stamp, PANDA.home, 1.0), instruction)


def test_project_policies_are_found_by_module() -> None:
    assert list(POLICIES) == [
        "act",
        "diffuser_actor",
        "diffusion_policy",
        "expert",
        "genima",
        "remote",
        "replay",
        "susie",
        "video_policy",
    ]
    assert all(map(callable, POLICIES.values()))


def test_policy_is_added_by_one_module(write_module: Callable[..., Path]) -> None:
    write_module("policies/stay.py", USERS)
    require_policy("stay")
    policy = load_policy("stay", PolicyOptions(robot="panda"))
    assert policy.spec.robot == "panda" and policy.predict_chunk(observation(1.0)).stamp == 1.0


@pytest.mark.parametrize(("change", "line"), [
    (("def load", "def make"), "the module has no function load"),
    (("import numpy", "import nowhere_at_all as numpy; import numpy"), "cannot be imported .ModuleNotFoundError"),
    (("return Stay", "return str"), "load returns no policy .it lacks spec, reset, predict_chunk"),
    (("return Stay(options.robot)", "return {}[0]"), "cannot be loaded .KeyError: 0"),
    (("self.spec = PolicySpec", "self.spec = dict; PolicySpec"), "spec is no PolicySpec"),
])  # fmt: skip
def test_incomplete_policy_is_reported_in_one_line_with_file(
    write_module: Callable[..., Path], change: tuple[str, str], line: str
) -> None:
    file = write_module("policies/stay.py", USERS, change)
    with pytest.raises(GenimaError, match=f"policy stay: .*{line}") as caught:
        load_policy("stay", PolicyOptions(robot="panda"))
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("change", "line"), [
    (("        return ActionChunk", "        raise RuntimeError('two\\nlines')\n        return ActionChunk"),
     "Stay.predict_chunk failed .RuntimeError: two lines"),
    (("return ActionChunk", "return None and ActionChunk"), "Stay.predict_chunk returned no action chunk"),
    (("(20, 1)", "(20, 2)"), "positions .20, 14. and gripper .20,. instead of .K, 7. and .K,."),
    (("np.ones(20)", "np.ones(19)"), "gripper .19,."),
    (("np.ones(20)", "np.full(20, np.nan)"), "actions that are not finite"),
    (("0.05", "0.0"), "a period out of range .0.0 s"),
    (("        pass", "        self.memory.clear()"), "Stay.reset failed .AttributeError: "),
])  # fmt: skip
def test_error_in_policy_code_is_one_line_with_file(
    write_module: Callable[..., Path], change: tuple[str, str], line: str
) -> None:
    file = write_module("policies/stay.py", USERS, change)
    policy = load_policy("stay", PolicyOptions(robot="panda"))
    with pytest.raises(GenimaError, match=f"policy stay: .*{line}") as caught:
        policy.reset()
        policy.predict_chunk(observation(1.0))
    assert f"correct {file}" in str(caught.value) and "\n" not in str(caught.value)


def test_project_names_are_reserved(write_module: Callable[..., Path]) -> None:
    file = write_module("policies/stay.py", USERS)
    file.rename(file.with_name("replay.py"))
    with pytest.raises(
        GenimaError, match="policy replay: the name is taken .genima.data.replay_policy.; rename .*replay.py"
    ):
        load_policy("stay")


def test_checkpoint_folder_loads_genima(checkpoint_folder: Path) -> None:
    for policy in (
        load_policy(str(checkpoint_folder)),
        load_policy(GENIMA, PolicyOptions(checkpoint=str(checkpoint_folder))),
    ):
        assert isinstance(policy, GenimaPolicy)


@pytest.mark.parametrize(
    "name", ["", "genma", "no.such.module", "spec", "..", "nowhere/folder", "x" * 500, "expert.", "\n"]
)
def test_unknown_policy_is_one_line(name: str) -> None:
    with pytest.raises(
        GenimaError,
        match="policy .*: unknown; known: act, diffuser_actor, diffusion_policy, expert, genima, remote, replay",
    ) as caught:
        require_policy(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    with pytest.raises(GenimaError, match="unknown"):
        load_policy(name)


@pytest.mark.parametrize(("name", "options", "line"), [
    ("replay", PolicyOptions(), "policy replay: no episode"),
    ("replay", PolicyOptions(episode="nowhere"), "nowhere"),
    ("expert", PolicyOptions(robot="no_robot"), "no_robot"),
])  # fmt: skip
def test_unloadable_policy_is_reported_in_one_line(name: str, options: PolicyOptions, line: str) -> None:
    with pytest.raises(GenimaError, match=line):
        load_policy(name, options)


def test_trajectory_chunks_follow_observation_stamps() -> None:
    plans: list[float] = []

    def plan(seen: Observation) -> JointTrajectory:
        plans.append(seen.stamp)
        times = np.linspace(0, 3, 31)
        return JointTrajectory(times, PANDA.home + 0.1 * times[:, None], (times < 2).astype(float))

    policy = TrajectoryPolicy(SPEC, plan, pause=1.0)
    first = policy.predict_chunk(observation(100.0))
    assert first.positions.shape == (20, 7) and first.stamp == 100.0 and first.period == 0.05
    later = policy.predict_chunk(observation(100.5))
    np.testing.assert_allclose(later.positions[:10], first.positions[10:])  # the same actions at the same times
    assert later.gripper.min() == 1.0 and policy.predict_chunk(observation(101.5)).gripper[-1] == 0.0
    np.testing.assert_allclose(policy.predict_chunk(observation(103.5)).positions, np.tile(PANDA.home + 0.3, (20, 1)))
    assert plans == [100.0]
    policy.predict_chunk(observation(104.5))  # after its end, while the task continues
    policy.predict_chunk(observation(104.6, "point"))
    policy.predict_chunk(observation(50.0, "point"))  # the clock was set back
    policy.reset()
    policy.predict_chunk(observation(50.1, "point"))
    assert plans == [100.0, 104.5, 104.6, 50.0, 50.1]
    staying = TrajectoryPolicy(SPEC, plan)
    for stamp in (0.0, 100.0):
        chunk = staying.predict_chunk(observation(stamp))
    np.testing.assert_allclose(chunk.positions[-1], PANDA.home + 0.3)
