"""One demo after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Literal, TypeVar

from tqdm import tqdm

from genima.errors import GenimaError

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
        ignore = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for this process
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), signal.signal, ignore) as pool:
            try:
                for result in pool.map(act, items):
                    yield result
                    bar.update()
            except BrokenProcessPool:
                raise GenimaError(f"a process that was to {what} demos has died; its last words are above") from None
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
