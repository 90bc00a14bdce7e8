"""The diffusion agent's training step at SD-Turbo's size, with random weights, against diffusers' ControlNet example.

All variants start from the same weights, and each runs in a process of its own, one after the other: the example (see
example_training.py), the example with one setting after the other changed to ours, and what ./genima train diffusion
runs, its loading, augmentation and checks included. The floor is what the products of a step and its optimiser take
at the device's peaks (see training_costs.py).
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import torch
import tyro
from accelerate import Accelerator
from benchmark_report import ReportOptions, require_report, write_report
from diffusers import ControlNetModel, StableDiffusionPipeline
from example_training import Example, ExampleBatch
from random_base import random_base
from torch.utils.benchmark import Timer
from training_costs import AVERAGE, GPUS, GRADIENT, MOMENTS, TEXT, WEIGHT, Costs, Gpu, count, largest_part

from genima.data.datasets.diffusion_samples import DiffusionSample, collate
from genima.data.datasets.sample_index import SampleIndex
from genima.errors import GenimaError
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.pretrained_base import BaseModel
from genima.policy.diffusion_agent.prompts import PromptEncoder
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.system.process_pool import WorkerPool
from genima.training import loop
from genima.training.diffusion import DiffusionLossModule, diffusion_loss
from genima.training.options import DiffusionOptions, LoopOptions

Variant = Literal[
    "example", "cached-prompts", "channels-last", "fused-optimizer", "cudnn-search",
    "ours", "compile", "checkpointing", "compile-checkpointing",
]  # fmt: skip
EXAMPLE: Variant = "example"
# The example with one setting changed, and with those before it.
CHANGED: tuple[Variant, ...] = ("cached-prompts", "channels-last", "fused-optimizer", "cudnn-search")
OURS: dict[Variant, DiffusionOptions] = {
    "ours": DiffusionOptions(),
    "compile": DiffusionOptions(compile=True),
    "checkpointing": DiffusionOptions(gradient_checkpointing=True),
    "compile-checkpointing": DiffusionOptions(compile=True, gradient_checkpointing=True),
}
VIEW_SIZES = {"sd-turbo": 256, "tiny": 32}  # px; a tile is twice as wide
WARM_UP = 5  # steps
SAME_LOSS = {"bf16": 1e-2, "no": 1e-5}  # relative, by accelerate's mixed precision
INSTRUCTIONS = ("push down the maroon button", "take the lid off the saucepan")


@dataclass
class Options(ReportOptions):
    """Compare training steps of the diffusion agent; the example is always among them."""

    size: Literal["sd-turbo", "tiny"] = "sd-turbo"
    """tiny: only to try the benchmark itself."""
    batch: int = 24
    """Tiles a step."""
    steps: int = 30
    """Measured steps."""
    variants: tuple[Variant, ...] = (*CHANGED, *OURS)
    """Variants to compare with the example: changed settings of the example; Genima's training, compiled, ..."""
    workers: int = 2
    """Processes that prepare samples for ours."""
    count_only: bool = False
    """Only count operations and memory; takes no GPU."""


@dataclass(frozen=True)
class Measurement:
    """A variant's steps."""

    loss: float  # before the first step, of the same batch and noise for all
    milliseconds: list[float]  # between the starts of steps
    peak_bytes: int  # of the device's memory


@dataclass(frozen=True)
class Result:
    """Report of a variant."""

    rate: float  # images/s
    ratio: float  # to the example's rate
    p50: float  # ms
    p99: float  # ms
    floor: float  # share of p50
    peak_gb: float
    loss: float


def main() -> None:
    options = tyro.cli(Options)
    if min(options.batch, options.steps) < 1 or options.workers < 0:
        raise GenimaError("--batch and --steps must be positive, --workers not negative")
    if options.size == "sd-turbo" and not options.count_only and not torch.cuda.is_available():
        raise GenimaError("SD-Turbo's size takes a GPU; --count-only counts without one")
    require_report(options.out, "training_step", options.overwrite)
    costs = count(options.size, 2 * VIEW_SIZES[options.size], options.batch)
    print_costs(options, costs)
    report = {"size": options.size, "batch": options.batch, "steps": options.steps, "costs": asdict(costs)}
    if not options.count_only:
        report |= compare(options, costs)
    write_report(options.out, "training_step", report)


