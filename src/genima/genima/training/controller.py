"""Training of the controller."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from genima.cameras.camera import Camera
from genima.data.datasets.augmentation import Augmentation
from genima.data.datasets.backgrounds import Backgrounds
from genima.data.datasets.controller_samples import (
    ControllerBatch,
    ControllerDataset,
    Perturbation,
    collate,
    joint_statistics,
)
from genima.data.datasets.sample_index import SampleIndex, TargetSamples
from genima.data.datasets.target_dataset import split
from genima.policy.controller import Controller
from genima.policy.small_text_encoder import small_text_encoder, small_tokenizer
from genima.policy.spec import PolicySpec, convert_to_half
from genima.policy.visuomotor.act import Act, ActConfig
from genima.policy.visuomotor.model import pixels
from genima.policy.visuomotor.pretrained import load_clip, load_imagenet
from genima.system.command_line import check_options
from genima.training import loop
from genima.training.options import CLIP, IMAGENET, RANDOM, ControllerOptions, LoopOptions
from genima.types import DrawnTarget, Joints

_SHOWN = 8  # samples in the picture


class ControllerLossModule(nn.Module):
    """Module of ACT's loss."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.network = controller.network  # a module, with the parameters

    def forward(self, batch: ControllerBatch) -> dict[str, Tensor]:
        """Return ``loss`` and its parts ``joints``, ``gripper`` and ``kl``."""
        device = self.controller.device
        actions, padding = batch.actions.to(device), batch.padding.to(device)
        text = self.controller.embed_instructions(batch.instructions)
        images, proprioception = pixels(batch.images.to(device)), batch.proprioception.to(device)
        parts = self.network.losses(images, proprioception, text, actions, padding)
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def build_controller(
    spec: PolicySpec, moments: TargetSamples, resnet: str = IMAGENET, clip: str = CLIP, seed: int = 0
) -> Controller:
    """Return an untrained controller of the paper's size, with a ResNet-18 (or ``RANDOM``) and a frozen CLIP.

    Raises:
        GenimaError: for a model found neither locally nor on the hub.
    """
    encoder, tokenizer = load_clip(clip)
    torch.manual_seed(seed)
    config = ActConfig(
        joints=len(spec.joint_names), horizon=spec.horizon, views=len(spec.views), frozen_batch_norm=resnet != RANDOM
    )
    act = Act(config, encoder)
    if resnet != RANDOM:
        load_imagenet(act, resnet)
    return Controller(spec, act, tokenizer, joint_statistics(moments), clip)


def build_small_controller(spec: PolicySpec, moments: TargetSamples, seed: int = 0) -> Controller:
    """Return an untrained small controller with a small text encoder, for training from scratch on a CPU."""
    torch.manual_seed(seed)
    tokenizer = small_tokenizer(moments.instructions)
    act = Act(ActConfig.small(spec.horizon, len(spec.joint_names), len(spec.views)), small_text_encoder(tokenizer))
    return Controller(spec, act, tokenizer, joint_statistics(moments))


