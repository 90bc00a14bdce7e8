"""Effect of sampling options on the small agent: fewer steps, partial schedules, reuse of the ControlNet's output.

Each is judged against ten steps from pure noise: by the pixels and degrees by which the spheres of held-out demos are
off, and by the success of the closed loop in simulation. Results are written as they come; the same command goes on
where it was interrupted.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from benchmark_report import require_report, write_report
from tqdm import tqdm

from genima.cameras.tiling import untile
from genima.data.datasets.target_dataset import TargetDataset, split
from genima.errors import GenimaError
from genima.evaluation.results import checkpoint_digest
from genima.io.files import read_json
from genima.io.outputs import require_same_settings
from genima.policy import spec as checkpoint
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.robot.model import RobotModel
from genima.targets.decoding import DecodingErrors, TargetDecoder, summarise_errors
from genima_cli import evaluate
from genima_sim.tasks import BUNDLED_TASKS

COMPARED = {
    "10 steps": SamplingOptions(steps=10),
    "5 steps": SamplingOptions(steps=5),
    "3 steps": SamplingOptions(steps=3),
    "2 steps": SamplingOptions(steps=2),
    "1 step": SamplingOptions(steps=1),
    "the last 5 of 10, from the drawing before": SamplingOptions(steps=10, strength=0.5),
    "the last 2 of 4, from the drawing before": SamplingOptions(steps=4, strength=0.5),
    "the last of 2, from the drawing before": SamplingOptions(steps=2, strength=0.5),
    "10 steps, ControlNet every other": SamplingOptions(steps=10, controlnet_every=2),
    "10 steps, ControlNet every fifth": SamplingOptions(steps=10, controlnet_every=5),
}
PERIOD = 4  # moments between targets: 0.2 s, a slow generation on two cores


@dataclass(frozen=True)
class Options:
    """Compare sampling options."""

    data: Path = Path("data/targets")
    """Dataset of ./genima render or ./genima train tiny, for the held-out demos."""
    checkpoint: Path | None = None
    """Folder with diffusion_agent/ and controller/; the bundled models if not given."""
    moments: int = 100
    """Held-out moments that are drawn."""
    episodes: int = 50
    """Episodes of each task in simulation; 0: only generate targets."""
    out: Path = Path("runs/drawing_steps.json")
    """JSON file; what it holds already of the same data and models is not measured again."""
    overwrite: bool = False
    """Start a new JSON file."""


def main() -> None:
    options = tyro.cli(Options)
    if options.moments < 1 or options.episodes < 0:
        raise GenimaError("--moments must be positive, --episodes not negative")
    _, folders = checkpoint.read_pair(options.checkpoint)
    settings = {"data": str(options.data.resolve()), "checkpoint_digest": checkpoint_digest(folders)}
    results = former_results(options, settings)
    torch.set_num_threads(1)
    targets = TargetDataset.load(options.data)
    with tqdm(COMPARED.items(), unit="shortcut", dynamic_ncols=True) as progress:
        for name, sampling in progress:
            progress.set_postfix_str(name)
            result = results.setdefault(name, {})
            if result.get("moments") != options.moments:
                result |= {"moments": options.moments, **measure_accuracy(options, sampling, targets)}
            for task in BUNDLED_TASKS:
                if options.episodes and result.get(task, {}).get("episodes") != options.episodes:
                    result[task] = success(options, sampling, task)
                    write_report(options.out, "drawing_steps", {"settings": settings, "results": results})
            write_report(options.out, "drawing_steps", {"settings": settings, "results": results})
    print_table(options, results)


def former_results(options: Options, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the results that are in the report already; they must be of the same data and models."""
    exists = options.out.is_file()
    require_report(options.out, "drawing_steps", options.overwrite or exists)  # replaced only where it is a report
    if not exists or options.overwrite:
        return {}
    report = read_json(options.out, "report")
    require_same_settings(f"report {options.out}", report.get("settings", {}), settings)
    results: dict[str, Any] = report.get("results", {})
    return results


def measure_accuracy(options: Options, sampling: SamplingOptions, targets: TargetDataset) -> dict[str, float]:
    """Measure sphere errors and generation time on held-out moments."""
    _, folders = checkpoint.read_pair(options.checkpoint)
    agent = DiffusionAgent.from_pretrained(folders[checkpoint.DIFFUSION_AGENT])
    engine, spec, moments = CompiledPipeline(agent, sampling), agent.spec, targets.moments
    engine.warm_up()
    robot = RobotModel.load(spec.robot)
    cameras = {view: targets.cameras[view].crop_square(spec.view_size) for view in spec.views}
    _, held_out = split(moments)
    held_out = held_out[[i >= PERIOD and moments.episode[i] == moments.episode[i - PERIOD] for i in held_out]]
    chosen = np.random.default_rng(0).choice(held_out, min(options.moments, len(held_out)), replace=False)
    errors: list[DecodingErrors] = []
    laps: list[float] = []
    for i in np.sort(chosen):
        former = None
        for moment in (i - PERIOD, i):
            seen = targets.observation(moment)
            started = time.perf_counter()
            tile = engine.generate_tiles(
                torch.from_numpy(seen)[None], [str(moments.instruction[i])], torch.Generator().manual_seed(int(moment)),
                former,
            )  # fmt: skip
            laps.append(1e3 * (time.perf_counter() - started))
            former = tile
        errors.append(
            TargetDecoder(cameras, robot, spec.appearance).errors(
                untile(tile[0].numpy(), spec.views), moments.target[i], bool(moments.target_open[i]),
                moments.positions[i], untile(seen, spec.views),
            )
        )  # fmt: skip
    summary = summarise_errors(errors)
    return {
        "milliseconds": float(np.median(laps[1::2])),  # of those with a previous target
        "px": summary["px"], "deg": summary["deg"], "found": summary["found"], "px_within_3": summary["px_within_3"],
    }  # fmt: skip


def success(options: Options, sampling: SamplingOptions, task: str) -> dict[str, Any]:
    """Measure the success of the closed loop by ``./genima eval``."""
    given = {f"--sampling.{name.replace('_', '-')}": value for name, value in asdict(sampling).items() if value}
    if options.checkpoint:
        given["--checkpoint"] = options.checkpoint
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        given |= {"--task": task, "--episodes": options.episodes, "--out": out}
        evaluate.main([str(word) for pair in given.items() for word in pair])
        result = json.loads(out.read_text(encoding="utf-8"))
    return {key: result[key] for key in ("episodes", "successes", "interval_95")}


def print_table(options: Options, results: dict[str, Any]) -> None:
    """A line for each shortcut."""
    tasks = "".join(f"{task:>23}" for task in BUNDLED_TASKS)
    print(f"{'':<44}{'ms':>8}{'x':>6}{'px':>7}{'deg':>7}{'found':>8}{tasks}")
    slowest = results[next(iter(COMPARED))]["milliseconds"]
    for name in COMPARED:
        r = results[name]
        line = f"{name:<44}{r['milliseconds']:>8.1f}{slowest / r['milliseconds']:>6.1f}{r['px']:>7.2f}{r['deg']:>7.2f}"
        line += f"{r['found']:>8.1%}"
        for task in BUNDLED_TASKS:
            if task in r:
                count = f"{r[task]['successes']} of {r[task]['episodes']}"
                line += f"{count:>23}"
        print(line)


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
