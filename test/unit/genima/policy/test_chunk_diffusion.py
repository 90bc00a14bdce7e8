"""Tests of objectives and samplers of action chunks: against diffusers, written-out equations and exact denoisers."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EDMEulerScheduler
from torch import Tensor, nn

from genima.errors import GenimaError
from genima.policy.visuomotor.chunk_sampler import ChunkSampler, NoiseSource
from genima.policy.visuomotor.noise_levels import CLEAN, NoiseLevel, diffusion_levels, spaced_levels, step
from genima.policy.visuomotor.objectives import OBJECTIVES, MeanFlow, NoisePrediction, Objective, Preconditioned
from genima.policy.visuomotor.real_time_chunking import guidance_weight, guide, prefix_weights

B, K, D = 3, 8, 2
COSINE = "squaredcos_cap_v2"
CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------ steps and estimates


def test_levels_and_noise_equal_diffusers() -> None:
    levels, chunk, noise = diffusion_levels(50, COSINE), random(B, K, D), random(B, K, D, seed=1)
    scheduler = DDPMScheduler(50, beta_schedule=COSINE)
    for t, level in enumerate(levels):
        assert level.time == t
        expected = scheduler.add_noise(chunk, noise, torch.full((B,), t))
        torch.testing.assert_close(level.add_noise(chunk, noise), expected)


@pytest.mark.parametrize("steps", [50, 10, 5])
def test_ddim_step_equals_diffusers(steps: int) -> None:
    levels, noisy, clean = diffusion_levels(50, COSINE), random(B, K, D), random(B, K, D, seed=1).clamp(-1, 1)
    scheduler = DDIMScheduler(50, beta_schedule=COSINE, prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps.tolist():
        following = levels[t - 50 // steps] if t >= 50 // steps else CLEAN
        expected = scheduler.step(clean, t, noisy).prev_sample
        torch.testing.assert_close(step(noisy, clean, levels[t], following), expected, atol=1e-5, rtol=1e-4)


def test_ddpm_step_equals_diffusers() -> None:
    levels, noisy, clean = diffusion_levels(50, COSINE), random(B, K, D), random(B, K, D, seed=1).clamp(-1, 1)
    scheduler = DDPMScheduler(50, beta_schedule=COSINE, prediction_type="sample", clip_sample=False)
    scheduler.set_timesteps(50)
    for t in scheduler.timesteps.tolist():
        expected = scheduler.step(clean, t, noisy, generator=torch.Generator().manual_seed(t)).prev_sample
        found = step(noisy, clean, levels[t], levels[t - 1] if t else CLEAN, random(B, K, D, seed=t))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_whole_ddpm_sampling_equals_diffusers() -> None:
    """The network's noise prediction, the limited estimate and all 50 steps."""
    torch.manual_seed(0)
    layer = nn.Linear(D + 1, D).requires_grad_(False)

    def network(noisy: Tensor, time: Tensor) -> Tensor:
        return layer(torch.cat([noisy, (time / 50)[:, None, None].expand(-1, K, 1)], -1))

    scheduler = DDPMScheduler(50, beta_schedule=COSINE)
    scheduler.set_timesteps(50)
    generator = torch.Generator().manual_seed(3)
    expected = torch.randn(B, K, D, generator=generator)
    for t in scheduler.timesteps:
        expected = scheduler.step(network(expected, t.expand(B)), t, expected, generator=generator).prev_sample
    source = NoiseSource((B, K, D), CPU, torch.Generator().manual_seed(3))
    found = ChunkSampler.fitting("ddpm").sample(NoisePrediction(), network, source)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("sigma", "following"), [(1.0, 0.55), (0.55, 0.1), (0.1, 0.0)])
