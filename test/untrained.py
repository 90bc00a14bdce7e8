"""Checkpoints with random weights, for tests of the plumbing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from genima.policy.controller import Controller
from genima.policy.diffusion_agent.small import small_agent
from genima.policy.small_text_encoder import small_text_encoder, small_tokenizer
from genima.policy.spec import PolicySpec
from genima.policy.visuomotor.act import Act, ActConfig
from genima.policy.visuomotor.action_space import JointStatistics
from genima.robot.model import RobotModel
from genima.targets import Appearance
from genima_sim.tasks import TASKS


def save_checkpoints(
    folder: Path, view_size: int = 64, of: str = "panda", views: tuple[str, ...] = PolicySpec.views
) -> Path:
    """Fill a folder with a diffusion agent and a controller that fit together, of a robot in config/robots."""
    torch.manual_seed(0)
    robot = RobotModel.load(of)
    appearance = Appearance(radii=dict.fromkeys(views, 0.06) | Appearance().radii)  # m
    spec = PolicySpec(of, robot.joint_names, views, view_size=view_size, appearance=appearance)
    instructions = [task.instruction for task in TASKS.values()]
    agent = small_agent(spec, instructions, torch.rand(2, 3, 2 * view_size, 2 * view_size) * 2 - 1)
    agent.save_pretrained(folder / "diffusion_agent")
    tokenizer = small_tokenizer(instructions)
    act = Act(ActConfig.small(spec.horizon, views=len(views)), small_text_encoder(tokenizer))
    statistics = JointStatistics(robot.home, np.full(len(robot.home), 0.05))
    Controller(spec, act, tokenizer, statistics).save_pretrained(folder / "controller")
    return folder


def randomize_zeros(module: nn.Module) -> None:
    """Give random weights to the layers that start at zero, so that everything has an effect."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if not parameter.any():
            with torch.no_grad():
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
