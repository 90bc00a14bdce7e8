"""Commands with keyboard input, in a terminal of their own."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Sequence


class Terminal:
    """Command in a pseudo-terminal."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 200))
        self.process = subprocess.Popen(command, env=environment, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self._output = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, text: str, press: str = "", seconds: float = 120.0) -> None:
        """Wait for a text in the output after the last match; press keys repeatedly meanwhile."""
        deadline = time.monotonic() + seconds
        while text not in self._output:
            assert self.process.poll() is None, self._lines()
            if time.monotonic() > deadline:
                raise TimeoutError(self._lines())
            if select.select([self._master], [], [], 0.1)[0]:
                self._output += os.read(self._master, 65536).decode(errors="replace")
            self.press(press)
        self._output = self._output[self._output.index(text) + len(text) :]

    def _lines(self) -> str:
        """Return the output without repeated lines: the live line is printed repeatedly."""
        return "\n".join(dict.fromkeys(self._output.splitlines()))

    def discard_output(self, seconds: float) -> None:
        """Discard the output of the next seconds in later searches."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self._master], [], [], 0.1)[0]:
                os.read(self._master, 65536)
        self._output = ""
