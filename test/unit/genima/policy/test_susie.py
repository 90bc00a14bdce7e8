"""The policy ``susie``: goals K steps ahead, training of both halves, loading and use."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from small_training import one_step

from genima.data.datasets.chunk_samples import ObservationDataset, joint_statistics
from genima.data.datasets.diffusion_samples import DiffusionDataset
from genima.data.datasets.sample_index import SampleIndex
from genima.data.datasets.target_dataset import TargetDataset
from genima.errors import GenimaError
from genima.policy.registry import PolicyOptions, load_policy
from genima.policy.spec import GOALS, read_policy
from genima.policy.susie import SusiePolicy
from genima.robot.model import RobotModel
from genima.types import Joints, Observation
from genima_cli.train import main as train_command


@pytest.fixture(scope="module")
def trained(targets: TargetDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint folder of a training of one step."""
    folder = tmp_path_factory.mktemp("trained") / "susie"
    arguments = ["--base", "small", "--clip", "small", "--validation-targets", "1", "--inference-steps", "1"]
    arguments += ["--chunks.validation-chunks", "1", "--data", str(targets.folder), "--out", str(folder)]
    assert train_command(["susie", *arguments, *one_step("agent", "controller")]) == 0
    return folder


def test_goals_are_the_observations_k_steps_later(targets: TargetDataset) -> None:
    K, episode = targets.spec.horizon, targets.moments.episode
    for i in range(0, len(targets), 7):
        j = targets.goal_row(i)
        assert episode[j] == episode[i]
        np.testing.assert_array_equal(targets.moments.positions[j], targets.moments.target[i])
        assert j == i + K or j + 1 == len(targets) or episode[j + 1] != episode[i]
    rows = np.array([2, 9])
    drawn = DiffusionDataset(targets, rows, GOALS)[SampleIndex(1, 0)]
    np.testing.assert_array_equal(drawn.condition.numpy(), targets.observation(9))
    np.testing.assert_array_equal(drawn.target.numpy(), targets.observation(targets.goal_row(9)))
    both = ObservationDataset(targets, rows, joint_statistics(targets.moments), goals=True)[SampleIndex(1, 0)].images
    views = [*targets.observed_views(targets.goal_row(9)).values(), *targets.observed_views(9).values()]
    np.testing.assert_array_equal(both.numpy(), np.stack(views))


def test_trained_policy_is_loaded_and_predicts(trained: Path, targets: TargetDataset) -> None:
    spec = targets.spec
    width, height = spec.camera_size
    rng = np.random.default_rng(0)
    images = {view: rng.integers(0, 255, (height, width, 3), np.uint8) for view in spec.views}
    seen = Observation(3.0, images, Joints(3.0, RobotModel.load(spec.robot).home, 1.0), "push the button")
    chunks = []
    for policy in (load_policy(str(trained)), load_policy("susie", PolicyOptions(checkpoint=str(trained)))):
        assert isinstance(policy, SusiePolicy) and policy.spec.views == spec.views
        policy.reset(4)
        chunks.append(policy.predict_chunk(seen))
        assert policy.goal and policy.goal.tile.shape == (*spec.tile_size, 3) and policy.goal.seed == 4
    assert chunks[0].stamp == 3.0 and chunks[0].positions.shape == (spec.horizon, 7)
    np.testing.assert_allclose(chunks[0].positions, chunks[1].positions, atol=1e-6)


def test_halves_of_other_policies_are_one_line_errors(trained: Path, checkpoint_folder: Path, tmp_path: Path) -> None:
    assert read_policy(str(trained)).policy == "susie"
    mixed = tmp_path / "mixed"
    shutil.copytree(trained / "diffusion_agent", mixed / "diffusion_agent")
    shutil.copytree(checkpoint_folder / "controller", mixed / "controller")
    for name, folder, line in (
        ("genima", trained, "is one of the policy susie, not of genima; name that policy"),
        ("susie", checkpoint_folder, "is one of the policy genima, not of susie; name that policy"),
        ("susie", "", "policy susie: no checkpoint"),
        ("genima", mixed, "specifications differ|the diffusion agent draws goals, the controller follows targets"),
    ):
        with pytest.raises(GenimaError, match=line) as caught:
            read_policy(name, folder)
        assert "\n" not in str(caught.value)