def test_edm_estimate_and_step_equal_karras(sigma: float, following: float) -> None:
    """Preconditioning as in diffusers, and algorithm 1 of Karras et al. without its second-order correction."""
    noisy, seen = random(B, K, D), []

    def network(scaled: Tensor, time: Tensor) -> Tensor:
        seen.append((scaled, time))
        return scaled.sin()

    scheduler = EDMEulerScheduler(sigma_data=0.5)
    level, after = NoiseLevel(1.0, sigma, sigma), NoiseLevel(1.0, following, following)
    clean = Preconditioned().denoise(network, noisy, level, after)
    scaled = scheduler.precondition_inputs(noisy, torch.tensor(sigma))
    torch.testing.assert_close(seen[0][0], scaled)
    torch.testing.assert_close(seen[0][1], scheduler.precondition_noise(torch.tensor(sigma)).expand(B))
    torch.testing.assert_close(clean, scheduler.precondition_outputs(noisy, scaled.sin(), torch.tensor(sigma)))
    expected = noisy + (following - sigma) * (noisy - clean) / sigma
    torch.testing.assert_close(step(noisy, clean, level, after), expected, atol=1e-5, rtol=1e-4)


def test_edm_loss_is_weighted_error_of_denoiser() -> None:
    """Karras et al., equation 8: weight (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 of |D(x; sigma) - chunk|^2."""
    chunk, seen = random(1, K, D) / 2, []

    def network(scaled: Tensor, time: Tensor) -> Tensor:
        seen.append((scaled, time))
        return scaled.cos()

    for seed in range(20):
        torch.manual_seed(seed)
        loss = Preconditioned().losses(network, chunk, torch.ones(1, K))["denoising"]
        scaled, time = seen.pop()
        sigma = float((4 * time).exp())
        assert 0.005 <= sigma <= 1
        noisy = scaled * math.hypot(sigma, 0.5)
        denoised = (0.25 * noisy + 0.5 * sigma * math.hypot(sigma, 0.5) * scaled.cos()) / (sigma**2 + 0.25)
        weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
        torch.testing.assert_close(loss, weight * (denoised - chunk).square().mean(), rtol=1e-3, atol=1e-5)


def test_step_of_flow_is_eulers() -> None:
    noisy, clean = random(B, K, D), random(B, K, D, seed=1)
    for t, r in ((1.0, 0.7), (0.7, 0.2), (0.2, 0.0)):
        velocity = (noisy - clean) / t
        expected = noisy - (t - r) * velocity
        torch.testing.assert_close(step(noisy, clean, NoiseLevel(1 - t, t, t), NoiseLevel(1 - r, r, r)), expected)


@pytest.mark.parametrize("steps", [1, 3, 16, 46, 50])
def test_spaced_levels_descend_from_first(steps: int) -> None:
    levels = diffusion_levels(50, COSINE)
    chosen = [int(level.time) for level in spaced_levels(levels, steps)]
    assert chosen[0] == 49 and len(set(chosen)) == steps and chosen == sorted(chosen, reverse=True)
    assert max(a - b for a, b in pairwise([*chosen, -1])) <= math.ceil(50 / steps)


# ------------------------------------------------------------------------------------------------------ mean flow


def smooth_network(noisy: Tensor, t: Tensor, interval: Tensor) -> Tensor:
    t, interval = t[:, None, None], interval[:, None, None]
    return (noisy * t).sin() + interval * noisy.roll(1, -1) ** 2 - (t * interval).exp()


