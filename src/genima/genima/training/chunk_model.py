"""Training of models that predict action chunks: controllers, and policies on camera images."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from kornia.augmentation import ColorJiggle
from torch import Tensor, nn

from genima.data.datasets.chunk_samples import (
    ChunkBatch,
    ObservationDataset,
    action_encoding,
    collate,
    joint_range,
    joint_statistics,
)
from genima.data.datasets.controller_samples import ControllerDataset
from genima.data.datasets.sample_index import SampleIndex, TargetSamples
from genima.policy.small_text_encoder import small_text_encoder, small_tokenizer
from genima.policy.spec import PolicySpec, convert_to_half
from genima.policy.visuomotor.action_space import JOINTS
from genima.policy.visuomotor.backbone import BackboneConfig
from genima.policy.visuomotor.model import NETWORKS, ChunkModel
from genima.policy.visuomotor.pretrained import load_clip, load_imagenet
from genima.robot.ik import UnreachableError
from genima.robot.model import RobotModel
from genima.training import loop
from genima.training.options import CLIP, IMAGENET, NO_JITTER, RANDOM, SMALL, Jitter, LoopOptions
from genima.types import Joints

_SHOWN = 8  # samples in the picture
M = TypeVar("M", bound=ChunkModel)
ChunkDataset = ControllerDataset | ObservationDataset


class ChunkLossModule(nn.Module):
    """Module of a model's loss, with that of a video model where it is trained along."""

    def __init__(self, model: ChunkModel, video: nn.Module | None = None, jitter: Jitter = NO_JITTER) -> None:
        super().__init__()
        self.model, self.network, self.video = model, model.network, video
        self.jitter = ColorJiggle(*jitter) if any(jitter) else None

    def forward(self, batch: ChunkBatch) -> dict[str, Tensor]:
        """Return ``loss`` and its parts."""
        device = self.model.device
        images = batch.images
        if self.training and self.jitter:
            images = self._recolour(images.to(device), self.jitter)
        parts = self.network.losses(
            self.model.encode_images(images, batch.instructions),
            batch.proprioception.to(device),
            self.model.embed_instructions(batch.instructions),
            batch.actions.to(device),
            batch.padding.to(device),
        )
        if self.video:
            parts["video"] = self.video(batch.clips)["loss"]
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    @staticmethod
    def _recolour(images: Tensor, jitter: ColorJiggle) -> Tensor:
        """Jitter images (B, views, H, W, 3) uint8, the views of a sample as one image."""
        column = images.flatten(1, 2).movedim(-1, 1).float() / 255
        recoloured: Tensor = (jitter(column) * 255).round().to(torch.uint8)
        return recoloured.movedim(1, -1).unflatten(1, images.shape[1:3])


def build_chunk_model(
    model: type[M],
    network: str,
    spec: PolicySpec,
    moments: TargetSamples,
    resnet: str = IMAGENET,
    clip: str = CLIP,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    action_space: str = JOINTS,
) -> M:
    """Return an untrained model.

    Args:
        model: its class.
        network: a name in NETWORKS.
        spec: of the dataset.
        moments: samples, whose joints give the normalisation.
        resnet: ImageNet weights on the hub or in a folder, or ``RANDOM``.
        clip: frozen text encoder on the hub or in a folder; ``SMALL``: a small network with a text encoder of its own,
            both from scratch.
        seed: of random weights.
        config: choices of the network's configuration that do not follow from the dataset.
        action_space: a name in ACTION_SPACES.

    Raises:
        GenimaError: for a model found neither locally nor on the hub.
    """
    network_class, config_class = NETWORKS[network]
    unit_range = network_class.UNIT_RANGE
    statistics = (joint_range if unit_range else joint_statistics)(moments)
    encoding = action_encoding(action_space, RobotModel.load(spec.robot), moments, statistics, unit_range)
    sizes: dict[str, Any] = {
        "horizon": spec.horizon,
        "joints": len(spec.joint_names),
        "action_size": encoding.space.size,
        "views": model.IMAGES * len(spec.views),
        **(config or {}),
    }
    if clip == SMALL:
        torch.manual_seed(seed)
        tokenizer = small_tokenizer(moments.instructions)
        built = network_class(config_class.small(**sizes), small_text_encoder(tokenizer))
    else:
        encoder, tokenizer = load_clip(clip)
        torch.manual_seed(seed)
        if issubclass(config_class, BackboneConfig):
            sizes["frozen_batch_norm"] = resnet != RANDOM
        built = network_class(config_class(**sizes), encoder)
        if resnet != RANDOM:
            load_imagenet(built.backbone, resnet)
    chunks = np.stack([encoding.encode(*each) for each in zip(moments.actions, moments.positions, strict=True)])
    actions = np.concatenate([chunks, moments.action_gripper[..., None] > 0.5], -1)
    built.fit(torch.from_numpy(actions).float())
    return model(spec, built, tokenizer, statistics, None if clip == SMALL else clip, encoding)


