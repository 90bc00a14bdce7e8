"""One demo after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from tqdm import tqdm

from genima.errors import GenimaError
from genima.workers import WorkerPool

T = TypeVar("T")
R = TypeVar("R")
OnFault = Literal["skip", "refuse"]
_WORTH_A_PROCESS = 8  # demos


def for_each(items: Sequence[T], act: Callable[[T], None], on_fault: OnFault, what: str) -> int:
    """Act on all items with a progress bar; returns how many were skipped for a fault."""
    skipped = 0
    for item in tqdm(items, desc=what, unit="demo", dynamic_ncols=True):
        try:
            act(item)
        except GenimaError as error:
            if on_fault == "refuse":
                raise
            skipped += 1
            tqdm.write(f"genima: skipped: {error}")
    return skipped


def tell_imported(total: int, todo: int, skipped: int, out: Path, dataset: Path) -> None:
    """Tell what became of the ``todo`` of ``total`` episodes that were not there yet.

    Raises:
        GenimaError: when none could be imported.
    """
    print(f"{total - skipped} demos of {total} in {out}, {todo - skipped} of them new; {skipped} skipped")
    if skipped == total:
        raise GenimaError(f"none of the {total} episodes of {dataset} could be imported")


def in_processes(items: Sequence[T], act: Callable[[T], R], what: str) -> Iterator[R]:
    """What ``act``, which other processes must be able to import, makes of each item in turn, with a progress bar."""
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