def test_mean_flow_target_equals_finite_differences() -> None:
    """u = v - (t - r) du/dt, with du/dt = v du/dx + du/dt along the flow, at constant r."""
    noisy, velocity = random(B, K, D).double(), random(B, K, D, seed=1).double()
    t, r = torch.tensor([0.9, 0.6, 0.5]).double(), torch.tensor([0.1, 0.4, 0.5]).double()
    mean, target = MeanFlow.velocity_and_target(smooth_network, noisy, velocity, t, r)
    torch.testing.assert_close(mean, smooth_network(noisy, t, t - r))
    h = 1e-5
    after = smooth_network(noisy + h * velocity, t + h, t + h - r)
    before = smooth_network(noisy - h * velocity, t - h, t - h - r)
    expected = velocity - (t - r)[:, None, None] * (after - before) / (2 * h)
    torch.testing.assert_close(target, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(target[2], velocity[2])  # r = t: the instantaneous velocity
    assert (target[0] - velocity[0]).abs().max() > 0.1


def test_exact_mean_velocity_has_no_loss_and_samples_in_one_step() -> None:
    """A single chunk c: paths are straight, u(x, r, t) = (x - c) / t for every r."""
    chunk = random(1, K, D).clamp(-1, 1)

    def network(noisy: Tensor, t: Tensor, interval: Tensor) -> Tensor:
        return (noisy - chunk) / t[:, None, None]

    torch.manual_seed(0)
    loss = MeanFlow().losses(network, chunk.expand(B, -1, -1), torch.ones(B, K))["velocity"]
    assert float(loss) < 1e-4
    for steps in (1, 3):
        found = ChunkSampler("mean_flow", steps).sample(MeanFlow(), network, NoiseSource((B, K, D), CPU))
        torch.testing.assert_close(found, chunk.expand(B, -1, -1), atol=1e-5, rtol=1e-4)


def test_mean_flow_sampler_equals_published_steps() -> None:
    for steps in (1, 4):
        noise, times = random(B, K, D) * 0.1, torch.linspace(1, 0, steps + 1)
        source: Any = noise.clone
        expected = noise
        for t, r in pairwise(times.tolist()):
            mean = 0.1 * smooth_network(expected, torch.full((B,), t), torch.full((B,), t - r))
            expected = expected - (t - r) * mean
        found = ChunkSampler("mean_flow", steps).sample(
            MeanFlow(), lambda *inputs: 0.1 * smooth_network(*inputs), source
        )
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


# ---------------------------------------------------------------------------------------------- real-time chunking


@pytest.mark.parametrize(("horizon", "delay", "overlap"), [(20, 4, 12), (8, 0, 8), (8, 3, 3), (8, 0, 0), (16, 15, 16)])
def test_prefix_weights_equal_paper(horizon: int, delay: int, overlap: int) -> None:
    """Equation 5: 1 for i < d, c (e^c - 1) / (e - 1) with c = (H - s - i) / (H - s - d + 1) for i < H - s, then 0."""
    s, expected = horizon - overlap, []
    for i in range(horizon):
        c = (horizon - s - i) / (horizon - s - delay + 1)
        expected.append(1.0 if i < delay else c * (math.exp(c) - 1) / (math.e - 1) if i < horizon - s else 0.0)
    weights = prefix_weights(horizon, delay, overlap)
    torch.testing.assert_close(weights, torch.tensor(expected))
    assert (weights.diff() <= 0).all()


@pytest.mark.parametrize("numbers", [(8, -1, 3), (8, 4, 3), (8, 2, 9)])
def test_prefix_out_of_range_is_rejected(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(GenimaError, match=f"delay {numbers[1]} and overlap {numbers[2]} do not fit 8 actions"):
        prefix_weights(*numbers)


def velocity_field(x: Tensor, tau: float) -> Tensor:
    """Velocity of a flow from noise (tau = 0) to chunks (tau = 1), with coupled actions."""
    return (x.cumsum(-2) * (1 + tau)).sin() - 0.5 * x


def published_guidance(x: Tensor, tau: float, y: Tensor, weights: Tensor, limit: float) -> Tensor:
    """Equations 2 to 4 of the RTC paper, with the whole Jacobian of the estimate: the guided velocity."""
    size = x.numel()

    def estimate(flat: Tensor) -> Tensor:
        return flat + (1 - tau) * velocity_field(flat.view_as(x), tau).flatten()

    jacobian = torch.autograd.functional.jacobian(estimate, x.flatten())
    error = (y.flatten() - estimate(x.flatten())) * weights.repeat_interleave(size // len(weights))
    r2 = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
    weight = min(limit, (1 - tau) / (tau * r2)) if tau > 0 else limit
    return velocity_field(x, tau) + weight * (error @ jacobian).view_as(x)


@pytest.mark.parametrize("tau", [0.0, 0.05, 0.4, 0.8, 0.99])
@pytest.mark.parametrize("steps", [1, 5, 10])
def test_guided_flow_step_equals_published_update(tau: float, steps: int) -> None:
    x, y, weights = random(1, K, D).double(), random(1, K, D, seed=1).double(), prefix_weights(K, 2, 6).double()
    level, following = NoiseLevel(tau, 1 - tau, 0.0), NoiseLevel(tau + 0.005, 1 - tau - 0.005, 0.0)
    clean = guide(lambda x: x + (1 - tau) * velocity_field(x, tau), x, level, y, weights, steps)
    expected = x + 0.005 * published_guidance(x, tau, y, weights, min(5, steps))
    torch.testing.assert_close(step(x, clean, level, following), expected)


@pytest.mark.parametrize(("signal", "noise"), [(0.6, 0.8), (0.1, 0.995), (1.0, 0.3)])
def test_guidance_of_diffusion_is_that_of_its_flow(signal: float, noise: float) -> None:
    """A chunk of diffusion, divided by signal + noise, is one of the flow at tau = signal / (signal + noise)."""
    x, y, weights = random(1, K, D).double(), random(1, K, D, seed=1).double(), prefix_weights(K, 2, 6).double()
    total, tau = signal + noise, signal / (signal + noise)

    def denoise(noisy: Tensor) -> Tensor:
        return noisy / total + (1 - tau) * velocity_field(noisy / total, tau)

    clean = guide(denoise, x, NoiseLevel(signal, noise, 0.0), y, weights, 5)
    flow = x / total
    expected = flow + (1 - tau) * published_guidance(flow, tau, y, weights, 5)
    torch.testing.assert_close(clean, expected)


def test_guidance_weight_is_limited() -> None:
    assert guidance_weight(NoiseLevel(0.5, 0.5, 0), 5) == pytest.approx(2)
    assert guidance_weight(NoiseLevel(0.0, 1.0, 0), 5) == guidance_weight(NoiseLevel(1.0, 1e-3, 0), 5) == 5


# ------------------------------------------------------------------------------------------------ exact denoisers


def smooth_covariance(scale: float = 0.3) -> Tensor:
    """Covariance (K, K) of smooth chunks of one joint."""
    index = torch.arange(K).double()
    return scale**2 * (-((index[:, None] - index) ** 2) / 18).exp() + 1e-6 * torch.eye(K).double()


class ExactNetwork:
    """Network with the exact answer for Gaussian chunks (B, K, 1) of a covariance, in the form of an objective."""

    def __init__(self, objective: str, covariance: Tensor) -> None:
        self.objective, self.covariance = objective, covariance

    def denoise(self, noisy: Tensor, signal: float, noise: float) -> Tensor:
        total = signal**2 * self.covariance + noise**2 * torch.eye(K).double()
        gain = (signal * self.covariance @ torch.linalg.inv(total)).float()
        return (noisy.transpose(1, 2) @ gain.T).transpose(1, 2)

    def __call__(self, noisy: Tensor, *times: Tensor) -> Tensor:
        time = float(times[0][0])
        if self.objective == "ddpm":
            level = diffusion_levels(50, COSINE)[int(time)]
            return (noisy - level.signal * self.denoise(noisy, level.signal, level.noise)) / level.noise
        if self.objective == "mean_flow":  # the instantaneous velocity, for many steps
            return (noisy - self.denoise(noisy, 1 - time, time)) / time
        sigma = math.exp(4 * time)
        total = math.hypot(sigma, 0.5)
        noisy = noisy * total
        return (self.denoise(noisy, 1.0, sigma) - 0.25 / total**2 * noisy) / (0.5 * sigma / total)


@pytest.mark.parametrize(
    ("objective", "sampler", "steps", "tolerance"),
    [("ddpm", "ddpm", 50, 0.2), ("ddpm", "ddim", 46, 0.1), ("mean_flow", "mean_flow", 50, 0.1)],
)
def test_samples_have_distribution_of_data(objective: str, sampler: str, steps: int, tolerance: float) -> None:
    """DDPM's posterior variance is its lower bound (Ho et al., 2020, section 3.2): samples vary a little less."""
    covariance = smooth_covariance()
    samples = ChunkSampler.fitting(objective, sampler, steps).sample(
        OBJECTIVES[objective](), ExactNetwork(objective, covariance),
        NoiseSource((4000, K, 1), CPU, torch.Generator().manual_seed(0)),
    )  # fmt: skip
    found = torch.from_numpy(np.cov(samples[..., 0].T.numpy()))
    assert (found - covariance).abs().max() < tolerance * covariance.max()
    assert samples.mean(0).abs().max() < 0.03


@pytest.mark.parametrize(
    ("objective", "sampler", "steps"),
    [("ddpm", "ddpm", 50), ("ddpm", "ddim", 16), ("ddpm", "ddim", 5), ("edm", "edm", 3), ("mean_flow", "mean_flow", 8),
     ("ddpm", "warm_start", 4), ("edm", "warm_start", 2)],
)  # fmt: skip
def test_prefix_draws_samples_to_chunk_in_execution(objective: str, sampler: str, steps: int) -> None:
    """The start of a new chunk follows the chunk in execution, its end does not have to; it stays smooth."""
    covariance = smooth_covariance()
    root = torch.linalg.cholesky(covariance).float()
    target = root @ random(K, 1, seed=5)
    target = (target / target.abs().max() * 0.5).expand(64, K, 1)

    def sampled(prefix: tuple[Tensor, Tensor] | None) -> Tensor:
        source = NoiseSource((64, K, 1), CPU, torch.Generator().manual_seed(1))
        network, previous = ExactNetwork(objective, covariance), root @ random(64, K, 1, seed=2)
        return ChunkSampler.fitting(objective, sampler, steps).sample(
            OBJECTIVES[objective](), network, source, previous=previous, prefix=prefix
        )

    free, guided = sampled(None), sampled((target, prefix_weights(K, 3, 5)))
    before, after = ((x - target).square().mean((0, 2)).sqrt() for x in (free, guided))
    if sampler == "warm_start":  # it starts near another chunk
        assert (after[:3] < 0.75 * before[:3]).all()
        return
    assert after[:3].max() < 0.5 * before[:3].max() and after[:3].mean() < after[-1]
    assert (guided - guided.mean(0)).std() > 0.02  # ... and the rest is still sampled
    assert guided.diff(dim=1).abs().mean() < 1.5 * free.diff(dim=1).abs().mean()


# --------------------------------------------------------------------------------------------- training and sampling


class SmallNetwork(nn.Module):
    """Network that takes a scene's number with each noisy chunk."""

    def __init__(self, objective: Objective, scenes: int) -> None:
        super().__init__()
        self.outputs, self.scenes = D + objective.SCORES, scenes
        inputs = K * D + scenes + 4 * objective.TIMES
        self.layers = nn.Sequential(nn.Linear(inputs, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU())
        self.head = nn.Linear(96, K * self.outputs)
        self.scale = objective.TIME_SCALE / 50

    def forward(self, noisy: Tensor, scene: Tensor, *times: Tensor) -> Tensor:
        angles = torch.stack(times, 1) * self.scale if len(times) == 1 else torch.stack(times, 1)
        waves = torch.cat([angles, angles**2, angles.sin(), (3 * angles).cos()], 1)
        scenes = nn.functional.one_hot(scene, self.scenes).float()
        x = self.layers(torch.cat([noisy.flatten(1), scenes, waves], 1))
        return self.head(x).unflatten(1, (K, self.outputs))


def train(objective: Objective, chunks: Tensor, anchors: Tensor | None = None, steps: int = 600) -> SmallNetwork:
    """Train a network on chunks (N, K, D), one of each scene."""
    torch.manual_seed(0)
    network, repeats = SmallNetwork(objective, len(chunks)), 64
    batch, scene = chunks.repeat(repeats, 1, 1), torch.arange(len(chunks)).repeat(repeats)
    if anchors is not None:
        scene = scene.repeat_interleave(len(anchors), 0)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, steps)
    for _ in range(steps):
        parts = objective.losses(
            lambda noisy, *times: network(noisy, scene, *times), batch, torch.ones(len(batch), K), anchors
        )
        optimizer.zero_grad()
        torch.stack([*parts.values()]).sum().backward()
        optimizer.step()
        schedule.step()
    return network.requires_grad_(False)


def chunks_of_two_scenes() -> Tensor:
    ramp = torch.linspace(-0.7, 0.7, K)
    return torch.stack([torch.stack([ramp, ramp.abs()], -1), torch.stack([-ramp, 0.2 * ramp - 0.5], -1)])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_overfitted_network_samples_its_chunks(objective: str) -> None:
    chunks, trained = chunks_of_two_scenes(), OBJECTIVES[objective]()
    anchors = torch.cat([chunks, -chunks]) + 0.05 * random(4, K, D) if objective == "truncated" else None
    trained_network, samples = train(trained, chunks, anchors), 8
    scene, expected = torch.arange(2).repeat_interleave(samples), chunks.repeat_interleave(samples, 0)
    if anchors is not None:
        scene = scene.repeat_interleave(len(anchors))

    def sample(sampler: ChunkSampler, **inputs: Any) -> Tensor:
        source = NoiseSource(expected.shape, CPU, torch.Generator().manual_seed(1))

        def network(noisy: Tensor, *times: Tensor) -> Tensor:
            return trained_network(noisy, scene, *times)

        return sampler.sample(trained, network, source, anchors=anchors, **inputs)

    usual = sample(ChunkSampler.fitting(objective))
    assert (usual - expected).abs().mean() < 0.15
    for name in trained.SAMPLERS:
        assert (sample(ChunkSampler.fitting(objective, name)) - expected).abs().mean() < 0.2, name
    if "warm_start" in trained.SAMPLERS:  # a chunk that does not change needs no more than two steps
        warm = sample(ChunkSampler.fitting(objective, "warm_start", 2), previous=usual)
        assert (warm - usual).abs().mean() < 0.1


# ------------------------------------------------------------------------------------------------------ wrong choices


@pytest.mark.parametrize(("objective", "sampler", "steps", "message"), [
    ("gan", "", 0, "objective gan: unknown; take ddpm, edm, truncated, mean_flow"),
    ("ddpm", "edm", 0, "sampler edm: does not fit a network trained with ddpm; take ddpm, ddim, warm_start"),
    ("edm", "ddim", 0, "sampler ddim: does not fit a network trained with edm; take edm, warm_start"),
    ("truncated", "warm_start", 0, "sampler warm_start: does not fit a network trained with truncated"),
    ("mean_flow", "heun", 0, "sampler heun: does not fit a network trained with mean_flow; take mean_flow"),
    ("ddpm", "ddim", -1, "sampler ddim: -1 steps; take 1 or more, or 0 for 16"),
])  # fmt: skip
def test_unfitting_choices_are_one_line_errors(objective: str, sampler: str, steps: int, message: str) -> None:
    with pytest.raises(GenimaError) as caught:
        ChunkSampler.fitting(objective, sampler, steps)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("objective", "sampler", "most"), [
    ("ddpm", "ddpm", 50), ("ddpm", "ddim", 46), ("ddpm", "warm_start", 7), ("truncated", "truncated", 20),
])  # fmt: skip
def test_more_steps_than_noise_levels_are_rejected(objective: str, sampler: str, most: int) -> None:
    trained = OBJECTIVES[objective]()
    assert len(trained.levels(sampler, most)) == most
    with pytest.raises(GenimaError, match=f"sampler {sampler}: {most + 1} steps.*at most"):
        ChunkSampler.fitting(objective, sampler, most + 1)


def test_truncated_takes_no_prefix() -> None:
    sampler, prefix = ChunkSampler.fitting("truncated"), (random(B, K, D), prefix_weights(K, 2, 4))
    with pytest.raises(GenimaError, match="sampler truncated: does not fit real-time chunking"):
        sampler.sample(
            OBJECTIVES["truncated"](), lambda *_: random(1), NoiseSource((B, K, D), CPU), prefix=prefix,
            anchors=random(2, K, D),
        )  # fmt: skip