def weights_fingerprint(model: ChunkModel) -> str:
    """Return a fingerprint of the network's weights."""
    digest = hashlib.sha256()
    for name, weights in model.network.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def train_chunk_model(
    model: ChunkModel,
    training: ChunkDataset,
    validation: ChunkDataset,
    about: Mapping[str, Any],
    options: LoopOptions,
    folder: Path,
    accelerator: Accelerator,
    *,
    validation_chunks: int,
    half: bool,
    video: nn.Module | None = None,
    jitter: Jitter = NO_JITTER,
) -> None:
    """Train a model; checkpoints go to ``folder``.

    Args:
        model: trained in place.
        training: samples.
        validation: held-out samples.
        about: what else the training depends on; resuming requires the same.
        options: length and learning rate.
        folder: of the training.
        accelerator: of the training.
        validation_chunks: number of held-out chunks to predict at every checkpoint.
        half: store the weights in half precision.
        video: maps clips to the ``loss`` of a video model to train along; ``training`` has the clips.
        jitter: of the training images' colours; part of ``about``.

    Raises:
        GenimaError: as :func:`loop.run`.
    """
    chosen = np.random.default_rng(options.seed).integers(0, len(validation), validation_chunks)
    held_out = collate([validation[SampleIndex(int(i), k)] for k, i in enumerate(chosen)])
    model.network.to(accelerator.device)

    def save(checkpoint: Path) -> None:
        model.save_pretrained(checkpoint)
        if half:
            convert_to_half(checkpoint)

    def validate(step: int, checkpoint: Path) -> Mapping[str, float]:
        _write_samples(training, checkpoint / "samples.png")
        return chunk_errors(model, held_out)

    about = {
        "spec": replace(model.spec, instructions=()).to_dict(),  # the data's fingerprint has them
        model.network_name: asdict(model.network.config),
        "clip": model.clip,
        "normalisation": fingerprint({name: part.tolist() for name, part in vars(model.statistics).items()}),
        **({"action space": model.encoding.name} if model.encoding.name != JOINTS else {}),
        "validation_chunks": validation_chunks,
        "half": half,
        **about,
    }
    loop.run(
        ChunkLossModule(model, video, jitter),
        training,
        collate,
        options,
        folder,
        save,
        validate,
        "mm/tip end",
        about,
        accelerator,
    )


def require_usable(model: ChunkModel, folder: Path, device: torch.device) -> None:
    """Check before training that a model can be saved, loaded and used.

    Args:
        model: untrained.
        folder: training folder; a temporary copy is written next to it.
        device: of the training.

    Raises:
        GenimaError: when loading or predicting fails.
    """
    spec = model.spec
    with loop.trial_folder(folder) as copy, loop.translate_trial_errors(model.KIND):
        model.save_pretrained(copy)
        used = type(model).from_pretrained(copy, str(device))
        images = np.zeros((model.IMAGES * len(spec.views), spec.view_size, spec.view_size, 3), np.uint8)
        with contextlib.suppress(UnreachableError):  # of untrained weights
            used.predict_actions(images, "nothing", Joints(0.0, model.statistics.mean, 1.0))


def fingerprint(data: Mapping[str, Any]) -> str:
    """Return a hash of plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


@torch.inference_mode()
def chunk_errors(model: ChunkModel, batch: ChunkBatch) -> dict[str, float]:
    """Return the mean errors of predicted chunks: joints in deg, tip in mm, gripper accuracy."""
    prediction = model.network.sample(
        model.encode_images(batch.images, batch.instructions),
        batch.proprioception.to(model.device),
        model.embed_instructions(batch.instructions),
    )
    starts = model.statistics.denormalise(batch.proprioception[:, :-1].double().numpy())
    predicted, true = (
        np.stack([model.encoding.decode(chunk, start) for chunk, start in zip(chunks, starts, strict=True)])
        for chunks in (prediction.actions.double().cpu().numpy(), batch.actions[..., :-1].double().numpy())
    )
    counts = ~batch.padding.numpy()
    tips = [model.robot.link_poses(q)[..., -1, :3, 3] for q in (predicted, true)]
    distance = np.linalg.norm(tips[0] - tips[1], axis=-1) * 1000
    degrees = np.degrees(np.abs(predicted - true))
    right = ((prediction.gripper.cpu() > 0.5) == (batch.actions[..., -1] > 0.5)).numpy()
    K = predicted.shape[1]
    by_joint = {f"deg/{name}": degrees[counts][:, j].mean() for j, name in enumerate(model.spec.joint_names)}
    errors = {
        "deg": degrees[counts].mean(),
        **by_joint,
        "mm/tip half-way": distance[:, K // 2][counts[:, K // 2]].mean(),
        "mm/tip end": distance[:, -1][counts[:, -1]].mean(),
        "gripper": right[counts].mean(),
    }
    return {key: float(value) for key, value in errors.items()}


def _write_samples(training: ChunkDataset, file: Path) -> None:
    """Write a picture of training samples, one per row."""
    indices = [SampleIndex(i * len(training) // _SHOWN, i) for i in range(_SHOWN)]
    rows = [np.concatenate(list(training[index].images.numpy()), axis=1) for index in indices]
    cv2.imwrite(str(file), np.concatenate(rows)[..., ::-1])
