"""The policy ``diffusion_policy``: network, training, checkpoint, loading, and what it remembers of the last chunk."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutation import mutated_data, require_clean
from torch import Tensor

from genima.data.datasets.chunk_samples import joint_range
from genima.data.datasets.target_dataset import TargetDataset
from genima.errors import GenimaError
from genima.inspection.checkpoints import inspect_checkpoint
from genima.policy.base import SamplingPolicy
from genima.policy.chunk_sampling_options import ChunkSamplingOptions
from genima.policy.chunk_spread import chunk_spread
from genima.policy.diffusion_policy import DiffusionPolicy
from genima.policy.registry import PolicyOptions, load_policy
from genima.policy.small_text_encoder import small_text_encoder, small_tokenizer
from genima.policy.spec import FILE
from genima.policy.visuomotor.chunk_sampler import ChunkSampler
from genima.policy.visuomotor.diffusion import DiffusionConfig, DiffusionNetwork, SpatialSoftmax
from genima.policy.visuomotor.objectives import OBJECTIVES
from genima.policy.visuomotor.real_time_chunking import Prefix, prefix_weights
from genima.robot.model import RobotModel
from genima.training.options import SMALL, LoopOptions, VisuomotorOptions
from genima.training.visuomotor import build_visuomotor, train_visuomotor
from genima.types import Joints, Observation

B, K, VIEWS, JOINTS, SIDE = 2, 10, 2, 3, 32  # K is no multiple of the UNet's stride
LOOP = LoopOptions(steps=2, batch_size=2, learning_rate=1e-4, workers=0, save_every=2, warmup_steps=0)
TINY: dict[str, Any] = {"unet_widths": (8, 16, 24), "time_width": 8, "keypoints": 4, "anchors": 3}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny_network(objective: str) -> DiffusionNetwork:
    torch.manual_seed(0)
    config = replace(
        DiffusionConfig.small(K, JOINTS, VIEWS, objective=objective),
        backbone_widths=(8, 16),
        backbone_depths=(1, 1),
        **TINY,
    )
    network = DiffusionNetwork(config, small_text_encoder(small_tokenizer(["push the button"])))
    network.fit(actions(8))
    network.sampler = ChunkSampler.fitting(objective, steps=2)
    return network.eval()


def actions(count: int) -> Tensor:
    chunks = random(count, K, JOINTS + 1, seed=4).clamp(-1, 1)
    return torch.cat([chunks[..., :-1], (chunks[..., -1:] > 0).float()], -1)


def inputs(network: DiffusionNetwork, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    text = random(B, network.text_encoder.config.hidden_size, seed=seed + 2)
    return random(B, VIEWS, 3, SIDE, SIDE, seed=seed), random(B, JOINTS + 1, seed=seed + 1), text


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


# ------------------------------------------------------------------------------------------------------- network


def test_defaults_equal_table_5_of_paper() -> None:
    config = DiffusionConfig()
    assert (config.horizon, config.joints, config.views, config.objective) == (16, 7, 4, "ddpm")
    assert config.unet_widths[0] == 512 and config.backbone_widths == (64, 128, 256, 512)
    assert ChunkSampler.fitting(config.objective) == ChunkSampler("ddpm", 50)
    assert DiffusionConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_reach_all_weights_and_ignore_padding(objective: str) -> None:
    network, chunk = tiny_network(objective).train(), actions(B)
    padding = torch.zeros(B, K, dtype=torch.bool)
    padding[0, 6:] = padding[1, 3:] = True

    def loss(chunk: Tensor) -> Tensor:
        torch.manual_seed(1)
        return torch.stack([*network.losses(*inputs(network), chunk, padding).values()]).sum()

    loss(chunk).backward()
    unused = {name for name, x in network.named_parameters() if x.grad is None or not x.grad.any()}
    assert all(name.startswith("text_encoder.") for name in unused), unused  # the text is embedded outside
    real = chunk.clone()
    real[0, 0] = 1 - real[0, 0]
    assert (loss(real) - loss(chunk)).abs() > 1e-5
    if objective == "truncated":  # elsewhere a network sees noise on padded actions, too
        padded = chunk.clone()
        padded[padding] = 1 - padded[padding]
        torch.testing.assert_close(loss(padded), loss(chunk))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_work_in_half_precision(objective: str) -> None:
    network, padding = tiny_network(objective).train(), torch.zeros(B, K, dtype=torch.bool)

    def loss(enabled: bool) -> Tensor:
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            return torch.stack([*network.losses(*inputs(network), actions(B), padding).values()]).sum()

    torch.testing.assert_close(loss(True), loss(False), rtol=0.1, atol=0.01)
    loss(True).backward()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_samples_follow_from_generator_and_all_inputs(objective: str) -> None:
    network = tiny_network(objective).requires_grad_(False)
    for layer in network.backbone.film:
        torch.nn.init.normal_(layer.weight, std=0.1)
    before = inputs(network)
    first = network.sample(*before, generator=generator())
    assert first.actions.shape == (B, K, JOINTS) and first.gripper.shape == (B, K)
    assert first.actions.abs().max() <= 1 and 0 <= first.gripper.min() and first.gripper.max() <= 1
    torch.testing.assert_close(network.sample(*before, generator=generator()).actions, first.actions, rtol=0, atol=0)
    for i, other in enumerate(inputs(network, seed=10)):
        changed = [other if j == i else kept for j, kept in enumerate(before)]
        assert (network.sample(*changed, generator=generator()).actions - first.actions).abs().max() > 1e-5
    several = network.sample(*before, generator=generator(), samples=3)
    assert several.actions.shape == (3 * B, K, JOINTS)
    if objective != "truncated":
        assert (several.actions[0] - several.actions[1]).abs().max() > 1e-3


@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "truncated"])
@pytest.mark.parametrize("inference", [False, True])
def test_guidance_works_in_inference_mode(objective: str, inference: bool) -> None:
    network = tiny_network(objective).requires_grad_(False)
    with torch.inference_mode(inference):
        free = network.sample(*inputs(network), generator=generator())
        prefix = Prefix(actions(B), prefix_weights(K, 2, 6))
        guided = network.sample(*inputs(network), generator=generator(), prefix=prefix)
    assert (guided.actions - free.actions).abs().max() > 1e-3 and not guided.actions.requires_grad


def test_spatial_softmax_finds_positions() -> None:
    pool = SpatialSoftmax(1, 1).requires_grad_(False)
    pool.features.weight.fill_(100.0)
    image = torch.zeros(1, 1, 5, 9)
    image[0, 0, 1, 6] = 1.0  # row 1 of 5, column 6 of 9
    torch.testing.assert_close(pool(image), torch.tensor([[0.5, -0.5]]))


def test_anchors_are_centres_of_training_chunks() -> None:
    network = tiny_network("truncated")
    centres = torch.stack([torch.full((K, JOINTS + 1), value) for value in (-0.8, 0.0, 0.7)])
    centres[..., -1] = torch.tensor([0.0, 1.0, 1.0])[:, None]
    chunks = centres.repeat_interleave(20, 0)
    chunks[..., :-1] += 0.01 * random(60, K, JOINTS)
    network.fit(chunks[torch.randperm(60, generator=generator())])
    found = network.anchors[network.anchors[:, 0, 0].argsort()]
    torch.testing.assert_close(found[..., :-1], centres[..., :-1], atol=0.01, rtol=0)
    torch.testing.assert_close(found[..., -1], 2 * centres[..., -1] - 1)
    with pytest.raises(GenimaError, match="diffusion network: 2 chunks for 3 anchors"):
        network.fit(chunks[:2])
    network.anchors.zero_()
    with pytest.raises(GenimaError, match="diffusion network: no anchors; fit them"):
        network.sample(*inputs(network))


@pytest.mark.parametrize(("changes", "line"), [
    ({"objective": "gan"}, "objective gan: unknown"), ({"kernel": 4}, "kernel 4; take an odd one"),
])  # fmt: skip
def test_wrong_configurations_are_one_line_errors(changes: dict[str, Any], line: str) -> None:
    encoder = small_text_encoder(small_tokenizer(["push"]))
    with pytest.raises(GenimaError, match=line) as caught:
        DiffusionNetwork(replace(tiny_network("ddpm").config, **changes), encoder)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- policy


def build(targets: TargetDataset, objective: str = "ddpm") -> DiffusionPolicy:
    config: dict[str, Any] = {"objective": objective}
    policy = build_visuomotor("diffusion_policy", targets, clip=SMALL, config=config)
    assert isinstance(policy, DiffusionPolicy)
    return policy


def frozen(policy: DiffusionPolicy) -> DiffusionPolicy:
    policy.network.eval().requires_grad_(False)
    policy.sampling = ChunkSamplingOptions(sampler_steps=2)
    return policy


@pytest.fixture(scope="module")
def policy(targets: TargetDataset) -> DiffusionPolicy:
    return frozen(build(targets))


def observation(targets: TargetDataset, stamp: float = 3.0, **changes: Any) -> Observation:
    width, height = targets.spec.camera_size
    rng = np.random.default_rng(0)
    images = {view: rng.integers(0, 255, (height, width, 3), np.uint8) for view in targets.spec.views}
    joints = Joints(stamp, RobotModel.load(targets.spec.robot).home, 1.0)
    return replace(Observation(stamp, images, joints, "push the button"), **changes)


def test_joints_are_normalised_to_unit_range(targets: TargetDataset) -> None:
    moments = targets.moments
    normalised = joint_range(moments).normalise(moments.actions)
    assert normalised.min() >= -1 - 1e-9 and normalised.max() <= 1 + 1e-9
    moved = np.ptp(moments.actions, axis=(0, 1)) > 0.1
    np.testing.assert_allclose(normalised[..., moved].max((0, 1)), 1)
    np.testing.assert_allclose(normalised[..., moved].min((0, 1)), -1)
    assert (joint_range(moments).deviation >= 0.05).all()


def test_trained_policy_is_loaded_by_folder_and_by_name(targets: TargetDataset, tmp_path: Path) -> None:
    out = tmp_path / "dp"
    train_visuomotor(build(targets), targets, VisuomotorOptions(validation_chunks=2), LOOP, out)
    fast = ChunkSamplingOptions(sampler="ddim", sampler_steps=3)
    by_name = PolicyOptions(checkpoint=str(out / "best"), chunk_sampling=fast)
    chunks = []
    for loaded in (load_policy(str(out), PolicyOptions(chunk_sampling=fast)), load_policy("diffusion_policy", by_name)):
        assert isinstance(loaded, DiffusionPolicy) and loaded.spec == targets.spec
        loaded.reset(1)
        chunks.append(loaded.predict_chunk(observation(targets)))
    assert chunks[0].positions.shape == (targets.spec.horizon, 7) and chunks[0].stamp == 3.0
    np.testing.assert_array_equal(chunks[0].positions, chunks[1].positions)
    report = str(inspect_checkpoint(out))
    assert "diffusion policy trained with ddpm" in report and "unet" in report
    with pytest.raises(GenimaError, match="sampler edm: does not fit a network trained with ddpm"):
        load_policy(str(out), PolicyOptions(chunk_sampling=ChunkSamplingOptions(sampler="edm")))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_saved_policy_predicts_the_same(objective: str, targets: TargetDataset, tmp_path: Path) -> None:
    saved = frozen(build(targets, objective))
    saved.save_pretrained(tmp_path)
    loaded = frozen(DiffusionPolicy.from_pretrained(tmp_path))
    assert loaded.network.config == saved.network.config
    chunks = []
    for policy in (saved, loaded):
        policy.reset(5)
        chunks.append(policy.predict_chunk(observation(targets)).positions)
    np.testing.assert_allclose(chunks[0], chunks[1], atol=1e-5)


@pytest.mark.parametrize("change", [{"objective": "gan"}, {"act": {"width": 3}}, {"diffusion": None}])
def test_damaged_checkpoints_are_one_line_errors(
    policy: DiffusionPolicy, change: dict[str, Any], tmp_path: Path
) -> None:
    policy.save_pretrained(tmp_path)
    about = json.loads((tmp_path / FILE).read_text())
    if "objective" in change:
        about["diffusion"].update(change)
    else:
        about.update(change)
    (tmp_path / FILE).write_text(json.dumps(about))
    with pytest.raises(GenimaError) as caught:
        DiffusionPolicy.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_mutated_sizes_are_one_line_or_work(policy: DiffusionPolicy, tmp_path: Path) -> None:
    policy.save_pretrained(tmp_path)
    about = json.loads((tmp_path / FILE).read_text())
    for sizes in mutated_data(about["diffusion"], 60, seed=1):
        (tmp_path / FILE).write_text(json.dumps({**about, "diffusion": sizes}))
        require_clean(lambda: DiffusionPolicy.from_pretrained(tmp_path), sizes)


def test_episode_follows_from_seed(policy: DiffusionPolicy, targets: TargetDataset) -> None:
    policy.sampling = ChunkSamplingOptions(sampler="ddim", sampler_steps=2)

    def episode(seed: int) -> np.ndarray:
        policy.reset(seed)
        return np.stack([policy.predict_chunk(observation(targets, stamp)).positions for stamp in (1.0, 1.5)])

    first = episode(3)
    np.testing.assert_array_equal(episode(3), first)
    assert np.abs(episode(4) - first).max() > 1e-3 and np.abs(first[0] - first[1]).max() > 1e-3


class SpyNetwork:
    """Record of what the policy gives to the network's sampler."""

    def __init__(self, policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[dict[str, Any]] = []
        original = policy.network.sample

        def sample(*inputs: Tensor, **options: Any) -> Any:
            self.calls.append(options)
            return original(*inputs, **options)

        monkeypatch.setattr(policy.network, "sample", sample)


def test_last_chunk_is_resampled_at_new_times(
    policy: DiffusionPolicy, targets: TargetDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.sampling = ChunkSamplingOptions(sampler="warm_start", sampler_steps=1, real_time_chunking=True)
    spy, horizon, period = SpyNetwork(policy, monkeypatch), targets.spec.horizon, 1 / targets.spec.action_rate
    policy.reset(0)
    last = policy.predict_chunk(observation(targets, 2.0))
    policy.predict_chunk(observation(targets, 2.0 + 5.5 * period, latency=2.5 * period))
    assert spy.calls[0]["previous"] is None and spy.calls[0]["prefix"] is None
    prefix, previous = spy.calls[1]["prefix"], spy.calls[1]["previous"]
    expected = policy.statistics.normalise(np.concatenate([last.positions, np.repeat(last.positions[-1:], 6, 0)]))
    expected = (expected[5 : horizon + 5] + expected[6 : horizon + 6]) / 2  # half-way between two actions
    np.testing.assert_allclose(previous[0, :, :-1].numpy(), expected, atol=1e-5)
    torch.testing.assert_close(prefix.weights, prefix_weights(horizon, 3, horizon - 6))
    torch.testing.assert_close(prefix.actions, previous)


@pytest.mark.parametrize(("stamp", "instruction"), [(2.0 - 0.5, ""), (2.0 + 60.0, ""), (2.1, "close the drawer")])
def test_old_chunk_or_one_of_another_task_is_forgotten(
    policy: DiffusionPolicy,
    targets: TargetDataset,
    monkeypatch: pytest.MonkeyPatch,
    stamp: float,
    instruction: str,
) -> None:
    policy.sampling = ChunkSamplingOptions(sampler="warm_start", sampler_steps=1, real_time_chunking=True)
    spy = SpyNetwork(policy, monkeypatch)
    policy.reset(0)
    policy.predict_chunk(observation(targets, 2.0))
    seen = observation(targets, stamp)
    policy.predict_chunk(replace(seen, instruction=instruction or seen.instruction))
    policy.reset(0)
    policy.predict_chunk(observation(targets, 2.0))
    assert [call["previous"] is None for call in spy.calls] == [True] * 3


def test_real_time_chunking_is_a_choice(
    policy: DiffusionPolicy, targets: TargetDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.sampling = ChunkSamplingOptions(sampler="ddim", sampler_steps=1)
    spy = SpyNetwork(policy, monkeypatch)
    policy.reset(0)
    for stamp in (2.0, 2.2):
        policy.predict_chunk(observation(targets, stamp))
    assert spy.calls[1]["prefix"] is None and spy.calls[1]["previous"] is not None


def test_choices_that_do_not_fit_network_are_rejected_at_start(targets: TargetDataset) -> None:
    truncated = frozen(build(targets, "truncated"))
    for options, line in (
        (ChunkSamplingOptions(real_time_chunking=True), "real-time chunking: does not fit .* trained with truncated"),
        (ChunkSamplingOptions(sampler="ddim"), "sampler ddim: does not fit a network trained with truncated"),
        (ChunkSamplingOptions(sampler_steps=21), "sampler truncated: 21 steps; take at most 20"),
    ):
        with pytest.raises(GenimaError, match=line):
            truncated.sampling = options


# -------------------------------------------------------------------------------------------------------- spread


def test_spread_is_distance_of_tips(policy: DiffusionPolicy, targets: TargetDataset) -> None:
    robot = policy.robot
    chunk = np.repeat(robot.home[None], 5, 0)
    assert chunk_spread(robot, np.stack([chunk, chunk, chunk])) == pytest.approx(0, abs=1e-6)
    other = chunk.copy()
    other[3, 0] += 0.2  # rad of the first joint, at one action
    tips = [robot.link_poses(q)[-1, :3, 3] for q in (chunk[3], other[3])]
    expected = 1000 * np.linalg.norm(tips[0] - tips[1]) / 2
    assert chunk_spread(robot, np.stack([chunk, other])) == pytest.approx(expected)
    policy.sampling = ChunkSamplingOptions(sampler="ddim", sampler_steps=1, samples=4)
    policy.reset(0)
    policy.predict_chunk(observation(targets))
    assert policy.spread is not None and policy.spread > 1
    policy.sampling = ChunkSamplingOptions(sampler="ddim", sampler_steps=1)
    policy.predict_chunk(observation(targets))
    assert policy.spread is None and isinstance(policy, SamplingPolicy)


def test_samples_that_differ_too_much_are_refused(policy: DiffusionPolicy, targets: TargetDataset) -> None:
    policy.sampling = ChunkSamplingOptions(sampler="ddim", sampler_steps=1, samples=4, max_spread=0.1)
    policy.reset(0)
    with pytest.raises(GenimaError, match=r"4 samples differ by \d+ mm \(limit 0.1 mm\); holding"):
        policy.predict_chunk(observation(targets))
    policy.sampling = ChunkSamplingOptions(sampler="ddim", sampler_steps=1, samples=4, max_spread=10_000)
    policy.predict_chunk(observation(targets))
    with pytest.raises(GenimaError, match="max_spread 5: one sample has no spread; take 2 or more samples"):
        ChunkSamplingOptions(max_spread=5)
