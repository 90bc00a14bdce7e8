"""Size and latency of the policies at the small size.

Networks have random weights: the time does not depend on them. Policies predict alternately, chunk by chunk, so that
other load on the machine affects all equally; compare the ratios.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from pydantic import Field
from torch import nn

from genima.cell import SIMULATED, load_cell
from genima.errors import GenimaError
from genima.policy.act import ActPolicy
from genima.policy.base import Policy
from genima.policy.chunk_sampling_options import ChunkSamplingOptions
from genima.policy.controller import Controller
from genima.policy.diffusion_agent.small import small_agent
from genima.policy.diffusion_agent.video import FRAMES, feature_channels
from genima.policy.diffusion_policy import DiffusionPolicy
from genima.policy.genima import GenimaPolicy
from genima.policy.observed_views import ObservedViews
from genima.policy.small_text_encoder import small_text_encoder, small_tokenizer
from genima.policy.spec import VIDEOS, PolicySpec
from genima.policy.susie import GoalController, SusiePolicy
from genima.policy.video_policy import VideoPolicy
from genima.policy.visuomotor.action_space import JointStatistics
from genima.policy.visuomotor.keypose_model import KeyposeModel, encode_history, token_points
from genima.policy.visuomotor.keypose_network import KeyposeConfig, KeyposeNetwork
from genima.policy.visuomotor.model import NETWORKS, ChunkModel
from genima.policy.visuomotor.video import VideoConfig
from genima.robot.model import RobotModel
from genima.types import ActionChunk, Joints, Observation

INSTRUCTION = "push the button"
WARM_UP = 3
SAMPLERS = {
    "ddpm": ("ddpm", 50), "ddim": ("ddpm", 16), "warm_start": ("ddpm", 4), "edm": ("edm", 3),
    "truncated": ("truncated", 2), "mean_flow": ("mean_flow", 1),
}  # fmt: skip
"""Objective and steps of each sampler of the diffusion policy."""


@dataclass
class Options(ReportOptions):
    """Measure parameters and latency of the small policies."""

    chunks: Annotated[int, Field(ge=1)] = 30
    """Chunks of each policy."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Processor cores that they use."""
    view_size: Annotated[int, Field(ge=32)] = 128
    """Side of the views, px."""


@dataclass(frozen=True)
class Result:
    """Measurements of one policy."""

    parameters: int
    p50: float  # ms
    p99: float  # ms
    ratio: float  # of the median to act's


def main() -> None:
    """Measure, print and write the table."""
    options = tyro.cli(Options)
    require_report(options.out, "policies", options.overwrite)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    policies = make_policies(options.view_size)
    spec = next(iter(policies.values()))[0].spec
    width, height = spec.camera_size
    rng = np.random.default_rng(0)
    images = {view: rng.integers(0, 256, (height, width, 3)).astype(np.uint8) for view in spec.views}
    seen = Observation(0.0, images, Joints(0.0, RobotModel.load(spec.robot).home, 1.0), INSTRUCTION)
    times: dict[str, list[float]] = {name: [] for name in policies}
    for k in range(WARM_UP + options.chunks):
        for name, (policy, _) in policies.items():
            start = time.perf_counter()
            policy.predict_chunk(replace(seen, stamp=0.2 * k, latency=0.1))
            times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: float(np.median(each[WARM_UP:])) for name, each in times.items()}
    results = {
        name: Result(
            count_parameters(modules), medians[name], float(np.percentile(times[name][WARM_UP:], 99)),
            medians[name] / medians["act"],
        )
        for name, (_, modules) in policies.items()
    }  # fmt: skip
    print(f"{options.threads} threads, views of {options.view_size} px")
    print(f"{'policy':<30}{'parameters M':>14}{'p50 ms':>10}{'p99 ms':>10}{'ratio':>10}")
    for name, result in results.items():
        million = result.parameters / 1e6
        print(f"{name:<30}{million:>14.1f}{result.p50:>10.1f}{result.p99:>10.1f}{result.ratio:>10.1f}")
    write_report(options.out, "policies", {name: asdict(result) for name, result in results.items()})


