"""The policy ``video_policy``: clips, features, both ways of training, checkpoint, loading and use."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_training import one_step
from torch import Tensor

from genima.data.datasets.chunk_samples import ObservationDataset, collate
from genima.data.datasets.diffusion_samples import DiffusionDataset
from genima.data.datasets.sample_index import SampleIndex
from genima.data.datasets.target_dataset import TargetDataset
from genima.errors import GenimaError
from genima.inspection.checkpoints import inspect_checkpoint
from genima.policy.chunk_sampling_options import ChunkSamplingOptions
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.video import FRAMES, clip_features, frame_steps, split_clip
from genima.policy.registry import PolicyOptions, load_policy
from genima.policy.spec import BEST, FILE, LAST, VIDEO_MODEL, VIDEOS, read_policy
from genima.policy.video_policy import VideoPolicy
from genima.robot.model import RobotModel
from genima.training import loop
from genima.training.build_agent import build_agent
from genima.training.chunk_model import ChunkLossModule
from genima.training.diffusion import DiffusionLossModule
from genima.training.options import SMALL, DiffusionOptions, LoopOptions, VisuomotorOptions
from genima.training.video_policy import build_video_policy, train_video_policy
from genima.types import Joints, Observation
from genima_cli.train import main as train_command

LOOP = LoopOptions(steps=2, batch_size=2, learning_rate=1e-3, workers=0, save_every=1, warmup_steps=0)
DRAWING = DiffusionOptions(jitter=(0, 0, 0, 0), crop=0, validation_targets=1)
CHUNKS = VisuomotorOptions(augmentation="none", validation_chunks=1)


TINY = {"unet_widths": (8, 16, 24), "time_width": 8, "keypoints": 4}


@pytest.fixture(scope="module")
def base(bases: Path) -> str:
    """Tiny Stable Diffusion."""
    return str(bases / "tiny")


def build(targets: TargetDataset, base: str) -> VideoPolicy:
    return build_video_policy(targets, base, SMALL, config=TINY)


def frozen(policy: VideoPolicy) -> VideoPolicy:
    for module in (policy.network, *policy.video_model.modules.values()):
        module.eval().requires_grad_(False)
    return policy


def train(targets: TargetDataset, base: str, folder: Path, joint: bool) -> VideoPolicy:
    policy = build(targets, base)
    train_video_policy(policy, targets, folder, DRAWING, CHUNKS, LOOP, None if joint else LOOP)
    return policy


@pytest.fixture(scope="module")
def trained(targets: TargetDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training of both stages, of the small networks, by the command."""
    folder = tmp_path_factory.mktemp("trained") / "video"
    arguments = ["--base", SMALL, "--clip", SMALL, "--validation-targets", "1", "--chunks.validation-chunks", "1"]
    arguments += ["--data", str(targets.folder), "--out", str(folder)]
    assert train_command(["video_policy", *arguments, *one_step("video", "policy")]) == 0
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["two_stage", "joint"])
def whole(
    request: pytest.FixtureRequest, targets: TargetDataset, base: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bool, Path]:
    """Return whether the stages are joined, and the folder of a training of two steps."""
    folder = tmp_path_factory.mktemp("whole") / "video"
    train(targets, base, folder, request.param)
    return request.param, folder


def observation(targets: TargetDataset, instruction: str = "push the button") -> Observation:
    width, height = targets.spec.camera_size
    rng = np.random.default_rng(0)
    images = {view: rng.integers(0, 255, (height, width, 3), np.uint8) for view in targets.spec.views}
    return Observation(3.0, images, Joints(3.0, RobotModel.load(targets.spec.robot).home, 1.0), instruction)


def views(targets: TargetDataset, *rows: int) -> Tensor:
    """Images (B, views, 3, s, s) in 0..1."""
    images = np.stack([np.stack([*targets.observed_views(row).values()]) for row in rows])
    return torch.from_numpy(images).movedim(-1, 2).float() / 255


def weights(agent: DiffusionAgent) -> dict[str, Tensor]:
    """Copies of all weights of a video model."""
    parts = agent.modules.items()
    return {f"{part}.{name}": x.detach().clone() for part, m in parts for name, x in m.state_dict().items()}


# ---------------------------------------------------------------------------------------------------------- clips


