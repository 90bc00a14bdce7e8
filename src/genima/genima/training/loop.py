"""The one training loop: AdamW, warm-up then cosine, averaged weights, progress, checkpoints, resume."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from genima.errors import GenimaError
from genima.precision import half_precision

STATE = "training_state.pt"
_WITHOUT_EFFECT = ("save_every", "bar")  # options that may change when a training is resumed


@dataclass(frozen=True)
class LoopOptions:
    """How long and how fast to learn."""

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 1e-2
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    average: float = 0.995  # decay of the exponential moving average of the weights
    save_every: int = 500
    workers: int = 1
    bar: int = 0  # line of the progress bar, where several trainings share a screen
    seed: int = 0


class StepSampler(torch.utils.data.Sampler[list[int]]):
    """Batches of indices that depend on (seed, step) alone, so that a resumed run sees what it would have seen."""

    def __init__(self, size: int, options: LoopOptions, start: int) -> None:
        self._size, self._options, self._start = size, options, start

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self._start, self._options.steps):
            rng = np.random.default_rng([self._options.seed, step])
            yield rng.integers(0, self._size, self._options.batch_size).tolist()

    def __len__(self) -> int:
        return self._options.steps - self._start


def run(
    modules: Mapping[str, nn.Module],
    loss: Callable[[Any, torch.Generator], tuple[Tensor, dict[str, float]]],
    dataset: torch.utils.data.Dataset[Any],
    collate: Callable[[Any], Any],
    options: LoopOptions,
    folder: Path,
    save: Callable[[int], None],
) -> None:
    """Train ``modules`` until ``options.steps``, from where the state in ``folder`` says that an earlier run stopped.

    Args:
        dataset: where its samples differ from visit to visit, ``skip`` tells it how many an earlier run has taken.
        loss: of a collated batch and a generator for its random draws; also what to show beside the progress bar.
        save: called with the step number while the modules hold the averaged weights.

    Raises:
        GenimaError: when the loss stops being finite, the state is another training's, or one is under way here.
    """
    device = next(next(iter(modules.values())).parameters()).device
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, options.learning_rate, weight_decay=options.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimizer, options.warmup_steps, options.steps)
    average = EMAModel(parameters, decay=options.average)
    average.to(device)
    about = {key: value for key, value in asdict(options).items() if key not in _WITHOUT_EFFECT}
    about["moments"] = len(dataset)  # type: ignore[arg-type]
    start = _restore(folder / STATE, about, modules, optimizer, schedule, average)
    if skip := getattr(dataset, "skip", None):
        skip(start * options.batch_size)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=StepSampler(len(dataset), options, start),  # type: ignore[arg-type]
        collate_fn=collate,
        num_workers=options.workers,
        multiprocessing_context="spawn" if options.workers else None,
    )

    def keep(step: int) -> None:
        average.store(parameters)
        average.copy_to(parameters)
        for module in modules.values():
            module.eval()
        save(step)
        for module in modules.values():
            module.train()
        average.restore(parameters)
        # last, so that what was interrupted here is done again
        _store(folder / STATE, step, about, modules, optimizer, schedule, average)

    for module in modules.values():
        module.train()
    smooth: dict[str, float] = {}
    bar = {"desc": folder.name, "unit": "step", "position": options.bar, "dynamic_ncols": True}
    with _alone_in(folder), tqdm(loader, initial=start, total=options.steps, **bar) as progress:
        for step, batch in enumerate(progress, start + 1):
            generator = torch.Generator().manual_seed(hash((options.seed, step)) % 2**63)
            with half_precision(device):
                value, shown = loss(batch, generator)
            if not torch.isfinite(value):
                raise GenimaError(f"the loss is {value.item()} at step {step}; the last checkpoint in {folder} is kept")
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, options.gradient_clip)
            optimizer.step()
            schedule.step()
            average.step(parameters)
            for key, number in {"loss": value.item(), **shown}.items():
                smooth[key] = 0.98 * smooth.get(key, number) + 0.02 * number
            progress.set_postfix({key: f"{number:.4f}" for key, number in smooth.items()}, refresh=False)
            if step % options.save_every == 0 or step == options.steps:
                keep(step)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """While it is open, no other training writes to the folder."""
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            line = f"another training is writing to {folder}; wait for it, or choose another folder"
            raise GenimaError(line) from None
        yield


def _store(
    path: Path,
    step: int,
    about: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    optimizer: Any,
    schedule: Any,
    average: EMAModel,
) -> None:
    state = {
        "step": step,
        "about": dict(about),
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "average": {"weights": average.shadow_params, "steps": average.optimization_step},
    }
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def _restore(
    path: Path,
    about: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    optimizer: Any,
    schedule: Any,
    average: EMAModel,
) -> int:
    if not path.exists():
        return 0
    try:
        state = torch.load(path, weights_only=True)
        then = state["about"]
        if different := [f"{key}: {then[key]} then, {about[key]} now" for key in about if then[key] != about[key]]:
            raise ValueError(", ".join(different))
        for name, module in modules.items():
            module.load_state_dict(state["modules"][name])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        average.shadow_params = [tensor.clone() for tensor in state["average"]["weights"]]
        average.optimization_step = state["average"]["steps"]
    except Exception as error:  # torch raises many kinds for a damaged or different state
        reason = " ".join(str(error).split())
        raise GenimaError(f"{path} does not fit this training ({reason}); remove it to start afresh") from None
    return int(state["step"])
