"""``./genima train diffuser_actor``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from genima.system.command_line import parse_options
from genima.training.options import CLIP, IMAGENET, KeyposeOptions, LoopOptions


@dataclass
class TrainDiffuserActor:
    """Train 3D Diffuser Actor on the keyframes of simulated demos: the paper's baseline with depth and a planner.

    It takes the demos themselves, with or without images (./genima record --lockstep --images none): images and depth
    of their keyframes are rendered from their states first, and kept. Datasets of ./genima render have no depth.
    Defaults are the GENIMA paper's (table 6). For several GPUs or machines run
    `accelerate launch --num_processes N -m genima_cli train diffuser_actor ...` in the environment of ./genima setup,
    with a dataset that was rendered before. Interrupted, the same command resumes from the last checkpoint.
    """

    demos: Annotated[tuple[Path, ...], Field(min_length=1)] = (Path("data/demos"),)
    """Folders of demos, searched recursively."""
    data: Path = Path("data/keyframes")
    """Folder of the dataset of keyframes; those that are there are kept."""
    out: Path = Path("runs/diffuser_actor")
    """Folder for the best and last checkpoint, with TensorBoard's logs."""
    cell: str = "sim_panda"
    """Simulated robot cell whose cameras see the scene: a name in config/cells or a YAML file."""
    views: tuple[str, ...] | None = None
    """One to six of the cell's views; without it all."""
    view_size: Annotated[int, Field(ge=8, le=4096)] = 256
    """Side of the images in px."""
    resnet: str = IMAGENET
    """ImageNet weights: on the Hugging Face hub, or a folder; `random`: none."""
    clip: str = CLIP
    """Text encoder, frozen: on the Hugging Face hub, or a folder; `small`: a small network, all from scratch."""
    training: Annotated[KeyposeOptions, tyro.conf.arg(name="")] = field(default_factory=KeyposeOptions)
    loop: Annotated[LoopOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopOptions(
            steps=550_000, batch_size=8, learning_rate=1e-4, weight_decay=5e-4, warmup_steps=0, gradient_clip=0.0
        )
    )


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train diffuser_actor``."""
    example = "./genima train diffuser_actor --demos data/demos --out runs/diffuser_actor"
    options = parse_options(TrainDiffuserActor, "genima train diffuser_actor", argv, example)

    from genima.data.episodes import find_episodes
    from genima.training import loop
    from genima.training.diffuser_actor import build_keypose_model, load_datasets, train_diffuser_actor
    from genima_sim.keyframe_images import render_keyframes

    accelerator = loop.make_accelerator(options.loop, options.out)
    demos = sorted({path for folder in options.demos for path in find_episodes(folder)})
    with accelerator.main_process_first():
        names = render_keyframes(demos, options.data, options.cell, options.views, options.view_size)
    training, validation = load_datasets(options.data, names)
    model = build_keypose_model(training, options.resnet, options.clip, options.loop.seed)
    origin = f"{options.clip}, {options.resnet}"
    train_diffuser_actor(model, training, validation, options.training, options.loop, options.out, accelerator, origin)
    if accelerator.is_main_process:
        print(f"\n{options.out}: best and last checkpoint; try it: ./genima eval --policy {options.out} --task TASK")
    return 0
