"""Stand-in for a WorkerPool in tests that need no processes, which take seconds to start."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest


class OneThread(ThreadPoolExecutor):
    """Thread that first calls ``start``, as each process of a WorkerPool."""

    def __init__(
        self, workers: int, start: Callable[..., object] | None = None, arguments: tuple[Any, ...] = ()
    ) -> None:
        super().__init__(1, initializer=start, initargs=arguments)


def render_in_a_thread(patch: pytest.MonkeyPatch) -> None:
    """Render demos in a thread of this process."""
    # The package has a function of the same name.
    patch.setattr(importlib.import_module("genima.data.datasets.render"), "WorkerPool", OneThread)
