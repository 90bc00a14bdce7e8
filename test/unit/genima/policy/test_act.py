"""The policy ``act``: training on camera images, checkpoint, loading and use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from genima.data.datasets.augmentation import Augmentation
from genima.data.datasets.chunk_samples import ObservationDataset, collate, joint_statistics
from genima.data.datasets.sample_index import SampleIndex
from genima.data.datasets.target_dataset import TargetDataset
from genima.errors import GenimaError
from genima.policy.act import ActPolicy
from genima.policy.registry import PolicyOptions, load_policy, require_options
from genima.policy.spec import is_trained, read_policy
from genima.robot.model import RobotModel
from genima.training.chunk_model import ChunkLossModule, build_chunk_model
from genima.training.options import SMALL, LoopOptions, VisuomotorOptions
from genima.training.visuomotor import train_visuomotor
from genima.types import Joints, Observation

K = 20
LOOP = LoopOptions(steps=2, batch_size=2, learning_rate=1e-4, workers=0, save_every=1, warmup_steps=0)


@pytest.fixture(scope="module")
def trained(targets: TargetDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training of two steps."""
    folder = tmp_path_factory.mktemp("trained") / "act"
    policy = build_chunk_model(ActPolicy, "act", targets.spec, targets.moments, clip=SMALL)
    train_visuomotor(policy, targets, VisuomotorOptions(validation_chunks=2), LOOP, folder)
    return folder


def observation(targets: TargetDataset, stamp: float = 3.0, instruction: str = "push the button") -> Observation:
    width, height = targets.spec.camera_size
    rng = np.random.default_rng(0)
    images = {view: rng.integers(0, 255, (height, width, 3), np.uint8) for view in targets.spec.views}
    return Observation(stamp, images, Joints(stamp, RobotModel.load(targets.spec.robot).home, 1.0), instruction)


def test_samples_are_the_cameras_images(targets: TargetDataset) -> None:
    rows = np.array([5, 0, 9])
    dataset = ObservationDataset(targets, rows, joint_statistics(targets.moments))
    for i, row in enumerate(rows):
        sample = dataset[SampleIndex(i, 0)]
        np.testing.assert_array_equal(sample.images.numpy(), np.stack([*targets.observed_views(int(row)).values()]))
        actions = dataset._statistics.denormalise(sample.actions[:, :-1].numpy())
        np.testing.assert_allclose(actions, targets.moments.actions[row], atol=1e-6)
        assert sample.instruction == targets.moments.instruction[row]


