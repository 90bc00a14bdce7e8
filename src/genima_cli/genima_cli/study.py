"""``./genima study``: train and evaluate policies as a study's file says, and report on them.

Nothing slow is imported before the options are checked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from genima.system.command_line import Workers, parse_options


@dataclass
class RunStudy:
    """Train and evaluate policies as a study's file says, in parallel by Ray, and write tables and plots.

    What is there already is kept: interrupted, the same command resumes. The report is written at every end.
    """

    file: tyro.conf.Positional[Path]
    """YAML file of the study, such as config/studies/small.yaml."""
    out: Path | None = None
    """Folder for data, checkpoints, results and report.md; default: runs/ and the file's name. On a cluster, all
    machines share it."""
    workers: Workers = os.cpu_count() or 1
    """Jobs at a time on this machine; each uses one core."""
    address: str | None = None
    """Address of a Ray cluster, or auto; default: this machine."""
    budget: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Hours that may pass; a study that is expected to take longer is refused before it starts."""
    time_limit: Annotated[float, Field(gt=0, le=6_000_000)] | None = None
    """Minutes that may pass: trainings are stopped, with a checkpoint, when their share is used up. Then evaluations
    run in the report's order, until the time is over."""
    dry_run: bool = False
    """Print the jobs and how long they are expected to take; run nothing."""
    report: bool = False
    """Write the report of what is there; run nothing."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima study``."""
    options = parse_options(RunStudy, "genima study", argv, example="./genima study config/studies/small.yaml")

    from genima_cli.run_study import run

    return run(options)
