"""``./genima train tiny``: train the small models from nothing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from genima.policy.names import DIFFUSER_ACTOR, GENIMA, SUSIE, VIDEO_POLICY
from genima.system.command_line import parse_options
from genima.system.process_pool import WorkerPool
from genima.system.signals import interrupt_on_termination
from genima.training.options import (
    SMALL,
    ControllerOptions,
    DiffusionOptions,
    KeyposeOptions,
    LoopOptions,
    Objective,
    Seed,
    Steps,
    VisuomotorOptions,
)
from genima_sim.tasks import BUNDLED_TASKS, task_names

VIEW_SIZE = 128  # px: a quarter of the pixels of the paper's views
_SPHERE_WEIGHT = 6.0
_EMA = 0.995
_SAVING = 120.0  # s after Ctrl-C for a step and a checkpoint of each training; a few on a quiet machine


@dataclass
class TrainTiny:
    """Record demos, render their targets, then train a small policy from scratch; if it has two models, side by side.

    Everything that is already there is kept: interrupted, the same command resumes.
    """

    policy: Literal["genima", "act", "diffusion_policy", "susie", "video_policy", "diffuser_actor"] = "genima"
    """Policy to train."""
    objective: Objective = "ddpm"
    """With diffusion_policy and video_policy: what is trained, which limits the samplers in use (docs/policies.md)."""
    out: Path | None = None
    """Folder for the checkpoints; default: runs/tiny for genima, runs/tiny_act for act, and so on."""
    demos: Path = Path("data/demos")
    """Folder for the demos, 6 MB each."""
    data: Path = Path("data/targets")
    """Folder for the dataset of drawn targets, 3 MB a demo."""
    keyframes: Path = Path("data/keyframes")
    """With diffuser_actor: folder for the dataset of keyframes, in place of targets."""
    task: Annotated[tuple[str, ...], Field(min_length=1)] = BUNDLED_TASKS
    """Tasks to record; all: every task of ./genima tasks list."""
    episodes: Annotated[int, Field(ge=1, le=100_000)] = 200
    """Demos of each task; where the expert fails, the next seed takes its place."""
    agent_steps: Steps = 8000
    """Training steps of the diffusion agent of genima and susie, or the video model of video_policy, 8 drawings each;
    0: leave it out."""
    controller_steps: Steps = 16300
    """Training steps of the controller of genima and susie, 16 chunks each; 0: leave it out."""
    policy_steps: Steps = 10000
    """Training steps of another policy, 16 chunks or keyposes each."""
    save_every: Annotated[int, Field(ge=1, le=10**9)] = 400
    """Steps between checkpoints."""
    threads: Annotated[int, Field(ge=1, le=256)] = 2
    """Processor cores to use."""
    seed: Seed = 0
    """Of all randomness in training."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train tiny``."""
    example = "./genima train tiny --out runs/tiny --episodes 200 --threads 2"
    options = parse_options(TrainTiny, "genima train tiny", argv, example)
    interrupt_on_termination()  # checkpoints are saved

    from tqdm import tqdm

    from genima.data.datasets.render import render
    from genima.data.datasets.target_dataset import TargetDataset
    from genima_cli.render import Render, make_plan
    from genima_sim import demo_recorder as record

    options.out = options.out or Path("runs/tiny" if options.policy == GENIMA else f"runs/tiny_{options.policy}")
    tasks = task_names(options.task)
    record.record(options.demos, tasks, options.episodes, workers=options.threads)
    demos = sorted(record.demo_folders(options.demos, tasks, options.episodes))
    if options.policy == DIFFUSER_ACTOR:
        _train_diffuser_actor(options, demos)
        print(f"\n{options.out}: trained; try it: ./genima eval --task {tasks[0]} --policy {options.out}")
        return 0
    plan = make_plan(Render(view_size=VIEW_SIZE), demos)
    print(f"{options.data}: {render(plan, options.data, options.threads)}")
    TargetDataset.load(options.data)  # unpacked once, not by both trainings at a time
    steps_of = {_train_agent: options.agent_steps, _train_controller: options.controller_steps}
    if options.policy not in (GENIMA, SUSIE):
        train = _train_video_policy if options.policy == VIDEO_POLICY else _train_policy
        steps_of = {train: options.policy_steps}
    halves = [train for train, steps in steps_of.items() if steps]
    # Two trainings of one thread each do more than one after the other with two: the networks are small.
    threads, lock = max(1, options.threads // max(1, len(halves))), multiprocessing.get_context("spawn").RLock()
    # Without one half the other is of no use: both end with the first that fails, and resume from their checkpoints.
    with WorkerPool(min(2, options.threads), tqdm.set_lock, (lock,), grace=_SAVING) as pool:
        trainings = [pool.submit(_train, train, options, threads) for train in halves]
        try:
            for training in as_completed(trainings):
                training.result()
        except KeyboardInterrupt:
            print("\nsaving checkpoints; Ctrl-C again ends at once", flush=True)
            raise
    print(f"\n{options.out}: trained; try it: ./genima eval --task {tasks[0]} --policy {options.out}")
    return 0


def _train(train: Callable[[TrainTiny], None], options: TrainTiny, threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    train(options)


def _train_agent(options: TrainTiny) -> None:
    from genima.data.datasets.target_dataset import TargetDataset
    from genima.policy.spec import DIFFUSION_AGENT, GOALS, TARGETS
    from genima.training.build_agent import build_agent
    from genima.training.diffusion import train_diffusion

    targets = TargetDataset.load(options.data)
    draws = GOALS if options.policy == SUSIE else TARGETS
    agent = build_agent(SMALL, targets, steps=1, seed=options.seed, draws=draws)
    train_diffusion(agent, targets, _drawing(), _agent_loop(options), _folder(options, DIFFUSION_AGENT))


def _drawing() -> DiffusionOptions:
    """Return the options of all diffusion agents.

    Their colours and places are those of one simulated workcell: without augmentation they copy them exactly.
    """
    return DiffusionOptions(jitter=(0, 0, 0, 0), crop=0, sphere_weight=_SPHERE_WEIGHT, half=True)


def _agent_loop(options: TrainTiny) -> LoopOptions:
    return LoopOptions(
        steps=options.agent_steps, batch_size=8, learning_rate=6e-4, schedule="cosine", warmup_steps=100, ema=_EMA,
        save_every=options.save_every, workers=1, seed=options.seed,
    )  # fmt: skip


def _train_controller(options: TrainTiny) -> None:
    from genima.data.datasets.target_dataset import TargetDataset
    from genima.policy.controller import Controller
    from genima.policy.spec import CONTROLLER, GOAL_CONTROLLER
    from genima.policy.susie import GoalController
    from genima.training.chunk_model import build_chunk_model
    from genima.training.controller import train_controller
    from genima.training.visuomotor import train_visuomotor

    targets = TargetDataset.load(options.data)
    loop = replace(_chunk_loop(options, options.controller_steps), bar=1)
    if options.policy == SUSIE:
        goal_controller = build_chunk_model(
            GoalController, "act", targets.spec, targets.moments, clip=SMALL, seed=options.seed
        )
        # The agent's goals are blurred and recoloured, as the drawn targets of GENIMA.
        goals = VisuomotorOptions(augmentation="small", half=True)
        train_visuomotor(goal_controller, targets, goals, loop, _folder(options, GOAL_CONTROLLER))
        return
    controller = build_chunk_model(Controller, "act", targets.spec, targets.moments, clip=SMALL, seed=options.seed)
    chunks = ControllerOptions(augmentation="small", perturb=True, half=True)
    train_controller(controller, targets.moments, targets.cameras, chunks, loop, _folder(options, CONTROLLER))


def _train_policy(options: TrainTiny) -> None:
    from genima.data.datasets.target_dataset import TargetDataset
    from genima.policy.names import DIFFUSION_POLICY
    from genima.training.visuomotor import build_visuomotor, train_visuomotor

    targets = TargetDataset.load(options.data)
    config = {"objective": options.objective} if options.policy == DIFFUSION_POLICY else None
    policy = build_visuomotor(options.policy, targets, clip=SMALL, seed=options.seed, config=config)
    loop = _chunk_loop(options, options.policy_steps)
    # Without augmentation, as the diffusion agent: the camera images are those of one simulated cell.
    assert options.out
    train_visuomotor(policy, targets, VisuomotorOptions(augmentation="none", half=True), loop, options.out)


def _train_video_policy(options: TrainTiny) -> None:
    from genima.data.datasets.target_dataset import TargetDataset
    from genima.training.video_policy import build_video_policy, train_video_policy

    targets = TargetDataset.load(options.data)
    policy = build_video_policy(targets, SMALL, SMALL, options.seed, {"objective": options.objective})
    chunks = VisuomotorOptions(augmentation="none", half=True)
    assert options.out
    train_video_policy(
        policy,
        targets,
        options.out,
        _drawing(),
        chunks,
        _chunk_loop(options, options.policy_steps),
        _agent_loop(options),
    )


def _train_diffuser_actor(options: TrainTiny, demos: Sequence[Path]) -> None:
    import torch

    from genima.cell import SIMULATED
    from genima.training.diffuser_actor import build_keypose_model, load_datasets, train_diffuser_actor
    from genima_sim.keyframe_images import render_keyframes

    torch.set_num_threads(options.threads)
    names = render_keyframes(demos, options.keyframes, SIMULATED, None, VIEW_SIZE)
    training, validation = load_datasets(options.keyframes, names)
    model = build_keypose_model(training, clip=SMALL, seed=options.seed)
    loop = _chunk_loop(options, options.policy_steps)
    assert options.out
    train_diffuser_actor(model, training, validation, KeyposeOptions(half=True), loop, options.out)


def _chunk_loop(options: TrainTiny, steps: int) -> LoopOptions:
    """Return the same budget for all networks that predict chunks or keyposes."""
    return LoopOptions(
        steps=steps, batch_size=16, learning_rate=5e-4, weight_decay=1e-4, schedule="cosine", cycles=2,
        warmup_steps=100, ema=_EMA, save_every=options.save_every, workers=1, seed=options.seed,
    )  # fmt: skip


def _folder(options: TrainTiny, kind: str) -> Path:
    from genima.policy.spec import FOLDERS

    assert options.out
    return options.out / FOLDERS[kind]
