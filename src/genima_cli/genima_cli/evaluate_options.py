"""``./genima eval``: options of the evaluation in lock-step; nothing slow is imported before they have been checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from genima.errors import GenimaError
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.registry import GENIMA, require_policy
from genima.system.command_line import Episodes, Port, Seconds, Seed, Workers, parse_options
from genima_sim.coppeliasim import DEFAULT_HOST, DEFAULT_PORT


@dataclass
class Evaluate:
    """Measure success in simulation, in lock-step and without ROS.

    With --out the result is kept after each episode; interrupted, the same command resumes.
    """

    task: str
    """push_button or take_lid_off; in RLBench one of the paper's 25, by its file's name; in CoppeliaSim one that the
    scene's names know."""
    cell: str = "sim_panda"
    """Simulated robot cell: a name in config/cells or a YAML file; sim_rlbench needs RLBench, sim_coppeliasim a
    CoppeliaSim that runs (docs/coppeliasim.md)."""
    episodes: Episodes = 50
    """Number of episodes."""
    seed: Seed = 0
    """First seed; episode i uses seed + i. Demos are recorded with seeds from 100000 on."""
    policy: str = "genima"
    """Policy: genima (of --checkpoint), expert (scripted, our simulator), replay (of --episode), or package.module."""
    blank_targets: bool = False
    """With genima: give the controller blank images instead of drawn targets, to measure what it does without them."""
    checkpoint: Path | None = None
    """With genima: folder with diffusion_agent/ and controller/; default: the bundled models/tiny."""
    episode: str = ""
    """With replay: folder of the episode."""
    device: str = "cpu"
    """Device of the models."""
    threads: Workers = 1
    """Processor cores that the models use; the small ones are fastest on one."""
    horizon: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Actions executed before the next drawing takes over, 1 to K."""
    mode: Literal["overlapped", "serial"] = "overlapped"
    """overlapped: the next drawing is made while the chunk runs; serial: when it has been executed."""
    latency: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Seconds from an observation until its chunk can be followed; time stands still meanwhile if 0."""
    ensemble: Annotated[float, Field(ge=-100, le=100)] | None = None
    """Average chunks that overlap, the i-th oldest with weight exp(-M i), as ACT does; needs a --horizon below K."""
    time_limit: Seconds | None = None
    """Seconds of an episode; default: 20, in RLBench 10, which are 200 steps."""
    host: str = DEFAULT_HOST
    """With coppeliasim: machine that it runs on."""
    port: Port = DEFAULT_PORT
    """With coppeliasim: port of its ZeroMQ remote API."""
    drawing: SamplingOptions = field(default_factory=SamplingOptions)
    """Faster drawings, which are others."""
    out: Path | None = None
    """JSON file for the result; one that the same command left is continued."""
    overwrite: bool = False
    """Replace the result in --out, and evaluate anew."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima eval``."""
    options = parse_options(Evaluate, "genima eval", argv, example="./genima eval --task push_button --episodes 20")
    if options.out is not None and options.out.suffix != ".json":
        raise GenimaError(f"--out {options.out}: the result is a .json file")
    require_policy(options.policy)
    if options.blank_targets and options.policy != GENIMA:
        raise GenimaError(f"--blank-targets: only policy genima has drawn targets, not {options.policy}")
    from genima_cli.evaluate import run

    return run(options)
