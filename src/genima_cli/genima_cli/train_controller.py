"""``./genima train controller``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.system.command_line import parse_options
from genima.training.options import CLIP, IMAGENET, ControllerOptions, LoopOptions


@dataclass
class TrainController:
    """Train a controller to follow the drawn targets of a dataset that ./genima render made.

    Defaults are the GENIMA paper's (table 4) and the released ACT's. For several GPUs or machines run
    `accelerate launch --num_processes N -m genima_cli train controller ...` in the environment of ./genima setup.
    Interrupted, the same command resumes from the last checkpoint.
    """

    data: Path = Path("data/targets")
    """Folder of the dataset."""
    out: Path = Path("runs/mine")
    """Folder for the checkpoint controller/ (its best and last), with TensorBoard's logs."""
    views: tuple[str, ...] | None = None
    """Four of the rendered views in tile order, as for the diffusion agent; without it as rendered."""
    resnet: str = IMAGENET
    """ImageNet weights: on the Hugging Face hub, or a folder; `random`: none."""
    clip: str = CLIP
    """Text encoder, frozen: on the Hugging Face hub, or a folder; `small`: a small controller, all from scratch."""
    network: Literal["act", "diffusion"] = "act"
    """ACT, or the diffusion policy's network as a controller (figure 3 of the paper)."""
    action_space: Literal["joints", "delta_joints", "end_effector"] = "joints"
    """Actions of the network: joint positions; their changes from one to the next; poses of the gripper's tip."""
    pretrain: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Train on so many arbitrary reaching motions of the robot in place of the demos' (only their joints differ)."""
    init: Path | None = None
    """Start from the weights and normalisation of this checkpoint, such as one made with --pretrain."""
    chunks: Annotated[ControllerOptions, tyro.conf.arg(name="")] = field(default_factory=ControllerOptions)
    loop: Annotated[LoopOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: LoopOptions(
            epochs=1000, batch_size=96, learning_rate=1e-5, weight_decay=1e-4, warmup_steps=0, gradient_clip=0.0
        )
    )


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train controller``."""
    example = "./genima train controller --data data/targets --out runs/mine --epochs 1000"
    options = parse_options(TrainController, "genima train controller", argv, example)

    from genima.data.datasets.reach_samples import reach_samples
    from genima.data.datasets.target_dataset import TargetDataset
    from genima.policy.controller import Controller
    from genima.policy.spec import CONTROLLER, FOLDERS
    from genima.robot.model import RobotModel
    from genima.training import loop
    from genima.training.chunk_model import build_chunk_model, require_usable, weights_fingerprint
    from genima.training.controller import train_controller

    if options.chunks.full_context and options.pretrain:
        raise GenimaError("--full-context: --pretrain has no camera images; leave one of them out")
    folder = options.out / FOLDERS[CONTROLLER]
    accelerator = loop.make_accelerator(options.loop, folder)
    targets = TargetDataset.load(options.data, options.views)
    spec, moments, seed = targets.spec, targets.moments, options.loop.seed
    if options.pretrain:
        moments = reach_samples(
            RobotModel.load(spec.robot), spec.horizon, 1 / spec.action_rate, options.pretrain, seed,
            moments.instructions,
        )  # fmt: skip
    origin = f"{options.clip}, {options.resnet}"
    if options.init:
        controller = Controller.from_pretrained(options.init)
        controller.spec.require_same(spec, f"the checkpoint {options.init}", f"the dataset {options.data}")
        controller.unfreeze()
        origin = weights_fingerprint(controller)
    else:
        controller = build_chunk_model(
            Controller, options.network, spec, moments, options.resnet, options.clip, seed,
            action_space=options.action_space,
        )  # fmt: skip
    if accelerator.is_main_process:
        require_usable(controller, folder, accelerator.device)
    accelerator.wait_for_everyone()
    train_controller(
        controller, moments, targets.cameras, options.chunks, options.loop, folder, accelerator, origin,
        targets.observed_views,
    )  # fmt: skip
    if accelerator.is_main_process:
        print(f"\n{folder}: best and last checkpoint; ./genima inspect {folder} shows them")
    return 0
