"""``./genima train diffusion``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from genima.system.command_line import parse_options
from genima.training.options import SD_TURBO, DiffusionOptions, InferenceSteps, LoopOptions


@dataclass
class TrainDiffusion:
    """Train a diffusion agent to draw the targets of a dataset that ./genima render made.

    Defaults are the GENIMA paper's (table 3). For several GPUs or machines run
    `accelerate launch --num_processes N -m genima_cli train diffusion ...` in the environment of ./genima setup.
    Interrupted, the same command resumes from the last checkpoint.
    """

    data: Path = Path("data/targets")
    """Folder of the dataset."""
    canonical: Path | None = None
    """Folder of a dataset of the same demos, on whose images the targets are drawn, where --data shows the scenes in
    random appearance (--perturb domain_randomization): the agent draws them in canonical appearance."""
    out: Path = Path("runs/mine")
    """Folder for the checkpoint diffusion_agent/ (its best and last), with TensorBoard's logs."""
    base: str = SD_TURBO
    """Pre-trained model: on the Hugging Face hub, or a folder (SD, SD-Turbo, SDXL-Turbo); `small`: from scratch."""
    conditioning: Literal["controlnet", "unet"] = "controlnet"
    """Input of the scene: a ControlNet made from the UNet, or the UNet itself, trained as in InstructPix2Pix."""
    tiled: bool = True
    """Draw the views as one picture; --no-tiled draws each by itself (the paper's ablation)."""
    views: tuple[str, ...] | None = None
    """Four of the rendered views in tile order; without it as rendered."""
    inference_steps: InferenceSteps = 10
    """Diffusion steps of a drawing in use; 5 take some 60% of the time."""
    diffusion: Annotated[DiffusionOptions, tyro.conf.arg(name="")] = field(default_factory=DiffusionOptions)
    loop: Annotated[LoopOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopOptions(epochs=200, batch_size=24, learning_rate=1e-5)
    )


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train diffusion``."""
    example = "./genima train diffusion --data data/targets --out runs/mine --base stabilityai/sd-turbo"
    options = parse_options(TrainDiffusion, "genima train diffusion", argv, example)

    from genima.data.datasets.target_dataset import TargetDataset
    from genima.policy.spec import DIFFUSION_AGENT, FOLDERS
    from genima.training import loop
    from genima.training.build_agent import build_agent
    from genima.training.diffusion import require_fitting, require_usable, train_diffusion

    folder = options.out / FOLDERS[DIFFUSION_AGENT]
    accelerator = loop.make_accelerator(options.loop, folder)
    targets = TargetDataset.load(options.data, options.views, canonical=options.canonical)
    require_fitting(options.diffusion, targets)
    agent = build_agent(
        options.base, targets, options.conditioning, options.tiled, options.inference_steps, options.loop.seed
    )
    if accelerator.is_main_process:
        require_usable(agent, targets, folder, accelerator.device)
    accelerator.wait_for_everyone()
    train_diffusion(agent, targets, options.diffusion, options.loop, folder, accelerator)
    if accelerator.is_main_process:
        print(f"\n{folder}: best and last checkpoint; ./genima inspect {folder} shows them")
    return 0
