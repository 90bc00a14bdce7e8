"""Ten minutes of a GPU: time to generate a full-size drawn target, its quality, and a training step, in one command.

Measurements run in the order of their importance, each in a process of its own; results are written as they come, so
that an interruption loses only the current one. Variants and networks are those of generation.py and training_step.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import generation
import numpy as np
import torch
import training_step
import tyro
from benchmark_report import require_report, write_report

from genima.errors import GenimaError

BASELINE: dict[str, str] = {"generate": generation.STOCK, "train": training_step.EXAMPLE}
GENERATE: tuple[tuple[generation.Variant, int], ...] = (
    ("fused-attention", 5),  # without a compiler: a figure within seconds
    ("diffusers", 5),
    ("overlap", 5),  # all that the node uses
    ("untiled", 5),
    ("overlap", 10),
    ("diffusers", 10),
    ("controlnet-every-2", 10),
    ("half-the-steps", 10),
)
TRAIN: tuple[training_step.Variant, ...] = ("ours", "example", "compile")
TITLES = {"overlap": "genima", "fused-attention": "genima, not compiled", "diffusers": "diffusers"}
COLUMNS = ("steps", "p50 ms", "p99 ms", "per s", "x stock", "PSNR dB", "peak GB", "ready s")


@dataclass(frozen=True)
class Options:
    """Measure the generation of drawn targets and a training step on a GPU."""

    out: Path = Path("runs/gpu.json")
    """JSON file for the results; the table goes beside it (.md)."""
    minutes: float = 10.0
    """Minutes after which no further measurement begins; one that runs is finished."""
    draws: int = 1000
    """Drawn targets a variant; a fifth of them without a compiled graph, which takes longer."""
    batch: int = 24
    """Tiles of a training step, as in the paper."""
    train_steps: int = 30
    """Training steps a variant."""
    workers: int = 2
    """Processes that prepare the samples of ours."""
    size: Literal["sd-turbo", "tiny"] = "sd-turbo"
    """tiny: only to try the benchmark itself, on a CPU."""
    overwrite: bool = False
    """Replace a report of this benchmark that is there."""


@dataclass(frozen=True)
class Row:
    """Measurement, or the reason why there is none."""

    kind: Literal["generate", "train"]
    variant: str
    steps: int  # diffusion steps of a drawn target; tiles of a training step
    p50: float | None = None  # ms
    p99: float | None = None  # ms
    rate: float | None = None  # drawn targets or tiles a second
    ratio: float | None = None  # p50 of the stock variant of the same kind and steps to this
    psnr: float | None = None  # dB, to single precision
    peak_gb: float | None = None
    ready: float | None = None  # s until the first drawn target: compilers
    problem: str = ""


def main() -> None:
    options = tyro.cli(Options)
    if min(options.draws, options.batch, options.train_steps) < 1 or not options.minutes > 0 or options.workers < 0:
        raise GenimaError("--minutes, --draws, --batch and --train-steps must be positive, --workers not negative")
    if options.size == "sd-turbo" and not torch.cuda.is_available():
        raise GenimaError("no GPU: full-size networks need one; --size tiny tries the benchmark itself on a CPU")
    require_report(options.out, "gpu", options.overwrite)
    name, peaks = generation.run_isolated(training_step.device_peaks)
    report: dict[str, Any] = {"device": name, "peaks": asdict(peaks), "torch": torch.__version__, "size": options.size}
    print(f"{name}, {options.size}\n{heading()}")
    rows: list[Row] = []
    for row in measurements(options, time.monotonic() + 60 * options.minutes):
        rows.append(row)
        rows = with_ratios(rows)
        print(line(rows[-1]), flush=True)
        write_report(options.out, "gpu", report | {"rows": [asdict(each) for each in rows]})
        table = "\n".join([f"{name}, {options.size}", "", heading(), *map(line, rows), ""])
        options.out.with_suffix(".md").write_text(table, encoding="utf-8")
    print(f"written: {options.out} and {options.out.with_suffix('.md')}")


def measurements(options: Options, deadline: float) -> Iterator[Row]:
    """Measure; after ``deadline``, in monotonic s, the rest is only named."""
    todo: list[tuple[Row, Callable[[], Row]]] = []
    for variant, steps in GENERATE:
        row = Row("generate", variant, steps)
        todo.append((row, partial(generate, row, options)))
    first = 4  # the targets at 5 steps come before the training step, the rest after it
    training = [(Row("train", variant, options.batch), variant) for variant in TRAIN]
    todo[first:first] = [(row, partial(train, row, options)) for row, _ in training]
    for row, measure in todo:
        if time.monotonic() > deadline:
            yield Row(row.kind, row.variant, row.steps, problem=f"not begun within {options.minutes:g} minutes")
            continue
        try:
            yield measure()
        except Exception as error:  # the others have figures nevertheless
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            yield Row(row.kind, row.variant, row.steps, problem=f"failed: {reason}")


def generate(row: Row, options: Options) -> Row:
    """Time one variant of generating drawn targets, and compare its images with single precision."""
    slow = row.variant in ("diffusers", "fused-attention", "untiled")
    draws = max(1, options.draws // 5) if slow else options.draws
    given = generation.Options(size=options.size, steps=row.steps, draws=draws)
    measured = generation.run_isolated(generation.measure, row.variant, given)
    expected = generation.run_isolated(generation.reference, given)
    p50, p99 = (float(p) for p in np.percentile(measured.milliseconds, (50, 99)))
    likeness = generation.psnr(measured.drawn, expected)
    return Row(
        "generate", row.variant, row.steps, p50, p99, 1e3 / p50, None, likeness, measured.peak_bytes / 1e9,
        measured.prepared_in,
    )  # fmt: skip


def train(row: Row, options: Options) -> Row:
    """Time one variant of the training step."""
    given = training_step.Options(
        size=options.size, batch=options.batch, steps=options.train_steps, workers=options.workers
    )
    measured = generation.run_isolated(training_step.measure, row.variant, given)
    if measured is None:
        return Row("train", row.variant, row.steps, problem=f"{options.batch} tiles do not fit into the memory")
    p50, p99 = (float(p) for p in np.percentile(measured.milliseconds, (50, 99)))
    rate = 1e3 * options.batch / float(np.mean(measured.milliseconds))
    return Row("train", row.variant, row.steps, p50, p99, rate, peak_gb=measured.peak_bytes / 1e9)


def with_ratios(rows: list[Row]) -> list[Row]:
    """Add the ratios to the stock variants that have been measured."""
    stock = {(row.kind, row.steps): row.p50 for row in rows if row.variant == BASELINE[row.kind]}
    ratios = [base / row.p50 if (base := stock.get((row.kind, row.steps))) and row.p50 else None for row in rows]
    return [Row(**{**asdict(row), "ratio": ratio}) for row, ratio in zip(rows, ratios, strict=True)]


def heading() -> str:
    """First lines of the table, in Markdown."""
    return f"| {'':<28}|" + "".join(f"{column:>9} |" for column in COLUMNS) + f"\n|{'---|' * (len(COLUMNS) + 1)}"


def line(row: Row) -> str:
    """Line of a measurement, in Markdown."""
    name = ("train: " if row.kind == "train" else "") + TITLES.get(row.variant, row.variant)
    if row.problem:
        return f"| {name:<28}|{row.steps:>9} | {row.problem} |" + " |" * (len(COLUMNS) - 2)
    values = (row.p50, row.p99, row.rate, row.ratio, row.psnr, row.peak_gb, row.ready)
    return f"| {name:<28}|{row.steps:>9} |" + "".join(
        f"{'' if value is None else f'{value:.2f}':>9} |" for value in values
    )


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
