"""Appearance of the target spheres: colours, radii and stripes, and the files that change them.

Two looks ship in ``config/appearances``. Colours and radii of both are the GENIMA paper's (section 2.1, table 3), which
says of the stripes only that there are some:

- ``wide_stripes``, the default: four stripes, every other one at 35% of the brightness.
- ``genima_release``: those of the authors' released code, 10 whole stripes and a part of one, coloured and black.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import FileSchema, Fraction, Text, describe, read_yaml, validate
from genima.robot.model import RobotModel

Colour = tuple[int, int, int]  # rgb, 0..255
FirstStripe = Literal["dark", "coloured"]

DEFAULT = "wide_stripes"
_FOLDER = ("config", "appearances")


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
        ValueError: for a stripe period outside [0.01, 1], a brightness outside 0..1 or a radius that is not positive.
    """

    spheres: tuple[Sphere, ...] = _PAPER
    radii: Mapping[str, float] = field(default_factory=lambda: dict(_PAPER_RADII))  # m, by view
    stripe_period: float = 0.5  # of the diameter: a dark stripe and a coloured one of the same width
    dark: float = 0.35  # brightness of a dark stripe
    first_stripe: FirstStripe = "dark"  # at the pole on the negative x axis of the sphere's frame

    def __post_init__(self) -> None:
        if not 0.01 <= self.stripe_period <= 1:
            raise ValueError(f"stripe_period is {self.stripe_period}, not in [0.01, 1]")
        if not 0 <= self.dark <= 1:
            raise ValueError(f"dark is {self.dark}, not in 0..1")
        for view, radius in self.radii.items():
            if not 0 < radius < np.inf:
                raise ValueError(f"the radius of view {view} is {radius}, not a positive number of metres")

    @property
    def stripes(self) -> tuple[float, float]:
        """Brightness of the first stripe and of the second, which then alternate."""
        return (self.dark, 1.0) if self.first_stripe == "dark" else (1.0, self.dark)

    def require_frames(self, robot: RobotModel) -> None:
        """Raise a GenimaError when a sphere is at a frame that the robot lacks."""
        last = len(robot.joint_names) + 1  # the flange and the tip follow the joints
        for sphere in self.spheres:
            if sphere.frame > last:
                raise GenimaError(
                    f"sphere {sphere.name} is at frame {sphere.frame}, but {robot.name} has frames 0 to {last}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the appearance as plain JSON types.

        ``first_stripe`` is left out where it is the default, so that datasets and checkpoints stay the ones that they
        were before there was a choice.
        """
        data = {
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
        return data if self.first_stripe == "dark" else {**data, "first_stripe": self.first_stripe}

    @classmethod
    def from_dict(cls, data: Any) -> Appearance:
        """Return the inverse of :meth:`to_dict`.

        Raises:
            ValueError: the first fields that are missing or malformed, in one line.
        """
        try:
            return AppearanceSchema.model_validate(data).appearance()
        except ValidationError as error:
            raise ValueError(describe(error)) from None

    @classmethod
    def load(cls, name_or_file: str | Path) -> Appearance:
        """Read one of the shipped appearances, by its name, or a YAML file with the structure of :meth:`to_dict`.

        What the file does not name stays as in the default: a view's radius, a sphere, a field of a sphere. Spheres
        are matched by name; one with another name is added.

        Raises:
            GenimaError: for an unknown name, a missing file, an unknown key or a malformed value.
        """
        path = Path(name_or_file)
        if path.suffix not in (".yaml", ".yml"):
            folder = paths.shared(*_FOLDER)
            known = sorted(file.stem for file in folder.glob("*.yaml"))
            if str(name_or_file) not in known:
                raise GenimaError(
                    f"appearance {name_or_file}: unknown; there are {', '.join(known)}, or name a .yaml file"
                )
            path = folder / f"{name_or_file}.yaml"
        changes, what = read_yaml(path, "appearance"), f"appearance {path}"
        given = {} if changes is None else validate(_Changes, changes, what).model_dump(exclude_unset=True)
        data = cls().to_dict()
        spheres = {sphere["name"]: sphere for sphere in data["spheres"]}
        for sphere in given.get("spheres", []):
            spheres[sphere["name"]] = spheres.get(sphere["name"], {}) | sphere
        radii = data["radii"] | given.get("radii", {})
        whole = data | given | {"spheres": list(spheres.values()), "radii": radii}
        return validate(AppearanceSchema, whole, what).appearance()


_Channel = Annotated[int, Field(ge=0, le=255)]
_Colour = Annotated[list[_Channel], Field(min_length=3, max_length=3)]  # red, green, blue
_Frame = Annotated[int, Field(ge=0, le=99)]
_Radius = Annotated[float, Field(gt=0, le=1)]  # m
_Period = Annotated[float, Field(ge=0.01, le=1)]  # of the diameter
_MOST_SPHERES = 32


class _SphereSchema(FileSchema):
    name: Text
    frame: _Frame
    colour: _Colour
    closed_colour: _Colour | None = None


class AppearanceSchema(FileSchema):
    """Appearance in a file: ``genima.json`` of a checkpoint, the manifest of a dataset."""

    spheres: Annotated[list[_SphereSchema], Field(min_length=1, max_length=_MOST_SPHERES)]
    radii: Annotated[dict[Text, _Radius], Field(max_length=_MOST_SPHERES)]
    stripe_period: _Period
    dark: Fraction
    first_stripe: FirstStripe = "dark"

    @model_validator(mode="after")
    def _require_different_names(self) -> AppearanceSchema:
        names = [sphere.name for sphere in self.spheres]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two spheres are called {twice[0]!r}")
        return self

    def appearance(self) -> Appearance:
        """Return the appearance that the file describes."""
        spheres = (Sphere(s.name, s.frame, _rgb(s.colour), _rgb(s.closed_colour)) for s in self.spheres)
        return Appearance(tuple(spheres), dict(self.radii), self.stripe_period, self.dark, self.first_stripe)


class _SphereChanges(FileSchema):
    name: Text
    frame: _Frame = 0
    colour: _Colour = [0, 0, 0]
    closed_colour: _Colour | None = None


class _Changes(FileSchema):
    """Fields of a user's file; those that it does not set are the default's."""

    spheres: Annotated[list[_SphereChanges], Field(max_length=_MOST_SPHERES)] = []
    radii: Annotated[dict[Text, _Radius], Field(max_length=_MOST_SPHERES)] = {}
    stripe_period: _Period = 0.5
    dark: Fraction = 0.35
    first_stripe: FirstStripe = "dark"


def _rgb(values: list[int] | None) -> Any:
    return None if values is None else tuple(values)
