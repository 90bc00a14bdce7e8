"""Process of `./genima serve` that the fault bench stalls and kills."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from genima.errors import GenimaError
from genima.policy.remote import TOKEN
from genima_cli.supervisor import end_with_parent

_READY_TIMEOUT = 180.0  # s: models are loaded
_POLL_PERIOD = 0.1  # s
_ADDRESS = re.compile(r"--policy (ws://\S+:(\d+))")


class PolicyServerProcess:
    """Context in which a policy server runs."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        """Args:
        arguments: of ``./genima serve``.
        log: file for its output.
        """
        self._arguments, self._log = arguments, log
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.environment = {TOKEN: secrets.token_urlsafe(16)}  # of its clients
        self.address = ""

    def __enter__(self) -> PolicyServerProcess:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, check: Callable[[], None] = lambda: None) -> None:
        """Start the process, at the same address again, and wait until it listens; ``check`` is called meanwhile.

        Raises:
            GenimaError: for a process that ends, or does not listen in time.
        """
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "wb") as log:
            self._process = process = subprocess.Popen(
                [sys.executable, "-P", "-m", "genima_cli", "serve", *self._arguments, "--port", str(self._port)],
                env=os.environ | self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                process_group=0, preexec_fn=end_with_parent,
            )  # fmt: skip
        deadline = time.monotonic() + _READY_TIMEOUT
        while not (found := _ADDRESS.search(text := self._log.read_text(encoding="utf-8", errors="replace"))):
            check()
            if process.poll() is not None or time.monotonic() > deadline:
                last = (text.strip().splitlines() or ["no output"])[-1]
                raise GenimaError(f"policy server: does not listen ({last}); log: {self._log}")
            time.sleep(_POLL_PERIOD)
        self.address, self._port = found[1], int(found[2])

    def pause(self) -> None:
        """Stall the process: its connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """End a stall."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
