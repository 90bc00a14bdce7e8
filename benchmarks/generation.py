"""Speed of the diffusion agent: diffusers' pipeline, then Genima's optimisations, one after the other.

At SD-Turbo's size with random weights (speed does not depend on them), or with the bundled small agent. Each variant
runs in a process of its own, one after the other, from the same weights, image and seeds. What is drawn is compared
with the agent's own drawing in single precision. The floor is what the networks' products, or the reading of their
weights, take at the device's peaks (see generation_costs.py).
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import diffusers
import numpy as np
import torch
import tyro
from benchmark_report import require_plot, require_report, write_report
from diffusers import AutoencoderTiny, StableDiffusionControlNetPipeline
from generation_costs import Costs, count
from tqdm import tqdm
from training_costs import GPUS
from training_step import VIEW_SIZES, device_peaks, networks, random_agent

from genima.errors import GenimaError
from genima.io import paths
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline
from genima.policy.diffusion_agent.execution_config import ExecutionConfig
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.precision import is_half_fast
from genima.system.process_pool import WorkerPool

Variant = Literal[
    "diffusers", "engine", "channels-last", "fused-attention", "compile", "cuda-graph", "overlap", "node",
    "bfloat16", "float32", "controlnet-every-2", "half-the-steps", "tiny-decoder", "untiled",
]  # fmt: skip
STOCK: Variant = "diffusers"
ADDED: dict[Variant, dict[str, bool]] = {  # to the engine's plan, one on top of the other
    "engine": {},
    "channels-last": {"channels_last": True},
    "fused-attention": {"fused_attention": True},
    "compile": {"compile": True},
    "cuda-graph": {"cuda_graph": True},
    "overlap": {"overlap": True},
}
CUT: dict[Variant, SamplingOptions] = {  # of the best plan's drawing
    "controlnet-every-2": SamplingOptions(controlnet_every=2),
    "half-the-steps": SamplingOptions(strength=0.5),
}
ON_GPU: tuple[Variant, ...] = (*(variant for variant in get_args(Variant) if variant != "node"), "node")
ON_CPU: tuple[Variant, ...] = (
    "diffusers", "engine", "channels-last", "fused-attention", "bfloat16", "controlnet-every-2", "node",
)  # fmt: skip
INSTRUCTION = "push down the maroon button"
WARM_UP, COMPARED = 5, 4  # drawings
NOISE = 1.0  # dB that an exact variant may lie below diffusers in half precision


@dataclass(frozen=True)
class Options:
    """Compare variants of image generation; diffusers' pipeline is always among them."""

    size: Literal["sd-turbo", "tiny", "small"] = "sd-turbo"
    """sd-turbo: random weights, 512x512; small: the bundled agent, 256x256; tiny: only to try the benchmark itself."""
    steps: int | None = None
    """Diffusion steps of a target; default: 5, with small those of the bundled agent."""
    draws: int = 1000
    """Measured targets."""
    variants: tuple[Variant, ...] = ()
    """Variants to compare with diffusers' pipeline; default: all of the device."""
    threads: int = 1
    """Processor cores, where there is no GPU."""
    count_only: bool = False
    """Only count operations and bytes."""
    out: Path | None = None
    """Write the result to this JSON file, and next to it a plot (.png)."""
    overwrite: bool = False
    """Replace a report of this benchmark and its plot that are there."""

    @property
    def side(self) -> int:
        """Return the side of a tile, px."""
        return 256 if self.size == "small" else 2 * VIEW_SIZES[self.size]


@dataclass(frozen=True)
class Measurement:
    """A variant's drawings."""

    milliseconds: list[float]  # image in, drawing out
    peak_bytes: int  # of the device's memory
    prepared_in: float  # s, until the first drawing
    drawn: Any = field(repr=False)  # (COMPARED, H, W, 3) uint8; None of the node, whose images are the cameras'


