"""Training: it learns, it resumes as if nothing had happened, and it stops where going on makes no sense."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from genima.checkpoint import DrawingSpec
from genima.controller import Controller
from genima.controller.act import Act, ActConfig
from genima.datasets import drawings
from genima.datasets.chunks import ChunkDataset, Perturbation, collate, joint_statistics
from genima.datasets.demos import Demo, load_demos
from genima.datasets.drawings import DrawingDataset
from genima.diffusion import DiffusionAgent
from genima.diffusion.small import small_agent
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.text import small_text_encoder, small_tokenizer
from genima.training import control, drawing, loop
from genima.training.loop import LoopOptions, StepSampler


@pytest.fixture(scope="module")
def tiny(spec: DrawingSpec) -> DrawingSpec:
    return replace(spec, view_size=32)


@pytest.fixture(scope="module")
def demos(demos_folder: Path, robot: RobotModel, tiny: DrawingSpec) -> list[Demo]:
    return load_demos(demos_folder, robot, tiny)


# The loop


class Numbers(torch.utils.data.Dataset[Tensor]):
    """Pairs of numbers and their sum, with noise that is new on every visit."""

    def __init__(self) -> None:
        self._visits = 0

    def __len__(self) -> int:
        return 50

    def skip(self, visits: int) -> None:
        self._visits = visits

    def __getitem__(self, i: int) -> Tensor:
        self._visits += 1
        rng = np.random.default_rng([i, self._visits])
        x = rng.normal(size=2)
        return torch.tensor([*x, x.sum() + 0.01 * rng.normal()], dtype=torch.float32)


OPTIONS = LoopOptions(steps=10, batch_size=4, learning_rate=1e-2, warmup_steps=2, save_every=5, workers=0, average=0.9)


def squared(net: nn.Module, noise: float = 0.1) -> Callable[[Tensor, torch.Generator], tuple[Tensor, dict[str, float]]]:
    def loss(batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        wanted = batch[:, 2] + noise * torch.randn(len(batch), generator=generator)
        return (net(batch[:, :2])[:, 0].float() - wanted).square().mean(), {}

    return loss


def make_net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


Saved = dict[int, dict[str, Tensor]]


def train(folder: Path, options: LoopOptions = OPTIONS, stop_at: int | None = None) -> tuple[nn.Module, Saved]:
    """The network in its last state, and its averaged weights at every save."""
    net, saved = make_net(), Saved()
    folder.mkdir(exist_ok=True)

    def save(step: int) -> None:
        saved[step] = {name: value.clone() for name, value in net.state_dict().items()}
        if step == stop_at:
            raise KeyboardInterrupt

    try:
        loop.run({"net": net}, squared(net), Numbers(), torch.stack, options, folder, save)
    except KeyboardInterrupt:
        assert stop_at is not None
    return net, saved


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_resumed_training_ends_in_the_very_weights_of_one_that_was_never_interrupted(tmp_path: Path) -> None:
    whole, saved = train(tmp_path / "whole_")
    _, first = train(tmp_path / "parts_", stop_at=10)  # amid its last save, which must therefore be repeated
    resumed, rest = train(tmp_path / "parts_")
    assert list(saved) == [5, 10] and list(first) == [5, 10] and list(rest) == [10]
    assert same(saved[5], first[5]) and same(saved[10], rest[10])
    assert same(dict(whole.state_dict()), dict(resumed.state_dict()))
    assert not same(saved[5], saved[10])


def test_what_is_saved_are_averaged_weights_and_training_goes_on_with_its_own(tmp_path: Path) -> None:
    often, rarely = replace(OPTIONS, save_every=1), replace(OPTIONS, save_every=10)
    a, saved = train(tmp_path / "often", often)
    b, _ = train(tmp_path / "rarely", rarely)
    assert same(dict(a.state_dict()), dict(b.state_dict()))
    averaged, last = saved[10]["0.weight"], a.state_dict()["0.weight"]
    assert not torch.equal(averaged, last)
    start = make_net().state_dict()["0.weight"]
    assert (averaged - start).norm() < (last - start).norm()  # the average lags behind


def test_a_finished_training_is_left_as_it_is(tmp_path: Path) -> None:
    finished, _ = train(tmp_path)
    before = (tmp_path / loop.STATE).read_bytes()
    again, saved = train(tmp_path)
    assert not saved and same(dict(finished.state_dict()), dict(again.state_dict()))
    assert (tmp_path / loop.STATE).read_bytes() == before


def test_the_loop_learns(tmp_path: Path) -> None:
    net, _ = train(tmp_path, replace(OPTIONS, steps=150, save_every=150))
    net.eval()
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    assert (net(x)[:, 0] - x.sum(1)).square().mean() < 0.15 * x.sum(1).var()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_one_line_and_keeps_the_last_checkpoint(
    tmp_path: Path, bad: float
) -> None:
    net, saved = make_net(), []
    good = squared(net)
    steps = iter(range(1, 100))

    def loss(batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        value, shown = good(batch, generator)
        return (value * bad if next(steps) == 8 else value), shown

    with pytest.raises(GenimaError, match=f"the loss is .* at step 8; .*{tmp_path}") as caught:
        loop.run({"net": net}, loss, Numbers(), torch.stack, OPTIONS, tmp_path, saved.append)
    assert "\n" not in str(caught.value) and saved == [5]
    resumed, rest = train(tmp_path)  # from the checkpoint of step 5, with a loss that is well
    assert list(rest) == [10]
    assert all(torch.isfinite(value).all() for value in resumed.state_dict().values())


def test_a_state_that_does_not_fit_is_refused_in_one_line(tmp_path: Path) -> None:
    train(tmp_path)
    other = nn.Linear(2, 1)
    for state in (None, b"", b"no state at all"):
        if state is not None:
            (tmp_path / loop.STATE).write_bytes(state)
        with pytest.raises(GenimaError, match=f"{tmp_path}.* does not fit") as caught:
            loop.run({"net": other}, squared(other), Numbers(), torch.stack, OPTIONS, tmp_path, lambda step: None)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", [{"steps": 20}, {"learning_rate": 0.5}, {"seed": 1}, {"batch_size": 8}])
def test_a_training_is_not_resumed_with_other_options(tmp_path: Path, other: dict[str, Any]) -> None:
    train(tmp_path, stop_at=10)
    (name, value), *_ = other.items()
    with pytest.raises(GenimaError, match=f"does not fit .*{name}: {getattr(OPTIONS, name)} then, {value} now"):
        train(tmp_path, replace(OPTIONS, **other))
    train(tmp_path, replace(OPTIONS, save_every=1, bar=1))  # these change nothing


def test_a_training_is_not_resumed_with_other_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, stop_at=10)
    monkeypatch.setattr(Numbers, "__len__", lambda self: 63)
    with pytest.raises(GenimaError, match="does not fit .*moments: .* then, 63 now"):
        train(tmp_path)


def test_two_trainings_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with loop._alone_in(tmp_path), pytest.raises(GenimaError, match=f"another training is writing to {tmp_path}"):
        train(tmp_path)
    train(tmp_path)


def test_batches_depend_on_seed_and_step_alone() -> None:
    options = replace(OPTIONS, steps=40)
    whole = list(StepSampler(1000, options, 0))
    assert len(whole) == len(StepSampler(1000, options, 0)) == 40
    for start in (1, 17, 40):
        sampler = StepSampler(1000, options, start)
        assert list(sampler) == whole[start:] and len(sampler) == 40 - start
    assert list(islice(StepSampler(1000, replace(options, steps=80), 0), 40)) == whole
    assert list(StepSampler(1000, replace(options, seed=1), 0)) != whole
    indices = np.array(whole)
    assert indices.shape == (40, 4) and indices.min() >= 0 and indices.max() < 1000 and len(np.unique(indices)) > 130


# The diffusion agent


@pytest.fixture(scope="module")
def drawing_batch(
    demos: list[Demo], robot: RobotModel, tiny: DrawingSpec, request: pytest.FixtureRequest
) -> tuple[Tensor, Tensor, list[str]]:
    dataset = DrawingDataset(demos, robot, request.getfixturevalue("cameras"), tiny)
    return drawings.collate([dataset[5], dataset[len(demos[0]) + 60]])


def fresh_agent(spec: DrawingSpec, batch: tuple[Tensor, Tensor, list[str]]) -> DiffusionAgent:
    torch.manual_seed(0)
    return small_agent(spec, batch[2], batch[1].permute(0, 3, 1, 2).float() / 127.5 - 1, steps=2)


def test_a_few_steps_reduce_the_drawing_loss(
    tiny: DrawingSpec, drawing_batch: tuple[Tensor, Tensor, list[str]]
) -> None:
    agent = fresh_agent(tiny, drawing_batch)
    parameters = [p for name in ("unet", "controlnet", "text_encoder") for p in agent.modules[name].parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-3)
    losses = []
    for _ in range(10):
        value = drawing.drawing_loss(agent, *drawing_batch, torch.Generator().manual_seed(0))
        losses.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad is not None for parameter in agent.text_encoder.parameters())  # the goal is learned too


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_drawing_loss_is_zero_for_a_network_that_knows(
    tiny: DrawingSpec, drawing_batch: tuple[Tensor, Tensor, list[str]], kind: str
) -> None:
    agent = fresh_agent(tiny, drawing_batch)
    clean = agent.vae.encode(drawing_batch[1].permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mode()
    betas = dict(agent.scheduler.config, prediction_type=kind, rescale_betas_zero_snr=False)
    agent.scheduler = type(agent.scheduler).from_config(betas)
    share = agent.scheduler.alphas_cumprod

    class Knows(SimpleNamespace):
        wrong = 0.0

        def __call__(self, noisy: Tensor, t: Tensor, *_: object, **__: object) -> tuple[Tensor]:
            signal, spread = share[t].sqrt()[:, None, None, None], (1 - share[t]).sqrt()[:, None, None, None]
            noise = (noisy - signal * clean) / spread
            known = {"epsilon": noise, "sample": clean, "v_prediction": signal * noise - spread * clean}
            return (known[kind] + self.wrong,)

    agent.unet = Knows(device=torch.device("cpu"), config=agent.unet.config)
    for seed in range(3):
        agent.unet.wrong = 0.0
        value = drawing.drawing_loss(agent, *drawing_batch, torch.Generator().manual_seed(seed))
        assert value.item() < 1e-4
        agent.unet.wrong = 0.5
        value = drawing.drawing_loss(agent, *drawing_batch, torch.Generator().manual_seed(seed))
        assert value.item() == pytest.approx(0.25, rel=0.05)  # weights of spheres do not change the scale


class Interrupted(Exception):
    pass


def _raise_the_second_time() -> Callable[..., dict[str, float]]:
    """In place of what a training does at the end of a save."""
    calls = iter([{}])

    def instead(*_: object) -> dict[str, float]:
        for result in calls:
            return result
        raise Interrupted

    return instead


def whole_and_resumed(folder: Path, train_it: Callable[..., None], end_of_save: str, *data: object) -> None:
    """Train in ``whole_`` at one go, and in ``parts_`` with an interruption amid the second save."""
    options = LoopOptions(2, 2, 1e-3, warmup_steps=1, save_every=1, workers=0)
    train_it(*data, options, folder / "whole_")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(f"{train_it.__module__}.{end_of_save}", _raise_the_second_time())
        train_it(*data, options, folder / "parts_")
    assert torch.load(folder / "parts_" / loop.STATE, weights_only=True)["step"] == 1
    train_it(*data, options, folder / "parts_")


def test_the_diffusion_agent_resumes_exactly(demos: list[Demo], tiny: DrawingSpec, tmp_path: Path) -> None:
    whole_and_resumed(tmp_path, drawing.train_small_agent, "_sample", demos, tiny)
    for part in ("unet/diffusion_pytorch_model", "controlnet/diffusion_pytorch_model", "text_encoder/model"):
        whole, parts = (load_file(tmp_path / run / f"{part}.safetensors") for run in ("whole_", "parts_"))
        assert same(whole, parts), part
    assert DiffusionAgent.from_pretrained(tmp_path / "parts_").spec == tiny
    assert (tmp_path / "parts_/drawings.png").stat().st_size > 1000


# The controller


def test_a_few_steps_reduce_the_controllers_loss(
    demos: list[Demo], robot: RobotModel, tiny: DrawingSpec, request: pytest.FixtureRequest
) -> None:
    torch.manual_seed(0)
    statistics, cameras = joint_statistics(demos), request.getfixturevalue("cameras")
    dataset = ChunkDataset(demos, robot, cameras, tiny, statistics, Perturbation())
    batch = collate([dataset[i] for i in (0, 40, 100, 150)])
    tokenizer = small_tokenizer(batch.instructions)
    act = Act(ActConfig.small(tiny.horizon), small_text_encoder(tokenizer))
    controller = Controller(tiny, act, tokenizer, statistics)
    optimizer = torch.optim.AdamW(act.parameters(), 1e-3)
    losses = []
    for _ in range(15):
        parts = control.controller_loss(controller, batch, torch.Generator().manual_seed(0))
        value = sum(parts.values(), torch.zeros(()))
        losses.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert set(parts) == {"joints", "gripper", "kl"}
    assert losses[-1] < 0.7 * losses[0]
    act.eval()
    errors = control.chunk_errors(controller, batch)
    assert errors["joints_deg"] > 0 and 0 <= errors["gripper"] <= 1 and errors["tip_mm_end"] > 0


def test_the_controller_resumes_exactly(demos: list[Demo], tiny: DrawingSpec, tmp_path: Path) -> None:
    whole_and_resumed(tmp_path, control.train_small_controller, "chunk_errors", demos, tiny)
    whole, parts = (load_file(tmp_path / run / "act.safetensors") for run in ("whole_", "parts_"))
    assert same(whole, parts)
    assert Controller.from_pretrained(tmp_path / "parts_").spec == tiny


def test_training_without_enough_demos_is_one_clear_line(
    demos: list[Demo], robot: RobotModel, tiny: DrawingSpec, tmp_path: Path
) -> None:
    with pytest.raises(GenimaError, match="no episodes"):
        load_demos(tmp_path / "none", robot, tiny)
    for train_it in (drawing.train_small_agent, control.train_small_controller):
        with pytest.raises(GenimaError, match="at least two successful demos, there are 1"):
            train_it(demos[:1], tiny, OPTIONS, tmp_path / "out")
