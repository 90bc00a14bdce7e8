"""Training commands of policies on camera images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from genima.training.options import CLIP, IMAGENET, LoopOptions, VisuomotorOptions


@dataclass
class VisuomotorTraining:
    """Options of all of them."""

    out: Path
    """Folder for the best and last checkpoint, with TensorBoard's logs."""
    loop: Annotated[LoopOptions, tyro.conf.arg(name="")]
    data: Path = Path("data/targets")
    """Folder of the dataset."""
    views: tuple[str, ...] | None = None
    """One to six of the rendered views; without it as rendered."""
    resnet: str = IMAGENET
    """ImageNet weights: on the Hugging Face hub, or a folder; `random`: none."""
    clip: str = CLIP
    """Text encoder, frozen: on the Hugging Face hub, or a folder; `small`: a small network, all from scratch."""
    action_space: Literal["joints", "delta_joints", "end_effector"] = "joints"
    """Actions of the network: joint positions; their changes from one to the next; poses of the gripper's tip."""
    training: Annotated[VisuomotorOptions, tyro.conf.arg(name="")] = field(default_factory=VisuomotorOptions)


def train_policy(name: str, options: VisuomotorTraining, config: Mapping[str, Any] | None = None) -> int:
    """Train a policy, by its name in the registry; return the exit code.

    ``config`` has choices of the network's configuration that do not follow from the dataset.
    """
    from genima.data.datasets.target_dataset import TargetDataset
    from genima.training import loop
    from genima.training.chunk_model import require_usable
    from genima.training.visuomotor import build_visuomotor, train_visuomotor

    accelerator = loop.make_accelerator(options.loop, options.out)
    targets = TargetDataset.load(options.data, options.views)
    seed, space = options.loop.seed, options.action_space
    policy = build_visuomotor(name, targets, options.resnet, options.clip, seed, config, space)
    if accelerator.is_main_process:
        require_usable(policy, options.out, accelerator.device)
    accelerator.wait_for_everyone()
    origin = f"{options.clip}, {options.resnet}"
    train_visuomotor(policy, targets, options.training, options.loop, options.out, accelerator, origin)
    if accelerator.is_main_process:
        print(f"\n{options.out}: best and last checkpoint; try it: ./genima eval --policy {options.out} --task TASK")
    return 0
