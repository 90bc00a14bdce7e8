"""Maintain demos: list, show, check, trim and repair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.system.command_line import parse_options
from genima.system.terminal import printable
from genima_cli.episodes.robot_option import DemoRobot

if TYPE_CHECKING:
    from genima.data.episodes.checks import CheckResult
    from genima.data.episodes.errors import EpisodeError
    from genima.data.episodes.summary import Summary
    from genima.robot.model import RobotModel

_NUMBERS = ("s", "MB")  # columns of them
_OnFault = Literal["skip", "refuse"]
_LONGEST = 80  # characters of a text in a table


@dataclass
class ListDemos(DemoRobot):
    """Print a line for each demo; exit code 1 when one cannot be read."""

    demos: tyro.conf.Positional[Path]
    """Folder of demos (rosbag2), or one demo."""
    check: bool = False
    """Also count what ./genima episodes check finds, which takes a while."""


def list_demos(argv: Sequence[str]) -> int:
    """Entry point of ``./genima episodes list``."""
    options = parse_options(ListDemos, "genima episodes list", argv, "./genima episodes list data/demos")
    from collections import Counter

    from genima.data.episodes.folders import find_episodes
    from genima.data.episodes.summary import Summary
    from genima_cli.episodes.each import in_processes

    demos, folders = options.demos, find_episodes(options.demos)
    summaries = list(in_processes(folders, _summary, "read"))
    readable = [each for each in summaries if isinstance(each, Summary)]
    titles = ["demo", "instruction", "s", "images", "MB", "operator", "success"]
    rows = [_row(_name(demos, folder), each) for folder, each in zip(folders, summaries, strict=True)]
    if options.check:
        titles.append("problems")
        for row, summary, checked in zip(rows, summaries, _check(folders, options.default_robot()), strict=True):
            row += [_problems(checked)] if isinstance(summary, Summary) else []
    _print_table(titles, rows)
    seconds, megabytes = (sum(getattr(each, what) for each in readable) for what in ("seconds", "megabytes"))
    judged = Counter(each.success for each in readable)
    unreadable = len(folders) - len(readable)
    print(f"{len(folders)} demos, {seconds:.1f} s ({seconds / 60:.1f} min), {megabytes:.1f} MB; ", end="")
    print(f"{judged[True]} successes, {judged[False]} failures, {judged[None]} not judged; ", end="")
    print(f"{unreadable} cannot be read")
    if judged[None]:
        print("./genima episodes judge records whether a demo succeeded; those not judged are not rendered")
    if uncalibrated := sum(bool(each.uncalibrated) for each in readable):
        print(f"{uncalibrated} hold no calibration of their cameras (unknown): ./genima render needs --cameras FOLDER")
    if unreadable:
        print("./genima episodes repair may help those that cannot be read")
    return int(unreadable > 0)


@dataclass
class ShowDemo(DemoRobot):
    """Draw camera images and joint curves of a demo, faulty or not, and print the main facts."""

    demo: tyro.conf.Positional[Path]
    """Folder of the demo (rosbag2)."""
    picture: Path | None = None
    """PNG file; without it named after the demo, in the current folder."""
    overwrite: bool = False
    """Replace a picture that Genima drew."""


def show_demo(argv: Sequence[str]) -> None:
    """Entry point of ``./genima episodes show``."""
    options = parse_options(
        ShowDemo, "genima episodes show", argv, "./genima episodes show data/demos/push_button-100000"
    )
    picture = options.picture or Path(f"{options.demo.resolve().name}.png")
    if picture.suffix.lower() != ".png":
        raise GenimaError(f"--picture {picture}: must be a .png file")
    from genima.data.episodes.episode_index import EpisodeIndex
    from genima.inspection.demo import inspect_demo
    from genima.inspection.sheet import is_picture, write_picture
    from genima.io.files import require_writable
    from genima.io.outputs import require_free

    require_free(picture, "picture", options.overwrite, is_picture)
    require_writable(picture)
    report = inspect_demo(EpisodeIndex.of(options.demo), options.default_robot())
    print(report)
    assert report.picture is not None
    write_picture(picture, report.picture)
    print(f"\npicture: {printable(picture)}")


@dataclass
class CheckDemos(DemoRobot):
    """Check demos for faults; exit code 1 when one cannot be trained on."""

    demos: tyro.conf.Positional[Path]
    """Folder of demos (rosbag2), or one demo."""
    out: Path | None = None
    """JSON file for all findings, by demo."""
    overwrite: bool = False
    """Replace the findings of an earlier check."""


def check_demos(argv: Sequence[str]) -> int:
    """Entry point of ``./genima episodes check``."""
    options = parse_options(CheckDemos, "genima episodes check", argv, "./genima episodes check data/demos")
    import json
    from dataclasses import asdict

    from genima.data.episodes.folders import find_episodes
    from genima.io.files import atomic_write, require_writable
    from genima.io.outputs import require_free

    demos, out = options.demos, options.out
    if out is not None:
        require_free(out, "report of a check", options.overwrite, _is_report)
        require_writable(out)
    checked = _check(find_episodes(demos), options.default_robot())
    for demo in checked:
        if demo.findings:
            findings = [printable(finding) for finding in demo.findings]
            print(f"{printable(_name(demos, demo.folder))}: {_problems(demo)}", *findings, sep="\n  ")
    faulty = sum(demo.errors > 0 for demo in checked)
    suspect = sum(demo.warnings > 0 for demo in checked)
    print(f"{len(checked)} demos: {faulty} cannot be trained on, {suspect} have warnings")
    if out is not None:
        found = {_name(demos, demo.folder): [asdict(each) for each in demo.findings] for demo in checked}
        atomic_write(out, json.dumps(found, indent=1).encode())
    return int(faulty > 0)


@dataclass
class TrimDemos(DemoRobot):
    """Copy demos without the rest before the first and after the last motion; those already there are kept."""

    demos: tyro.conf.Positional[Path]
    """Folder of demos (rosbag2), or one demo; they stay as they are."""
    out: Path
    """Folder for the copies."""
    keep: Annotated[float, Field(ge=0, le=86400)] = 0.25
    """Seconds of rest that stay at both ends."""
    on_fault: _OnFault = "skip"
    """Leave out a demo that cannot be trimmed, or end the command."""


def trim_demos(argv: Sequence[str]) -> None:
    """Entry point of ``./genima episodes trim``."""
    options = parse_options(
        TrimDemos, "genima episodes trim", argv, "./genima episodes trim data/demos --out data/trimmed"
    )
    from genima.data.episodes.comparison import is_cut_of
    from genima.data.episodes.folders import find_episodes, is_demo
    from genima.data.episodes.trim import TrimResult, trim
    from genima_cli.episodes.each import for_each

    demos, out = options.demos, options.out
    if out.resolve().is_relative_to(demos.resolve()):
        raise GenimaError(f"--out {out}: lies in {demos}; choose a folder outside")
    default, done = options.default_robot(), list[TrimResult]()
    folders = {folder: out / _name(demos, folder) for folder in find_episodes(demos)}
    todo = [folder for folder, copy in folders.items() if not (copy.is_dir() and is_demo(copy))]
    for folder, copy in folders.items():
        if folder not in todo and not is_cut_of(copy, folder):
            raise GenimaError(f"demo {copy}: no part of {folder}; name another --out")

    def trim_one(folder: Path) -> None:
        done.append(trim(folder, folders[folder], default, options.keep))

    skipped = for_each(todo, trim_one, options.on_fault, "trim")
    begin, end, left = (sum(column) for column in zip(TrimResult(0, 0, 0), *done, strict=True))
    print(
        f"{len(folders) - skipped} demos in {printable(out)}, {len(done)} of them new: {begin:.1f} s cut at the start "
        f"and {end:.1f} s at the end, {left:.1f} s left; {skipped} skipped"
    )
    if skipped == len(folders):
        raise GenimaError(f"none of the {len(folders)} demos in {demos} could be trimmed")


@dataclass
class RepairDemos:
    """Repair demos after crashes and other programs' writes; nothing that was written is lost."""

    demos: tyro.conf.Positional[Path]
    """Folder of demos (rosbag2), or one demo."""
    on_fault: _OnFault = "skip"
    """Leave out a demo that cannot be repaired, or end the command."""


