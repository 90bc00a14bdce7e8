"""Loops over demos with a progress bar."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from tqdm import tqdm

from genima.data.episodes.folders import is_demo
from genima.errors import GenimaError
from genima.io.outputs import output_lock
from genima.system.process_pool import WorkerPool
from genima.system.terminal import printable

T = TypeVar("T")
R = TypeVar("R")
OnFault = Literal["skip", "refuse"]
_WORTH_A_PROCESS = 8  # demos


def for_each(items: Sequence[T], act: Callable[[T], None], on_fault: OnFault, what: str) -> int:
    """Act on all items with a progress bar; return the number skipped for a fault."""
    skipped = 0
    for item in tqdm(items, desc=what, unit="demo", dynamic_ncols=True):
        try:
            act(item)
        except GenimaError as error:
            if on_fault == "refuse":
                raise
            skipped += 1
            tqdm.write(f"genima: skipped: {printable(error)}")
    return skipped


def import_episodes(
    names: Sequence[str],
    out: Path,
    write: Callable[[int], None],
    is_written: Callable[[int], bool],
    on_fault: OnFault,
    dataset: Path,
) -> None:
    """Write the episodes of a dataset that are not yet demos in ``out``, and print how many are.

    Args:
        names: of the demos, by number.
        out: folder of the demos; held by this process alone meanwhile.
        write: writes the demo of a number.
        is_written: returns whether the demo in the place of a number is of that episode.
        on_fault: whether an episode with a fault is left out or ends the command.
        dataset: named in errors.

    Raises:
        GenimaError: when two episodes have a name, something else or another demo is in the place of a demo, another
            process writes ``out``, or no episode could be imported.
    """
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise GenimaError(
            f"dataset {dataset}: two episodes would be called {twice[0]}; import its parts one by one, "
            "each with a --out of its own"
        )
    out = out.absolute()
    if out.resolve().is_relative_to(dataset.resolve()):
        raise GenimaError(f"--out {out}: lies in {dataset}; choose a folder outside")
    if out.exists() and not out.is_dir():
        raise GenimaError(f"demos {out}: not a folder; name another")
    with output_lock(out, "demos"):
        for name in names:
            there = out / name
            if (there.exists() or there.is_symlink()) and not (there.is_dir() and is_demo(there)):
                raise GenimaError(f"demo {there}: something else is there; move it away, or name another --out")
        todo = [i for i, name in enumerate(names) if not (out / name).exists()]
        for i in sorted(set(range(len(names))) - set(todo)):
            if not is_written(i):
                raise GenimaError(
                    f"demo {out / names[i]}: not of dataset {dataset}, or imported with other options; name another "
                    "--out"
                )
        skipped = for_each(todo, write, on_fault, "import")
    total = len(names)
    new = len(todo) - skipped
    print(f"{total - skipped} demos of {total} in {printable(out)}, {new} of them new; {skipped} skipped")
    if skipped == total:
        raise GenimaError(f"none of the {total} episodes of {dataset} could be imported")


def in_processes(items: Sequence[T], act: Callable[[T], R], what: str) -> Iterator[R]:
    """Yield the results of ``act``, importable by other processes, for each item in order, with a progress bar."""
    bar = tqdm(total=len(items), desc=what, unit="demo", dynamic_ncols=True, leave=False)
    workers = min(len(os.sched_getaffinity(0)), len(items) // _WORTH_A_PROCESS)
    with bar:
        if workers < 2:
            for item in items:
                yield act(item)
                bar.update()
            return
        with WorkerPool(workers) as pool:
            for result in pool.map(act, items):
                yield result
                bar.update()
