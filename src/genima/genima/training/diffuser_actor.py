"""Training of the policy ``diffuser_actor``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from genima.data.datasets.keyframe_dataset import KeyframeDataset, KeyposeBatch, collate
from genima.data.datasets.sample_index import SampleIndex, hold_out
from genima.policy.names import DIFFUSER_ACTOR
from genima.policy.small_text_encoder import small_text_encoder, small_tokenizer
from genima.policy.spec import convert_to_half
from genima.policy.visuomotor.keypose_model import KeyposeModel, decode_pose
from genima.policy.visuomotor.keypose_network import KeyposeConfig, KeyposeInput, KeyposeNetwork, Keyposes
from genima.policy.visuomotor.pretrained import load_clip, load_imagenet
from genima.robot.rigid_transforms import rotation_vector
from genima.system.command_line import check_options
from genima.training import loop
from genima.training.options import CLIP, IMAGENET, RANDOM, SMALL, KeyposeOptions, LoopOptions

_MARGIN = 0.1  # m around the keyposes of the demos: the bounds of the workspace


class KeyposeLossModule(nn.Module):
    """Module of a model's loss."""

    def __init__(self, model: KeyposeModel) -> None:
        super().__init__()
        self.model, self.network = model, model.network

    def forward(self, batch: KeyposeBatch) -> dict[str, Tensor]:
        """Return ``loss`` and its parts."""
        device = self.model.device
        target = Keyposes(batch.pose.to(device), batch.gripper.to(device))
        parts = self.network.losses(_inputs(self.model, batch), target)
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def load_datasets(folder: Path, names: Sequence[str]) -> tuple[KeyframeDataset, KeyframeDataset]:
    """Load the demos of a dataset for training and for validation.

    Raises:
        GenimaError: for fewer than two demos, and a dataset that is missing or damaged.
    """
    held_out = hold_out(names)
    return KeyframeDataset(folder, [name for name in names if name not in held_out]), KeyframeDataset(folder, held_out)


def build_keypose_model(
    dataset: KeyframeDataset, resnet: str = IMAGENET, clip: str = CLIP, seed: int = 0
) -> KeyposeModel:
    """Return an untrained model.

    Args:
        dataset: its keyposes give the bounds of the workspace.
        resnet: ImageNet weights on the hub or in a folder, or ``RANDOM``.
        clip: frozen text encoder on the hub or in a folder; ``SMALL``: a small network with a text encoder of its own,
            both from scratch.
        seed: of random weights.

    Raises:
        GenimaError: for a model found neither locally nor on the hub.
    """
    if clip == SMALL:
        torch.manual_seed(seed)
        tokenizer = small_tokenizer(dataset.instructions)
        network = KeyposeNetwork(KeyposeConfig.small(), small_text_encoder(tokenizer))
    else:
        encoder, tokenizer = load_clip(clip)
        torch.manual_seed(seed)
        network = KeyposeNetwork(KeyposeConfig(frozen_batch_norm=resnet != RANDOM), encoder)
        if resnet != RANDOM:
            load_imagenet(network.backbone, resnet)
    low, high = dataset.positions.min(0) - _MARGIN, dataset.positions.max(0) + _MARGIN
    network.workspace.copy_(torch.from_numpy(np.stack([low, high])))
    return KeyposeModel(dataset.spec, network, tokenizer, None if clip == SMALL else clip)


def train_diffuser_actor(
    model: KeyposeModel,
    training: KeyframeDataset,
    validation: KeyframeDataset,
    options: KeyposeOptions,
    loop_options: LoopOptions,
    folder: Path,
    accelerator: Accelerator | None = None,
    origin: str = "",
) -> None:
    """Train a model; checkpoints go to ``folder``.

    Args:
        model: trained in place.
        training: samples.
        validation: held-out samples.
        options: of the training.
        loop_options: length and learning rate.
        folder: of the training.
        accelerator: None: one of this machine.
        origin: identifies the initial weights; resuming requires the same.

    Raises:
        GenimaError: as :func:`loop.run`.
    """
    check_options(options)
    accelerator = accelerator or loop.make_accelerator(loop_options, folder)
    if accelerator.is_main_process:
        require_usable(model, training, folder, accelerator.device)
    accelerator.wait_for_everyone()
    chosen = np.random.default_rng(loop_options.seed).integers(0, len(validation), options.validation_keyposes)
    held_out = collate([validation[SampleIndex(int(i), k)] for k, i in enumerate(chosen)])
    model.unfreeze()
    model.network.train().to(accelerator.device)

    def save(checkpoint: Path) -> None:
        model.save_pretrained(checkpoint)
        if options.half:
            convert_to_half(checkpoint)

    about = {
        "spec": replace(model.spec, instructions=()).to_dict(),  # the data's fingerprint has them
        "network": asdict(model.network.config),
        "clip": model.clip,
        "data": training.fingerprint,
        "origin": origin,
        **asdict(options),
    }
    loop.run(
        KeyposeLossModule(model), training, collate, loop_options, folder, save,
        lambda step, checkpoint: keypose_errors(model, held_out), "mm", about, accelerator,
    )  # fmt: skip


def require_usable(model: KeyposeModel, dataset: KeyframeDataset, folder: Path, device: torch.device) -> None:
    """Check before training that a model can be saved, loaded and used.

    Raises:
        GenimaError: when loading or predicting fails.
    """
    with loop.trial_folder(folder) as copy, loop.translate_trial_errors(DIFFUSER_ACTOR):
        model.save_pretrained(copy)
        keypose_errors(KeyposeModel.from_pretrained(copy, str(device)), collate([dataset[SampleIndex(0, 0)]]))


@torch.inference_mode()
def keypose_errors(model: KeyposeModel, batch: KeyposeBatch) -> Mapping[str, float]:
    """Return the mean errors of predicted keyposes: mm, deg up to a half turn of the gripper, gripper accuracy."""
    predicted = model.network.sample(_inputs(model, batch), torch.Generator().manual_seed(0))
    found, true = (decode_pose(pose.double().cpu().numpy()) for pose in (predicted.pose, batch.pose))
    turned = true @ np.diag([-1.0, -1.0, 1.0, 1.0])  # about the approach
    angles = [
        np.linalg.norm(rotation_vector(found[:, :3, :3].swapaxes(-1, -2) @ other[:, :3, :3]), axis=-1)
        for other in (true, turned)
    ]
    right = (predicted.gripper.cpu() > 0.5) == (batch.gripper > 0.5)
    return {
        "mm": 1000 * float(np.linalg.norm(found[:, :3, 3] - true[:, :3, 3], axis=-1).mean()),
        "deg": float(np.degrees(np.minimum(*angles)).mean()),
        "gripper": float(right.float().mean()),
    }


def _inputs(model: KeyposeModel, batch: KeyposeBatch) -> KeyposeInput:
    return model.inputs(batch.images, batch.points, batch.valid, batch.history, batch.instructions)
