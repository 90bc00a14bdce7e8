"""Training loop on accelerate: one or more devices, checkpoints, exact resume, TensorBoard, progress bar."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from genima.data.datasets.sample_index import SampleIndex
from genima.errors import GenimaError
from genima.io.files import shorten
from genima.io.outputs import output_lock
from genima.policy.precision import is_half_fast
from genima.policy.spec import BEST, LAST, VIDEO_MODEL, last_checkpoints
from genima.system.command_line import check_options
from genima.system.process_pool import end_with_parent
from genima.training import PROGRESS, STATE
from genima.training.log import Progress, append_metrics, finite
from genima.training.options import LoopOptions

_BAD_BATCH = "bad_batch.pt"
_TENSORBOARD = "tensorboard"
_PARTIAL = ".partial"  # marks an incomplete checkpoint of this program
_CHECKPOINT = re.compile(r"step-\d{6,}")
_SAMPLING = "every moment once an epoch"  # stored in the progress: resuming requires the same
_WITHOUT_EFFECT = ("save_every", "keep", "workers", "bar", "accumulate")  # options that may change when resuming
_RENAMED = {"validation_drawings": "validation_targets"}  # options of older versions


class StepSampler(torch.utils.data.Sampler[list[SampleIndex]]):
    """Sampler of batches: every epoch contains each moment once, in its own random order.

    A batch may span two epochs: none is dropped or shortened. Batches depend only on (seed, step), not on workers,
    devices or the step of a resume.
    """

    def __init__(
        self, size: int, options: LoopOptions, start: int = 0, part: int = 0, parts: int = 1, accumulate: int = 1
    ) -> None:
        """``part`` of ``parts`` devices; each yields ``accumulate`` batches a step."""
        self._size, self._options, self._start = size, options, start
        self._part, self._parts, self._accumulate = part, parts, accumulate

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        batch, epoch, order = self._options.batch_size, -1, np.empty(0, np.int64)
        for step in range(self._start, self._options.steps):
            indices = []
            for sample in range(step * batch, (step + 1) * batch):
                if sample // self._size != epoch:
                    epoch = sample // self._size
                    order = np.random.default_rng([self._options.seed, epoch]).permutation(self._size)
                indices.append(SampleIndex(int(order[sample % self._size]), sample))
            own = indices[self._part :: self._parts]
            for i in range(self._accumulate):
                yield own[i :: self._accumulate]

    def __len__(self) -> int:
        return (self._options.steps - self._start) * self._accumulate


def make_accelerator(options: LoopOptions, folder: Path) -> Accelerator:
    """Create the accelerator of a training, on the devices of ``accelerate launch`` or the local one.

    Raises:
        GenimaError: for invalid options, a batch that cannot be split evenly, or a folder with other files than a
            training's.
    """
    check_options(options)
    require_training_folder(folder)
    precision = options.mixed_precision
    if precision == "auto":
        cuda = torch.cuda.is_available()
        fast = is_half_fast(torch.device("cuda" if cuda else "cpu"))
        precision = "bf16" if fast else "fp16" if cuda else "no"
    accelerator = Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=options.accumulate,
        log_with="tensorboard",
        project_dir=folder,
        step_scheduler_with_optimizer=False,
    )
    parts = accelerator.num_processes * options.accumulate
    if options.batch_size % parts:
        raise GenimaError(
            f"--batch-size {options.batch_size}: cannot be split into {parts} equal parts "
            f"({accelerator.num_processes} processes, {options.accumulate} parts each); use another"
        )
    return accelerator


def run(
    model: nn.Module,
    dataset: torch.utils.data.Dataset[Any],
    collate: Callable[[Any], Any],
    options: LoopOptions,
    folder: Path,
    save: Callable[[Path], None],
    validate: Callable[[int, Path], Mapping[str, float]],
    best_by: str,
    about: Mapping[str, Any] | None = None,
    accelerator: Accelerator | None = None,
) -> None:
    """Train until ``options.steps``, resuming from the last checkpoint in ``folder``.

    Every ``options.save_every`` steps a checkpoint ``step-<n>`` is written; ``best``, ``last`` and, where more are
    kept, ``last-1`` and so on are links; other checkpoints are removed. Ctrl-C or SIGTERM stop
    after the current step with a checkpoint.

    Args:
        model: maps a collated batch to its losses by name, of which ``loss`` is minimised; parameters that
            require gradients are trained. It must use PyTorch's global random generator.
        dataset: indexed by :class:`SampleIndex`; a sample's randomness is seeded by ``SampleIndex.sample``.
        save: writes a checkpoint into a folder; called while the model has the averaged weights, if configured.
        validate: errors by name for a step's checkpoint (they are logged); may write pictures into the folder.
        best_by: the error whose least value marks the best checkpoint.
        about: further settings that must be equal when resuming, JSON types.

    Raises:
        GenimaError: for a loss that is not finite, the state of another training, or a running one in the folder.
    """
    options = options.with_steps(len(dataset))  # type: ignore[arg-type]
    accelerator = accelerator or make_accelerator(options, folder)
    require_training_folder(folder)
    lock = output_lock(folder.absolute(), "training") if accelerator.is_main_process else contextlib.nullcontext()
    with lock:
        folder.mkdir(parents=True, exist_ok=True)
        about = {**(about or {}), "moments": len(dataset), "sampling": _SAMPLING}  # type: ignore[arg-type]
        training = _Training(model, options, folder, save, validate, best_by, about, accelerator)
        training.run(dataset, collate)


def require_training_folder(folder: Path) -> None:
    """Check before long work that a training folder is new, empty, or a training's.

    Raises:
        GenimaError: for a folder with other files.
    """
    try:
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        names = {name for name in names if not name.lstrip(".").startswith(VIDEO_MODEL)}  # trained before its policy
    except OSError as error:
        raise GenimaError(f"training {folder}: cannot read the folder ({error.strerror}); name another") from None
    if not names <= {_TENSORBOARD} and not (folder / LAST / STATE / PROGRESS).is_file():
        held = "a checkpoint without its training's state" if LAST in names else f"other files ({min(names)})"
        raise GenimaError(f"training {folder}: the folder holds {held}; name another with --out")


@contextlib.contextmanager
def trial_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder next to a training's, on the same disk."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        trial = tempfile.TemporaryDirectory(
            prefix=f".{folder.name}.", suffix=".trial", dir=folder.parent, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise GenimaError(f"cannot write training {folder}: {error.strerror}") from None
    with trial as name:
        yield Path(name)


@contextlib.contextmanager
def translate_trial_errors(what: str) -> Iterator[None]:
    """Translate errors of a trial before a training: they would occur when its result is used."""
    try:
        yield
    except GenimaError as error:
        raise GenimaError(f"{what}: could be trained but not used ({error}); choose other options") from None
    except Exception as error:
        reason = shorten(str(error) or repr(error), 300)
        raise GenimaError(f"{what}: could be trained but not used ({reason}); choose other options") from None


class _Training:
    def __init__(
        self,
        model: nn.Module,
        options: LoopOptions,
        folder: Path,
        save: Callable[[Path], None],
        validate: Callable[[int, Path], Mapping[str, float]],
        best_by: str,
        about: Mapping[str, Any],
        accelerator: Accelerator,
    ) -> None:
        self._options, self._folder, self._accelerator = options, folder, accelerator
        self._save, self._validate, self._best_by = save, validate, best_by
        loop_options = {key: value for key, value in asdict(options).items() if key not in _WITHOUT_EFFECT}
        # Round trip through JSON: tuples become lists before the comparison.
        self._about = json.loads(json.dumps({**loop_options, **about}, default=str))
        self._moments = int(about["moments"])
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        fused = accelerator.device.type == "cuda"
        optimizer = torch.optim.AdamW(
            self._parameters, options.learning_rate, weight_decay=options.weight_decay, fused=fused
        )
        self._model, self._optimizer = accelerator.prepare(model, optimizer)
        schedule = "cosine_with_restarts" if options.schedule == "cosine" else options.schedule
        self._schedule = get_scheduler(
            schedule, optimizer, num_warmup_steps=options.warmup_steps, num_training_steps=options.steps,
            num_cycles=options.cycles,
        )  # fmt: skip
        self._average = EMAModel(self._parameters, decay=options.ema) if options.ema else None
        if self._average:
            self._average.to(accelerator.device)
        # Saved here: accelerate would unpickle their files, which can execute code.
        self._states: list[Any] = [self._schedule, *([self._average] if self._average else [])]
        self._step, self._best = 0, math.inf
        self._asked_to_stop = False  # by a signal to this process
        self._stop = False  # agreed on by all processes

    def run(self, dataset: torch.utils.data.Dataset[Any], collate: Callable[[Any], Any]) -> None:
        options, accelerator = self._options, self._accelerator
        self._restore()
        sampler = StepSampler(
            self._moments, options, self._step,
            accelerator.process_index, accelerator.num_processes, options.accumulate,
        )  # fmt: skip
        over = multiprocessing.get_context("spawn").Event()
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=options.workers,
            pin_memory=accelerator.device.type == "cuda",
            multiprocessing_context="spawn" if options.workers else None,
            prefetch_factor=4 if options.workers else None,
            worker_init_fn=functools.partial(_prepare_worker, over),
        )
        accelerator.init_trackers(_TENSORBOARD)
        bar = tqdm(
            initial=self._step, total=options.steps, desc=self._folder.name, unit="step", position=options.bar,
            dynamic_ncols=True, disable=not accelerator.is_main_process,
        )  # fmt: skip
        self._model.train()
        batches = iter(loader)
        with bar, self._stopping(over):
            smooth: dict[str, float] = {}
            while self._step < options.steps and not self._stop:
                set_seed(hash((options.seed, self._step, accelerator.process_index)) % 2**32)
                losses = self._train_step(batches)
                self._step += 1
                for key, value in losses.items():
                    smooth[key] = 0.98 * smooth.get(key, value) + 0.02 * value
                bar.set_postfix({key: f"{value:.4g}" for key, value in smooth.items()}, refresh=False)
                bar.update()
                if self._step % 10 == 0:
                    accelerator.log({**losses, "learning_rate": self._schedule.get_last_lr()[0]}, self._step)
                if self._step % options.save_every == 0 or self._step == options.steps or self._stop:
                    self._save_checkpoint()
        accelerator.end_training()
        if self._step < options.steps:
            accelerator.print(f"\nstopped at step {self._step} of {options.steps}; the same command resumes it")
            raise KeyboardInterrupt

    def _train_step(self, batches: Iterator[Any]) -> dict[str, float]:
        """Run one optimiser step; return the losses, averaged over devices and parts."""
        accelerator, total = self._accelerator, dict[str, float]()
        for _ in range(self._options.accumulate):
            batch = _next_batch(batches)
            with accelerator.accumulate(self._model):
                losses: Mapping[str, Tensor] = self._model(batch)
                accelerator.backward(losses["loss"])
                norm = torch.zeros(())
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self._parameters, self._options.gradient_clip or math.inf)
                    if accelerator.scaler:  # it skips steps with overflowing gradients and reduces the scale
                        norm = torch.zeros(())
                names = list(losses)
                values = [*(losses[name].detach().float() for name in names), torch.as_tensor(norm).float()]
                values.append(torch.tensor(float(self._asked_to_stop)))
                shared = accelerator.reduce(torch.stack([v.to(accelerator.device) for v in values]), "mean").tolist()
                if not all(map(math.isfinite, shared)):
                    self._reject_batch(batch, dict(zip([*names, "gradient"], shared, strict=False)))
                self._optimizer.step()
                if accelerator.sync_gradients:
                    self._schedule.step()
                    if self._average:
                        self._average.step(self._parameters)
                self._optimizer.zero_grad(set_to_none=True)
            for name, value in zip(names, shared, strict=False):
                total[name] = total.get(name, 0.0) + value / self._options.accumulate
        self._stop = shared[-1] > 0  # all processes stop after the same step
        return total

    def _reject_batch(self, batch: Any, values: Mapping[str, float]) -> None:
        process = self._accelerator.process_index
        file = self._folder / (_BAD_BATCH if self._accelerator.num_processes == 1 else f"{process}-{_BAD_BATCH}")
        torch.save({"step": self._step + 1, "batch": batch}, file)
        bad = ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value))
        raise GenimaError(
            f"{bad} at step {self._step + 1} of {self._folder}; its batch is in {file}, the last checkpoint is kept"
        )

    @contextlib.contextmanager
    def _stopping(self, over: Event) -> Iterator[None]:
        """Stop with a checkpoint on Ctrl-C and SIGTERM, at once on a second Ctrl-C; set ``over`` at the end."""

        def stop(number: int, _: Any) -> None:
            self._asked_to_stop = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        try:
            before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: the caller has its own handlers
            before = {}
        try:
            yield
        finally:
            over.set()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _save_checkpoint(self) -> None:
        """Validate and write a checkpoint; it is the last one when the link is replaced."""
        accelerator, folder = self._accelerator, self._folder / f"step-{self._step:06d}"
        part = folder.with_suffix(".part")
        self._model.eval()
        if self._average:
            self._average.store(self._parameters)
            self._average.copy_to(self._parameters)
        errors: dict[str, float] = {}
        if accelerator.is_main_process:
            if (part / _PARTIAL).is_file():  # of a run that was killed
                shutil.rmtree(part)
            elif part.exists() or part.is_symlink():
                _set_aside(part)
            part.mkdir(parents=True)
            (part / _PARTIAL).touch()
            self._save(part)
            errors = dict(self._validate(self._step, part))
        if self._average:
            self._average.restore(self._parameters)
        self._model.train()
        accelerator.wait_for_everyone()
        accelerator.save_state(str(part / STATE))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            is_best = errors[self._best_by] <= self._best or not (self._folder / BEST).exists()
            self._best = min(self._best, errors[self._best_by])
            best = self._best if math.isfinite(self._best) else None
            Progress(step=self._step, about=self._about, best=best, errors=finite(errors)).save(part)
            for i, state in enumerate(self._states):
                torch.save(state.state_dict(), part / STATE / _state_file(i))
            if folder.exists() or folder.is_symlink():
                self._remove_unlinked_copy(folder)
            (part / _PARTIAL).unlink()
            part.rename(folder)
            before = _linked_checkpoints(self._folder)
            if is_best:
                _link(self._folder / BEST, folder.name)
            names = last_checkpoints(self._options.keep)
            for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
                if (self._folder / newer).is_symlink():
                    _link(self._folder / older, os.readlink(self._folder / newer))
            _link(self._folder / LAST, folder.name)
            _remove_unlinked(self._folder, before)
            append_metrics(self._folder, self._step, errors)
            accelerator.log({f"validation/{key}": value for key, value in errors.items()}, self._step)
        accelerator.wait_for_everyone()

    def _remove_unlinked_copy(self, folder: Path) -> None:
        """Remove a checkpoint of this training that was killed before it was linked."""
        with contextlib.suppress(GenimaError):
            if not folder.is_symlink() and Progress.load(folder).about == self._about:
                shutil.rmtree(folder)
                return
        _set_aside(folder)

    def _restore(self) -> None:
        state = self._folder / LAST / STATE
        if not (self._folder / LAST).exists():
            return
        progress = Progress.load(self._folder / LAST)
        step, best = progress.step, math.inf if progress.best is None else progress.best
        then = {_RENAMED.get(key, key): value for key, value in progress.about.items()}
        different = [
            f"{key}: {shorten(str(then.get(key)))} then, {now} now"
            for key, now in self._about.items()
            if then.get(key) != now
        ]
        if different:
            raise GenimaError(
                f"training {self._folder}: other options ({'; '.join(different)}); use those, or train into another "
                "folder"
            )
        try:
            self._accelerator.load_state(str(state))
            for i, part in enumerate(self._states):
                part.load_state_dict(torch.load(state / _state_file(i), map_location="cpu", weights_only=True))
        except Exception as error:  # torch and accelerate raise many kinds for a damaged or different state
            reason = shorten(str(error) or repr(error), 300)
            raise GenimaError(
                f"training {self._folder}: cannot be resumed ({reason}); train into another folder"
            ) from None
        self._accelerator.step = 0  # checkpoints are written between steps
        if self._average:
            self._average.to(self._accelerator.device)
        self._step, self._best = step, best
        steps = self._accelerator.gather(torch.tensor([step], device=self._accelerator.device))
        if (steps != step).any():
            raise GenimaError(f"training {self._folder}: differs between processes; share the folder on all machines")


def _next_batch(batches: Iterator[Any]) -> Any:
    """Return the next batch; a worker's error is reduced to the last line of its traceback."""
    try:
        return next(batches)
    except GenimaError as error:
        line = str(error).strip().splitlines()[-1]
        raise GenimaError(line.removeprefix(f"{GenimaError.__module__}.{GenimaError.__name__}: ")) from None