@dataclass(frozen=True)
class Result:
    """Report of a variant."""

    p50: float  # ms
    p99: float  # ms
    rate: float  # Hz
    ratio: float  # diffusers' p50 to this
    floor: float | None  # share of p50
    peak_gb: float
    prepared_in: float  # s
    psnr: float | None  # dB, to the drawing in single precision


def main() -> None:
    options = tyro.cli(Options)
    if options.draws < 1 or options.threads < 1 or (options.steps is not None and options.steps < 1):
        raise GenimaError("--draws, --threads and --steps must be positive")
    if options.size == "sd-turbo" and not options.count_only and not torch.cuda.is_available():
        raise GenimaError("SD-Turbo's size takes a GPU; --count-only counts without one, --size small runs here")
    require_report(options.out, "drawing", options.overwrite)
    require_plot(options.out and options.out.with_suffix(".png"), options.overwrite)
    costs = None if options.size == "small" else count(options.size, options.side)
    report: dict[str, Any] = {"size": options.size, "steps": steps_of(options), "draws": options.draws}
    if costs:
        print_costs(options, costs)
        report["costs"] = asdict(costs)
    save(options, report)
    if options.count_only:
        return
    results = {}
    for variant, result in compare(options, costs, report):
        results[variant] = result
        report["variants"] = {name: asdict(r) if isinstance(r, Result) else r for name, r in results.items()}
        save(options, report)
    if options.out:
        plot(report, options.out.with_suffix(".png"))
    require_equal_targets(results)


def save(options: Options, report: Mapping[str, Any]) -> None:
    """Write the results so far."""
    write_report(options.out, "drawing", report)


def steps_of(options: Options) -> int:
    """Return the diffusion steps of a target."""
    return options.steps or (1 if options.size == "small" else 5)


def print_costs(options: Options, costs: Costs) -> None:
    """Operations and bytes of each part, and what they imply."""
    steps = (5, 10)
    print(f"{options.size}, a tile of {options.side} px, half precision; one pass of")
    print(f"  {'':<30}{'TFLOP':>8}{'GB':>8}" + "".join(f"{name + ' ms':>14}" for name in GPUS))
    for name, part in costs.parts.items():
        floors = "".join(f"{part.floor(gpu) * 1e3:>14.3f}" for gpu in GPUS.values())
        print(f"  {name:<30}{part.operations / 1e12:>8.3f}{part.weight_bytes / 1e9:>8.3f}{floors}")
    print("a drawing takes at least (ms)")
    for tiny in (False, True):
        for n in steps:
            what = f"{n} steps{', tiny decoder' if tiny else ''}"
            floors = "".join(f"{costs.floor(gpu, n, tiny_decoder=tiny) * 1e3:>14.2f}" for gpu in GPUS.values())
            print(f"  {what:<46}{floors}")


def compare(options: Options, costs: Costs | None, report: dict[str, Any]) -> Iterator[tuple[Variant, Result | str]]:
    """Measure the variants, print a table, and tell each one's result, or why it has none.

    Raises:
        GenimaError: when diffusers' pipeline, which the others are compared with, does not work.
    """
    name, gpu = run_isolated(device_peaks)
    report |= {"device": name, "peaks": asdict(gpu)}
    wanted = options.variants or (ON_GPU if run_isolated(torch.cuda.is_available) else ON_CPU)
    print(f"\n{name}, {steps_of(options)} steps, {options.draws} drawings each")
    header = ("p50 ms", "p99 ms", "Hz", "x stock", "of floor", "peak GB", "ready s", "PSNR dB")
    print(f"{'':<20}" + "".join(f"{column:>10}" for column in header))
    expected = run_isolated(reference, options)
    stock: Result | None = None
    for variant in dict.fromkeys((STOCK, *wanted)):
        try:
            measured: Measurement = run_isolated(measure, variant, options)
        except Exception as error:  # others have figures nevertheless
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            if variant == STOCK:
                raise GenimaError(f"diffusers' pipeline fails on {name}: {why}") from error
            print(f"{variant:<20}  failed: {why}", flush=True)
            yield variant, f"failed: {why}"
            continue
        p50, p99 = (float(p) for p in np.percentile(measured.milliseconds, (50, 99)))
        cut = CUT.get(variant, SamplingOptions())
        floor = costs and costs.floor(
            gpu, steps_of(options), cut.controlnet_every, tiny_decoder=variant == "tiny-decoder"
        )
        if variant in ("untiled", "half-the-steps"):  # other work than was counted
            floor = None
        likeness = None if measured.drawn is None else psnr(measured.drawn, expected)
        r = Result(
            p50, p99, 1e3 / p50, stock.p50 / p50 if stock else 1.0, floor and floor * 1e3 / p50,
            measured.peak_bytes / 1e9, measured.prepared_in, likeness,
        )  # fmt: skip
        stock = stock or r
        share = f"{r.floor:>10.0%}" if r.floor else f"{'':>10}"
        print(
            f"{variant:<20}{r.p50:>10.2f}{r.p99:>10.2f}{r.rate:>10.1f}{r.ratio:>10.2f}{share}{r.peak_gb:>10.2f}"
            f"{r.prepared_in:>10.1f}{'' if likeness is None else f'{likeness:>10.1f}'}", flush=True,
        )  # fmt: skip
        yield variant, r


