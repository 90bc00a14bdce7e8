"""``./genima completion``: tab completion for bash and zsh, from the help pages."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence

from genima.errors import GenimaError
from genima_cli import COMMANDS

_BASH = """\
_genima() {
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" \\
        -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _genima genima ./genima
"""
_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + _BASH
_SHELLS = {"bash": _BASH, "zsh": _ZSH}
_GROUPS = ("calibrate", "episodes", "train")  # commands with commands
_HELP = """usage: ./genima completion {bash,zsh}

Print a script that completes commands, options and their choices by the tab key.

Example: source <(./genima completion bash)"""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima completion``."""
    if argv and argv[0] == "words":  # called by the script
        print("\n".join(candidates(argv[1:])))
    elif not argv or argv[0] in ("-h", "--help"):
        print(_HELP)
    elif argv[0] in _SHELLS:
        print(_SHELLS[argv[0]], end="")
    else:
        raise GenimaError(f"completion: unknown shell ({argv[0]}); use {' or '.join(_SHELLS)}")
    return 0


def candidates(words: Sequence[str]) -> list[str]:
    """Return completions of the last of ``words``, the arguments after ``./genima``."""
    if len(words) < 2:
        return [*COMMANDS, "--help", "--version"]
    name, *between, _ = words
    if name not in COMMANDS:
        return []
    page = _page([name, *between[:1]] if name in _GROUPS and between else [name])
    if name in _GROUPS and not between:
        return [*re.findall(r"^  ([a-z][a-z-]*)  ", page, re.MULTILINE), "--help"]
    last = re.escape(words[-2])
    if choices := re.search(rf"(?<!\S){last}(?:, --\S+)? \{{([^}}\n]+)\}}", page):
        return choices[1].split(",")
    return sorted(set(re.findall(r"(?<![\w-])--[a-z0-9][a-z0-9.-]*[a-z0-9]", page)))


def _page(command: Sequence[str]) -> str:
    """Return a command's help page; empty if nothing is installed yet."""
    from genima_cli.__main__ import dispatch

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit, ImportError, GenimaError):
            dispatch([*command, "--help"])
    return text.getvalue()
