"""What the spheres look like; the defaults are those of the GENIMA paper (section 2.1 and table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from genima.errors import GenimaError
from genima.files import read_yaml

Colour = tuple[int, int, int]  # rgb, 0..255


@dataclass(frozen=True)
class Sphere:
    """A sphere at one frame of the arm, striped normal to that frame's x axis so that a turn about z shows."""

    name: str
    frame: int  # index into RobotModel.link_poses
    colour: Colour
    closed_colour: Colour | None = None  # while the gripper is to be closed


_PAPER = (
    Sphere("base", 1, (154, 0, 0)),
    Sphere("elbow", 3, (43, 207, 62)),
    Sphere("wrist", 5, (132, 104, 240)),
    Sphere("gripper", 8, (5, 206, 235), (255, 255, 0)),
)
_PAPER_RADII = {"wrist": 0.03, "front": 0.08, "right_shoulder": 0.065, "left_shoulder": 0.065, "virtual": 0.065}


@dataclass(frozen=True)
class Appearance:
    """Everything that decides how a drawn target looks; it is stored in the checkpoint and must agree everywhere.

    A stripe period that goes a whole number of times into the diameter, as the default does, starts with a dark
    stripe at one pole and ends with a coloured one at the other: half a turn swaps them and is not mistaken for none.

    Raises:
        ValueError: for a stripe period outside (0, 1], a brightness outside 0..1 or a radius that is not positive.
    """

    spheres: tuple[Sphere, ...] = _PAPER
    radii: Mapping[str, float] = field(default_factory=lambda: dict(_PAPER_RADII))  # m, by view
    stripe_period: float = 0.5  # of the diameter: a dark stripe and a coloured one of the same width
    dark: float = 0.35  # brightness of a dark stripe

    def __post_init__(self) -> None:
        if not 0 < self.stripe_period <= 1:
            raise ValueError(f"stripe_period is {self.stripe_period}, not in (0, 1]")
        if not 0 <= self.dark <= 1:
            raise ValueError(f"dark is {self.dark}, not in 0..1")
        for view, radius in self.radii.items():
            if not 0 < radius < np.inf:
                raise ValueError(f"the radius of view {view} is {radius}, not a positive number of metres")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "spheres": [
                {
                    "name": s.name,
                    "frame": s.frame,
                    "colour": list(s.colour),
                    "closed_colour": list(s.closed_colour) if s.closed_colour else None,
                }
                for s in self.spheres
            ],
            "radii": dict(self.radii),
            "stripe_period": self.stripe_period,
            "dark": self.dark,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Appearance:
        """The inverse of :meth:`to_dict`; KeyError, TypeError or ValueError where a field is missing or malformed."""
        _refuse_unknown(data, cls, "the appearance")
        return cls(
            spheres=tuple(_sphere(sphere) for sphere in data["spheres"]),
            radii={view: _number(radius, f"the radius of view {view}") for view, radius in data["radii"].items()},
            stripe_period=_number(data["stripe_period"], "stripe_period"),
            dark=_number(data["dark"], "dark"),
        )

    @classmethod
    def load(cls, path: Path) -> Appearance:
        """Read a YAML file with the structure of :meth:`to_dict`.

        What the file does not name stays as in the paper: a view's radius, a sphere, a field of a sphere. Spheres
        are matched by name; one with another name is added.

        Raises:
            GenimaError: for a missing file, an unknown key or a malformed value.
        """
        changes = read_yaml(path, "appearance") or {}
        try:
            data = cls().to_dict()
            spheres = {sphere["name"]: sphere for sphere in data["spheres"]}
            for sphere in changes.get("spheres", []):
                spheres[sphere["name"]] = spheres.get(sphere["name"], {"closed_colour": None}) | sphere
            radii = data["radii"] | changes.get("radii", {})
            return cls.from_dict(data | changes | {"spheres": list(spheres.values()), "radii": radii})
        except KeyError as error:
            raise GenimaError(f"appearance {path}: a sphere lacks its {error.args[0]}") from None
        except ValueError as error:
            raise GenimaError(f"appearance {path}: {error}") from None
        except (AttributeError, TypeError):
            raise GenimaError(
                f"appearance {path} must map {', '.join(f.name for f in fields(cls))} to values, spheres to a list of "
                "mappings and radii to a mapping"
            ) from None


def _sphere(data: Mapping[str, Any]) -> Sphere:
    what = f"sphere {data['name']}"
    _refuse_unknown(data, Sphere, what)
    frame = data["frame"]
    if type(frame) is not int or frame < 0:
        raise ValueError(f"{what}: frame is {frame!r}, not the index of a link from 0 on")
    closed = data["closed_colour"]
    return Sphere(
        str(data["name"]),
        frame,
        _colour(data["colour"], f"{what}: colour"),
        None if closed is None else _colour(closed, f"{what}: closed_colour"),
    )


def _colour(values: Any, what: str) -> Colour:
    if not (isinstance(values, list) and len(values) == 3 and all(type(v) is int and 0 <= v <= 255 for v in values)):
        raise ValueError(f"{what} is {values!r}, not a list of three integers 0..255 (red, green, blue)")
    return values[0], values[1], values[2]


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{what} is {value!r}, not a number")
    return float(value)


def _refuse_unknown(data: Mapping[str, Any], kind: type, what: str) -> None:
    known = [f.name for f in fields(kind)]
    if unknown := [key for key in data if key not in known]:
        raise ValueError(f"{what} has no {unknown[0]!r}; it has {', '.join(known)}")
