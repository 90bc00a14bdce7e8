"""Tests of the diffusion agent: agreement with diffusers' pipeline, effect of inputs, rejection of bad inputs."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from generation import LatentCondition
from torch import Tensor, nn
from untrained import randomize_zeros

from genima.cameras.camera import VIRTUAL
from genima.cameras.tiling import crop_square, tile, untile
from genima.cameras.virtual_view import VirtualView
from genima.errors import GenimaError
from genima.io import paths
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline
from genima.policy.diffusion_agent.patch_autoencoder import PatchCodec
from genima.policy.diffusion_agent.small import small_agent
from genima.policy.spec import PolicySpec
from genima.types import Joints, Observation

GOALS = ["push down the maroon button", "take the lid off the saucepan"]


def noisy_images(seed: int, count: int, size: int) -> Tensor:
    """Images (count, 3, size, size) in -1..1 with detail of all sizes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 3, size, size)
    for cells in (2, 8, 32):
        coarse = torch.rand(count, 3, cells, cells, generator=generator) * 2 - 1
        images += nn.functional.interpolate(coarse, size=(size, size), mode="bilinear") / 3
    return images


def with_pixel_condition(agent: DiffusionAgent) -> None:
    """A ControlNet that encodes pixels, as all released ones do."""
    agent.controlnet = ControlNetModel.from_unet(agent.unet, conditioning_embedding_out_channels=(16, 16, 32, 64))
    agent.controlnet.eval()


@pytest.fixture(scope="module")
def agent(spec: PolicySpec) -> DiffusionAgent:
    torch.manual_seed(0)
    agent = small_agent(spec, GOALS, noisy_images(0, 4, 128), steps=3)
    for name, module in agent.modules.items():
        module.requires_grad_(False).eval()
        if name != "vae":
            randomize_zeros(module)
    return agent