def repair_demos(argv: Sequence[str]) -> int:
    """Entry point of ``./genima episodes repair``."""
    options = parse_options(RepairDemos, "genima episodes repair", argv, "./genima episodes repair data/demos")
    from tqdm import tqdm

    from genima.data.episodes.folders import find_damaged
    from genima.data.episodes.repair import repair
    from genima_cli.episodes.each import for_each

    demos = options.demos
    folders = find_damaged(demos)

    def mend(folder: Path) -> None:
        result = repair(folder)
        if not result.healthy:
            count = sum(result.messages.values())
            kept = f"{count} messages of {result.seconds:.1f} s"
            notes = "".join(f"; {note}" for note in result.notes)
            tqdm.write(printable(f"{result.folder}: {kept}; {result.bytes_cut} bytes were torn{notes}"))

    skipped = for_each(folders, mend, options.on_fault, "repair")
    print(f"{len(folders) - skipped} demos in {printable(demos)} are whole; {skipped} are not")
    return int(skipped > 0)


def _name(demos: Path, folder: Path) -> str:
    return folder.name if folder == demos else str(folder.relative_to(demos))


def _summary(folder: Path) -> Summary | EpisodeError:
    from genima.data.episodes.episode_index import EpisodeIndex
    from genima.data.episodes.errors import EpisodeError
    from genima.data.episodes.summary import Summary

    try:
        return Summary.of(EpisodeIndex.of(folder))
    except EpisodeError as error:
        return error


