"""Commands that are used by keys, in a terminal of their own."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Sequence


class Terminal:
    """A command with keys and a screen."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, 200))
        self.process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._said = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def until(self, words: str, press: str = "", seconds: float = 120.0) -> None:
        """Wait for words on the screen after those waited for last, with keys pressed again and again."""
        deadline = time.monotonic() + seconds
        while words not in self._said:
            assert self.process.poll() is None, self._lines()
            if time.monotonic() > deadline:
                raise TimeoutError(self._lines())
            if select.select([self._ours], [], [], 0.1)[0]:
                self._said += os.read(self._ours, 65536).decode(errors="replace")
            self.press(press)
        self._said = self._said[self._said.index(words) + len(words) :]

    def _lines(self) -> str:
        """Return the output, each line once: the live line is repeated."""
        return "\n".join(dict.fromkeys(self._said.splitlines()))

    def forget(self, seconds: float) -> None:
        """Ignore the present output in later searches."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self._ours], [], [], 0.1)[0]:
                os.read(self._ours, 65536)
        self._said = ""