def _prepare_worker(over: Event, worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM in a worker until the training is over: only the main process handles them."""

    def terminate(number: int, _: Any) -> None:
        if over.is_set():
            os._exit(1)

    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    cv2.setNumThreads(1)  # the workers run in parallel already


def _link(link: Path, target: str) -> None:
    """Replace a link to a sibling atomically."""
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    if link.is_dir() and not link.is_symlink():  # of a copied training, where links became folders
        _set_aside(link)
    os.replace(part, link)


def _linked_checkpoints(folder: Path) -> set[Path]:
    """Return the linked checkpoints of a training."""
    targets = {link.resolve() for link in (folder / BEST, *folder.glob(f"{LAST}*")) if link.is_symlink()}
    return {path for path in targets if path.parent == folder.resolve() and _CHECKPOINT.fullmatch(path.name)}


def _remove_unlinked(folder: Path, before: set[Path]) -> None:
    """Remove checkpoints linked ``before`` but not now, and all states except the last."""
    now = _linked_checkpoints(folder)
    for checkpoint in before - now:
        shutil.rmtree(checkpoint, ignore_errors=True)
    for checkpoint in now - {(folder / LAST).resolve()}:
        shutil.rmtree(checkpoint / STATE, ignore_errors=True)


def _set_aside(path: Path) -> None:
    """Rename an existing file that is not this program's."""
    free = next(p for i in itertools.count(1) if not (p := path.with_name(f"{path.name}.{i}")).exists())
    path.rename(free)


def _state_file(i: int) -> str:
    return f"state_{i}.bin"