def weights_fingerprint(controller: Controller) -> str:
    """Return a fingerprint of the controller's weights."""
    digest = hashlib.sha256()
    for name, weights in controller.network.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def train_controller(
    controller: Controller,
    moments: TargetSamples,
    cameras: Mapping[str, Camera],
    options: ControllerOptions,
    loop_options: LoopOptions,
    folder: Path,
    accelerator: Accelerator | None = None,
    origin: str = "",
) -> None:
    """Train ``controller`` on ``moments`` of demos or of arbitrary configurations; checkpoints go to ``folder``.

    ``origin`` identifies the initial weights; resuming requires the same.

    Raises:
        GenimaError: as :func:`loop.run`, and for a background that cannot be read.
    """
    check_options(options)
    accelerator = accelerator or loop.make_accelerator(loop_options, folder)
    in_training, in_validation = split(moments)
    shared = (controller.robot, cameras, controller.spec, controller.statistics, Backgrounds(options.backgrounds))
    augmentation = {"paper": Augmentation.paper, "small": Augmentation.small}[options.augmentation]()
    perturbation = Perturbation() if options.perturb else None
    training = ControllerDataset(moments[in_training], *shared, perturbation, augmentation, loop_options.seed)
    # Another seed: other backgrounds than in training.
    validation = ControllerDataset(moments[in_validation], *shared, seed=loop_options.seed + 1)
    chosen = np.random.default_rng(loop_options.seed).integers(0, len(validation), options.validation_chunks)
    held_out = collate([validation[SampleIndex(int(i), k)] for k, i in enumerate(chosen)])
    controller.network.to(accelerator.device)
    model = ControllerLossModule(controller)

    def save(checkpoint: Path) -> None:
        controller.save_pretrained(checkpoint)
        if options.half:
            convert_to_half(checkpoint)

    def validate(step: int, checkpoint: Path) -> Mapping[str, float]:
        _write_samples(training, checkpoint / "samples.png")
        return chunk_errors(controller, held_out)

    about = {
        "spec": controller.spec.to_dict(),
        "act": asdict(controller.network.config),
        "clip": controller.clip,
        "data": moments.fingerprint(),
        "cameras": _fingerprint({view: camera.to_dict() for view, camera in cameras.items()}),
        "normalisation": _fingerprint({name: part.tolist() for name, part in vars(controller.statistics).items()}),
        "origin": origin,
        **asdict(options),
    }
    loop.run(model, training, collate, loop_options, folder, save, validate, "mm/tip end", about, accelerator)


def require_usable(controller: Controller, folder: Path, device: torch.device) -> None:
    """Check before training that a controller can be saved, loaded and used.

    Args:
        controller: untrained.
        folder: training folder; a temporary copy is written next to it.
        device: of the training.

    Raises:
        GenimaError: when loading or predicting fails.
    """
    with loop.trial_folder(folder) as copy, loop.translate_trial_errors("controller"):
        controller.save_pretrained(copy)
        used, spec = Controller.from_pretrained(copy, str(device)), controller.spec
        drawn = DrawnTarget(0.0, "nothing", spec.views, np.zeros((*spec.tile_size, 3), np.uint8))
        used.predict_chunk(drawn, Joints(0.0, controller.statistics.mean, 1.0))


def _fingerprint(about: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


@torch.inference_mode()
def chunk_errors(controller: Controller, batch: ControllerBatch) -> dict[str, float]:
    """Return the mean errors of predicted chunks: joints in deg, tip in mm, gripper accuracy."""
    output = controller.network.sample(
        pixels(batch.images.to(controller.device)),
        batch.proprioception.to(controller.device),
        controller.embed_instructions(batch.instructions),
    )
    predicted = controller.statistics.denormalise(output.actions.double().cpu().numpy())
    true = controller.statistics.denormalise(batch.actions[..., :-1].double().numpy())
    counts = ~batch.padding.numpy()
    tips = [controller.robot.link_poses(q)[..., -1, :3, 3] for q in (predicted, true)]
    distance = np.linalg.norm(tips[0] - tips[1], axis=-1) * 1000
    degrees = np.degrees(np.abs(predicted - true))
    right = ((output.gripper.cpu() > 0.5) == (batch.actions[..., -1] > 0.5)).numpy()
    K = predicted.shape[1]
    by_joint = {f"deg/{name}": degrees[counts][:, j].mean() for j, name in enumerate(controller.spec.joint_names)}
    errors = {
        "deg": degrees[counts].mean(),
        **by_joint,
        "mm/tip half-way": distance[:, K // 2][counts[:, K // 2]].mean(),
        "mm/tip end": distance[:, -1][counts[:, -1]].mean(),
        "gripper": right[counts].mean(),
    }
    return {key: float(value) for key, value in errors.items()}


def _write_samples(training: ControllerDataset, file: Path) -> None:
    """Write a picture of training samples, one per row."""
    indices = [SampleIndex(i * len(training) // _SHOWN, i) for i in range(_SHOWN)]
    rows = [np.concatenate(list(training[index].images.numpy()), axis=1) for index in indices]
    cv2.imwrite(str(file), np.concatenate(rows)[..., ::-1])
