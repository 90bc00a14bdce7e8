"""Groups of commands, imported only when they run."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from genima.errors import GenimaError


class Command(NamedTuple):
    """Command of a group."""

    function: str  # MODULE or MODULE:FUNCTION, by default main; empty: the entry script runs it
    help: str

    def run(self, argv: Sequence[str]) -> int:
        """Import and run the command; return its exit code."""
        module, _, name = self.function.partition(":")
        return int(getattr(importlib.import_module(module), name or "main")(list(argv)) or 0) if module else 0


@dataclass(frozen=True)
class CommandGroup:
    """Commands under a common name, such as ``genima episodes``."""

    name: str  # after "./genima "; empty for the commands of ./genima itself
    commands: Mapping[str, Command]
    hint: str  # last lines of the help page
    fallback: Command | None = None  # for a path in place of a command
    metavar: str = ""  # of that path

    def run(self, argv: Sequence[str]) -> int:
        """Run the command that ``argv`` names, or print the help page; return the exit code.

        Raises:
            GenimaError: for an unknown command.
        """
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(self.help_page(), file=sys.stdout if argv else sys.stderr)
            return 0 if argv else 2
        name, *arguments = argv
        if name not in self.commands and self.fallback is not None:
            asks_for_help = "-h" in argv or "--help" in argv
            if asks_for_help or not name.isidentifier() or Path(name).exists():
                return self.fallback.run(argv)
        self.require(name)
        return self.commands[name].run(arguments)

    def require(self, name: str) -> None:
        """Raise a GenimaError for an unknown command."""
        if name not in self.commands:
            group = f"./genima {self.name}".rstrip()
            close = difflib.get_close_matches(name, self.commands, n=2)
            hint = f"did you mean {' or '.join(close)}?" if close else f"{group} --help lists the commands"
            hint += f"; or name a {self.metavar.lower()} that exists" if self.fallback is not None else ""
            raise GenimaError(f"{f'{self.name} {name}'.lstrip()}: unknown command; {hint}")

    def help_page(self) -> str:
        """Return the help page."""
        group = f"./genima {self.name}".rstrip()
        usage = [f"usage: {group} COMMAND [ARGUMENTS]"]
        if self.fallback is not None:
            usage.append(f"       {group} {self.metavar} [ARGUMENTS]    {self.fallback.help}")
        width = 2 + max(map(len, self.commands))
        rows = [f"  {name.ljust(width)}{command.help}" for name, command in self.commands.items()]
        return "\n".join([*usage, "", *rows, "", self.hint])
