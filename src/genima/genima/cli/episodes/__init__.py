"""``./genima episodes``: look after demos; to and from other formats."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

import tyro

from genima.cli.episodes.lerobot import export_lerobot, import_lerobot
from genima.cli.episodes.rlbench import import_rlbench
from genima.cli.episodes.upkeep import check_demos, list_demos, repair_demos, show_demo, trim_demos


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima episodes``."""
    commands: dict[str, Callable[..., int | None]] = {
        "list": list_demos,
        "show": show_demo,
        "check": check_demos,
        "trim": trim_demos,
        "replay": importlib.import_module("genima_bringup.replay").replay_demo,  # a name: the library knows no ROS
        "repair": repair_demos,
        "export": export_lerobot,
        "import": import_lerobot,
        "import-rlbench": import_rlbench,
    }
    code = tyro.extras.subcommand_cli_from_dict(
        commands, prog="genima episodes", description="Look after demos; to and from other formats.", args=list(argv)
    )
    return code or 0
