"""Train the controller to follow drawn targets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from genima import paths
from genima.checkpoint import DrawingSpec
from genima.controller.act import Act, ActConfig, act_loss
from genima.controller.controller import Controller, pixels
from genima.datasets.chunks import ChunkBatch, ChunkDataset, Perturbation, collate, joint_statistics
from genima.datasets.demos import Demo, split
from genima.robot.model import RobotModel
from genima.text import small_text_encoder, small_tokenizer
from genima.training import loop
from genima.views.camera import load_cameras


def train_small_controller(demos: Sequence[Demo], spec: DrawingSpec, options: loop.LoopOptions, folder: Path) -> None:
    """Train a small ACT from scratch on the joints of ``demos``; the checkpoint goes to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    robot = RobotModel.load(spec.robot)
    cameras = load_cameras(paths.shared("calibration", "sim"))
    training_demos, validation_demos = split(demos)
    statistics = joint_statistics(training_demos)
    training = ChunkDataset(training_demos, robot, cameras, spec, statistics, Perturbation(), options.seed)
    validation = ChunkDataset(validation_demos, robot, cameras, spec, statistics, None, options.seed)
    tokenizer = small_tokenizer(sorted({demo.instruction for demo in training_demos}))
    act = Act(ActConfig.small(spec.horizon), small_text_encoder(tokenizer))
    controller = Controller(spec, act, tokenizer, statistics)
    rng = np.random.default_rng(options.seed)
    held_out = collate([validation[i] for i in rng.integers(0, len(validation), 128)])

    def loss(batch: ChunkBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        parts = controller_loss(controller, batch, generator)
        return sum(parts.values(), torch.zeros(())), {"joints": parts["joints"].item()}

    def save(step: int) -> None:
        controller.save_pretrained(folder)
        errors = {"step": step, **chunk_errors(controller, held_out)}
        with (folder / "validation.jsonl").open("a") as log:
            log.write(json.dumps(errors) + "\n")

    loop.run({"act": act}, loss, training, collate, options, folder, save)


def controller_loss(controller: Controller, batch: ChunkBatch, generator: torch.Generator) -> dict[str, Tensor]:
    """ACT's loss of a batch, by part."""
    act, device = controller.act, controller.act.query.device
    actions, padding = batch.actions.to(device), batch.padding.to(device)
    text = act.embed_text(controller.tokens(batch.instructions).to(device))
    output = act(pixels(batch.images).to(device), batch.proprioception.to(device), text, actions, padding, generator)
    return act_loss(output, actions, padding)


@torch.inference_mode()
def chunk_errors(controller: Controller, batch: ChunkBatch) -> dict[str, float]:
    """Mean error of predicted chunks: joints in degrees, tip in mm half-way and at the end, gripper's share right."""
    act, device = controller.act, controller.act.query.device
    text = act.embed_text(controller.tokens(batch.instructions).to(device))
    output = act(pixels(batch.images).to(device), batch.proprioception.to(device), text)
    predicted = controller.statistics.restore(output.actions.double().cpu().numpy())
    true = controller.statistics.restore(batch.actions[..., :-1].double().numpy())
    tips = [controller.robot.link_poses(q)[..., -1, :3, 3] for q in (predicted, true)]
    distance = np.linalg.norm(tips[0] - tips[1], axis=-1) * 1000
    right = (output.gripper.cpu() > 0) == (batch.actions[..., -1] > 0.5)
    K = predicted.shape[1]
    return {
        "joints_deg": float(np.degrees(np.abs(predicted - true)).mean()),
        "tip_mm_half": float(distance[:, K // 2].mean()),
        "tip_mm_end": float(distance[:, -1].mean()),
        "gripper": float(right.float().mean()),
    }
