"""Run commands of ./genima in this process."""

from __future__ import annotations

import contextlib
import io

from genima_cli.__main__ import main


def outcome(*arguments: str) -> tuple[object, str]:
    """Return the exit code of a command and everything that it prints."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        try:
            code: object = main(list(arguments))
        except SystemExit as leaving:  # raised by argparse and tyro
            code = leaving.code
    return code, text.getvalue()
