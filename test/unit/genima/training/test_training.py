"""Tests of training: learning, resuming and stopping."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from diffusers import ControlNetModel
from random_base import random_base
from safetensors.torch import load_file
from small_training import OPTIONS, Deterministic, Numbers, Sum, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from genima.cameras.camera import Camera
from genima.data.datasets.diffusion_samples import DiffusionDataset, DiffusionSample, collate
from genima.data.datasets.sample_index import SampleIndex
from genima.data.datasets.target_dataset import TargetDataset
from genima.errors import GenimaError
from genima.io import paths
from genima.io.outputs import output_lock
from genima.policy.controller import Controller
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.pretrained_base import base_from_pipeline
from genima.policy.spec import BEST, LAST, PolicySpec, is_trained, last_checkpoints, read_pair, read_policy
from genima.robot.model import RobotModel
from genima.system import signals
from genima.system.command_line import check_options
from genima.training import PROGRESS, loop
from genima.training.build_agent import agent_from_base, build_agent
from genima.training.chunk_model import build_chunk_model
from genima.training.controller import train_controller
from genima.training.diffusion import DiffusionLossModule, train_diffusion
from genima.training.loop import StepSampler
from genima.training.options import SMALL, ControllerOptions, DiffusionOptions, LoopOptions
from genima.types import DrawnTarget, Joints
from genima_cli.train import main as train_command
from genima_cli.train_controller import TrainController
from genima_cli.train_diffusion import TrainDiffusion
from genima_sim import demo_recorder


@pytest.fixture(autouse=True)
def own_accelerator() -> Iterator[None]:
    """Reset accelerate's state, of which there is one per process, for each test."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


# The loop


def weights(folder: Path, which: str = LAST) -> dict[str, Tensor]:
    return torch.load(folder / which / "weights.pt", weights_only=True)


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_resume_is_exact(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "parts", stop_at=10)  # amid its last save, which must therefore be repeated
    assert (tmp_path / "parts/last").resolve().name == "step-000005"
    middle = weights(tmp_path / "parts")
    resumed = train(tmp_path / "parts")
    assert same(whole.state_dict(), resumed.state_dict())
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert not same(middle, weights(tmp_path / "parts"))
    states = [tmp_path / run / "last/training_state/optimizer.bin" for run in ("whole", "parts")]
    a, b = (torch.load(state, weights_only=True)["state"] for state in states)
    assert all(torch.equal(a[i]["exp_avg_sq"], b[i]["exp_avg_sq"]) and a[i]["step"] == b[i]["step"] == 10 for i in a)


def test_copied_training_is_resumed(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    train(tmp_path / "copy", stop_at=10)
    for link in (tmp_path / "copy" / BEST, tmp_path / "copy" / LAST):
        checkpoint = link.resolve()
        link.unlink()
        shutil.copytree(checkpoint, link)
    assert same(whole.state_dict(), train(tmp_path / "copy").state_dict())
    assert (tmp_path / "copy" / LAST).resolve().name == "step-000010"


def test_accumulation_and_workers_change_only_rounding(tmp_path: Path) -> None:
    def train_weights(name: str, **changes: object) -> dict[str, Tensor]:
        torch.manual_seed(5)
        return dict(train(tmp_path / name, replace(OPTIONS, **changes), model=Deterministic()).state_dict())  # type: ignore[arg-type]

    whole = train_weights("whole")
    train(tmp_path / "changed", stop_at=10, model=Deterministic())  # after step 5, which is amid the parts of two steps
    others = (
        train_weights("parts", accumulate=2),
        train_weights("changed", accumulate=4),
        train_weights("workers", workers=1),
    )
    for other in others:
        assert all(torch.allclose(whole[name], other[name], atol=1e-6) for name in whole)
    with pytest.raises(GenimaError, match="--batch-size 4: cannot be split into 3 equal parts"):
        train_weights("uneven", accumulate=3)


def test_averaged_weights_are_saved(tmp_path: Path) -> None:
    a = train(tmp_path / "often", replace(OPTIONS, save_every=1))
    b = train(tmp_path / "rarely", replace(OPTIONS, save_every=10))
    assert same(a.state_dict(), b.state_dict())
    averaged, last, start = weights(tmp_path / "often"), a.state_dict(), Sum().state_dict()
    name = "net.0.weight"
    assert (averaged[name] - start[name]).norm() < (last[name] - start[name]).norm()  # the average lags behind
    plain = train(tmp_path / "plain", replace(OPTIONS, ema=0))
    assert same(weights(tmp_path / "plain"), plain.state_dict())


def test_only_best_and_last_checkpoints_are_kept(tmp_path: Path) -> None:
    errors = {2: 5.0, 4: math.nan, 6: 3.0, 8: 4.0, 10: 3.5}
    train(tmp_path, replace(OPTIONS, save_every=2), errors=errors)
    assert {p.name for p in tmp_path.glob("step-*")} == {"step-000006", "step-000010"}
    assert (tmp_path / BEST).resolve().name == "step-000006"
    assert (tmp_path / LAST).resolve().name == "step-000010"
    assert not (tmp_path / "best/training_state").exists()  # of which only the last is of use
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == list(errors)
    board = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent))
    board.Reload()
    assert [event.value for event in board.Scalars("validation/error")][2:] == [3.0, 4.0, 3.5]
    assert len(board.Scalars("loss")) == 1  # of step 10


