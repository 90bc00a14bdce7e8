"""Compiled pipeline: every config gives the model's result, a failure falls back, and bad results are refused."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLInstructPix2PixPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from random_base import random_base
from torch import Tensor
from untrained import randomize_zeros

from genima.errors import GenimaError
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline
from genima.policy.diffusion_agent.execution_config import ExecutionConfig, execution_configs, remaining_configs
from genima.policy.diffusion_agent.network_execution import DeviceNetworks
from genima.policy.diffusion_agent.network_halves import controlnet_residuals, decode, encode, time_embedding
from genima.policy.diffusion_agent.pretrained_base import base_from_pipeline
from genima.policy.diffusion_agent.sampling import sampling_schedule
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.spec import PolicySpec
from genima.training.build_agent import agent_from_base

GOALS = ["push down the maroon button", "take the lid off the saucepan"]
SPACING: dict[str, Any] = {"timestep_spacing": "trailing"}
EXACT = ExecutionConfig(torch.float32, channels_last=False, fused_attention=False)


@pytest.fixture(scope="module", params=["tiny", "ancestral", "tiny-xl", "without a ControlNet", "views apart"])
def base_agent(spec: PolicySpec, request: pytest.FixtureRequest) -> DiffusionAgent:
    """An agent of Stable Diffusion's kind, in single precision. Tests work on copies."""
    return make(spec, request.param)


@pytest.fixture(scope="module")
def tiny(spec: PolicySpec) -> DiffusionAgent:
    return make(spec, "tiny")


def make(spec: PolicySpec, kind: str) -> DiffusionAgent:
    base = base_from_pipeline("random", random_base("tiny-xl" if kind == "tiny-xl" else "tiny"))
    unet, controlnet = base.unet, None
    if kind == "without a ControlNet":
        unet = UNet2DConditionModel.from_config({**unet.config, "in_channels": 8})
    else:
        controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16)).eval()
        randomize_zeros(controlnet)
    kind_of_scheduler = EulerAncestralDiscreteScheduler if kind == "ancestral" else type(base.scheduler)
    scheduler = kind_of_scheduler.from_config(base.scheduler.config)
    agent = DiffusionAgent(
        replace(spec, view_size=32), unet, controlnet, base.vae, base.prompts, scheduler, steps=4,
        tiled=kind != "views apart", base=base,
    )  # fmt: skip
    for module in agent.modules.values():
        module.requires_grad_(False).eval()
    return agent


def tiles(seed: int = 0, count: int = 1) -> Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear") * 255).byte().permute(0, 2, 3, 1)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def psnr(a: Tensor, b: Tensor) -> float:
    """dB; infinite for the same images."""
    error = (a.double() - b.double()).square().mean().item()
    return 10 * np.log10(255**2 / error) if error else np.inf


@pytest.mark.parametrize(
    "plan",
    [EXACT, ExecutionConfig(channels_last=False), ExecutionConfig(fused_attention=False), ExecutionConfig()],
    ids=["plain", "fused", "channels last", "both"],
)
def test_exact_config_matches_agent(base_agent: DiffusionAgent, plan: ExecutionConfig) -> None:
    shown = tiles(count=2)
    with torch.autocast("cpu", enabled=False):
        expected = reference(base_agent, shown)
    agent = copy.deepcopy(base_agent)
    drawn = CompiledPipeline(agent, configs=[plan]).generate_tiles(shown, GOALS, seeded())
    assert expected.float().std() > 5
    assert drawn.shape == shown.shape and drawn.dtype == torch.uint8
    assert (drawn.int() - expected.int()).abs().max() <= 1


