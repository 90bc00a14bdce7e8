"""Options of commands that make drawings faster, and others; named as those of `./genima eval`."""

from __future__ import annotations

import argparse

from genima_bringup.processes import SHORTCUTS, Value


def add_shortcuts(parser: argparse.ArgumentParser) -> None:
    """One option for each shortcut."""
    group = parser.add_argument_group("faster drawings, which are others (docs/performance.md)")
    for name, (default, text) in SHORTCUTS.items():
        option = f"--drawing.{name.replace('_', '-')}"
        group.add_argument(option, dest=name, type=type(default), default=default, help=text)


def chosen_shortcuts(options: argparse.Namespace) -> dict[str, Value]:
    """The parameters of diffusion_agent."""
    return {name: getattr(options, name) for name in SHORTCUTS}
