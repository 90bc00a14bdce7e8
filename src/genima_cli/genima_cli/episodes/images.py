"""``./genima episodes images``: render images of simulated demos from their states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.system.command_line import Workers, parse_options
from genima.system.terminal import printable


@dataclass
class Images:
    """Render images of simulated demos from their states, in parallel by Ray; interrupted, the same command resumes.

    Demos of ./genima record --lockstep hold states, with --images none nothing else.
    """

    demos: tyro.conf.Positional[Annotated[tuple[Path, ...], Field(min_length=1)]]
    """Demos, or folders of demos."""
    out: Path
    """Folder for the demos with images."""
    cell: str = "sim_panda"
    """Robot cell with the cameras: a name in config/cells or a YAML file."""
    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Side of the images in px; default: as the cell's calibrations."""
    perturb: tuple[str, ...] = ()
    """Perturbations of the scene's looks (docs/tasks.md), in addition to those that a demo was recorded with."""
    images: Literal["jpeg", "png"] = "jpeg"
    """Format of the images; png is lossless."""
    workers: Workers = 2
    """Processes."""
    address: str | None = None
    """Address of a Ray cluster, such as auto or ray://HOST:10001, whose machines share the folders; default: this
    machine."""


def render_images(argv: Sequence[str]) -> int:
    """Entry point of ``./genima episodes images``."""
    example = "./genima episodes images data/states --out data/demos --size 256"
    options = parse_options(Images, "genima episodes images", argv, example)
    from genima.data.episodes import find_episodes
    from genima.system.signals import interrupt_on_signals
    from genima_sim.demo_images import ImageOptions, render_demos

    demos = [demo for folder in options.demos for demo in find_episodes(folder)]
    if any(options.out.resolve() == demo.parent.resolve() for demo in demos):
        raise GenimaError(f"--out {options.out}: the folder of the demos; choose another one")
    images = ImageOptions(options.cell, options.size, options.images, options.perturb)
    try:
        with interrupt_on_signals():
            count = render_demos(demos, options.out, images, options.workers, options.address)
    except KeyboardInterrupt:
        print(f"\ninterrupted: the demos in {printable(options.out)} are complete; the same command resumes")
        return 130
    print(f"{count} demos rendered into {printable(options.out)}, {len(demos) - count} were there")
    return 0
