"""``./genima episodes``: manage, check and convert demos.

Modules are named by strings and imported only when their command runs, as in :mod:`genima_cli`.
"""

from __future__ import annotations

from genima.system.command_group import Command, CommandGroup

COMMANDS: dict[str, Command] = {
    "list": Command("genima_cli.episodes.upkeep:list_demos", "print a line for each demo"),
    "show": Command("genima_cli.episodes.upkeep:show_demo", "draw one demo and print its main facts"),
    "check": Command("genima_cli.episodes.upkeep:check_demos", "check demos for faults"),
    "judge": Command("genima_cli.episodes.manage:judge_demos", "judge whether demos succeeded"),
    "delete": Command("genima_cli.episodes.manage:delete_demos", "move demos to a trash folder, or back"),
    "rename": Command("genima_cli.episodes.manage:rename_demos", "rename demos"),
    "merge": Command("genima_cli.episodes.manage:merge_demos", "copy the demos of several folders into one"),
    "trim": Command("genima_cli.episodes.upkeep:trim_demos", "copy demos without the idle time at both ends"),
    "repair": Command("genima_cli.episodes.upkeep:repair_demos", "repair damaged demos"),
    "images": Command("genima_cli.episodes.images:render_images", "render images of simulated demos from their states"),
    "replay": Command("genima_cli.replay:main", "replay a demo's commands"),
    "export": Command("genima_cli.episodes.lerobot:export_lerobot", "write demos as a LeRobot dataset"),
    "import": Command("genima_cli.episodes.lerobot:import_lerobot", "write a LeRobot dataset as demos"),
    "import-rlbench": Command("genima_cli.episodes.rlbench:import_rlbench", "write an RLBench dataset as demos"),
}

_HINT = "Example: ./genima episodes list data/demos\n./genima episodes COMMAND --help explains a command's arguments."
main = CommandGroup("episodes", COMMANDS, _HINT).run
