"""``./genima train susie``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from genima.system.command_line import parse_options
from genima.training.options import (
    CLIP,
    IMAGENET,
    SD_TURBO,
    DiffusionOptions,
    InferenceSteps,
    LoopOptions,
    VisuomotorOptions,
)


@dataclass
class TrainSusie:
    """Train SuSIE on the camera images of a dataset that ./genima render made: first its agent, then its controller.

    Defaults are the GENIMA paper's (tables 3 and 4). For several GPUs or machines run
    `accelerate launch --num_processes N -m genima_cli train susie ...` in the environment of ./genima setup.
    Interrupted, the same command resumes from the last checkpoint.
    """

    data: Path = Path("data/targets")
    """Folder of the dataset."""
    out: Path = Path("runs/susie")
    """Folder for the checkpoints diffusion_agent/ and goal_controller/, with TensorBoard's logs."""
    views: tuple[str, ...] | None = None
    """One to six of the rendered views; without it as rendered."""
    base: str = SD_TURBO
    """Agent's pre-trained model: on the Hugging Face hub, or a folder; `small`: from scratch."""
    conditioning: Literal["controlnet", "unet"] = "controlnet"
    """Input of the scene to the agent: a ControlNet, or the UNet itself, trained as in InstructPix2Pix."""
    inference_steps: InferenceSteps = 10
    """Diffusion steps of a goal in use."""
    resnet: str = IMAGENET
    """Controller's ImageNet weights: on the Hugging Face hub, or a folder; `random`: none."""
    clip: str = CLIP
    """Controller's text encoder, frozen: on the Hugging Face hub, or a folder; `small`: a small controller."""
    diffusion: Annotated[DiffusionOptions, tyro.conf.arg(name="")] = field(default_factory=DiffusionOptions)
    agent: LoopOptions = field(default_factory=lambda: LoopOptions(epochs=200, batch_size=24, learning_rate=1e-5))
    chunks: VisuomotorOptions = field(default_factory=VisuomotorOptions)
    controller: LoopOptions = field(
        default_factory=lambda: LoopOptions(
            epochs=1000, batch_size=96, learning_rate=1e-5, weight_decay=1e-4, warmup_steps=0, gradient_clip=0.0
        )
    )


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train susie``."""
    example = "./genima train susie --data data/targets --out runs/susie --agent.epochs 200 --controller.epochs 1000"
    options = parse_options(TrainSusie, "genima train susie", argv, example)

    from genima.data.datasets.target_dataset import TargetDataset
    from genima.policy.spec import DIFFUSION_AGENT, FOLDERS, GOAL_CONTROLLER, GOALS
    from genima.policy.susie import GoalController
    from genima.training import chunk_model, diffusion, loop
    from genima.training.build_agent import build_agent
    from genima.training.visuomotor import train_visuomotor

    folders = {kind: options.out / FOLDERS[kind] for kind in (DIFFUSION_AGENT, GOAL_CONTROLLER)}
    targets = TargetDataset.load(options.data, options.views)
    diffusion.require_fitting(options.diffusion, targets)
    tiled = True
    agent = build_agent(
        options.base, targets, options.conditioning, tiled, options.inference_steps, options.agent.seed, GOALS
    )
    controller = chunk_model.build_chunk_model(
        GoalController, "act", targets.spec, targets.moments, options.resnet, options.clip, options.controller.seed
    )
    accelerator = loop.make_accelerator(options.agent, folders[DIFFUSION_AGENT])
    if accelerator.is_main_process:
        diffusion.require_usable(agent, targets, folders[DIFFUSION_AGENT], accelerator.device)
        chunk_model.require_usable(controller, folders[GOAL_CONTROLLER], accelerator.device)
    accelerator.wait_for_everyone()
    diffusion.train_diffusion(agent, targets, options.diffusion, options.agent, folders[DIFFUSION_AGENT], accelerator)
    accelerator = loop.make_accelerator(options.controller, folders[GOAL_CONTROLLER])
    origin = f"{options.clip}, {options.resnet}"
    train_visuomotor(
        controller, targets, options.chunks, options.controller, folders[GOAL_CONTROLLER], accelerator, origin
    )
    if accelerator.is_main_process:
        print(f"\n{options.out}: both halves; try them: ./genima eval --policy {options.out} --task TASK")
    return 0