def make_policies(view_size: int) -> dict[str, tuple[Policy, list[nn.Module]]]:
    """Return small policies with random weights, and their networks."""
    robot = RobotModel.load("panda")
    spec = PolicySpec(robot.name, robot.joint_names, view_size=view_size)
    tokenizer = small_tokenizer([INSTRUCTION])
    statistics = JointStatistics(robot.home, np.full(7, 0.5))

    def chunk_model(kind: type[ChunkModel], network: str, **choices: Any) -> ChunkModel:
        network_class, config = NETWORKS[network]
        sizes = config.small(spec.horizon, 7, kind.IMAGES * len(spec.views), **choices)
        built = network_class(sizes, small_text_encoder(tokenizer))
        built.fit(torch.randn(64, spec.horizon, 8))
        return kind(spec, built.requires_grad_(False).eval(), tokenizer, statistics)

    frames = torch.rand(2, 3, 2 * view_size, 2 * view_size) * 2 - 1
    drawing = small_agent(spec, [INSTRUCTION], frames, 1)
    modules = list(drawing.modules.values())
    for module in modules:
        module.requires_grad_(False).eval()
    controller, goal_controller = chunk_model(Controller, "act"), chunk_model(GoalController, "act")
    act = chunk_model(ActPolicy, "act")
    assert isinstance(controller, Controller) and isinstance(goal_controller, GoalController)
    policies: dict[str, tuple[Policy, list[nn.Module]]] = {
        "act": (act, [act.network]),
        "genima": (GenimaPolicy(drawing, controller), [*modules, controller.network]),
        "susie": (SusiePolicy(drawing, goal_controller), [*modules, goal_controller.network]),
    }
    for sampler, (objective, steps) in SAMPLERS.items():
        policy = chunk_model(DiffusionPolicy, "diffusion", objective=objective)
        assert isinstance(policy, DiffusionPolicy)
        policy.sampling = ChunkSamplingOptions(sampler=sampler, sampler_steps=steps)
        policies[f"diffusion_policy {sampler} {steps}"] = policy, [policy.network]
    video_model = small_agent(spec, [INSTRUCTION], frames, 1, "unet")
    video_model.draws = VIDEOS
    channels = feature_channels(video_model, VideoConfig.block)
    video = chunk_model(VideoPolicy, "video", frames=FRAMES, channels=channels)
    assert isinstance(video, VideoPolicy)
    video.video_model = video_model
    modules = list(video_model.modules.values())
    for module in modules:
        module.requires_grad_(False).eval()
    policies["video_policy"] = video, [*modules, video.network]
    network = KeyposeNetwork(KeyposeConfig.small(), small_text_encoder(tokenizer)).requires_grad_(False).eval()
    policies["diffuser_actor, a keypose"] = KeyposePredictor(KeyposeModel(spec, network, tokenizer)), [network]
    return policies


class KeyposePredictor:
    """Prediction of 3D Diffuser Actor at a keyframe, without its planner."""

    def __init__(self, model: KeyposeModel) -> None:
        self._model, self.spec = model, model.spec
        self._cameras = {
            view: camera.crop_square(model.spec.view_size)
            for view, camera in load_cell(SIMULATED).load_cameras().items()
        }
        self._views = ObservedViews(model.robot)

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`."""

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """Predict a keypose; the chunk rests."""
        model, home = self._model, observation.joints.positions
        size = model.spec.view_size
        depth = {view: np.full((size, size), 0.8, np.float32) for view in model.spec.views}
        points, valid = token_points(depth, self._cameras, model.robot, home)
        history = encode_history([model.robot.link_poses(home)[-1]], [True])
        views = list(self._views(observation, model.spec).values())
        model.predict(views, points, valid, history, observation.instruction)
        return ActionChunk(observation.stamp, 0.05, home[None], np.ones(1))


def count_parameters(modules: list[nn.Module]) -> int:
    """Return the number of parameters of networks."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        raise SystemExit(f"policies.py: {error}") from None