def run_isolated(function: Callable[..., Any], *given: Any) -> Any:
    """Run a function in a separate process, with an empty GPU, and return its result."""
    with WorkerPool(1) as fresh:
        return fresh.submit(function, *given).result()


def psnr(drawn: Any, expected: Any) -> float:
    """dB; infinite for the same pictures."""
    error = np.square(drawn.astype(float) - expected).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def require_equal_targets(results: Mapping[Variant, Result | str]) -> None:
    """Raise a GenimaError when a plan changes drawings by more than half precision does in diffusers' pipeline."""
    stock = results[STOCK]
    assert isinstance(stock, Result) and stock.psnr
    exact = {v: r.psnr for v, r in results.items() if v in ADDED and isinstance(r, Result) and r.psnr is not None}
    # On a CPU the pipeline has no half precision to be compared with.
    if torch.cuda.is_available() and (off := [v for v, psnr in exact.items() if psnr < stock.psnr - NOISE]):
        raise GenimaError(f"{', '.join(off)}: the drawings are further from the reference than diffusers' are")


def plot(report: dict[str, Any], path: Path) -> None:
    """A bar for each variant's p50, with its p99 and its floor."""
    import matplotlib.pyplot as plt

    results = {name: result for name, result in report["variants"].items() if not isinstance(result, str)}
    names, rows = list(results), list(results.values())
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(names) + 1.2), layout="constrained")
    p50 = np.array([row["p50"] for row in rows])
    axes.barh(names, p50, color="#4477aa", xerr=[0 * p50, [row["p99"] - row["p50"] for row in rows]])
    floors = [(i, row["floor"] * row["p50"]) for i, row in enumerate(rows) if row["floor"]]
    if floors:
        axes.plot([x for _, x in floors], [i for i, _ in floors], "k|", markersize=14, label="floor")
        axes.legend()
    axes.invert_yaxis()
    axes.set_xlabel(f"ms a drawing (p50, whisker to p99), {report['steps']} steps, {report['device']}")
    figure.savefig(path, dpi=100)
    plt.close(figure)


# ------------------------------------------------------------------------------- what runs in a process of its own


def begin(options: Options) -> torch.device:
    """Settings of a fresh process, and where it draws."""
    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    return torch.device("cuda" if torch.cuda.is_available() and options.size != "small" else "cpu")


