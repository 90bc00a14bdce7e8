"""Tests of the training and image-generation benchmarks: equal results and counted operations."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import benchmark_report
import generation
import generation_costs
import pytest
import torch
import training_costs
import training_step
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from example_training import Example
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from genima.errors import GenimaError
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.precision import is_half_fast
from genima.training.diffusion import DiffusionLossModule, diffusion_loss
from genima.training.options import DiffusionOptions

OPTIONS = training_step.Options(size="tiny", batch=2, steps=2, workers=0)
SIDE = 2 * training_step.VIEW_SIZES["tiny"]
PLAIN = DiffusionOptions(jitter=(0, 0, 0, 0), crop=0)


@pytest.fixture(autouse=True)
def accelerator() -> Iterator[Accelerator]:
    """Single precision on one thread of the CPU; accelerate keeps one state for a whole process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for networks as small, more only wait for each other
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True, mixed_precision="no")
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(threads)


def our_loss(options: DiffusionOptions) -> DiffusionLossModule:
    pipeline, controlnet = training_step.networks("tiny", torch.device("cpu"))
    agent = training_step.random_agent(pipeline, controlnet, training_step.VIEW_SIZES["tiny"])
    return diffusion_loss(agent, options, torch.device("cpu"), "no").train()


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_ours_and_example_have_same_loss_and_gradient(accelerator: Accelerator, gradient_checkpointing: bool) -> None:
    ours = our_loss(replace(PLAIN, gradient_checkpointing=gradient_checkpointing))
    pipeline, controlnet = training_step.networks("tiny", torch.device("cpu"))
    theirs = Example(pipeline, controlnet, accelerator)
    samples = training_step.first_batch(OPTIONS)
    losses = []
    for loss in (
        lambda: ours(samples)["loss"],
        lambda: theirs.loss(training_step.example_batch(pipeline, samples, cached_prompts=False)),
    ):
        torch.manual_seed(3)
        losses.append(loss())
        losses[-1].backward()
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    gradients = [
        torch.cat([p.grad.flatten() for p in network.parameters()]) for network in (ours.agent.controlnet, controlnet)
    ]
    assert gradients[1].norm() > 0.01
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()


def test_half_precision_training_keeps_loss() -> None:
    pipeline, controlnet = training_step.networks("tiny", torch.device("cpu"))
    agent = training_step.random_agent(pipeline, controlnet, training_step.VIEW_SIZES["tiny"])
    exact, samples = our_loss(PLAIN), training_step.first_batch(OPTIONS)
    half = diffusion_loss(agent, PLAIN, torch.device("cpu"), "bf16").train()
    assert agent.unet.dtype == agent.vae.dtype == torch.bfloat16 and agent.controlnet.dtype == torch.float32
    torch.manual_seed(3)
    expected = exact(samples)["loss"]
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = half(samples)["loss"]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2) and loss.item() != expected.item()
    loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in controlnet.parameters())
    if is_half_fast(torch.device("cpu")):
        drawn, again = (
            a.generate_tiles(samples.condition, samples.instruction, torch.Generator().manual_seed(0)).float()
            for a in (agent, exact.agent)
        )
        assert (drawn - again).abs().mean() < 0.1 * (again - again.mean()).abs().mean()


def test_every_variant_runs_and_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_step, "WorkerPool", lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(training_step, "WARM_UP", 1)
    variants = [variant for variant in (*training_step.CHANGED, *training_step.OURS) if "compile" not in variant]
    out = tmp_path / "result.json"
    few = "--size tiny --batch 2 --steps 2 --workers 0".split()
    monkeypatch.setattr(sys, "argv", ["", *few, "--out", str(out), "--variants", *variants])
    training_step.main()
    report, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert list(report["variants"]) == ["example", *variants]
    example = report["variants"]["example"]
    for variant, result in report["variants"].items():
        assert variant in printed
        assert result["loss"] == pytest.approx(example["loss"], rel=1e-5)
        assert result["ratio"] == pytest.approx(result["rate"] / example["rate"])
        assert result["floor"] == pytest.approx(report["floor_ms"] / result["p50"])
        assert 0 < result["p50"] <= result["p99"] and 0 < result["rate"]


def test_variant_with_another_loss_is_rejected() -> None:
    same = training_step.Result(rate=1, ratio=1, p50=1, p99=1, floor=1, peak_gb=1, loss=1.0)
    training_step.require_same_loss({"example": same, "ours": replace(same, loss=1.000_001), "compile": None})
    with pytest.raises(GenimaError, match="ours computes a loss of 1.1"):
        training_step.require_same_loss({"example": same, "ours": replace(same, loss=1.1)})


@pytest.mark.parametrize(("argument", "complaint"), [("--batch=0", "--batch"), ("--size=sd-turbo", "takes a GPU")])
def test_unmeasurable_options_are_rejected(argument: str, complaint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["", argument])
    with pytest.raises(GenimaError, match=complaint):
        training_step.main()


def test_operations_on_shapes_equal_training_step() -> None:
    counted = training_costs.count("tiny", SIDE, OPTIONS.batch).operations
    model, samples = our_loss(PLAIN), training_step.first_batch(OPTIONS)
    model(samples)  # embeds the prompts, which is not counted for later steps
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = model(samples)["loss"]
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    assert forward.get_total_flops() == sum(counted[part] for part in ("autoencoder", "ControlNet", "UNet"))
    # Fused attention, which is counted on shapes, computes its scores again.
    assert backward.get_total_flops() == pytest.approx(counted["backward"], rel=0.05)
    assert backward.get_total_flops() < counted["backward"]


