"""Commands of ./genima in this process, where the process itself is not what is tested."""

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
        except SystemExit as leaving:  # argparse and tyro leave by themselves
            code = leaving.code
    return code, text.getvalue()