def half(device: torch.device) -> torch.dtype:
    """Return the usual half precision of the device."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if is_half_fast(device) else torch.float32


def exact_agent(options: Options, device: torch.device, tiled: bool = True) -> DiffusionAgent:
    """Return the agent in single precision, the same on every call."""
    if options.size == "small":
        agent = DiffusionAgent.from_pretrained(paths.shared("models", "tiny") / "diffusion_agent")
    else:
        agent = random_agent(*networks(options.size, device), VIEW_SIZES[options.size])
    agent.steps, agent.tiled = steps_of(options), tiled
    for module in agent.modules.values():
        module.requires_grad_(False).eval()
    return agent


def observation_tiles(options: Options) -> Iterator[tuple[torch.Tensor, torch.Generator]]:
    """Tiles (1, H, W, 3) uint8 and the seeds to draw on them with, without end."""
    side = options.side
    pictures = torch.randint(0, 256, (COMPARED, side // 8, side // 8, 3), generator=torch.Generator().manual_seed(0))
    pictures = pictures.byte().repeat_interleave(8, 1).repeat_interleave(8, 2)
    n = 0
    while True:
        yield pictures[n % COMPARED][None], torch.Generator().manual_seed(n % COMPARED)
        n += 1


def reference(options: Options) -> Any:
    """The agent's own drawings in single precision, (COMPARED, H, W, 3) uint8."""
    agent = exact_agent(options, begin(options))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    engine = CompiledPipeline(agent, configs=[ExecutionConfig(channels_last=False, fused_attention=False)])
    given = itertools.islice(observation_tiles(options), COMPARED)
    return torch.cat([engine.generate_tiles(tile, [INSTRUCTION], seed) for tile, seed in given]).numpy()


def measure(variant: Variant, options: Options) -> Measurement:
    """A variant's drawings."""
    device = begin(options)
    started = time.perf_counter()
    if variant == "node":
        return measure_node(agent_of(variant, options, device), options)
    draw = stock(options, device) if variant == STOCK else generator_of(agent_of(variant, options, device))
    return measure_times(draw, variant, options, device, started)


def agent_of(variant: Variant, options: Options, device: torch.device) -> DiffusionAgent:
    """An agent with the engine of a variant."""
    added = list(ADDED.values())
    usable = added if device.type == "cuda" else added[:3]  # the others are not for CPUs
    position = list(ADDED).index(variant) + 1 if variant in ADDED else len(usable)
    plan = ExecutionConfig(half(device), channels_last=False, fused_attention=False)
    for change in added[:position]:
        plan = replace(plan, **change)
    if variant in ("bfloat16", "float32"):
        plan = replace(plan, precision=getattr(torch, variant))
    agent = exact_agent(options, device, tiled=variant != "untiled")
    shortcuts = CUT.get(variant, SamplingOptions())
    if variant == "tiny-decoder":
        folder = tempfile.mkdtemp()
        AutoencoderTiny().save_pretrained(folder)
        shortcuts = SamplingOptions(tiny_decoder=folder)
    agent.pipeline = CompiledPipeline(agent, shortcuts, configs=[plan])
    return agent


def generator_of(agent: DiffusionAgent) -> Callable[[torch.Tensor, torch.Generator], Any]:
    """Return a function that generates targets, each from the previous one."""
    former: list[torch.Tensor | None] = [None]

    def draw(tile: torch.Tensor, seed: torch.Generator) -> Any:
        former[0] = agent.pipeline.generate_tiles(tile, [INSTRUCTION], seed, former[0])
        return former[0].numpy()

    return draw


def stock(options: Options, device: torch.device) -> Callable[[torch.Tensor, torch.Generator], Any]:
    """Return diffusers' documented pipeline, in half precision on a GPU, single on a CPU."""
    agent = exact_agent(options, device)
    precision = torch.float16 if device.type == "cuda" else torch.float32
    kind: Any = LatentCondition if options.size == "small" else StableDiffusionControlNetPipeline
    pipeline = kind(
        vae=agent.vae, text_encoder=agent.prompts.encoders[0], tokenizer=agent.prompts.tokenizers[0], unet=agent.unet,
        controlnet=agent.controlnet, scheduler=agent.scheduler, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).to(device, precision)  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    prompt = agent.spec.prompt(INSTRUCTION)

    def draw(tile: torch.Tensor, seed: torch.Generator) -> Any:
        pixels = tile.permute(0, 3, 1, 2).to(device, precision) / 255
        if options.size == "small":
            pixels = agent.condition(agent.frames(tile))
        images = pipeline(
            prompt, pixels, height=options.side, width=options.side, num_inference_steps=agent.steps,
            guidance_scale=0.0, generator=seed, output_type="np",
        ).images  # fmt: skip
        return (images * 255).round().astype(np.uint8)

    return draw