def _check(folders: Sequence[Path], robot: RobotModel | None) -> list[CheckResult]:
    from functools import partial

    from genima.data.episodes import checks
    from genima_cli.episodes.each import in_processes

    return checks.compare(list(in_processes(folders, partial(checks.check, default=robot), "check")))


def _problems(demo: CheckResult) -> str:
    counts = {"error": demo.errors, "warning": demo.warnings}
    return ", ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in counts.items() if n) or "-"


def _row(name: str, demo: Summary | EpisodeError) -> list[str]:
    from genima.data.episodes.errors import EpisodeError
    from genima.inspection.report import format_range
    from genima.io.files import shorten

    if isinstance(demo, EpisodeError):
        return [printable(name), printable(f"{demo.topic}: {demo.what}" if demo.topic else demo.what)]
    images = "-"
    if demo.views:
        rates = format_range([view.rate for view in demo.views.values()], 1)
        sizes = dict.fromkeys("{}x{}".format(*view.size) if view.size else "?" for view in demo.views.values())
        images = f"{len(demo.views)} x {rates} Hz {', '.join(sizes)}"
    success = {True: "yes", False: "no", None: "-"}[demo.success]
    texts = [printable(shorten(text, _LONGEST)) or "-" for text in (demo.instruction, demo.operator)]
    return [
        printable(name), texts[0], f"{demo.seconds:.2f}", images, f"{demo.megabytes:.1f}", texts[1], success,
    ]  # fmt: skip


def _is_report(path: Path) -> bool:
    """Return whether a file holds findings of a check: JSON of lists of findings, by demo."""
    from genima.io.files import read_json

    try:
        found = read_json(path, "report")
    except GenimaError:
        return False
    return isinstance(found, dict) and all(
        isinstance(findings, list)
        and all(isinstance(each, dict) and {"severity", "what"} <= each.keys() for each in findings)
        for findings in found.values()
    )


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; a row of two cells is a name and a text of any length."""
    whole = [titles, *(row for row in rows if len(row) == len(titles))]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    widths[0] = max(len(row[0]) for row in (titles, *rows))
    for row in (titles, *rows):
        cells = zip(titles, row, widths, strict=False)
        line = [cell.rjust(width) if title in _NUMBERS else cell.ljust(width) for title, cell, width in cells]
        print("  ".join(line).rstrip())