@pytest.mark.parametrize("horizon", [1, 3, 10, 20, 30])
def test_frames_divide_the_horizon(horizon: int) -> None:
    steps = frame_steps(horizon)
    assert len(steps) == FRAMES and steps[-1] == horizon and steps[0] >= 1
    assert np.abs(np.array(steps) - horizon * np.arange(1, FRAMES + 1) / FRAMES).max() < 1


def test_clips_are_later_observations_of_the_episode(targets: TargetDataset) -> None:
    episode, last = targets.moments.episode, len(targets) - 1
    ends = np.flatnonzero(episode[1:] != episode[:-1])
    chosen = np.array([0, 11, int(ends[0]) - 7, int(ends[0]), last - 12, last])
    height, width = targets.spec.tile_size

    def frames(picture: Tensor) -> list[np.ndarray[Any, Any]]:
        halves = np.split(picture.numpy(), 2)
        return [frame for half in halves for frame in np.split(half, 2, axis=1)]

    def at_half_size(row: int) -> np.ndarray[Any, Any]:
        return targets.observation(row).reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))

    samples = DiffusionDataset(targets, chosen, VIDEOS)
    for k, row in enumerate(chosen):
        sample = samples[SampleIndex(k, 0)]
        end = np.flatnonzero(episode == episode[row])[-1]
        assert sample.target.shape == (height, width, 3)
        for steps, now, later in zip(frame_steps(20), frames(sample.condition), frames(sample.target), strict=True):
            np.testing.assert_allclose(now, at_half_size(int(row)), atol=0.5)
            np.testing.assert_allclose(later, at_half_size(int(min(row + steps, end))), atol=0.5)


# --------------------------------------------------------------------------------------------------------- features


def test_maps_are_split_by_frame_and_view() -> None:
    picture = torch.zeros(2, 1, 8, 8)
    for f in range(4):
        for v in range(3):  # of three views; the fourth cell of a frame is black
            row, column = 4 * (f // 2) + 2 * (v // 2), 4 * (f % 2) + 2 * (v % 2)
            picture[:, :, row : row + 2, column : column + 2] = 10 * f + v + 1
    picture[1] += 100 * (picture[1] > 0)
    cells = split_clip(picture, 3)
    assert cells.shape == (2, 12, 1, 2, 2)
    expected = torch.tensor([10 * f + v + 1 for f in range(4) for v in range(3)]).float()
    torch.testing.assert_close(cells[:, :, 0, 1, 0], torch.stack([expected, expected + 100]))


def test_features_are_a_block_of_one_pass_from_noise(targets: TargetDataset) -> None:
    agent = frozen(build_video_policy(targets, SMALL, SMALL)).video_model
    seen: list[Tensor] = []
    following = agent.unet.up_blocks[2]
    handle = following.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs.get("hidden_states", args[0] if args else None)),
        with_kwargs=True,
    )
    features = clip_features(agent, views(targets, 3, 40), ["push", "lift"], 2, 999)
    handle.remove()
    assert len(seen) == 1 and features.shape == (2, FRAMES * 4, 96, 2, 2)
    torch.testing.assert_close(features, split_clip(seen[0], 4), rtol=0, atol=0)
    assert not any(block._forward_hooks for block in agent.unet.up_blocks)
    # Equal observations have equal features, whatever else is in the batch and was drawn before.
    torch.randn(7)
    again = clip_features(agent, views(targets, 40), ["lift"], 2, 999)
    torch.testing.assert_close(again[0], features[1], rtol=1e-4, atol=1e-4)
    for other in (
        clip_features(agent, views(targets, 3), ["lift"], 2, 999),
        clip_features(agent, views(targets, 40), ["push"], 2, 999),
        clip_features(agent, views(targets, 40), ["lift"], 2, 500),
    ):
        assert (other - again).abs().max() > 1e-4


# --------------------------------------------------------------------------------------------------------- training


