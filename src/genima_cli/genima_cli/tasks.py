"""``./genima tasks``: list the simulated tasks, draw a gallery, and check them (:mod:`genima_cli.task_checks`).

Modules of the simulator are imported only when a command runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.io.files import require_writable
from genima.io.outputs import require_free
from genima.system.command_group import Command, CommandGroup
from genima.system.command_line import Seed, parse_options
from genima.system.terminal import printable
from genima_sim.tasks import TASKS, get_task, variation_names

if TYPE_CHECKING:
    from genima.types import Image
    from genima_sim.environment import Environment
    from genima_sim.experts import Expert

_GALLERY_ATTEMPTS = 5  # seeds


@dataclass
class List:
    """List the simulated tasks with their variations and instructions."""


def list_tasks(argv: Sequence[str]) -> int:
    """Entry point of ``./genima tasks list``."""
    parse_options(List, "genima tasks list", argv, example="./genima tasks list")
    names = variation_names()
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {get_task(name).instruction}")
    return 0


@dataclass
class Gallery:
    """Draw each task at its start and when its expert has accomplished it, in one picture."""

    out: tyro.conf.Positional[Path]
    """PNG file for the picture."""
    tasks: tuple[str, ...] = ()
    """Names of tasks, or of variations such as open_drawer@1; default: all tasks."""
    view: str = "left_shoulder"
    """Camera."""
    seed: Seed = 1000
    """Seed of the placements; the next ones where the expert fails."""
    columns: Annotated[int, Field(ge=1, le=20)] = 5
    """Tasks in a row."""
    overwrite: bool = False
    """Replace a picture that is there; no other file is ever replaced."""


def draw_gallery(argv: Sequence[str]) -> int:
    """Entry point of ``./genima tasks gallery``."""
    options = parse_options(Gallery, "genima tasks gallery", argv, example="./genima tasks gallery gallery.png")
    if options.out.suffix.lower() != ".png":
        raise GenimaError(f"{options.out}: the picture is a .png file")
    for name in options.tasks:
        get_task(name)
    from contextlib import closing

    from tqdm import tqdm

    from genima.inspection.sheet import add_caption, grid, is_picture, write_picture
    from genima_sim.environment import Environment
    from genima_sim.experts import Expert

    require_free(options.out, "picture", options.overwrite, is_picture)
    require_writable(options.out)
    pictures = []
    with closing(Environment()) as environment:
        if options.view not in environment.simulation.cameras:
            views = ", ".join(environment.simulation.cameras)
            raise GenimaError(f"view {options.view!r}: not in the scene; use one of {views}")
        expert = Expert(environment.simulation.robot)
        for name in tqdm(options.tasks or list(TASKS), unit="task", dynamic_ncols=True):
            pair = _start_and_end(environment, expert, name, options)
            pictures.append(add_caption(grid([_half_size(image) for image in pair], gap=2), name))
    write_picture(options.out, grid(pictures, options.columns))
    print(f"gallery: {printable(options.out)}")
    return 0


def _start_and_end(environment: Environment, expert: Expert, task: str, options: Gallery) -> list[Image]:
    """Return the images before and after an expert's episode that succeeds.

    Raises:
        GenimaError: for a task whose expert fails several times.
    """
    from genima_sim.task_checks import run_expert

    for seed in range(options.seed, options.seed + _GALLERY_ATTEMPTS):
        environment.reset(task, seed)
        start = environment.observe().images[options.view]
        if run_expert(environment.simulation, expert, task, seed).success:
            return [start, environment.observe().images[options.view]]
    raise GenimaError(f"task {task}: the expert fails from seed {options.seed} on; run ./genima tasks check {task}")


def _half_size(image: Image) -> Image:
    """Return an image of half the size, for a picture of many."""
    import cv2
    import numpy as np

    return np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)


COMMANDS: dict[str, Command] = {
    "list": Command("genima_cli.tasks:list_tasks", "list tasks, variations and instructions"),
    "gallery": Command("genima_cli.tasks:draw_gallery", "draw every task before and after its expert"),
    "check": Command("genima_cli.task_checks:check_tasks", "check experts, limits and success tests"),
}
main = CommandGroup("tasks", COMMANDS, "Example: ./genima tasks check open_drawer --seeds 100 --guarded 20").run