def print_costs(options: Options, costs: Costs) -> None:
    """Operations, floors and memory."""
    gb, side = 1e9, 2 * VIEW_SIZES[options.size]
    print(f"{options.size}, {options.batch} tiles of {side} px, bfloat16; a step computes (TFLOP):")
    for part, operations in costs.operations.items():
        print(f"  {part + (' (not in the floor)' if part == TEXT else ''):<38}{operations / 1e12:>8.2f}")
    print("and keeps (GB; activations estimated, uncompiled):")
    checkpointing = count(options.size, side, options.batch, checkpointing=True)
    for what, size in {
        "trained weights": WEIGHT * costs.trained,
        "their gradients": GRADIENT * costs.trained,
        "AdamW's moments": MOMENTS * costs.trained,
        "with --ema, their average": AVERAGE * costs.trained,
        "frozen networks": costs.frozen_bytes,
        "activations": costs.activation_bytes,
        "with --gradient-checkpointing": checkpointing.activation_bytes,
    }.items():
        print(f"  {what:<38}{size / gb:>8.2f}")
    print(f"{'':<14}{'floor ms':>10}{'images/s':>10}{'GB':>8}   tiles at once of a batch, and with checkpointing")
    for name, gpu in GPUS.items():
        floor = costs.floor(gpu)
        parts = [largest_part(options.size, side, options.batch, again, gpu.memory) for again in (False, True)]
        fitting = f"{parts[0] or 'none'}, {parts[1] or 'none'}"
        print(f"  {name:<12}{floor * 1e3:>10.1f}{options.batch / floor:>10.1f}{gpu.memory / gb:>8.0f}   {fitting}")


def compare(options: Options, costs: Costs) -> dict[str, Any]:
    """Measure the variants and print a table.

    Raises:
        GenimaError: when the example does not fit into memory, or a variant's loss is not the example's.
    """
    results: dict[Variant, Result | None] = {}
    with WorkerPool(1, calls_per_process=1) as fresh:
        name, gpu = fresh.submit(device_peaks).result()
        floor = costs.floor(gpu) * 1e3
        print(f"\n{name}: {gpu.operations / 1e12:.4g} TFLOP/s, {gpu.bandwidth / 1e12:.4g} TB/s, floor {floor:.4g} ms")
        header = ("images/s", "x example", "p50 ms", "p99 ms", "of floor", "peak GB", "loss")
        print(f"{'':<24}" + "".join(f"{column:>11}" for column in header))
        for variant in dict.fromkeys((EXAMPLE, *options.variants)):
            measured = fresh.submit(measure, variant, options).result()
            if measured is None and variant == EXAMPLE:
                raise GenimaError(f"the example does not fit into {name}'s memory; choose a smaller --batch")
            if measured is None:
                results[variant] = None
                print(f"{variant:<24}{'does not fit into memory':>33}", flush=True)
                continue
            rate = options.batch / np.mean(measured.milliseconds) * 1e3
            p50, p99 = np.percentile(measured.milliseconds, (50, 99))
            example = results.get(EXAMPLE)
            results[variant] = r = Result(
                rate=float(rate), ratio=float(rate / example.rate) if example else 1.0, p50=float(p50), p99=float(p99),
                floor=float(floor / p50), peak_gb=measured.peak_bytes / 1e9, loss=measured.loss,
            )  # fmt: skip
            print(
                f"{variant:<24}{r.rate:>11.1f}{r.ratio:>11.2f}{r.p50:>11.1f}{r.p99:>11.1f}{r.floor:>11.0%}"
                f"{r.peak_gb:>11.1f}{r.loss:>11.5f}", flush=True,
            )  # fmt: skip
    require_same_loss(results)
    variants = {variant: asdict(result) if result else None for variant, result in results.items()}
    return {"device": name, "peaks": asdict(gpu), "floor_ms": floor, "variants": variants}