def observation(seed: int = 0, instruction: str = GOALS[0], size: int = 256) -> Observation:
    rng = np.random.default_rng(seed)
    views = ("wrist", "front", "right_shoulder", "left_shoulder")
    images = {view: np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((size // 8, size // 8, 1))) for view in views}
    images = {view: image.astype(np.uint8) for view, image in images.items()}
    return Observation(3.5, images, Joints(3.5, np.zeros(7), 1.0), instruction)


def tiles(seed: int, count: int = 1) -> Tensor:
    return ((noisy_images(seed, count, 128) / 2 + 0.5) * 255).byte().permute(0, 2, 3, 1)


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("views", [1, 2, 3, 5, 6])
def test_generate_any_number_of_views(spec: PolicySpec, views: int, tiled: bool) -> None:
    names = (*spec.views, "overhead", "ceiling")[:views]
    spec = replace(spec, views=names)
    torch.manual_seed(0)
    agent = small_agent(spec, GOALS, noisy_images(0, 4, 128), steps=1)
    agent.tiled = tiled
    image = np.full((256, 256, 3), 127, np.uint8)
    seen = Observation(3.5, dict.fromkeys(names, image), Joints(3.5, np.zeros(7), 1.0), GOALS[0])
    drawn = agent.generate(seen, 0)
    assert drawn.views == names and drawn.tile.shape == (*spec.tile_size, 3)


@pytest.mark.parametrize("condition", ["the agent's", "pixels"])
def test_target_matches_diffusers_pipeline(agent: DiffusionAgent, condition: str) -> None:
    if condition == "pixels":
        agent = copy.deepcopy(agent)
        torch.manual_seed(1)
        with_pixel_condition(agent)
        randomize_zeros(agent.controlnet)
    kind = StableDiffusionControlNetPipeline if condition == "pixels" else LatentCondition
    pipeline = kind(
        vae=agent.vae, text_encoder=agent.prompts.encoders[0], tokenizer=agent.prompts.tokenizers[0], unet=agent.unet,
        controlnet=agent.controlnet, scheduler=agent.scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    for seed in range(2):
        shown = tiles(seed)
        drawn = agent.generate_tiles(shown, [GOALS[seed]], torch.Generator().manual_seed(seed))
        pixels = shown.permute(0, 3, 1, 2).float() / 255
        expected = pipeline(
            agent.spec.prompt(GOALS[seed]), pixels if condition == "pixels" else agent.condition(agent.frames(shown)),
            height=128, width=128, num_inference_steps=agent.steps, guidance_scale=0.0,
            generator=torch.Generator().manual_seed(seed), output_type="np",
        ).images  # fmt: skip
        assert drawn.float().std() > 10
        difference = np.abs(drawn.numpy() - np.rint(expected * 255))
        assert difference.max() <= 3 and difference.mean() < 0.5  # half precision


def test_target_depends_on_seed(agent: DiffusionAgent) -> None:
    first, again, other = (agent.generate(observation(), seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.tile, again.tile)
    assert np.abs(first.tile.astype(int) - other.tile).mean() > 1


def test_target_has_stamp_seed_and_steps(agent: DiffusionAgent) -> None:
    drawn = agent.generate(observation(), 7)
    assert (drawn.stamp, drawn.instruction, drawn.seed, drawn.steps) == (3.5, GOALS[0], 7, 3)
    assert drawn.views == agent.spec.views and drawn.tile.shape == (128, 128, 3) and drawn.tile.dtype == np.uint8
    assert drawn.latency > 0


def test_instruction_changes_target(agent: DiffusionAgent) -> None:
    a, b = (agent.prompts(agent.texts([goal])).tokens for goal in GOALS)
    assert (a - b).abs().max() > 0.01
    generated = [agent.generate(observation(instruction=goal), 0).tile.astype(int) for goal in GOALS]
    assert (generated[0] != generated[1]).any()


def test_every_view_changes_target(agent: DiffusionAgent) -> None:
    before, other = observation(0), observation(1)
    drawn = agent.generate(before, 0).tile.astype(int)
    for view in before.images:
        changed = replace(before, images={**before.images, view: other.images[view]})
        assert (agent.generate(changed, 0).tile != drawn).any(), view


def test_batch_matches_single_targets(agent: DiffusionAgent) -> None:
    shown, generators = tiles(3, 2), [torch.Generator().manual_seed(0) for _ in range(2)]
    both = agent.generate_tiles(shown, GOALS, generators[0]).int()
    alone = agent.generate_tiles(shown[:1], GOALS[:1], generators[1]).int()  # the first takes the first of the noise
    assert (both[:1] - alone).abs().max() <= 1
    assert (both[1] - both[0]).abs().max() > 1


class Spy(CompiledPipeline):
    """Pipeline that records its previous image and returns it."""

    def __init__(self, agent: DiffusionAgent) -> None:
        super().__init__(agent)
        self.seen: list[Tensor] = []

    def generate_tiles(self, tiles: Tensor, *_: Any) -> Tensor:
        self.seen.append(tiles)
        return tiles


def test_views_are_resized_by_area(agent: DiffusionAgent) -> None:
    other = copy.copy(agent)
    other.pipeline = spy = Spy(other)
    shown = observation()
    other.generate(shown, 0)
    by_area = {
        view: np.rint(image.reshape(64, 4, 64, 4, 3).mean((1, 3))).astype(np.uint8)
        for view, image in shown.images.items()
    }
    expected = tile(by_area, agent.spec.views)
    np.testing.assert_allclose(spy.seen[0][0].numpy().astype(int), expected.astype(int), atol=1)


def test_virtual_view_shows_measured_joints_in_its_place(agent: DiffusionAgent) -> None:
    order = ("wrist", VIRTUAL, "right_shoulder", "left_shoulder")
    other = copy.copy(agent)
    other.spec = replace(agent.spec, views=order)
    assert other.camera_views == ("wrist", "right_shoulder", "left_shoulder")
    other.pipeline = spy = Spy(other)
    shown = observation()
    views = []
    for turn in (0.0, 0.5):
        joints = Joints(3.5, agent.robot.home + turn, 1.0)
        other.generate(replace(shown, images={v: shown.images[v] for v in other.camera_views}, joints=joints), 0)
        views.append(untile(spy.seen[-1][0].numpy(), order))
        drawn = VirtualView(agent.robot).render(joints.positions, 1.0)
        np.testing.assert_array_equal(views[-1][VIRTUAL], crop_square(drawn, agent.spec.view_size))
    np.testing.assert_array_equal(views[0]["wrist"], views[1]["wrist"])
    assert (views[0][VIRTUAL] != views[1][VIRTUAL]).any()
    with pytest.raises(GenimaError, match="finite"):
        other.generate(replace(shown, joints=Joints(3.5, np.full(7, np.nan), 1.0)), 0)


def test_invalid_observations_are_rejected(agent: DiffusionAgent) -> None:
    good = observation()
    with pytest.raises(GenimaError, match=r"view wrist has shape \(128, 128, 3\).*256"):
        agent.generate(observation(size=128), 0)
    with pytest.raises(GenimaError, match=r"view front has shape \(256, 256\)"):
        agent.generate(replace(good, images={**good.images, "front": good.images["front"][..., 0]}), 0)
    with pytest.raises(GenimaError, match="no image of view left_shoulder"):
        agent.generate(replace(good, images={v: i for v, i in good.images.items() if v != "left_shoulder"}), 0)
    for nothing in ("", "  \n"):
        with pytest.raises(GenimaError, match="instruction: empty"):
            agent.generate(replace(good, instruction=nothing), 0)


def test_long_or_foreign_instruction(agent: DiffusionAgent) -> None:
    for instruction in ("push " * 500, "按下按钮 {0} %s 🙂"):
        assert agent.generate(observation(instruction=instruction), 0).tile.shape == (128, 128, 3)


def test_saved_agent_is_identical_after_loading(agent: DiffusionAgent, tmp_path: Path) -> None:
    agent.save_pretrained(tmp_path)
    loaded = DiffusionAgent.from_pretrained(tmp_path)
    assert loaded.spec == agent.spec and loaded.steps == agent.steps
    for goal in GOALS:
        expected = agent.generate(observation(instruction=goal), 1).tile
        np.testing.assert_array_equal(loaded.generate(observation(instruction=goal), 1).tile, expected)


@pytest.mark.parametrize("part", ["unet", "controlnet", "vae", "text_encoder"])
def test_non_finite_weights_are_rejected(checkpoint_folder: Path, part: str) -> None:
    agent = DiffusionAgent.from_pretrained(checkpoint_folder / "diffusion_agent")
    for parameter in agent.modules[part].parameters():
        parameter.fill_(torch.nan)
    with pytest.raises(GenimaError, match="not finite"):
        agent.generate(observation(), 0)


def test_codec_is_exact_at_full_rank() -> None:
    images = noisy_images(1, 40, 64)
    codec = PatchCodec(latent_channels=192)
    codec.fit(images)
    torch.testing.assert_close(codec.decode(codec.encode(images).latent_dist.mode()).sample, images, atol=1e-4, rtol=0)


def test_codec_is_optimal_projection() -> None:
    images, unseen = noisy_images(2, 40, 64), noisy_images(3, 10, 64)
    codec = PatchCodec(latent_channels=48)
    codec.fit(images)
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(192, 48, generator=generator, dtype=torch.double))[0]

    def patches(pictures: Tensor) -> Tensor:
        return nn.functional.pixel_unshuffle(pictures, 8).permute(0, 2, 3, 1).reshape(-1, 192).double()

    mean = patches(images).mean(0)
    for pictures in (images, unseen):
        centred = patches(pictures) - mean
        random_error = (centred - centred @ basis @ basis.T).square().mean()
        decoded = codec.decode(codec.encode(pictures).latent_dist.mode()).sample
        assert (decoded - pictures).square().mean() < random_error / 3
    singular = torch.linalg.svdvals(patches(images) - mean)  # Eckart and Young: no projection of this rank is better
    best = singular[48:].square().sum() / images.numel()
    decoded = codec.decode(codec.encode(images).latent_dist.mode()).sample
    assert (decoded - images).double().square().mean() == pytest.approx(best.item(), rel=1e-3)


def test_latents_have_unit_variance_and_one_eighth_size() -> None:
    images = noisy_images(4, 40, 64)
    codec = PatchCodec(latent_channels=48)
    codec.fit(images)
    latents = codec.encode(images).latent_dist.sample()
    assert latents.shape == (40, 48, 8, 8)
    assert latents.var(dim=(0, 2, 3)).mean().item() == pytest.approx(1, rel=0.02)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-3


def test_codec_save_and_load(tmp_path: Path) -> None:
    images = noisy_images(5, 8, 64)
    codec = PatchCodec(latent_channels=16)
    codec.fit(images)
    codec.save_pretrained(tmp_path, safe_serialization=True)
    loaded = PatchCodec.from_pretrained(tmp_path, use_safetensors=True, low_cpu_mem_usage=False, device_map=None)
    torch.testing.assert_close(loaded.encode(images).latent_dist.mode(), codec.encode(images).latent_dist.mode())


def test_bundled_agent_is_unchanged() -> None:
    """Outputs of the bundled weights must not change: expected values are of an earlier version of the code."""
    agent = DiffusionAgent.from_pretrained(paths.shared("models", "tiny", "diffusion_agent"))
    side = 2 * agent.spec.view_size
    noise = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    tile = torch.from_numpy(noise)
    drawn = agent.generate_tiles(tile, [GOALS[0]], torch.Generator().manual_seed(0)).numpy()[0].astype(float)
    pixels = [[212, 209, 168], [129, 109, 76], [119, 91, 76], [143, 130, 106], [136, 151, 124], [143, 116, 120]]
    np.testing.assert_allclose(drawn[::64, ::64].reshape(-1, 3)[:6], pixels, atol=2)
    blocks = [
        [121.01, 124.86, 125.46, 127.86], [126.12, 125.14, 121.35, 118.56],
        [121.63, 123.79, 125.23, 123.92], [125.32, 123.82, 123.68, 120.77],
    ]  # fmt: skip
    np.testing.assert_allclose(drawn.reshape(4, 64, 4, 64, 3).mean((1, 3, 4)), blocks, atol=0.2)