@pytest.mark.nightly
def test_costs_of_sd_turbo_need_no_gpu() -> None:
    plain, large = (training_costs.count("sd-turbo", 512, batch) for batch in (12, 24))
    again = training_costs.count("sd-turbo", 512, 24, checkpointing=True)
    assert plain.trained == 364_228_240  # as Stable Diffusion 2.1's released ControlNets
    assert large.operations["UNet"] / 24 == pytest.approx(0.8e12, rel=0.02)  # 0.4 T multiply-adds, as published
    for part, operations in plain.operations.items():
        assert large.operations[part] == pytest.approx(2 * operations)
    assert large.activation_bytes == pytest.approx(2 * plain.activation_bytes, rel=0.1)
    assert again.activation_bytes < 0.7 * large.activation_bytes
    h200, a100 = (training_costs.GPUS[name] for name in ("H200", "A100"))
    assert 0.05 < large.floor(h200) < 0.3 * large.floor(a100) + 0.01


def test_live_bytes_count_shared_memory_once() -> None:
    with training_costs.LiveBytes() as memory:
        a = torch.empty(1000, device="meta")
        b = a.view(10, 100)[2:]
        assert memory.live == memory.peak == 4000
        c = b * 2
        assert memory.live == 4000 + 3200
        del a, b
        assert memory.live == 3200 and memory.peak == 7200
        del c
    assert memory.live == 0


# generation


def test_counted_operations_match_pipeline() -> None:
    options = generation.Options(size="tiny", steps=3)
    agent = generation.agent_of("fused-attention", options, torch.device("cpu"))
    tile, seed = next(generation.observation_tiles(options))
    agent.pipeline.generate_tiles(tile, [generation.INSTRUCTION], seed)  # what is done once a task is not counted
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        agent.pipeline.generate_tiles(tile, [generation.INSTRUCTION], seed)
    costs = generation_costs.count("tiny", options.side)
    one = training_costs.Gpu(operations=1.0, bandwidth=float("inf"))  # its floor is the count
    assert costs.floor(one, steps=3) == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert costs.floor(one, 3, controlnet_every=2) < costs.floor(one, 3) < costs.floor(one, 4)


def test_counted_operations_of_full_size() -> None:
    parts = generation_costs.count("sd-turbo", 512).parts
    unet, controlnet = (parts[name] for name in (generation_costs.UNET, generation_costs.CONTROLNET))
    assert unet.weight_bytes == pytest.approx(2 * 865.9e6, rel=1e-3)  # weights as published
    assert controlnet.weight_bytes == pytest.approx(2 * 364.2e6, rel=0.01)
    h100 = training_costs.GPUS["H100"]
    assert unet.floor(h100) == pytest.approx(max(unet.operations / 989e12, unet.weight_bytes / 3.35e12))


def test_generation_benchmark_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A failing variant does not affect the results of the others."""
    monkeypatch.setattr(generation, "WorkerPool", lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(generation, "ON_CPU", ("engine", "channels-last", "fused-attention", "controlnet-every-2"))
    real = generation.agent_of

    def agent_of(variant: generation.Variant, *given: Any) -> DiffusionAgent:
        if variant == "channels-last":
            raise RuntimeError("no such layout\nhere")
        return real(variant, *given)

    monkeypatch.setattr(generation, "agent_of", agent_of)
    out = tmp_path / "generation.json"
    monkeypatch.setattr(sys, "argv", ["generation.py", "--size", "tiny", "--draws", "2", "--out", str(out)])
    generation.main()
    report = json.loads(out.read_text())
    assert list(report["variants"]) == ["diffusers", *generation.ON_CPU]
    assert report["variants"].pop("channels-last") == "failed: no such layout"
    assert all(result["p50"] > 0 and result["psnr"] > 20 for result in report["variants"].values())
    assert out.with_suffix(".png").stat().st_size > 5000
    for arguments, expected in ((["--draws", "0"], "must be positive"), ([], "takes a GPU")):
        monkeypatch.setattr(sys, "argv", ["generation.py", *arguments])
        if not torch.cuda.is_available():
            with pytest.raises(GenimaError, match=expected):
                generation.main()


# reports


def test_no_benchmark_writes_file_by_itself() -> None:
    scripts = set(Path(generation.__file__).parent.glob("*.py")) - {Path(benchmark_report.__file__)}
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        if "out: Path" in text or "ReportOptions" in text:
            assert "require_report(" in text and "write_report(" in text and "atomic_write" not in text, script


def test_report_replaces_only_reports_of_its_benchmark(tmp_path: Path) -> None:
    report = tmp_path / "new" / "report.json"
    benchmark_report.require_report(report, "leading", overwrite=False)
    benchmark_report.write_report(report, "leading", {"rate": 200})
    assert json.loads(report.read_text()) == {"benchmark": "leading", "rate": 200}
    benchmark_report.require_report(report, "leading", overwrite=True)
    with pytest.raises(GenimaError, match="already exists; name another, or replace it with --overwrite"):
        benchmark_report.require_report(report, "leading", overwrite=False)
    text, folder = tmp_path / "README.md", tmp_path / "folder"
    text.write_text("mine")
    folder.mkdir()
    for path in (report, text, folder):
        with pytest.raises(GenimaError):
            benchmark_report.require_report(path, "reading", overwrite=True)
        with pytest.raises(GenimaError):
            benchmark_report.require_plot(path, overwrite=True)
    assert text.read_text() == "mine"
    benchmark_report.require_report(None, "leading", overwrite=False)
    benchmark_report.write_report(None, "leading", {})
