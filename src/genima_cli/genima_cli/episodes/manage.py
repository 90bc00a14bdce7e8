"""Manage demos: judge, delete, rename and merge."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.system.command_line import parse_options
from genima.system.terminal import printable

_Demos = Annotated[tuple[Path, ...], Field(min_length=1)]


@dataclass
class Judge:
    """Judge whether demos succeeded; the bags stay unchanged.

    The judgement lies beside the bag, in judgement.yaml, and takes precedence over the mark of the recording.
    """

    demos: tyro.conf.Positional[_Demos]
    """Demos (rosbag2), or folders of demos."""
    success: bool = False
    """The task was done."""
    failure: bool = False
    """The task was not done."""
    undo: bool = False
    """Forget a judgement of this command: the mark of the recording counts again."""


def judge_demos(argv: Sequence[str]) -> None:
    """Entry point of ``./genima episodes judge``."""
    options = parse_options(
        Judge, "genima episodes judge", argv, "./genima episodes judge data/demos/push_button-100000 --success"
    )
    if options.success + options.failure + options.undo != 1:
        raise GenimaError("judge: give one of --success, --failure and --undo")
    from genima.data.episodes import management as manage

    for demo in _expand(options.demos):
        if options.undo:
            undone = manage.undo_judgement(demo)
            print(f"{printable(demo)}: {'judgement undone' if undone else 'not judged by this command'}")
        else:
            manage.judge(demo, options.success)
            print(f"{printable(demo)}: {'success' if options.success else 'failure'}")


@dataclass
class Delete:
    """Move demos to the folder .deleted in their folder; --undo moves them back. Remove it to free its space."""

    demos: tyro.conf.Positional[_Demos]
    """Demos (rosbag2); with --undo, where they were."""
    undo: bool = False
    """Move deleted demos back."""
    yes: bool = False
    """Do not ask."""


def delete_demos(argv: Sequence[str]) -> int:
    """Entry point of ``./genima episodes delete``."""
    example = "./genima episodes delete data/demos/push_button-100000"
    options = parse_options(Delete, "genima episodes delete", argv, example)
    from genima.data.episodes import management as manage

    if options.undo:
        for demo in options.demos:
            manage.restore(demo)
            print(f"{printable(demo)} is back")
        return 0
    demos = list(dict.fromkeys(Path(demo) for demo in options.demos))
    for demo in demos:
        manage.require_deletable(demo)
    if not options.yes and not _confirm(demos):
        print("nothing was deleted")
        return 1
    for demo in demos:
        print(f"{printable(demo)} is {printable(manage.delete(demo))} now")
    print("--undo moves deleted demos back; they take space until you remove that folder")
    return 0


@dataclass
class Rename:
    """Rename demos; nothing is replaced, and nothing is renamed when a name is taken."""

    demos: tyro.conf.Positional[_Demos]
    """Demos (rosbag2), or folders of demos."""
    to: str
    """The new name, in which {number}, {name}, {task} and {date} are replaced: a counter, the present name, the
    instruction, and when the recording began."""
    first: Annotated[int, Field(ge=0, le=10**9)] = 1
    """The first {number}."""


def rename_demos(argv: Sequence[str]) -> None:
    """Entry point of ``./genima episodes rename``."""
    options = parse_options(
        Rename, "genima episodes rename", argv, './genima episodes rename data/demos --to "lid-{number}"'
    )
    from genima.data.episodes import management as manage

    pairs = manage.new_names(_expand(options.demos), options.to, options.first)
    manage.rename(pairs)
    for old, new in pairs.items():
        if old != new:
            print(f"{printable(old)} is {printable(new.name)} now")
    print(f"{sum(old != new for old, new in pairs.items())} demos renamed")


@dataclass
class Merge:
    """Copy the demos of several folders into one; existing demos are kept."""

    demos: tyro.conf.Positional[_Demos]
    """Demos (rosbag2), or folders of demos."""
    out: Path
    """Folder for the copies; it may hold demos."""
    move: bool = False
    """Move the demos instead; both folders must be on one file system."""


def merge_demos(argv: Sequence[str]) -> None:
    """Entry point of ``./genima episodes merge``."""
    example = "./genima episodes merge data/monday data/tuesday --out data/demos"
    options = parse_options(Merge, "genima episodes merge", argv, example)
    from tqdm import tqdm

    from genima.data.episodes import management as manage

    pairs = manage.merge(_expand(options.demos), options.out)
    todo = {source: target for source, target in pairs.items() if target is not None}
    for source, target in tqdm(todo.items(), desc="move" if options.move else "copy", unit="demo", dynamic_ncols=True):
        (manage.move if options.move else manage.copy)(source, target)
    done = "moved to" if options.move else "copied to"
    print(f"{len(todo)} demos {done} {printable(options.out)}; {len(pairs) - len(todo)} were there already")


def _expand(folders: Sequence[Path]) -> list[Path]:
    """Return the selected demos, each one once."""
    from genima.data.episodes.folders import find_episodes

    return list(dict.fromkeys(demo for folder in folders for demo in find_episodes(folder)))


def _confirm(demos: Sequence[Path]) -> bool:
    if not sys.stdin.isatty():
        raise GenimaError("delete: asks, and there is no terminal; give --yes")
    for demo in demos:
        print(f"  {printable(demo)}")
    return input(f"delete {'this demo' if len(demos) == 1 else f'these {len(demos)} demos'}? [y/N] ").lower() == "y"