def reference(agent: DiffusionAgent, shown: Tensor, goals: Sequence[str] = GOALS) -> Tensor:
    """The reference image of the agent, in single precision."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("genima.policy.precision.is_half_fast", lambda device: False)
        return agent.generate_tiles(shown, goals, seeded())


def test_half_precision_differs_by_rounding(base_agent: DiffusionAgent) -> None:
    shown = tiles(count=2)
    expected = reference(base_agent, shown)
    drawn = CompiledPipeline(copy.deepcopy(base_agent), configs=[ExecutionConfig(torch.bfloat16)]).generate_tiles(
        shown, GOALS, seeded()
    )
    assert 25 < psnr(drawn, expected) < np.inf


def test_network_halves_match_diffusers(base_agent: DiffusionAgent) -> None:
    unet, controlnet = base_agent.unet, base_agent.controlnet
    noisy = torch.randn(2, unet.config.in_channels, 8, 8, generator=seeded())
    prompts = base_agent.prompts([base_agent.spec.prompt(goal) for goal in GOALS])
    added = prompts.added_cond_kwargs(64, 64)
    text: dict[str, Any] = {"encoder_hidden_states": prompts.tokens, "added_cond_kwargs": added}
    with torch.inference_mode():
        down, middle, more = None, None, ()
        if controlnet is not None:
            condition = torch.rand(2, 3, 64, 64, generator=seeded())
            down, middle = controlnet(noisy, 501.0, controlnet_cond=condition, **text, return_dict=False)
            of_time = time_embedding(controlnet, 501.0, 2, added)
            more = controlnet_residuals(
                controlnet, noisy, of_time, prompts.tokens, controlnet.controlnet_cond_embedding(condition)
            )
            for ours, theirs in zip(more, (*down, middle), strict=True):
                torch.testing.assert_close(ours, theirs)
        expected = unet(
            noisy, 501.0, **text, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample
        of_time = time_embedding(unet, 501.0, 2, added)
        drawn = decode(unet, *encode(unet, noisy, of_time, prompts.tokens), more, of_time, prompts.tokens)
    torch.testing.assert_close(drawn, expected)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_sampling_steps_match_scheduler(kind: Any, prediction: str, strength: float) -> None:
    if kind is EulerDiscreteScheduler and prediction == "sample":
        pytest.skip("diffusers' Euler scheduler has no such prediction")
    options = {"clip_sample": False} if kind is DDIMScheduler else {}
    scheduler = kind(prediction_type=prediction, timestep_spacing="trailing", **options)
    steps = sampling_schedule(scheduler, 6, strength)
    rng = torch.Generator().manual_seed(0)
    clean, noise, *predicted = torch.randn(2 + 6, 1, 4, 8, 8, generator=rng)

    scheduler.set_timesteps(6)
    todo = scheduler.timesteps[6 - round(6 * strength) :]
    if strength < 1:
        if kind is EulerDiscreteScheduler:
            scheduler.set_begin_index(6 - len(todo))
        expected = scheduler.add_noise(clean, noise, todo[:1])
    else:
        expected = noise * scheduler.init_noise_sigma
    ours = steps.clean * clean + steps.noise * noise
    assert len(steps.steps) == len(todo)
    for step, t, output in zip(steps.steps, todo, predicted, strict=False):
        torch.testing.assert_close(step.scale * ours, scheduler.scale_model_input(expected, t), rtol=1e-4, atol=1e-5)
        ours = step.keep * ours + step.add * output
        expected = scheduler.step(output, t, expected, return_dict=False)[0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [EulerAncestralDiscreteScheduler, DDPMScheduler, LCMScheduler])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(("count", "strength"), [(1, 1.0), (5, 1.0), (10, 1.0), (10, 0.5)])
def test_scheduler_noise_has_same_order(kind: Any, prediction: str, strength: float, count: int) -> None:
    options = {} if kind is EulerAncestralDiscreteScheduler else {"clip_sample": False}
    scheduler = kind(prediction_type=prediction, **({} if kind is LCMScheduler else SPACING), **options)
    steps = sampling_schedule(scheduler, count, strength)
    rng = torch.Generator().manual_seed(0)
    clean, *predicted = torch.randn(1 + count, 1, 4, 8, 8, generator=rng)
    start, *rest = steps.sample_noise((1, 4, 8, 8), seeded())
    assert len(rest) == steps.noises - 1 >= len(steps.steps) - 1  # the last one's noise, if any, counts for nothing

    generator = seeded()
    scheduler.set_timesteps(count)
    todo = scheduler.timesteps[count - round(count * strength) :]
    noise = torch.randn(1, 4, 8, 8, generator=generator)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(count - len(todo))
    expected = noise * scheduler.init_noise_sigma if strength == 1 else scheduler.add_noise(clean, noise, todo[:1])
    ours, noises = steps.clean * clean + steps.noise * start, iter(rest)
    for step, t, output in zip(steps.steps, todo, predicted, strict=False):
        torch.testing.assert_close(step.scale * ours, scheduler.scale_model_input(expected, t), rtol=1e-4, atol=1e-4)
        ours = step.keep * ours + step.add * output + (step.random * next(noises) if step.random else 0)
        expected = scheduler.step(output, t, expected, return_dict=False, generator=generator)[0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)


def test_unsupported_schedulers_are_rejected() -> None:
    multistep = (DPMSolverMultistepScheduler(), PNDMScheduler(), UniPCMultistepScheduler(), HeunDiscreteScheduler())
    for scheduler in (*multistep, DDIMScheduler(clip_sample=True)):
        with pytest.raises(GenimaError, match=f"{type(scheduler).__name__}.*; use "):
            sampling_schedule(scheduler, 4)
    for scheduler in (EulerAncestralDiscreteScheduler(**SPACING), DDIMScheduler(clip_sample=False)):
        with pytest.raises(GenimaError, match=f"scheduler {type(scheduler).__name__}: .* 1500 steps"):
            sampling_schedule(scheduler, 1500)
    for strength in (0.1, 0.0, 1.5, -1.0):
        with pytest.raises(GenimaError, match="leaves .* of 4 steps"):
            sampling_schedule(DDIMScheduler(clip_sample=False), 4, strength)
    for name, value in (("controlnet_every", 0), ("steps", 0), ("steps", 10**9), ("strength", 0), ("strength", np.nan)):
        with pytest.raises(GenimaError, match=f"sampling.{name.replace('_', '-')} {value}: must be "):
            SamplingOptions(**{name: value})


PIPELINES: dict[str, Any] = {
    "sd": StableDiffusionControlNetPipeline,
    "sd, views apart": StableDiffusionControlNetPipeline,
    "sdxl": StableDiffusionXLControlNetPipeline,
    "sd, unet": StableDiffusionInstructPix2PixPipeline,
    "sdxl, unet": StableDiffusionXLInstructPix2PixPipeline,
}


@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("steps", [1, 5, 10])
def test_euler_ancestral_matches_diffusers(spec: PolicySpec, kind: str, steps: int) -> None:
    """An agent as of ``train diffusion --base``: Euler ancestral, for every trainable conditioning."""
    base = base_from_pipeline("random", random_base("tiny-xl" if "sdxl" in kind else "tiny"))
    conditioning: Any = "unet" if "unet" in kind else "controlnet"
    agent = agent_from_base(base, replace(spec, view_size=32), conditioning, "apart" not in kind, steps)
    assert isinstance(agent.scheduler, EulerAncestralDiscreteScheduler)
    for module in agent.modules.values():
        module.requires_grad_(False).eval()
    randomize_zeros(agent.controlnet or agent.unet.conv_in)
    shown = tiles()
    frames = agent.frames(shown)
    encoders, tokenizers = base.prompts.encoders, base.prompts.tokenizers
    parts: dict[str, Any] = {"vae": base.vae, "unet": agent.unet, "scheduler": copy.deepcopy(agent.scheduler)}
    parts |= {"text_encoder": encoders[0], "tokenizer": tokenizers[0]}
    parts |= {"controlnet": agent.controlnet} if agent.controlnet else {}
    if "sdxl" in kind:
        parts |= {"text_encoder_2": encoders[1], "tokenizer_2": tokenizers[1], "add_watermarker": False}
    else:
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = PIPELINES[kind](**parts)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        agent.texts(GOALS[:1]), image=frames, height=64, width=64, num_inference_steps=steps, guidance_scale=0.0,
        generator=seeded(), output_type="pt",
    ).images  # fmt: skip
    expected = agent.pixels(expected * 2 - 1)
    drawn = {"reference": reference(agent, shown, GOALS[:1])}
    for plan in (EXACT, ExecutionConfig()):
        drawn[str(plan)] = CompiledPipeline(copy.deepcopy(agent), configs=[plan]).generate_tiles(
            shown, GOALS[:1], seeded()
        )
    assert expected.float().std() > 5
    for name, pixels in drawn.items():
        assert (pixels.int() - expected.int()).abs().max() <= 2, name


def test_partial_schedule_starts_from_previous_target(tiny: DiffusionAgent) -> None:
    engine = CompiledPipeline(copy.deepcopy(tiny), SamplingOptions(strength=0.25), [EXACT])
    shown, formers = tiles(), (tiles(1), tiles(2))
    fresh = engine.generate_tiles(shown, GOALS[:1], seeded())
    warm = [engine.generate_tiles(shown, GOALS[:1], seeded(), former) for former in formers]
    assert all((a.int() - b.int()).abs().max() > 1 for a, b in ((fresh, warm[0]), (warm[0], warm[1])))
    again = engine.generate_tiles(shown, GOALS[:1], seeded(), formers[0])
    torch.testing.assert_close(again, warm[0])


def test_controlnet_every_second_step(tiny: DiffusionAgent) -> None:
    counts = []
    for every in (1, 2, 3):
        agent = copy.deepcopy(tiny)
        asked: list[object] = []
        agent.controlnet.controlnet_mid_block.register_forward_hook(lambda *_, asked=asked: asked.append(1))
        CompiledPipeline(agent, SamplingOptions(controlnet_every=every), [EXACT]).generate_tiles(
            tiles(), GOALS[:1], seeded()
        )
        counts.append(len(asked))
    assert counts == [4, 2, 2]


def test_tiny_decoder_replaces_decoder(tiny: DiffusionAgent, tmp_path: Path) -> None:
    torch.manual_seed(0)
    channels = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    decoder = AutoencoderTiny(**channels, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4)
    decoder.save_pretrained(tmp_path / "taesd")
    usual = CompiledPipeline(copy.deepcopy(tiny), configs=[EXACT]).generate_tiles(tiles(), GOALS[:1], seeded())
    shortcuts = SamplingOptions(tiny_decoder=str(tmp_path / "taesd"))
    drawn = CompiledPipeline(copy.deepcopy(tiny), shortcuts, [EXACT]).generate_tiles(tiles(), GOALS[:1], seeded())
    assert drawn.shape == usual.shape and (drawn.int() - usual.int()).abs().max() > 1
    with pytest.raises(GenimaError, match="nowhere"):
        engine = CompiledPipeline(tiny, SamplingOptions(tiny_decoder=str(tmp_path / "nowhere")), [EXACT])
        engine.generate_tiles(tiles(), GOALS[:1], seeded())


# what goes wrong


def failing(error: Exception, times: int = 1) -> Callable[..., Any]:
    """Replacement of a function of the prepared agent: it fails a number of times, then works."""
    real, left = DeviceNetworks._generate, [times]

    def redraw(self: DeviceNetworks, *given: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise error
        return real(self, *given)

    return redraw


@pytest.mark.parametrize(
    "plan, error, expected",
    [
        (ExecutionConfig(), torch.OutOfMemoryError("CUDA out of memory"), "too little memory"),
        (ExecutionConfig(compile=True), RuntimeError("no C compiler\nat all"), "cannot be compiled: no C compiler)"),
        (
            ExecutionConfig(cuda_graph=True),
            torch.AcceleratorError("not permitted"),
            "cannot be captured: not permitted",
        ),
    ],
)
def test_failed_config_falls_back_to_next(
    tiny: DiffusionAgent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    plan: ExecutionConfig, error: Exception, expected: str,
) -> None:  # fmt: skip
    usual = CompiledPipeline(copy.deepcopy(tiny), configs=[EXACT]).generate_tiles(tiles(), GOALS[:1], seeded())
    monkeypatch.setattr(DeviceNetworks, "_generate", failing(error))
    if plan.cuda_graph:  # without a GPU generation fails where it would be captured
        monkeypatch.setattr(DeviceNetworks, "_capture", lambda self, *_: self._generate())
    engine = CompiledPipeline(copy.deepcopy(tiny), configs=[plan, EXACT])
    with caplog.at_level(logging.WARNING):
        drawn = engine.generate_tiles(tiles(), GOALS[:1], seeded())
    torch.testing.assert_close(drawn, usual)
    assert engine.config == EXACT and expected in caplog.text and caplog.text.count("\n") == 1


def test_overflow_falls_back_to_wider_precision(tiny: DiffusionAgent, caplog: pytest.LogCaptureFixture) -> None:
    agent = copy.deepcopy(tiny)
    agent.controlnet.conv_in.weight.data[0, 0, 0, 0] = 1e6  # more than float16 holds
    expected = CompiledPipeline(copy.deepcopy(agent), configs=[EXACT]).generate_tiles(tiles(), GOALS[:1], seeded())
    engine = CompiledPipeline(agent, configs=[ExecutionConfig(torch.float16), EXACT])
    torch.testing.assert_close(engine.generate_tiles(tiles(), GOALS[:1], seeded()), expected)
    assert engine.config == EXACT and "exceed the range of torch.float16" in caplog.text


def test_fallback_restores_exact_weights(base_agent: DiffusionAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in half precision are not converted back."""
    expected = CompiledPipeline(copy.deepcopy(base_agent), configs=[EXACT]).generate_tiles(tiles(), GOALS[:1], seeded())
    real = DeviceNetworks._generate

    def redraw(self: DeviceNetworks, *given: Any) -> Any:
        pixels, finite = real(self, *given)
        return pixels, finite & (self.config.precision == torch.float32)

    monkeypatch.setattr(DeviceNetworks, "_generate", redraw)
    engine = CompiledPipeline(
        copy.deepcopy(base_agent), configs=[ExecutionConfig(torch.float16), ExecutionConfig(torch.bfloat16), EXACT]
    )
    torch.testing.assert_close(engine.generate_tiles(tiles(), GOALS[:1], seeded()), expected, rtol=0, atol=0)
    assert engine.config == EXACT