def test_second_stage_alone_leaves_the_video_model(whole: tuple[bool, Path], targets: TargetDataset, base: str) -> None:
    joint, folder = whole
    used, untrained = VideoPolicy.from_pretrained(folder / LAST), build(targets, base)
    agent, before = weights(used.video_model), weights(untrained.video_model)
    assert not any(p.requires_grad for m in used.video_model.modules.values() for p in m.parameters())
    assert any(not torch.equal(agent[name], before[name]) for name in before)
    heads = used.network.state_dict(), untrained.network.state_dict()
    assert any(not torch.equal(heads[0][name], heads[1][name]) for name in heads[1])
    assert (folder / VIDEO_MODEL).is_dir() != joint
    if not joint:
        first = weights(DiffusionAgent.from_pretrained(folder / VIDEO_MODEL / BEST))
        assert all(torch.equal(agent[name], first[name]) for name in agent)


def test_joint_loss_is_the_sum_and_reaches_both(targets: TargetDataset, base: str) -> None:
    policy = build(targets, base)
    samples = ObservationDataset(targets, np.arange(8), policy.statistics, clips=True)
    batch = collate([samples[SampleIndex(i, i)] for i in (0, 5)])
    assert batch.clips is not None and batch.clips.instruction == batch.instructions
    video = DiffusionLossModule(policy.video_model, DRAWING)
    torch.manual_seed(0)
    parts = ChunkLossModule(policy, video)(batch)
    assert set(parts) == {"loss", "noise", "video"}
    torch.testing.assert_close(parts["loss"], parts["noise"] + parts["video"])
    unet = policy.video_model.unet
    # The loss of the actions alone reaches the video model up to the features, that of the video all of it.
    for part, reached in (("noise", False), ("video", True)):
        unet.zero_grad()
        parts[part].backward(retain_graph=True)
        assert unet.conv_in.weight.grad is not None and unet.conv_in.weight.grad.any()
        last = unet.conv_out.weight.grad
        assert (last is not None and bool(last.any())) == reached