def test_last_checkpoints_are_kept_and_read_one_by_one(tmp_path: Path) -> None:
    train(tmp_path, replace(OPTIONS, save_every=2, keep=3), errors={2: 0.0, 4: 1.0, 6: 1.0, 8: 1.0, 10: 1.0})
    names = ["step-000010", "step-000008", "step-000006"]
    assert [(tmp_path / link).resolve().name for link in last_checkpoints(3)] == names
    assert {p.name for p in tmp_path.glob("step-*")} == {"step-000002", *names}  # and the best one


def test_finished_training_is_unchanged(tmp_path: Path) -> None:
    train(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in (".pt", ".bin")}
    train(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_loop_reduces_loss(tmp_path: Path) -> None:
    model = train(tmp_path, replace(OPTIONS, steps=300, save_every=300)).eval()
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    assert (model.net(x)[:, 0] - x.sum(1)).square().mean() < 0.15 * x.sum(1).var()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_loss_stops_training_and_saves_batch(tmp_path: Path, bad: float) -> None:
    class Breaks(Sum):
        calls = 0

        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            Breaks.calls += 1
            loss = super().forward(batch)["loss"]
            return {"loss": loss * bad if Breaks.calls == 8 else loss}

    with pytest.raises(GenimaError, match=f"loss is {bad}.* at step 8 of {tmp_path}") as caught:
        train(tmp_path, model=Breaks())
    assert "\n" not in str(caught.value) and (tmp_path / LAST).resolve().name == "step-000005"
    saved = torch.load(tmp_path / "bad_batch.pt", weights_only=True)
    visits = list(islice(StepSampler(50, OPTIONS), 7, 8))[0]
    assert saved["step"] == 8
    assert torch.equal(saved["batch"], torch.stack([Numbers()[visit] for visit in visits]))
    assert str(tmp_path / "bad_batch.pt") in str(caught.value)
    resumed = train(tmp_path)  # from the checkpoint of step 5, with a loss that is well
    assert all(torch.isfinite(value).all() for value in resumed.state_dict().values())


def test_invalid_state_is_rejected_in_one_line(tmp_path: Path) -> None:
    train(tmp_path)

    class Other(Sum):
        def __init__(self) -> None:
            super().__init__()
            self.more = nn.Linear(1, 1)

    with pytest.raises(GenimaError, match=f"{tmp_path}: cannot be resumed") as caught:
        train(tmp_path, model=Other())
    assert "\n" not in str(caught.value)
    for name in ("optimizer.bin", "progress.json", "model.safetensors"):
        path = tmp_path / "last/training_state" / name
        whole = path.read_bytes()
        for data in (b"", whole[: len(whole) // 2]):
            path.write_bytes(data)
            with pytest.raises(GenimaError, match="cannot be resumed|is damaged") as caught:
                train(tmp_path)
            assert "\n" not in str(caught.value)
        path.write_bytes(whole)
    train(tmp_path)


@pytest.mark.parametrize("other", [{"steps": 20}, {"learning_rate": 0.5}, {"seed": 1}, {"batch_size": 8}, {"ema": 0.8}])
def test_training_is_not_resumed_with_other_options(tmp_path: Path, other: dict[str, Any]) -> None:
    train(tmp_path, stop_at=10)
    (name, value), *_ = other.items()
    with pytest.raises(GenimaError, match=f"other options .*{name}: {getattr(OPTIONS, name)} then, {value} now"):
        train(tmp_path, replace(OPTIONS, **other))


def test_training_is_not_resumed_with_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, stop_at=10)
    monkeypatch.setattr(Numbers, "__len__", lambda self: 63)
    with pytest.raises(GenimaError, match="moments: .* then, 63 now"):
        train(tmp_path)


def test_signal_ends_training_after_step_with_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Signalled(Sum):
        calls = 0

        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            Signalled.calls += 1
            if Signalled.calls == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().forward(batch)

    with pytest.raises(KeyboardInterrupt):
        errors = {"error": 1.0}
        loop.run(
            Signalled(), Numbers(), torch.stack, OPTIONS, tmp_path, lambda folder: None, lambda *_: errors, "error"
        )
    assert (tmp_path / LAST).resolve().name == "step-000003" and Signalled.calls == 3
    assert "stopped at step 3 of 10" in capfd.readouterr().out


def test_termination_of_a_small_training_saves_as_ctrl_c_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal_handlers: None
) -> None:
    monkeypatch.setattr(signals, "_interrupted", False)
    monkeypatch.setattr(demo_recorder, "record", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    for _ in range(2):  # an impatient user
        with pytest.raises(KeyboardInterrupt):
            train_command(["tiny", "--demos", str(tmp_path)])


def test_resume_requires_equal_settings(tmp_path: Path) -> None:
    def run(about: dict[str, object]) -> None:
        errors = {"error": 1.0}
        loop.run(
            Sum(), Numbers(), torch.stack, OPTIONS, tmp_path, lambda folder: None, lambda *_: errors, "error", about
        )

    run({"views": ("wrist", "front"), "tiled": True})
    run({"views": ("wrist", "front"), "tiled": True})
    with pytest.raises(GenimaError, match="other options .*views.*front.*then"):
        run({"views": ("front", "wrist"), "tiled": True})


def test_two_trainings_do_not_write_to_one_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with output_lock(run, "training"), pytest.raises(GenimaError, match=f"{run}: another process is writing"):
        train(run)
    train(run)


@pytest.mark.parametrize(
    "held",
    ["notes.txt", "metrics.jsonl", "step-000005/mine.txt", "last/genima.json", "genima.json", "best", ".lock/mine.txt"],
)
def test_other_folder_is_rejected_and_unchanged(tmp_path: Path, held: str) -> None:
    file = tmp_path / "run" / held
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(GenimaError, match=f"training {tmp_path}/run: the folder holds .*; name another with --out"):
        train(tmp_path / "run")
    assert file.read_text() == "mine" and [p for p in tmp_path.rglob("*") if p.is_file()] == [file]
    with pytest.raises(GenimaError, match="training .*mine.txt|training .*notes"):
        (tmp_path / "notes").write_text("mine")
        train(tmp_path / "notes")


def test_other_files_in_training_folder_stay(tmp_path: Path) -> None:
    train(tmp_path, stop_at=10)
    kept = ["step-notes/a", "step-000005-copy/a", "step-000010/a", "step-000010.part/a", "step-000001/a"]
    (tmp_path / "step-000010.part/.partial").unlink()  # of the killed run: nothing shows any more that it is ours
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    train(tmp_path)
    for name in (*kept[:2], "step-000010.1/a", "step-000010.part.1/a", kept[-1]):
        assert (tmp_path / name).read_text() == "mine", name
    assert (tmp_path / LAST).resolve().name == "step-000010" and not (tmp_path / "step-000005").exists()


def test_epochs_become_steps_and_invalid_numbers_are_errors() -> None:
    options = LoopOptions(batch_size=24, learning_rate=1e-5, epochs=200)
    assert options.with_steps(1000).steps == math.ceil(200 * 1000 / 24)
    assert replace(options, steps=7).with_steps(1000).steps == 7
    no_counts = (
        {"batch_size": 0},
        {"steps": -1},
        {"save_every": 0},
        {"cycles": 0},
        {"seed": 10**20},
        {"gradient_clip": -1.0},
        {"warmup_steps": -1},
    )
    for bad in (*no_counts, {"learning_rate": 0.0}, {"ema": 1.0}, {"learning_rate": math.nan}, {"epochs": math.inf}):
        with pytest.raises(GenimaError, match=f"--{next(iter(bad)).replace('_', '-')} .*: must be "):
            check_options(replace(options, **bad))  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", ["diffusion", "controller", "tiny"])
def test_help_imports_no_slow_library(recipe: str) -> None:
    script = (
        "import sys; from genima_cli.train import main\n"
        "try: main([sys.argv[1], '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'cv2', 'pyarrow', 'rclpy', 'mujoco', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, recipe], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and f"Example: ./genima train {recipe} " in done.stdout, done.stderr


def test_cosine_schedule_restarts(tmp_path: Path) -> None:
    train(tmp_path, replace(OPTIONS, steps=42, schedule="cosine", cycles=2))
    events = EventAccumulator(str(next(tmp_path.rglob("events.*")).parent))
    rates = {event.step: event.value for event in events.Reload().Scalars("learning_rate")}
    assert rates[10] == pytest.approx(rates[30]) and rates[20] == pytest.approx(rates[40])
    assert rates[20] < 0.1 * rates[10]


def test_batches_depend_only_on_seed_and_step() -> None:
    options = replace(OPTIONS, steps=40)
    whole = list(StepSampler(1000, options))
    assert len(whole) == len(StepSampler(1000, options)) == 40
    for start in (1, 17, 40):
        sampler = StepSampler(1000, options, start)
        assert list(sampler) == whole[start:] and len(sampler) == 40 - start
    assert list(islice(StepSampler(1000, replace(options, steps=80)), 40)) == whole
    assert list(StepSampler(1000, replace(options, seed=1))) != whole
    visits = np.array(whole)
    assert visits.shape == (40, 4, 2) and visits[..., 0].min() >= 0 and visits[..., 0].max() < 1000
    assert len(np.unique(visits[..., 0])) == len(np.unique(visits[..., 1])) == 160  # nothing comes twice
    parts = [list(StepSampler(1000, options, part=part, parts=2, accumulate=2)) for part in (0, 1)]
    for step, batch in enumerate(whole):
        shared = [visit for part in parts for micro in part[2 * step : 2 * step + 2] for visit in micro]
        assert sorted(shared) == sorted(batch) and all(len(part[2 * step]) == 1 for part in parts)


@pytest.mark.parametrize(("moments", "batch", "parts"), [(50, 4, 1), (50, 4, 2), (1000, 24, 3), (3, 8, 2), (1, 2, 1)])
def test_every_epoch_has_each_sample_once_in_new_order(moments: int, batch: int, parts: int) -> None:
    epochs, resumed = 4, 2
    options = replace(OPTIONS, batch_size=batch, steps=math.ceil(epochs * moments / batch), epochs=epochs)
    assert replace(options, steps=0).with_steps(moments).steps == options.steps
    shares = [
        [*islice(StepSampler(moments, options, part=part, parts=parts), resumed)]
        + [*StepSampler(moments, options, resumed, part, parts)]
        for part in range(parts)
    ]
    visits = sorted((visit for share in shares for step in share for visit in step), key=lambda visit: visit.sample)
    assert [visit.sample for visit in visits] == list(range(options.steps * batch))
    orders = [[visit.moment for visit in visits[i * moments : (i + 1) * moments]] for i in range(epochs)]
    assert all(sorted(order) == list(range(moments)) for order in orders)
    if moments > 10:
        assert all(orders[i] != orders[j] for i in range(epochs) for j in range(i))
        assert all(np.corrcoef(order, range(moments))[0, 1] < 0.5 for order in orders)  # shuffled


def test_training_with_old_sampling_is_not_resumed(tmp_path: Path) -> None:
    train(tmp_path)
    progress = tmp_path / LAST / "training_state" / PROGRESS
    state = json.loads(progress.read_text())
    del state["about"]["sampling"]
    progress.write_text(json.dumps(state))
    with pytest.raises(GenimaError, match="sampling: None then, every moment once an epoch now"):
        train(tmp_path, replace(OPTIONS, workers=1))


@pytest.mark.parametrize("limit", [0.0, 0.1])
def test_gradients_are_clipped_only_with_limit(tmp_path: Path, limit: float) -> None:
    steps: list[float] = []

    class Spy(torch.optim.AdamW):
        def step(self, *arguments: Any, **options: Any) -> None:
            steps.append(torch.stack([p.grad.norm() for g in self.param_groups for p in g["params"]]).norm().item())
            super().step(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Spy)
        train(tmp_path, replace(OPTIONS, gradient_clip=limit))
    assert len(steps) == OPTIONS.steps
    if limit:
        assert max(steps) <= limit * 1.001
    else:
        assert max(steps) > 0.5


def test_training_defaults_equal_paper() -> None:
    """Defaults of tables 3 and 4; without a value there (warm-up, clipping), those of the released ACT."""
    agent, controller = TrainDiffusion(), TrainController()
    assert agent.inference_steps == 10 and agent.base == "stabilityai/sd-turbo"
    a, c = agent.loop, controller.loop
    assert (a.learning_rate, a.weight_decay, a.epochs, a.batch_size) == (1e-5, 1e-2, 200, 24)
    assert (a.warmup_steps, a.gradient_clip, a.schedule) == (500, 1.0, "constant_with_warmup")
    assert (c.learning_rate, c.weight_decay, c.epochs, c.batch_size) == (1e-5, 1e-4, 1000, 96)
    assert (c.warmup_steps, c.gradient_clip, c.schedule, c.ema) == (0, 0.0, "constant_with_warmup", 0.0)


# The diffusion agent

SMALL_LOOP = LoopOptions(
    steps=2, batch_size=2, learning_rate=1e-3, warmup_steps=1, save_every=1, workers=0, ema=0.9, mixed_precision="no"
)


@pytest.fixture(scope="module")
def batch(targets: TargetDataset) -> DiffusionSample:
    dataset = DiffusionDataset(targets, np.arange(len(targets)))
    return collate([dataset[SampleIndex(i, 0)] for i in (5, len(targets) - 40)])


def losses_of(model: DiffusionLossModule, batch: DiffusionSample, learning_rate: float, steps: int) -> list[float]:
    """Losses of steps with the same batch and noise."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), learning_rate), []
    for _ in range(steps):
        torch.manual_seed(0)
        value = model(batch)["loss"]
        losses.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return losses


def test_few_steps_reduce_diffusion_loss(targets: TargetDataset, batch: DiffusionSample) -> None:
    agent = build_agent(SMALL, targets, steps=2)
    model = DiffusionLossModule(agent, DiffusionOptions(jitter=(0, 0, 0, 0), crop=0, sphere_weight=6)).train()
    assert set(model.trained) == {"unet", "controlnet", "text_encoder"}
    losses = losses_of(model, batch, 1e-3, 10)
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is not None for p in agent.prompts.encoders[0].parameters())  # the goal is learned too


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_diffusion_loss_is_zero_for_exact_prediction(
    targets: TargetDataset, batch: DiffusionSample, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = build_agent(SMALL, targets, steps=2)
    changes = {"prediction_type": kind, "rescale_betas_zero_snr": False}
    agent.scheduler = type(agent.scheduler).from_config({**agent.scheduler.config, **changes})
    clean, share, wrong = agent.encode(agent.frames(batch.target)), agent.scheduler.alphas_cumprod, 0.0

    def knows(noisy: Tensor, t: Tensor, *_: object) -> Tensor:
        signal, spread = share[t].sqrt()[:, None, None, None], (1 - share[t]).sqrt()[:, None, None, None]
        noise = (noisy - signal * clean) / spread
        return {"epsilon": noise, "sample": clean, "v_prediction": signal * noise - spread * clean}[kind] + wrong

    monkeypatch.setattr(agent, "predict", knows)
    model = DiffusionLossModule(agent, DiffusionOptions(jitter=(0, 0, 0, 0), crop=0, sphere_weight=6))
    for seed in range(3):
        for wrong, expected in ((0.0, 0.0), (0.5, 0.25)):  # noqa: B007  # weights do not change the scale
            torch.manual_seed(seed)
            assert model(batch)["loss"].item() == pytest.approx(expected, rel=0.05, abs=1e-4)


def test_training_samples_latents_and_validation_uses_mode(
    targets: TargetDataset, batch: DiffusionSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of diffusers' ControlNet example."""
    agent = agent_from_base(base_from_pipeline("a base", random_base("tiny")), targets.spec)
    model, frames = (
        DiffusionLossModule(agent, DiffusionOptions(jitter=(0, 0, 0, 0), crop=0)),
        agent.frames(batch.target),
    )
    learned: list[Tensor] = []
    add_noise = model.noise.add_noise
    monkeypatch.setattr(model.noise, "add_noise", lambda clean, *rest: learned.append(clean) or add_noise(clean, *rest))
    for training in (True, False):
        torch.manual_seed(7)
        model.train(training)(batch)
    torch.manual_seed(7)
    distribution = agent.vae.encode(frames * 2 - 1).latent_dist
    expected = [latents * agent.vae.config.scaling_factor for latents in (distribution.sample(), distribution.mean)]
    assert not torch.allclose(*expected)
    for found, wanted in zip(learned, expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_condition_is_desaturated_and_views_are_shifted_together(
    targets: TargetDataset, batch: DiffusionSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = build_agent(SMALL, targets)
    seen: dict[str, Tensor] = {}
    encode, condition = agent.encode, agent.condition

    def spy(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def watch(frames: Tensor, **options: bool) -> Tensor:
            seen.setdefault(name, frames.clone())
            return function(frames, **options)

        return watch

    monkeypatch.setattr(agent, "encode", spy("target", encode))
    monkeypatch.setattr(agent, "condition", spy("condition", condition))
    model = DiffusionLossModule(agent, DiffusionOptions(jitter=(0.2, 0.2, 0.1, 0.05), crop=0)).train()
    torch.manual_seed(0)
    model(batch)
    assert torch.equal(seen["target"], agent.frames(batch.target))
    assert (seen["condition"] - agent.frames(batch.condition)).abs().mean() > 0.01

    seen.clear()
    model = DiffusionLossModule(agent, DiffusionOptions(jitter=(0, 0, 0, 0), crop=4)).train()
    torch.manual_seed(0)
    model(batch)
    size, shifts = targets.spec.view_size, set()
    for i in range(2):
        for y, x in ((0, 0), (0, size), (size, 0), (size, size)):
            found = {}
            for name, images in (("condition", batch.condition), ("target", batch.target)):
                view = images[i, y : y + size, x : x + size].permute(2, 0, 1).float()[None] / 255
                padded = nn.functional.pad(view, (4, 4, 4, 4), mode="reflect")[0]
                moved = seen[name][i, :, y : y + size, x : x + size]
                fits = [
                    (u, v)
                    for u in range(9)
                    for v in range(9)
                    if torch.allclose(padded[:, u : u + size, v : v + size], moved, atol=1e-5)
                ]
                assert fits, name
                found[name] = set(fits)
            assert found["condition"] & found["target"]
            shifts |= found["condition"] & found["target"]
    assert len(shifts) > 3
    seen.clear()
    model.eval()
    model(batch)
    assert torch.equal(seen["condition"], agent.frames(batch.condition))


@pytest.mark.parametrize("kind", ["tiny", "tiny-xl"])
@pytest.mark.parametrize("conditioning", ["controlnet", "unet"])
@pytest.mark.parametrize("tiled", [True, False])
def test_each_agent_trains_only_its_part_from_base(
    targets: TargetDataset, batch: DiffusionSample, kind: str, conditioning: str, tiled: bool
) -> None:
    base = base_from_pipeline(kind, random_base(kind))  # type: ignore[arg-type]
    frozen = {name: p.clone() for name, p in base.unet.named_parameters()}
    agent = agent_from_base(base, targets.spec, conditioning, tiled, steps=2)  # type: ignore[arg-type]
    frames, prompts = agent.frames(batch.condition), agent.prompts(agent.texts(list(batch.instruction)))
    assert len(frames) == (2 if tiled else 8) and frames.shape[-1] == 2 * targets.spec.view_size
    latents, t = agent.encode(frames), torch.tensor(500)
    added = prompts.added_cond_kwargs(*frames.shape[-2:])
    with torch.no_grad():  # at first the condition changes nothing: the base draws as ever
        untouched = random_base(kind).unet  # type: ignore[arg-type]
        alone = untouched(latents, t, prompts.tokens, added_cond_kwargs=added)[0]
        assert torch.allclose(agent.predict(latents, t, prompts, agent.condition(frames)), alone, atol=1e-5)
    model = DiffusionLossModule(agent, DiffusionOptions()).train()
    assert set(model.trained) == {"controlnet" if conditioning == "controlnet" else "unet"}
    assert set(agent.checkpoint_modules) == set(model.trained)
    losses = losses_of(model, batch, 3e-3, 8)
    assert losses[-1] < losses[0]
    moved = [name for name, p in base.unet.named_parameters() if name in frozen and not torch.equal(p, frozen[name])]
    assert bool(moved) == (conditioning == "unet")


def test_goals_change_prompts(targets: TargetDataset, batch: DiffusionSample) -> None:
    """The prompt is the prefix alone, as in the released code."""
    for tiled in (True, False):
        agent = agent_from_base(base_from_pipeline("tiny", random_base("tiny")), targets.spec, tiled=tiled)
        embedded: list[Tensor] = []
        prompts = agent.prompts

        def watch(texts: list[str], prompts: Any = prompts, embedded: list[Tensor] = embedded) -> Any:
            result = prompts(texts)
            embedded.append(result.tokens)
            return result

        watch.encoders = prompts.encoders  # type: ignore[attr-defined]
        agent.prompts = watch  # type: ignore[assignment]
        goals = ["push down the maroon button", "take the lid off the saucepan"]
        DiffusionLossModule(agent, DiffusionOptions())(batch._replace(instruction=goals))
        agent.generate_tiles(batch.condition, goals, torch.Generator().manual_seed(0))
        trained, used = embedded
        n = len(trained) // 2
        assert torch.equal(trained, used) and not torch.equal(trained[:n], trained[n:])
        assert all(goal in text for goal, text in zip(goals, agent.texts(goals)[::n], strict=True))


def test_base_model_training_resumes_exactly_and_diffusers_loads_controlnet(
    targets: TargetDataset, bases: Path, tmp_path: Path
) -> None:
    def run(folder: str, steps: int) -> Path:
        options = replace(SMALL_LOOP, steps=steps, schedule="constant_with_warmup", ema=0)
        agent = build_agent(str(bases / "tiny"), targets, steps=1)
        drawing = DiffusionOptions(validation_targets=1, crop=2)
        train_diffusion(agent, targets, drawing, options, tmp_path / folder)
        return tmp_path / folder / "last"

    whole = run("whole", 2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(loop, "_link", _killed_the_third_time())  # best, last; then amid the second save
        run("parts", 2)
    parts = run("parts", 2)
    name = "controlnet/diffusion_pytorch_model.safetensors"
    assert same(load_file(whole / name), load_file(parts / name))
    assert not (whole / "unet").exists() and not (whole / "vae").exists()  # the base's, which it only names
    assert isinstance(ControlNetModel.from_pretrained(whole, subfolder="controlnet"), ControlNetModel)
    agent = DiffusionAgent.from_pretrained(tmp_path / "whole")  # the training's folder stands for its best checkpoint
    assert agent.spec == targets.spec and agent.base is not None and agent.base.name == str(bases / "tiny")
    errors = json.loads((tmp_path / "whole/metrics.jsonl").read_text().splitlines()[-1])
    assert {"loss", "px", "found"} <= set(errors) and (whole / "drawings.png").stat().st_size > 1000


def _killed_the_third_time() -> Callable[[Path, str], None]:
    link, calls = loop._link, iter(range(3))

    def instead(path: Path, target: str) -> None:
        if next(calls) == 2:
            raise RuntimeError("killed")
        link(path, target)

    return instead


def test_another_version_of_base_is_rejected(targets: TargetDataset, tmp_path: Path) -> None:
    base = tmp_path / "base"
    random_base("tiny").save_pretrained(base)
    build_agent(str(base), targets).save_pretrained(tmp_path / "agent")
    random_base("tiny", seed=1).save_pretrained(base)
    with pytest.raises(GenimaError, match="another version of"):
        DiffusionAgent.from_pretrained(tmp_path / "agent")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["diffusion", "--base", "no/such-model"], "no/such-model cannot be loaded"),
        (["diffusion", "--base", "test"], "test cannot be loaded"),
        (["diffusion", "--data", "nowhere"], "nowhere: no finished dataset"),
        (["diffusion", "--batch-size", "0"], "--batch-size 0: must be greater than or equal to 1"),
        (["controller", "--resnet", "no/such-resnet", "--clip", "no/such-clip"], "no/such-clip cannot be loaded"),
        (["controller", "--data", "nowhere"], "nowhere: no finished dataset"),
        (["controller", "--clip", "small", "--backgrounds", "src/genima"], "no images"),
        (["controller", "--pretrain", "9", "--full-context"], "--full-context: --pretrain has no camera images"),
        (["controller", "--clip", "small", "--pretrain", "-1"], "--pretrain -1: must be "),
        (["controller", "--clip", "small", "--validation-chunks", "0"], "--validation-chunks 0: must be "),
        (["diffusion", "--base", "small", "--validation-targets", "0"], "--validation-targets 0: must be "),
        (["diffusion", "--jitter", "0.1", "nan", "0", "0"], "--jitter 0.1 nan 0.0 0.0: must be "),
        (["diffusion", "--seed", "100000000000000000000"], "--seed 1000.*: must be "),
        (["diffusion", "--inference-steps", "1001"], "--inference-steps 1001: must be "),
        (["tiny", "--episodes", "0"], "--episodes 0: must be "),
        (["nonsense"], "train nonsense: unknown command"),
    ],
)
def test_invalid_arguments_are_one_line_errors(
    targets: TargetDataset, tmp_path: Path, arguments: list[str], line: str
) -> None:
    data = [] if "--data" in arguments or "tiny" in arguments else ["--data", str(targets.folder)]
    with pytest.raises(GenimaError, match=line) as caught:
        train_command([*arguments, *data, "--out", str(tmp_path)])
    assert "\n" not in str(caught.value)


# The controller


def test_controller_training_resumes_exactly_with_errors_in_degrees_and_millimetres(
    targets: TargetDataset, tmp_path: Path
) -> None:
    def run(folder: str, cameras: Mapping[str, Camera] = targets.cameras, origin: str = "") -> Path:
        controller = build_chunk_model(Controller, "act", targets.spec, targets.moments, clip=SMALL)
        chunks = ControllerOptions(augmentation="small", perturb=True, validation_chunks=4)
        out = tmp_path / folder
        train_controller(controller, targets.moments, cameras, chunks, SMALL_LOOP, out, origin=origin)
        return tmp_path / folder / "last"

    whole = run("whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(loop, "_link", _killed_the_third_time())
        run("parts")
    assert Controller.from_pretrained(tmp_path / "parts").spec == targets.spec  # killed, it left one that loads
    parts = run("parts")
    assert same(load_file(whole / "act.safetensors"), load_file(parts / "act.safetensors"))
    moved = {**targets.cameras, "front": targets.cameras["front"].scale(64, 64)}
    for others, about in (({"cameras": moved}, "cameras"), ({"origin": "another"}, "origin")):
        with pytest.raises(GenimaError, match=f"other options .*{about}: "):
            run("whole", **others)
    errors = json.loads((tmp_path / "whole/metrics.jsonl").read_text().splitlines()[-1])
    assert {"deg", "deg/panda_joint1", "mm/tip half-way", "mm/tip end", "gripper"} <= set(errors)
    assert errors["deg"] > 0 and errors["mm/tip end"] > 0 and 0 <= errors["gripper"] <= 1


def test_small_controller_has_joints_of_robot(targets: TargetDataset, tmp_path: Path) -> None:
    arm = yaml.safe_load((paths.shared("config", "robots") / "panda.yaml").read_text(encoding="utf-8"))
    arm["joints"] = arm["joints"][:6]
    file = tmp_path / "six_joints.yaml"
    file.write_text(yaml.safe_dump(arm), encoding="utf-8")
    robot = RobotModel.load(str(file))
    last = len(robot.link_poses(robot.home)) - 1
    spheres = tuple(replace(s, frame=min(s.frame, last)) for s in targets.spec.appearance.spheres)
    appearance = replace(targets.spec.appearance, spheres=spheres)
    spec = replace(targets.spec, robot=str(file), joint_names=robot.joint_names, appearance=appearance)
    moments = targets.moments
    six = replace(moments, positions=moments.positions[:, :6], actions=moments.actions[..., :6])
    build_chunk_model(Controller, "act", spec, six, clip=SMALL).save_pretrained(tmp_path / "controller")
    controller = Controller.from_pretrained(tmp_path / "controller")
    side = 2 * spec.view_size
    drawn = DrawnTarget(0.0, "wave", spec.views, np.zeros((side, side, 3), np.uint8))
    chunk = controller.predict_chunk(drawn, Joints(0.0, robot.home, 1.0))
    assert chunk.positions.shape == (spec.horizon, 6)


def test_commands_train_matching_agent_and_controller(targets: TargetDataset, bases: Path, tmp_path: Path) -> None:
    short = ["--data", str(targets.folder), "--steps", "1", "--batch-size", "2", "--workers", "0", "--save-every", "1"]
    drawing = ["--base", str(bases / "tiny-xl"), "--no-tiled", "--validation-targets", "1", "--inference-steps", "1"]
    assert train_command(["diffusion", *short, *drawing, "--out", str(tmp_path / "pair")]) == 0
    pretrain = ["controller", *short, "--clip", "small", "--pretrain", "40", "--validation-chunks", "2"]
    assert train_command([*pretrain, "--out", str(tmp_path / "reach")]) == 0
    context = ["controller", *short, "--clip", "small", "--full-context", "--validation-chunks", "2"]
    assert train_command([*context, "--out", str(tmp_path / "context")]) == 0
    init = ["--init", str(tmp_path / "reach/controller"), "--validation-chunks", "2"]
    init += ["--learning-rate", "1e-9", "--warmup-steps", "0"]
    assert train_command(["controller", *short, *init, "--out", str(tmp_path / "pair")]) == 0
    spec, folders = read_pair(tmp_path / "pair")
    assert is_trained(str(tmp_path / "pair/last")) and not is_trained(str(tmp_path / "pair/last-1"))
    halves = read_policy(str(tmp_path / "pair/last")).folders
    assert {path.name for path in halves.values()} == {"last"} and set(halves) == set(folders)
    assert replace(spec, prompt_template=targets.spec.prompt_template) == targets.spec and len(folders) == 2
    before, after = (Controller.from_pretrained(tmp_path / name / "controller") for name in ("reach", "pair"))
    np.testing.assert_array_equal(before.statistics.mean, after.statistics.mean)
    weights_of = zip(before.network.parameters(), after.network.parameters(), strict=True)
    drift = [(a - b).abs().max() for a, b in weights_of]
    assert 0 < max(drift) < 1e-6


# As processes


SAVED = 10  # steps between two checkpoints


def small_command(data: Path, out: Path, steps: int) -> list[str]:
    return [
        "-m", "genima_cli", "train", "controller", "--data", str(data), "--out", str(out), "--clip", "small",
        "--steps", str(steps), "--batch-size", "2", "--save-every", str(SAVED), "--workers", "1",
        "--validation-chunks", "1",
    ]  # fmt: skip


@pytest.mark.nightly  # the tests of a signal during a step and of an interrupted controller cover it in one process
@pytest.mark.timeout(900)  # s: a busy machine needs minutes to start a training twice
def test_killed_training_leaves_loadable_checkpoint(targets: TargetDataset, tmp_path: Path) -> None:
    command = [sys.executable, *small_command(targets.folder, tmp_path, 100_000)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def step() -> int:
        last = tmp_path / "controller/last"
        return int(last.resolve().name.removeprefix("step-")) if last.exists() else 0

    def wait_for_steps(process: subprocess.Popen[str], steps: int) -> None:
        deadline = time.monotonic() + 300
        while step() < steps:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)

    process = subprocess.Popen(command, start_new_session=True, **pipes)
    wait_for_steps(process, SAVED)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    reached = step()
    Controller.from_pretrained(tmp_path / "controller/last")
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    wait_for_steps(process, reached + SAVED)
    os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does: to all of its processes
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 130 and f"stopped at step {step()} of 100000" in out
    assert step() > reached + SAVED or step() % SAVED  # of its own, not the one that was due
    Controller.from_pretrained(tmp_path / "controller/last")


_TRAIN = """
import sys
from dataclasses import replace
from pathlib import Path
from small_training import OPTIONS, Deterministic, train

train(Path(sys.argv[1]), replace(OPTIONS, accumulate=int(sys.argv[2])), model=Deterministic())
"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name, accumulate", [("parts", 1), pytest.param("two", 2, marks=pytest.mark.nightly)])
def test_two_processes_train_as_one_after_resume(tmp_path: Path, name: str, accumulate: int) -> None:
    """Train with accelerate's launcher on two CPU processes."""
    script = tmp_path / "train.py"
    script.write_text(_TRAIN)
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}

    train(tmp_path / "one", model=Deterministic())
    train(tmp_path / "parts", stop_at=10, model=Deterministic())  # amid the second save
    one, half = weights(tmp_path / "one"), weights(tmp_path / "parts")
    command = [sys.executable, *launch, str(script), str(tmp_path / name), str(accumulate)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    other = weights(tmp_path / name)
    assert all(torch.allclose(one[key], other[key], atol=1e-6) for key in one)
    assert not any(torch.allclose(one[key], half[key], atol=1e-4) for key in one if key.endswith("weight"))


def test_training_spec_is_of_dataset(targets: TargetDataset, spec: PolicySpec) -> None:
    instructions = ("push down the maroon button", "take the lid off the saucepan")
    assert targets.spec == replace(spec, view_size=32, instructions=instructions)
