"""Show which nodes are ready and which are awaited."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from tqdm import tqdm

_PERIOD = 5.0  # s between two lines where no terminal shows a live one


class StartupProgress:
    """Live line on a terminal; elsewhere a line every few seconds."""

    def __init__(self) -> None:
        self._line = tqdm(bar_format="{desc}", disable=None, leave=False)
        self._next = time.monotonic() + 1.0

    def __enter__(self) -> StartupProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()

    def show(self, nodes: Sequence[str], awaited: Sequence[str], seconds: float) -> None:
        """Show the state of ``nodes``; ``awaited`` are those that are not ready, each with the reason."""
        ready = len(nodes) - len(awaited)
        text = f"{seconds:.0f} s: {ready} of {len(nodes)} nodes are ready"
        text += f"; waiting for {', '.join(awaited)}" if awaited else ""
        if not self._line.disable:
            self._line.set_description_str(text)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _PERIOD
            print(text, flush=True)