def test_interrupted_training_resumes_exactly(
    whole: tuple[bool, Path], targets: TargetDataset, base: str, tmp_path: Path
) -> None:
    joint, folder = whole
    original, calls = loop._link, [0]

    def link(*arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == (3 if joint else 7):  # of two for each checkpoint: at the last one of the policy
            raise RuntimeError("killed")
        original(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(loop, "_link", link)
        train(targets, base, tmp_path / "parts", joint)
    train(targets, base, tmp_path / "parts", joint)
    for file in ("video.safetensors", f"{VIDEO_MODEL}/unet/diffusion_pytorch_model.safetensors"):
        expected, parts = (load_file(run / LAST / file) for run in (folder, tmp_path / "parts"))
        assert all(torch.equal(expected[name], parts[name]) for name in expected)


def test_losses_fall_on_few_samples(targets: TargetDataset, base: str) -> None:
    policy = build(targets, base)
    samples = ObservationDataset(targets, np.arange(len(targets)), policy.statistics, clips=True)
    batch = collate([samples[SampleIndex(i, i)] for i in (0, 30)])
    module = ChunkLossModule(policy, DiffusionLossModule(policy.video_model, DRAWING))
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 5e-3)
    history: dict[str, list[float]] = {"noise": [], "video": []}
    for _ in range(20):
        torch.manual_seed(0)  # the same noise
        parts = module(batch)
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        for name, values in history.items():
            values.append(parts[name].item())
    for values in history.values():
        assert values[-1] < values[0] / 2, history


def test_views_that_do_not_divide_are_one_line_errors(targets: TargetDataset, base: str) -> None:
    odd = replace(targets, spec=replace(targets.spec, view_size=36))
    with pytest.raises(GenimaError, match="video model: views of 36 px do not divide into its features"):
        build_video_policy(odd, base, SMALL)


# ----------------------------------------------------------------------------------------------------- checkpoints


def test_trained_policy_is_loaded_by_folder_and_by_name(trained: Path, targets: TargetDataset) -> None:
    chunks = []
    for policy in (load_policy(str(trained)), load_policy("video_policy", PolicyOptions(checkpoint=str(trained)))):
        assert isinstance(policy, VideoPolicy) and policy.spec == targets.spec
        policy.sampling = ChunkSamplingOptions(sampler_steps=2)
        policy.reset(1)
        chunks.append(policy.predict_chunk(observation(targets)))
    assert chunks[0].stamp == 3.0 and chunks[0].positions.shape == (targets.spec.horizon, 7)
    np.testing.assert_array_equal(chunks[0].positions, chunks[1].positions)
    text = str(inspect_checkpoint(trained))
    for part in ("a video_policy", "features of the video model's block 2", "videos, the tile as one picture"):
        assert part in text, text


def test_saved_policy_predicts_the_same(targets: TargetDataset, base: str, tmp_path: Path) -> None:
    policy, seen = frozen(build(targets, base)), observation(targets)
    policy.save_pretrained(tmp_path)
    loaded = VideoPolicy.from_pretrained(tmp_path)
    policy.sampling = loaded.sampling = ChunkSamplingOptions(sampler_steps=2)
    np.testing.assert_allclose(loaded.predict_chunk(seen).positions, policy.predict_chunk(seen).positions, atol=1e-2)
    # Another video model gives other chunks: the head has no other view of the scene.
    with torch.no_grad():
        loaded.video_model.unet.up_blocks[1].resnets[0].conv2.weight.mul_(20)
    loaded.reset()
    policy.reset()
    assert np.abs(loaded.predict_chunk(seen).positions - policy.predict_chunk(seen).positions).max() > 0.03


def test_observations_that_do_not_fit_are_one_line_errors(targets: TargetDataset, base: str) -> None:
    policy, seen = frozen(build(targets, base)), observation(targets)
    small = {**seen.images, "front": seen.images["front"][:10]}
    lacking = {view: image for view, image in seen.images.items() if view != "front"}
    for images, instruction, line in (
        (small, "push", "the image of view front has shape"),
        (lacking, "push", "the observation has no image of view front"),
        (seen.images, " ", "instruction: empty"),
    ):
        with pytest.raises(GenimaError, match=line) as caught:
            policy.predict_chunk(Observation(0.0, images, seen.joints, instruction))
        assert "\n" not in str(caught.value)


def test_other_checkpoints_are_one_line_errors(
    targets: TargetDataset, base: str, checkpoint_folder: Path, tmp_path: Path
) -> None:
    policy = build(targets, base)
    for agent, line in (
        (build_agent(base, targets), "video model: draws targets; take one that draws videos"),
        (
            build_agent(base, replace(targets, spec=replace(targets.spec, horizon=9)), "unet", draws=VIDEOS),
            "the video policy and its video model: specifications differ",
        ),
    ):
        with pytest.raises(GenimaError, match=line):
            policy.video_model = agent
    policy.save_pretrained(tmp_path / "whole")

    def damaged(name: str, **video: Any) -> Path:
        folder = Path(shutil.copytree(tmp_path / "whole", tmp_path / name))
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        about["video"] |= video
        (folder / FILE).write_text(json.dumps(about), encoding="utf-8")
        return folder

    shutil.rmtree(damaged("headless") / VIDEO_MODEL)
    folders = {name: damaged(name, **{name: value}) for name, value in (("block", 9), ("timestep", 1000))}
    for name, folder, line in (
        ("video_policy", checkpoint_folder, "no checkpoint at .*genima.json is missing"),
        ("act", tmp_path / "whole", "is one of the policy video_policy, not of act; name that policy"),
        ("video_policy", "", "policy video_policy: no checkpoint; name the folder of one"),
        ("video_policy", tmp_path / "whole" / VIDEO_MODEL, "is the diffusion agent alone"),
        ("video_policy", tmp_path / "headless", f"no checkpoint at .*{VIDEO_MODEL}: genima.json is missing"),
        ("video_policy", folders["block"], "video model: features of block 9 at time step 999; it has blocks 1 to 2"),
        ("video_policy", folders["timestep"], "time step 1000; .* time steps 0 to 999"),
        ("video_policy", damaged("wide", channels=64), "it is damaged or incomplete: .* for VideoNetwork"),
    ):
        with pytest.raises(GenimaError, match=line) as caught:
            load_policy(name, PolicyOptions(checkpoint=str(folder)))
        assert "\n" not in str(caught.value)
    assert read_policy(str(tmp_path / "whole")).policy == "video_policy"


def test_frames_are_not_shifted(targets: TargetDataset, base: str, tmp_path: Path) -> None:
    with pytest.raises(GenimaError, match="--crop 8: not available for a video model; use 0"):
        train_video_policy(build(targets, base), targets, tmp_path / "out", DiffusionOptions(), CHUNKS, LOOP)
