"""Stand-in for a WorkerPool where processes are not what is tested: one takes seconds to begin."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


class OneThread(ThreadPoolExecutor):
    """A thread that calls ``start`` first, as each process of a WorkerPool does."""

    def __init__(
        self, workers: int, start: Callable[..., object] | None = None, arguments: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(1, initializer=start, initargs=arguments)


def render_in_a_thread(patch: pytest.MonkeyPatch) -> None:
    """Have demos rendered in a thread of this process."""
    patch.setattr(sys.modules["genima.data.datasets.render"], "WorkerPool", OneThread)