def require_same_loss(results: dict[Variant, Result | None]) -> None:
    """Raise a GenimaError when a variant computes something else than the example."""
    example = results[EXAMPLE]
    assert example
    for variant, result in results.items():
        if result and abs(result.loss - example.loss) > SAME_LOSS[mixed_precision()] * example.loss:
            raise GenimaError(f"{variant} computes a loss of {result.loss}, the example {example.loss}")


def mixed_precision() -> Literal["bf16", "no"]:
    """Return the precision of all variants."""
    return "bf16" if torch.cuda.is_available() else "no"


def device_peaks() -> tuple[str, Gpu]:
    """Name and peaks of the device, from the table or measured."""
    on_gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    for part, gpu in GPUS.items():
        if part in name:
            return name, gpu
    n, dtype, device = (8192, torch.bfloat16, "cuda") if on_gpu else (1024, torch.float32, "cpu")
    a, b = torch.randn(n, n, dtype=dtype, device=device), torch.randn(n, n, dtype=dtype, device=device)
    product = Timer("a @ b", globals={"a": a, "b": b}).blocked_autorange(min_run_time=0.3).median
    copy = Timer("a.copy_(b)", globals={"a": a, "b": b}).blocked_autorange(min_run_time=0.3).median
    return f"{name}, measured", Gpu(2 * n**3 / product, 2 * a.nbytes / copy)


# ------------------------------------------------------------------------------- what runs in a process of its own


class RandomTiles(torch.utils.data.Dataset[DiffusionSample]):
    """Noise for observations, with squares for spheres."""

    def __init__(self, view_size: int) -> None:
        self._side = 2 * view_size

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, visit: SampleIndex) -> DiffusionSample:
        condition = np.random.default_rng(visit.moment).integers(0, 256, (self._side, self._side, 3), np.uint8)
        target, eighth = condition.copy(), self._side // 8
        target[eighth : 2 * eighth, eighth : 2 * eighth] = (132, 104, 240)
        instruction = INSTRUCTIONS[visit.moment % len(INSTRUCTIONS)]
        return DiffusionSample(torch.from_numpy(condition), torch.from_numpy(target), instruction)


class Clock:
    """Takes the time on the device between steps, and from the end of the warm-up on its memory."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[Any] = []

    def mark(self, *_: object) -> None:
        """A step begins, or the last one ended."""
        if not self._on_gpu:
            self._marks.append(time.perf_counter())
            return
        if len(self._marks) == WARM_UP:
            torch.cuda.reset_peak_memory_stats()
        self._marks.append(torch.cuda.Event(enable_timing=True))
        self._marks[-1].record()

    def measurement(self, loss: float) -> Measurement:
        """Return the measurement of the steps after the warm-up."""
        marks = self._marks[WARM_UP:]
        if not self._on_gpu:
            return Measurement(loss, (np.diff(marks) * 1e3).tolist(), 0)
        torch.cuda.synchronize()
        laps = [start.elapsed_time(end) for start, end in zip(marks, marks[1:], strict=False)]
        return Measurement(loss, laps, torch.cuda.max_memory_allocated())


def measure(variant: Variant, options: Options) -> Measurement | None:
    """A variant's steps; None when they do not fit into memory."""
    diffusers.utils.logging.set_verbosity_error()
    try:
        return measure_ours(OURS[variant], options) if variant in OURS else measure_example(variant, options)
    except torch.OutOfMemoryError:
        return None


def measure_example(variant: Variant, options: Options) -> Measurement:
    """The example with some of its settings changed."""
    changed = CHANGED[: CHANGED.index(variant) + 1] if variant in CHANGED else ()
    torch.backends.cudnn.benchmark = "cudnn-search" in changed
    accelerator = Accelerator(mixed_precision=mixed_precision())
    pipeline, controlnet = networks(options.size, accelerator.device)
    example = Example(
        pipeline, controlnet, accelerator,
        channels_last="channels-last" in changed, fused_optimizer="fused-optimizer" in changed,
    )  # fmt: skip
    batch = example_batch(pipeline, first_batch(options), "cached-prompts" in changed)
    torch.manual_seed(0)
    loss = example.loss(batch).item()
    clock = Clock(accelerator.device)
    for _ in range(WARM_UP + options.steps):
        clock.mark()
        example.step(batch)
    clock.mark()
    return clock.measurement(loss)


