"""``./genima episodes``: manage, check and convert demos.

Modules are named by strings and imported only when their command runs, as in :mod:`genima_cli`.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from genima.errors import GenimaError


class Command(NamedTuple):
    function: str  # module:name, of a main(argv)
    help: str


COMMANDS: dict[str, Command] = {
    "list": Command("genima_cli.episodes.upkeep:list_demos", "print a line for each demo"),
    "show": Command("genima_cli.episodes.upkeep:show_demo", "draw one demo and print its main facts"),
    "check": Command("genima_cli.episodes.upkeep:check_demos", "find out what is wrong with demos"),
    "judge": Command("genima_cli.episodes.manage:judge_demos", "say whether demos succeeded"),
    "delete": Command("genima_cli.episodes.manage:delete_demos", "move demos to a trash folder, or back"),
    "rename": Command("genima_cli.episodes.manage:rename_demos", "give demos other names"),
    "merge": Command("genima_cli.episodes.manage:merge_demos", "copy the demos of several folders into one"),
    "trim": Command("genima_cli.episodes.upkeep:trim_demos", "copy demos without the rest at both ends"),
    "repair": Command("genima_cli.episodes.upkeep:repair_demos", "make whole demos of damaged ones"),
    "replay": Command("genima_cli.replay:main", "play a demo's commands again"),
    "export": Command("genima_cli.episodes.lerobot:export_lerobot", "write demos as a LeRobot dataset"),
    "import": Command("genima_cli.episodes.lerobot:import_lerobot", "write a LeRobot dataset as demos"),
    "import-rlbench": Command("genima_cli.episodes.rlbench:import_rlbench", "write an RLBench dataset as demos"),
}


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima episodes``."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage(), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    name, *arguments = argv
    if (command := COMMANDS.get(name)) is None:
        close = difflib.get_close_matches(name, COMMANDS, n=2)
        hint = f"did you mean {' or '.join(close)}?" if close else "./genima episodes --help lists the commands"
        raise GenimaError(f"unknown command 'episodes {name}': {hint}")
    module, function = command.function.split(":")
    return getattr(importlib.import_module(module), function)(arguments) or 0


def _usage() -> str:
    width = 2 + max(map(len, COMMANDS))
    rows = [f"  {name.ljust(width)}{command.help}" for name, command in COMMANDS.items()]
    example = "Example: ./genima episodes list data/demos"
    hint = f"{example}\n./genima episodes COMMAND --help explains a command's arguments."
    return "\n".join(["usage: ./genima episodes COMMAND [ARGUMENTS]", "", *rows, "", hint])
