"""README and docs match the program."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest
from command import outcome

from genima_calibration import commands as calibrate
from genima_cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md")), *sorted((ROOT / "models").glob("**/*.md"))]
_COMMAND = re.compile(r"\./genima((?: +[^\s`#]+)+)")


def _commands() -> dict[str, set[str]]:
    """Return options by command of every ``./genima ...`` in every page."""
    used: dict[str, set[str]] = defaultdict(set)
    for page in PAGES:
        for match in _COMMAND.finditer(page.read_text()):
            command, *arguments = match.group(1).split()
            if command.startswith("-") or command == "COMMAND":
                continue
            if command in ("train", "episodes", "tasks") and arguments and arguments[0] != "COMMAND":
                command = f"{command} {arguments[0]}"
            if command == "calibrate" and arguments:
                command = f"{command} {arguments[0] if arguments[0] in calibrate.COMMANDS else 'FOLDER'}"
            used[command] |= {argument.rstrip(",;.):") for argument in arguments if argument.startswith("--")}
    return used


def test_readme_starts_with_demo_and_test() -> None:
    """A new user needs only these."""
    found = re.findall(r"^\./genima (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert found[:2] == ["demo", "test"]


@pytest.mark.parametrize("command", sorted(_commands()))
def test_documented_commands_and_options_exist(command: str) -> None:
    """Commands and options in the pages are valid."""
    name, *rest = command.split()
    assert name in COMMANDS
    if not COMMANDS[name].function:
        return
    code, text = outcome(name, *rest, "--help")
    assert code in (None, 0), text
    for option in sorted(_commands()[command]):
        assert option in text, f"./genima {command} has no {option}"


def test_every_command_is_documented() -> None:
    """Every command is in a page."""
    assert {command.split()[0] for command in _commands()} == set(COMMANDS)


@pytest.mark.parametrize("package", ["genima_nodes", "genima_calibration", "genima_sim"])
def test_readme_lists_every_node(package: str) -> None:
    """The package's row in the table of folders lists its nodes."""
    (row,) = re.findall(rf"^\| `src/{package}` \|.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    nodes = re.findall(r'"(\w+) = ', (ROOT / "src" / package / "setup.py").read_text())
    assert nodes and [node for node in nodes if f"`{node}`" not in row] == []


def test_links_exist() -> None:
    """Files that the pages link to exist."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} points to {target}"