def test_fallback_skips_configs_with_same_cause() -> None:
    on_gpu = [
        ExecutionConfig(torch.float16, compile=True, cuda_graph=True, overlap=True),
        ExecutionConfig(torch.float16, cuda_graph=True),
    ]
    on_gpu += [
        ExecutionConfig(torch.float16, compile=True),
        ExecutionConfig(torch.float16),
        ExecutionConfig(torch.bfloat16, compile=True),
        ExecutionConfig(),
    ]
    best, graph, compiled, eager, wide, single = on_gpu
    assert remaining_configs(on_gpu, "compiler") == [graph, eager, single]
    assert remaining_configs(on_gpu, "capture") == [compiled, eager, wide, single]
    assert remaining_configs(on_gpu, "precision") == [wide, single]
    assert remaining_configs(on_gpu, "memory") == [compiled, eager, wide] and remaining_configs(
        [eager, wide, single], "memory"
    ) == [wide]
    least, widest = (ExecutionConfig(half, fused_attention=False) for half in (torch.float16, torch.bfloat16))
    assert remaining_configs([least, replace(best, precision=torch.bfloat16), wide, widest, single], "memory") == [
        widest
    ]
    assert remaining_configs(on_gpu, "device") == on_gpu[1:] and remaining_configs([single], "device") == []


