"""Report of an inspection, and its text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from genima.policy.spec import PolicySpec
from genima.system.terminal import printable
from genima.targets.appearance import Colour
from genima.types import Image

_WIDTH = 120  # characters of a line


class Section(NamedTuple):
    """Title and labelled texts of one or more lines."""

    title: str
    rows: Mapping[str, str]


class Report(NamedTuple):
    """Content of a folder as text, and a picture (h, w, 3) rgb where there is one."""

    sections: Sequence[Section]
    picture: Image | None

    def __str__(self) -> str:
        indent = 4 + max(len(label) for section in self.sections for label in section.rows)
        return "\n\n".join("\n".join(_lines(section, indent)) for section in self.sections)


def _lines(section: Section, indent: int) -> list[str]:
    lines = [printable(section.title)]
    for label, text in section.rows.items():
        first = f"  {printable(label)}".ljust(indent)
        for line in text.splitlines() or [""]:
            lines += textwrap.wrap(
                printable(line), _WIDTH, initial_indent=first, subsequent_indent=" " * (indent + 2),
                break_long_words=False, break_on_hyphens=False,
            ) or [first.rstrip()]  # fmt: skip
            first = " " * indent
    return lines


def format_list(lines: Iterable[str], most: int = 10) -> str:
    """Return items one per line; of more than ``most`` the first ones, and the number of omitted ones."""
    items = list(lines)
    return "\n".join([*items[:most], *([f"and {len(items) - most} more"] if len(items) > most else [])])


def format_range(values: ArrayLike, digits: int = 0) -> str:
    """Return the range of values as text, or their only value."""
    low, high = (f"{value:.{digits}f}" for value in (np.min(values), np.max(values)))
    return low if low == high else f"{low} to {high}"


def spec_rows(spec: PolicySpec) -> dict[str, str]:
    """Return the target spec of a checkpoint or dataset as labelled texts."""
    appearance, (width, height), side = spec.appearance, spec.camera_size, spec.view_size
    frames = [*spec.joint_names, "the flange", "the tip"]
    spheres = []
    for sphere in appearance.spheres:
        place = frames[sphere.frame] if sphere.frame < len(frames) else f"frame {sphere.frame}"
        closed = f", closed {_rgb(sphere.closed_colour)}" if sphere.closed_colour else ""
        spheres.append(f"{sphere.name} at {place} {_rgb(sphere.colour)}{closed}")
    return {
        "robot": f"{spec.robot}: {', '.join(spec.joint_names)}",
        "tile": " / ".join(", ".join(row) for row in (spec.views[:2], spec.views[2:])),
        "sizes": f"cameras {width}x{height} px, views {side}x{side} px, tile {2 * side}x{2 * side} px",
        "targets": f"{spec.horizon} steps ahead at {spec.action_rate:g} Hz: {spec.horizon / spec.action_rate:.2f} s",
        "spheres": "; ".join(spheres),
        "radii": ", ".join(f"{view} {1000 * radius:g} mm" for view, radius in appearance.radii.items()),
        "stripes": f"a dark and a coloured one every {appearance.stripe_period:g} diameters, "
        f"{appearance.first_stripe} first, dark ones at {100 * appearance.dark:g}% brightness",
        "prompt": spec.prompt_template,
        **({"instructions": "; ".join(spec.instructions)} if spec.instructions else {}),
    }


def _rgb(colour: Colour) -> str:
    return f"rgb({','.join(map(str, colour))})"
