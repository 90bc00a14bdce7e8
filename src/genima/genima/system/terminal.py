"""Terminal text: printable in any locale, without escape codes from files."""

from __future__ import annotations

import sys


def configure_streams() -> None:
    """Make standard output and error write every character: those that the locale lacks as ``\\u....`` escapes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # also keeps surrogates of file names printable


def printable(text: object) -> str:
    """Return ``text`` with control characters and escape codes, which a terminal would obey, as visible escapes.

    Use it for every text from a file, a topic or another program: tasks, names, errors. Line breaks and tabs are
    escaped as well: the text takes one line.
    """
    return "".join(
        character if character.isprintable() or character == " " else repr(character)[1:-1] for character in str(text)
    )


def error_line(message: object) -> None:
    """Print an error in one line."""
    print(f"genima: error: {printable(message)}", file=sys.stderr)