def test_augmentation_follows_from_running_number(targets: TargetDataset) -> None:
    dataset = ObservationDataset(targets, np.arange(4), joint_statistics(targets.moments), Augmentation.paper(), seed=1)
    first, again, other = (dataset[SampleIndex(0, sample)].images.numpy() for sample in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_jitter_recolours_the_views_of_a_moment_alike_in_training(
    targets: TargetDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = build_chunk_model(ActPolicy, "act", targets.spec, targets.moments, clip=SMALL)
    dataset = ObservationDataset(targets, np.array([5, 30]), policy.statistics)
    batch = collate([dataset[SampleIndex(i, i)] for i in (0, 1)])
    batch = batch._replace(images=batch.images[:, :1].repeat(1, len(targets.spec.views), 1, 1, 1))
    seen: list[Tensor] = []
    encode = policy.encode_images
    monkeypatch.setattr(policy, "encode_images", lambda images, texts: seen.append(images) or encode(images, texts))
    jittered = ChunkLossModule(policy, jitter=(0.2, 0.2, 0.1, 0.05))
    for module, training in ((jittered, True), (jittered, False), (ChunkLossModule(policy), True)):
        torch.manual_seed(0)
        module.train(training)(batch)
    recoloured, *unchanged = seen
    assert all(torch.equal(images, batch.images) for images in unchanged)
    assert recoloured.dtype == torch.uint8 and recoloured.shape == batch.images.shape
    assert torch.equal(recoloured, recoloured[:, :1].expand_as(recoloured))
    change = recoloured.float() - batch.images
    assert (change.abs().mean((1, 2, 3, 4)) > 1).all()
    assert (change[0].mean((0, 1, 2)) != change[1].mean((0, 1, 2))).any()


def test_trained_policy_is_loaded_by_folder_and_by_name(trained: Path, targets: TargetDataset) -> None:
    chunks = []
    for policy in (load_policy(str(trained)), load_policy("act", PolicyOptions(checkpoint=str(trained / "best")))):
        assert isinstance(policy, ActPolicy) and policy.spec == targets.spec
        policy.reset(1)
        chunks.append(policy.predict_chunk(observation(targets)))
    for chunk in chunks:
        assert chunk.stamp == 3.0 and chunk.period == 1 / targets.spec.action_rate
        assert chunk.positions.shape == (K, 7) and ((chunk.gripper >= 0) & (chunk.gripper <= 1)).all()
    np.testing.assert_array_equal(chunks[0].positions, chunks[1].positions)


def test_saved_policy_predicts_the_same(targets: TargetDataset, tmp_path: Path) -> None:
    policy = build_chunk_model(ActPolicy, "act", targets.spec, targets.moments, clip=SMALL)
    policy.network.eval().requires_grad_(False)
    policy.save_pretrained(tmp_path)
    loaded = ActPolicy.from_pretrained(tmp_path)
    seen = observation(targets)
    np.testing.assert_allclose(loaded.predict_chunk(seen).positions, policy.predict_chunk(seen).positions, atol=1e-5)


def test_interrupted_training_resumes_exactly(trained: Path, targets: TargetDataset, tmp_path: Path) -> None:
    def policy() -> ActPolicy:
        return build_chunk_model(ActPolicy, "act", targets.spec, targets.moments, clip=SMALL)

    from genima.training import loop

    out, calls = tmp_path / "act", [0]

    def link(*arguments: object) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise RuntimeError("killed")
        original(*arguments)  # type: ignore[arg-type]

    original = loop._link
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(loop, "_link", link)
        train_visuomotor(policy(), targets, VisuomotorOptions(validation_chunks=2), LOOP, out)
    train_visuomotor(policy(), targets, VisuomotorOptions(validation_chunks=2), LOOP, out)
    whole, parts = (load_file(folder / "last" / "act.safetensors") for folder in (trained, out))
    assert all((whole[name] == parts[name]).all() for name in whole)


def test_observations_that_do_not_fit_are_one_line_errors(trained: Path, targets: TargetDataset) -> None:
    policy, seen = load_policy(str(trained)), observation(targets)
    small = {**seen.images, "front": seen.images["front"][:10]}
    lacking = {view: image for view, image in seen.images.items() if view != "front"}
    for images, instruction, line in (
        (small, "push", "the image of view front has shape"),
        (lacking, "push", "the observation has no image of view front"),
        (seen.images, " ", "instruction: empty"),
    ):
        with pytest.raises(GenimaError, match=line):
            policy.predict_chunk(Observation(0.0, images, seen.joints, instruction))


def test_checkpoints_of_other_policies_are_one_line_errors(
    trained: Path, checkpoint_folder: Path, tmp_path: Path
) -> None:
    assert is_trained("act") and is_trained(str(trained)) and not is_trained("expert")
    assert read_policy(str(trained)).policy == "act" and read_policy(str(checkpoint_folder)).policy == "genima"
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    about = json.loads((trained / "best" / "genima.json").read_text(encoding="utf-8"))
    (damaged / "genima.json").write_text(json.dumps({**about, "kind": "nonsense"}), encoding="utf-8")
    for name, folder, line in (
        ("genima", trained, "is one of the policy act, not of genima; name that policy"),
        ("act", checkpoint_folder, "no checkpoint at .*genima.json is missing"),
        ("act", "", "policy act: no checkpoint; name the folder of one that ./genima train act made"),
        (str(checkpoint_folder / "controller"), "", "is the controller alone"),
        (str(damaged), "", "kind 'nonsense' is not one of"),
    ):
        with pytest.raises(GenimaError, match=line) as caught:
            read_policy(name, folder)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "checkpoint", "episode", "line"),
    [
        ("expert", "runs/act", "", "policy expert: takes no checkpoint; leave runs/act out"),
        ("runs/act", "runs/act", "", "policy runs/act: takes no checkpoint"),
        ("act", "", "data/demo", "policy act: takes no episode; leave data/demo out, or take policy replay"),
    ],
)
def test_options_of_other_policies_are_rejected(name: str, checkpoint: str, episode: str, line: str) -> None:
    with pytest.raises(GenimaError, match=line):
        require_options(name, checkpoint, episode)