class LatentCondition(StableDiffusionControlNetPipeline):
    """The pipeline for ControlNets that take latents, which it would take for a picture to draw on at that size."""

    def prepare_image(self, image: torch.Tensor, **_: Any) -> torch.Tensor:
        return image

    def prepare_latents(self, batch: int, channels: int, height: int, width: int, *others: Any) -> torch.Tensor:
        return super().prepare_latents(batch, channels, 8 * height, 8 * width, *others)


def measure_times(
    draw: Callable[[torch.Tensor, torch.Generator], Any], variant: str, options: Options, device: torch.device,
    started: float,
) -> Measurement:  # fmt: skip
    """Measure from the image on the host to the target on the host."""
    given, drawn, laps = observation_tiles(options), [], []
    draw(*next(given))
    ready = time.perf_counter() - started
    for _ in range(WARM_UP - 1):
        draw(*next(given))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    given = observation_tiles(options)
    bar = tqdm(range(max(options.draws, COMPARED)), desc=variant, leave=False, disable=None)
    for _ in bar:
        tile, seed = next(given)
        begun = time.perf_counter()
        result = draw(tile, seed)
        laps.append(1e3 * (time.perf_counter() - begun))
        drawn += [result] if len(drawn) < COMPARED else []
    return Measurement(laps, peak_bytes(), ready, np.concatenate(drawn))


def measure_node(agent: DiffusionAgent, options: Options) -> Measurement:
    """The node between a camera's images and its DrawnTarget, over DDS within one process, one set at a time."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import Image
    from std_msgs.msg import String

    from genima.cameras.tiling import untile
    from genima_interfaces.msg import DrawnTarget
    from genima_nodes.diffusion_agent import DiffusionAgentNode
    from genima_nodes.ros import messages, qos

    started = time.perf_counter()
    agent.pipeline.warm_up()
    ready = time.perf_counter() - started
    rclpy.init(args=["--ros-args", "--disable-external-lib-logs"])
    node, other = DiffusionAgentNode(agent), rclpy.create_node("cameras")
    publishers = {
        view: other.create_publisher(Image, f"cameras/{view}/color/image_raw", qos.IMAGE) for view in agent.views
    }
    task, came = other.create_publisher(String, "task", qos.TASK), threading.Event()
    received: list[DrawnTarget] = []

    def on_target(message: DrawnTarget) -> None:
        received.append(message)
        came.set()

    other.create_subscription(DrawnTarget, "drawn_target", on_target, qos.DRAWN_TARGET)
    executor = SingleThreadedExecutor()
    for each in (node, other):
        executor.add_node(each)
    threading.Thread(target=executor.spin, daemon=True).start()
    task.publish(String(data=INSTRUCTION))
    laps: list[float] = []
    width, height = agent.camera_size
    tiles = (tile[0].numpy() for tile, _ in observation_tiles(options))
    bar = tqdm(range(WARM_UP + options.draws), desc="node", leave=False, disable=None)
    for _ in bar:
        views = untile(next(tiles), agent.views)
        sent = {
            v: messages.image_message(np.resize(image, (height, width, 3)), time.time(), v)
            for v, image in views.items()
        }
        for message in sent.values():
            message.header.stamp = next(iter(sent.values())).header.stamp
        came.clear()
        begun = time.perf_counter()
        for view, message in sent.items():
            publishers[view].publish(message)
        if came.wait(30):
            laps.append(1e3 * (time.perf_counter() - begun))
    executor.shutdown()
    node.close()
    if len(laps) < options.draws:
        raise GenimaError(f"the node drew {len(laps)} of {options.draws} times")
    return Measurement(laps[WARM_UP:], peak_bytes(), ready, None)


def peak_bytes() -> int:
    """Return the peak GPU memory, including that of graphs."""
    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
