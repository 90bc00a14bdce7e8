"""Look after demos: what there are, what is in them, what is wrong with them; without rest, and whole again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import cv2
import tyro
from tqdm import tqdm

from genima.cli.episodes.each import OnFault, for_each, in_processes
from genima.episodes import EpisodeError, checks, find_episodes
from genima.episodes.bag import PARTIAL
from genima.episodes.checks import Checked
from genima.episodes.repair import repair
from genima.episodes.summary import Summary
from genima.episodes.survey import Survey
from genima.episodes.trim import Trimmed, trim
from genima.errors import GenimaError
from genima.files import atomic_write, require_writable
from genima.inspection.report import spread
from genima.robot.model import RobotModel

_NUMBERS = ("s", "MB")  # columns of them


def list_demos(demos: tyro.conf.Positional[Path], check: bool = False, robot: str = "panda") -> int:
    """Print a line for each demo; exit code 1 when one cannot be read.

    Args:
        demos: Folder of demos (rosbag2), or one demo.
        check: Also count what ./genima episodes check finds, which takes a while.
        robot: Robot model to check with: a name in config/robots or a YAML file.
    """
    folders = find_episodes(demos)
    summaries = list(in_processes(folders, _summary, "read"))
    readable = [each for each in summaries if isinstance(each, Summary)]
    titles = ["demo", "instruction", "s", "images", "MB", "operator", "success"]
    rows = [_row(_name(demos, folder), each) for folder, each in zip(folders, summaries, strict=True)]
    if check:
        titles.append("problems")
        for row, summary, checked in zip(rows, summaries, _check(folders, robot), strict=True):
            row += [_problems(checked)] if isinstance(summary, Summary) else []
    _print_table(titles, rows)
    seconds, megabytes = (sum(getattr(each, what) for each in readable) for what in ("seconds", "megabytes"))
    judged = Counter(each.success for each in readable)
    unreadable = len(folders) - len(readable)
    print(f"{len(folders)} demos, {seconds:.1f} s ({seconds / 60:.1f} min), {megabytes:.1f} MB; ", end="")
    print(f"{judged[True]} successes, {judged[False]} failures, {judged[None]} not judged; ", end="")
    print(f"{unreadable} cannot be read{', ./genima episodes repair may help' if unreadable else ''}")
    return int(unreadable > 0)


def show_demo(demo: tyro.conf.Positional[Path], picture: Path | None = None, robot: str = "panda") -> None:
    """Draw what the cameras saw and what the joints did, be the demo faulty or not, and print the main facts.

    Args:
        demo: Folder of the demo (rosbag2).
        picture: PNG file; without it named after the demo, in the current folder.
        robot: Robot model: a name in config/robots or a YAML file.
    """
    from genima.inspection.demo import inspect_demo

    picture = picture or Path(f"{demo.resolve().name}.png")
    if picture.suffix.lower() != ".png":
        raise GenimaError(f"--picture {picture}: the picture is a .png file")
    require_writable(picture)
    report = inspect_demo(Survey.of(demo), RobotModel.load(robot))
    print(report)
    assert report.picture is not None
    atomic_write(picture, cv2.imencode(".png", report.picture[..., ::-1])[1].tobytes())
    print(f"\npicture: {picture}")


def check_demos(demos: tyro.conf.Positional[Path], out: Path | None = None, robot: str = "panda") -> int:
    """Find out what is wrong with demos; exit code 1 when one cannot be trained on.

    Args:
        demos: Folder of demos (rosbag2), or one demo.
        out: JSON file for all findings, by demo.
        robot: Robot model: a name in config/robots or a YAML file.
    """
    if out is not None:
        require_writable(out)
    checked = _check(find_episodes(demos), robot)
    for demo in checked:
        if demo.findings:
            print(f"{_name(demos, demo.folder)}: {_problems(demo)}", *demo.findings, sep="\n  ")
    faulty = sum(demo.errors > 0 for demo in checked)
    suspect = sum(demo.warnings > 0 for demo in checked)
    print(f"{len(checked)} demos: {faulty} cannot be trained on, {suspect} have warnings")
    if out is not None:
        findings = {_name(demos, demo.folder): [asdict(each) for each in demo.findings] for demo in checked}
        atomic_write(out, json.dumps(findings, indent=1).encode())
    return int(faulty > 0)


def trim_demos(demos: tyro.conf.Positional[Path], out: Path, keep: float = 0.25, robot: str = "panda") -> None:
    """Copy demos without the rest before the first and after the last motion; those already there are kept.

    Args:
        demos: Folder of demos (rosbag2), or one demo; they stay as they are.
        out: Folder for the copies.
        keep: Seconds of rest that stay at both ends.
        robot: Robot model: a name in config/robots or a YAML file.
    """
    if not keep >= 0:
        raise GenimaError(f"--keep {keep:g}: give seconds, 0 or more")
    if out.resolve().is_relative_to(demos.resolve()):
        raise GenimaError(f"--out {out} lies in {demos}; choose a folder outside")
    model, done = RobotModel.load(robot), list[Trimmed]()
    folders = {folder: out / _name(demos, folder) for folder in find_episodes(demos)}
    todo = [folder for folder, copy in folders.items() if not copy.exists()]
    skipped = for_each(todo, lambda folder: done.append(trim(folder, folders[folder], model, keep)), "skip", "trim")
    begin, end, left = (sum(column) for column in zip(Trimmed(0, 0, 0), *done, strict=True))
    print(
        f"{len(folders) - skipped} demos in {out}, {len(done)} of them new: {begin:.1f} s cut at the start and "
        f"{end:.1f} s at the end, {left:.1f} s left; {skipped} skipped"
    )
    if skipped == len(folders):
        raise GenimaError(f"none of the {len(folders)} demos in {demos} could be trimmed")


def repair_demos(demos: tyro.conf.Positional[Path], on_fault: OnFault = "skip") -> None:
    """Make whole demos of what killed recordings left; nothing that was written is lost.

    Args:
        demos: Folder of demos, or one demo.
        on_fault: Whether a demo that cannot be repaired is left out or ends the command.
    """
    if not demos.is_dir():
        raise GenimaError(f"there is no folder {demos}")
    if demos.absolute().parent.name == PARTIAL:
        left, torn = [demos], []
    else:
        left = sorted(path for path in demos.rglob(f"{PARTIAL}/*") if path.is_dir())
        torn = sorted({path.parent for path in demos.rglob("*.mcap") if PARTIAL not in path.parts})

    def mend(folder: Path) -> None:
        result = repair(folder)
        if not result.healthy:
            count = sum(result.messages.values())
            kept = f"{count} messages of {result.seconds:.1f} s"
            tqdm.write(f"{result.folder}: {kept}; {result.bytes_cut} bytes were torn")

    skipped = for_each([*left, *torn], mend, on_fault, "repair")
    print(f"{len(left) + len(torn) - skipped} demos in {demos} are whole; {skipped} are not")
    if not left and not torn:
        raise GenimaError(f"no demos in {demos}")


def _name(demos: Path, folder: Path) -> str:
    return folder.name if folder == demos else str(folder.relative_to(demos))


def _summary(folder: Path) -> Summary | EpisodeError:
    try:
        return Summary.of(Survey.of(folder))
    except EpisodeError as error:
        return error


def _check(folders: Sequence[Path], robot: str) -> list[Checked]:
    return checks.compare(list(in_processes(folders, partial(checks.check, robot=RobotModel.load(robot)), "check")))


def _problems(demo: Checked) -> str:
    counts = {"error": demo.errors, "warning": demo.warnings}
    return ", ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in counts.items() if n) or "-"


def _row(name: str, demo: Summary | EpisodeError) -> list[str]:
    if isinstance(demo, EpisodeError):
        return [name, f"{demo.topic}: {demo.what}" if demo.topic else demo.what]
    images = "-"
    if demo.views:
        rates = spread([view.rate for view in demo.views.values()], 1)
        sizes = dict.fromkeys("{}x{}".format(*view.size) if view.size else "?" for view in demo.views.values())
        images = f"{len(demo.views)} x {rates} Hz {', '.join(sizes)}"
    success = {True: "yes", False: "no", None: "-"}[demo.success]
    return [
        name, demo.instruction or "-", f"{demo.seconds:.2f}", images, f"{demo.megabytes:.1f}", demo.operator or "-",
        success,
    ]  # fmt: skip


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they must be; a row of two cells is a name and a text that may be of any length."""
    whole = [titles, *(row for row in rows if len(row) == len(titles))]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    widths[0] = max(len(row[0]) for row in (titles, *rows))
    for row in (titles, *rows):
        cells = zip(titles, row, widths, strict=False)
        line = [cell.rjust(width) if title in _NUMBERS else cell.ljust(width) for title, cell, width in cells]
        print("  ".join(line).rstrip())