def measure_ours(diffusion: DiffusionOptions, options: Options) -> Measurement:
    """Measure ./genima train diffusion up to its first checkpoint."""
    steps = WARM_UP + options.steps
    with tempfile.TemporaryDirectory() as folder:
        loop_options = LoopOptions(
            batch_size=options.batch, learning_rate=1e-5, steps=steps, save_every=steps,
            mixed_precision=mixed_precision(), workers=options.workers,
        )  # fmt: skip
        accelerator = loop.make_accelerator(loop_options, Path(folder))
        agent = random_agent(*networks(options.size, accelerator.device), VIEW_SIZES[options.size])
        model = diffusion_loss(agent, diffusion, accelerator.device, accelerator.mixed_precision)
        loss = loss_without_augmentation(model, first_batch(options), accelerator)
        clock = Clock(accelerator.device)
        model.register_forward_pre_hook(clock.mark)

        def save(_: Path) -> None:
            clock.mark()
            raise _Done

        tiles = RandomTiles(VIEW_SIZES[options.size])
        try:
            loop.run(
                model, tiles, collate, loop_options, Path(folder), save, lambda *_: {}, "", accelerator=accelerator
            )
        except _Done:
            return clock.measurement(loss)
    raise AssertionError("a training ends with a checkpoint")


class _Done(Exception):
    """Enough steps are measured."""


def networks(
    size: Literal["sd-turbo", "tiny"], device: torch.device
) -> tuple[StableDiffusionPipeline, ControlNetModel]:
    """The frozen base and the ControlNet to be trained, the same on every call.

    The ControlNet's outputs, zero at first, are given weights: zeros would hide its part in the loss.
    """
    pipeline = random_base(size, device=device)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.requires_grad_(False).eval()
    with torch.device(device):
        controlnet = ControlNetModel.from_unet(pipeline.unet).requires_grad_(True).train()
    for parameter in controlnet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return pipeline, controlnet


def random_agent(pipeline: StableDiffusionPipeline, controlnet: ControlNetModel, view_size: int) -> DiffusionAgent:
    """The agent of these networks."""
    spec = PolicySpec("panda", RobotModel.load("panda").joint_names, view_size=view_size)
    prompts = PromptEncoder([pipeline.tokenizer], [pipeline.text_encoder])
    base = BaseModel("random", pipeline.unet, pipeline.vae, prompts, pipeline.scheduler, fingerprint="")
    return DiffusionAgent(
        spec, pipeline.unet, controlnet, pipeline.vae, prompts, pipeline.scheduler, steps=1, base=base
    )


def first_batch(options: Options) -> DiffusionSample:
    """Return the batch for comparing losses."""
    tiles = RandomTiles(VIEW_SIZES[options.size])
    return collate([tiles[SampleIndex(i, i)] for i in range(options.batch)])


def example_batch(pipeline: StableDiffusionPipeline, batch: DiffusionSample, cached_prompts: bool) -> ExampleBatch:
    """A batch as the example takes it, on the pipeline's device."""
    device, tokenizer = pipeline.unet.device, pipeline.tokenizer
    tiles = (batch.condition, batch.target)
    condition, target = (x.to(device).permute(0, 3, 1, 2).contiguous().float() / 255 for x in tiles)
    template = PolicySpec.prompt_template
    ids = tokenizer(
        [template.format(goal=instruction) for instruction in batch.instruction],
        padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt",
    ).input_ids.to(device)  # fmt: skip
    with torch.no_grad():
        prompts = pipeline.text_encoder(ids).last_hidden_state if cached_prompts else None
    return ExampleBatch(target * 2 - 1, condition, ids, prompts)


def loss_without_augmentation(model: DiffusionLossModule, batch: DiffusionSample, accelerator: Accelerator) -> float:
    """Our loss of the very batch that the example sees; networks stay in training mode, so that they compile once."""
    crop, jitter, model.crop, model.jitter = model.crop, model.jitter, None, None
    torch.manual_seed(0)
    with accelerator.autocast():
        loss = model(batch)["loss"].item()
    model.crop, model.jitter = crop, jitter
    return loss


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
