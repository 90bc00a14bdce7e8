"""Inference time of the controller, and its lower bound.

Variants are timed alternately, call by call, so that other load on the machine affects all equally. The lower bound is
the longer of two times: the operations of one inference at this machine's measured rate of large matrix products (in
half precision where that is fast, for the backbone only), and one read of all weights from memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from torch.utils.flop_counter import FlopCounterMode

from genima.errors import GenimaError
from genima.policy.controller import Controller
from genima.policy.genima import load_pair
from genima.policy.precision import is_half_fast
from genima.policy.small_text_encoder import small_text_encoder, small_tokenizer
from genima.policy.spec import PolicySpec
from genima.policy.visuomotor.act import Act, ActConfig
from genima.policy.visuomotor.action_space import JointStatistics
from genima.robot.model import RobotModel
from genima.types import DrawnTarget, Joints

INSTRUCTION = "push the button"
WARM_UP = 5
_PRODUCT = 1024  # side of the matrices


@dataclass
class Options(ReportOptions):
    """Measure the controller's inference of one drawn target."""

    readings: int = 100
    """Inferences of each variant."""
    device: str = "cpu"
    """Device of the controllers."""
    threads: int = 1
    """Processor cores that they use."""


@dataclass(frozen=True)
class Result:
    p50: float  # ms
    p99: float  # ms
    operations: float  # FLOP
    limit: float  # ms
    ratio: float  # of the median to the first variant's


def main() -> None:
    options = tyro.cli(Options)
    if options.readings < 1 or options.threads < 1:
        raise GenimaError("--readings and --threads must be positive")
    require_report(options.out, "reading", options.overwrite)
    torch.set_num_threads(options.threads)
    bundled = load_pair(None, options.device)[1]
    variants = {"bundled": bundled, "paper's size": paper_size(options.device)}
    readings = {name: _reading(controller) for name, controller in variants.items()}
    operations = {name: _operations(read) for name, read in readings.items()}
    peak, bandwidth = measure_peak(options.device)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(WARM_UP + options.readings):
        for name, read in readings.items():
            start = time.perf_counter()
            read()
            times[name].append(1e3 * (time.perf_counter() - start))
    median = {name: float(np.median(t[WARM_UP:])) for name, t in times.items()}
    results = {}
    for name, controller in variants.items():
        weights = sum(p.numel() * p.element_size() for p in controller.network.parameters())
        limit = 1e3 * max(operations[name] / peak, weights / bandwidth)
        p99 = float(np.percentile(times[name][WARM_UP:], 99))
        results[name] = Result(median[name], p99, operations[name], limit, median[name] / median["bundled"])
    print(f"one drawn target a reading, {options.device}, {options.threads} threads; products of {_PRODUCT} squared: "
          f"{peak / 1e9:.0f} GFLOP/s, memory {bandwidth / 1e9:.1f} GB/s")  # fmt: skip
    print(f"{'':<16}{'p50 ms':>10}{'p99 ms':>10}{'GFLOP':>10}{'limit ms':>10}{'ratio':>10}")
    for name, r in results.items():
        print(f"{name:<16}{r.p50:>10.1f}{r.p99:>10.1f}{r.operations / 1e9:>10.2f}{r.limit:>10.1f}{r.ratio:>10.1f}")
    if options.out:
        content = {"device": options.device, "threads": options.threads, "peak": peak, "bandwidth": bandwidth,
                   "variants": {name: asdict(r) for name, r in results.items()}}  # fmt: skip
        write_report(options.out, "reading", content)


def paper_size(device: str) -> Controller:
    """ACT at table 4 of the paper with random weights; its time does not depend on them."""
    robot = RobotModel.load("panda")
    spec = PolicySpec(robot.name, robot.joint_names)
    tokenizer = small_tokenizer([INSTRUCTION])
    act = Act(ActConfig(joints=7, horizon=spec.horizon, views=len(spec.views)), small_text_encoder(tokenizer))
    act.requires_grad_(False).eval().to(device)
    return Controller(spec, act, tokenizer, JointStatistics(np.zeros(7), np.ones(7)))


def _reading(controller: Controller) -> Callable[[], object]:
    side = 2 * controller.spec.view_size
    tile = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    drawn = DrawnTarget(0.0, INSTRUCTION, controller.spec.views, tile)
    joints = Joints(0.0, controller.robot.home, 1.0)
    return lambda: controller.predict_chunk(
        drawn, joints
    )  # its chunk comes back from the device: nothing is left to wait for


def _operations(read: Callable[[], object]) -> float:
    read()  # the instruction is embedded once
    with FlopCounterMode(display=False) as counter:
        read()
    return float(counter.get_total_flops())


def measure_peak(device: str) -> tuple[float, float]:
    """FLOP/s of products of large matrices, and bytes/s of copying a large one; the best of a few."""
    half = torch.bfloat16 if is_half_fast(torch.device(device)) else torch.float32
    a = torch.randn(_PRODUCT, _PRODUCT, device=device).to(half)
    big = torch.randn(64 * 2**20 // 4, device=device)

    def seconds(work: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(10):
            start = time.perf_counter()
            work()
            if device != "cpu":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
        return best

    return 2 * _PRODUCT**3 / seconds(lambda: a @ a), 2 * big.numel() * 4 / seconds(lambda: big.clone())


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