def test_non_finite_latents_are_detected_with_tiny_decoder(tiny: DiffusionAgent, tmp_path: Path) -> None:
    """The autoencoder decodes infinite latents as bright pixels."""
    agent = copy.deepcopy(tiny)
    agent.unet.conv_out.bias.data[0] = float("inf")
    AutoencoderTiny().save_pretrained(tmp_path)
    with pytest.raises(GenimaError, match="drawn target: not finite"):
        CompiledPipeline(agent, SamplingOptions(steps=1, tiny_decoder=str(tmp_path)), [EXACT]).generate_tiles(
            tiles(), GOALS[:1], seeded()
        )


def test_damaged_weights_and_full_memory_are_errors(tiny: DiffusionAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = copy.deepcopy(tiny)
    agent.unet.conv_out.bias.data[0] = float("nan")
    with pytest.raises(GenimaError, match="device cpu: no execution config works .drawn target: not finite.*damaged"):
        CompiledPipeline(agent, configs=[ExecutionConfig(torch.bfloat16), ExecutionConfig()]).generate_tiles(
            tiles(), GOALS[:1], seeded()
        )
    monkeypatch.setattr(DeviceNetworks, "_generate", failing(torch.OutOfMemoryError("full"), times=9))
    with pytest.raises(GenimaError, match="device cpu: no execution config works .the device has too little memory"):
        CompiledPipeline(copy.deepcopy(tiny), configs=[ExecutionConfig(), EXACT]).generate_tiles(
            tiles(), GOALS[:1], seeded()
        )


def test_lost_device_is_error_without_fallback(tiny: DiffusionAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = CompiledPipeline(copy.deepcopy(tiny), configs=[ExecutionConfig(cuda_graph=False), EXACT])
    engine.generate_tiles(tiles(), GOALS[:1], seeded())
    monkeypatch.setattr(DeviceNetworks, "_generate", failing(torch.AcceleratorError("CUDA error: unspecified\nx"), 9))
    for _ in range(2):
        with pytest.raises(GenimaError, match="device cpu: failed .CUDA error: unspecified.; check its driver"):
            engine.generate_tiles(tiles(), GOALS[:1], seeded())
    assert engine.config == ExecutionConfig()


def test_program_errors_are_not_hidden(tiny: DiffusionAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeviceNetworks, "_generate", failing(TypeError("a bug")))
    with pytest.raises(TypeError, match="a bug"):
        CompiledPipeline(copy.deepcopy(tiny), configs=[ExecutionConfig(), EXACT]).generate_tiles(
            tiles(), GOALS[:1], seeded()
        )


def test_execution_configs_of_devices() -> None:
    on_cpu, on_gpu = execution_configs(torch.device("cpu")), execution_configs(torch.device("cuda"))
    assert not any(plan.compile or plan.cuda_graph for plan in on_cpu)
    assert on_gpu[0].compile and on_gpu[0].cuda_graph and on_gpu[0].precision == torch.float16
    assert on_cpu[-1] == on_gpu[-1] == ExecutionConfig()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "shortcuts", [SamplingOptions(), SamplingOptions(strength=0.5), SamplingOptions(controlnet_every=2)]
)
def test_every_gpu_config_matches_agent(base_agent: DiffusionAgent, shortcuts: SamplingOptions) -> None:
    shown, former = tiles(count=2), tiles(1, count=2)

    def generate_all(agent: DiffusionAgent, plan: ExecutionConfig) -> list[Tensor]:
        engine = CompiledPipeline(agent, shortcuts, [plan])
        drawn = [engine.generate_tiles(shown, goals, seeded(), former) for goals in (GOALS, GOALS, GOALS[::-1])]
        assert engine.config == plan
        return drawn

    expected = generate_all(copy.deepcopy(base_agent), EXACT)
    for plan in execution_configs(torch.device("cuda")):
        agent = copy.deepcopy(base_agent)
        for module in agent.modules.values():
            module.cuda()
        for drawn, right in zip(generate_all(agent, plan), expected, strict=True):
            assert psnr(drawn, right) > 25, plan


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_fallback_restores_exact_weights(tiny: DiffusionAgent) -> None:
    expected = CompiledPipeline(copy.deepcopy(tiny), configs=[EXACT]).generate_tiles(tiles(), GOALS[:1], seeded())
    agent = copy.deepcopy(tiny)
    for module in agent.modules.values():
        module.cuda()
    engine = CompiledPipeline(agent, configs=[execution_configs(torch.device("cuda"))[0], ExecutionConfig()])
    engine.generate_tiles(tiles(), GOALS[:1], seeded())
    engine._fall_back("precision", "for this test")
    assert (
        psnr(engine.generate_tiles(tiles(), GOALS[:1], seeded()), expected) > 40 and engine.config == ExecutionConfig()
    )
