"""Appearance of the target spheres: colours, radii and stripes, and its files.

``config/appearances`` has three. All have the colours and radii of the GENIMA paper (section 2.1, table 3), which does
not specify the stripes:

- ``wide_stripes``, the default: four stripes, every other one at 35% of the brightness.
- ``no_stripes``: none, as in an ablation of the paper.
- ``genima_release``: as in the authors' released code, 10 stripes and part of another, coloured and black.
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
    """Sphere at a frame of the arm, with stripes normal to the frame's x axis, which show rotation about z."""

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
    """Appearance of drawn targets, stored in the checkpoint: training and use must agree on it.

    With a stripe period that divides the diameter, as the default, one pole is dark and the other coloured: half a
    turn is distinguishable from none.

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
            raise ValueError(f"stripe_period: out of range ({self.stripe_period}); use 0.01 to 1")
        if not 0 <= self.dark <= 1:
            raise ValueError(f"dark: out of range ({self.dark}); use 0 to 1")
        for view, radius in self.radii.items():
            if not 0 < radius < np.inf:
                raise ValueError(f"radius of view {view}: out of range ({radius}); use a positive number of metres")

    @property
    def stripes(self) -> tuple[float, float]:
        """Brightness of the first stripe and of the second, which then alternate."""
        return (self.dark, 1.0) if self.first_stripe == "dark" else (1.0, self.dark)

    def require_frames(self, robot: RobotModel) -> None:
        """Raise a GenimaError for a sphere at a frame that the robot lacks."""
        last = len(robot.joint_names) + 1  # the flange and the tip follow the joints
        for sphere in self.spheres:
            if sphere.frame > last:
                raise GenimaError(
                    f"sphere {sphere.name}: unknown frame ({sphere.frame}); {robot.name} has frames 0 to {last}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the appearance as plain JSON types.

        A default ``first_stripe`` is omitted: datasets and checkpoints stay identical to those of older versions.
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
            ValueError: with the first missing or malformed fields, in one line.
        """
        try:
            return AppearanceSchema.model_validate(data).appearance()
        except ValidationError as error:
            raise ValueError(describe(error)) from None

    @classmethod
    def load(cls, name_or_file: str | Path) -> Appearance:
        """Read an appearance by name, or a YAML file with the structure of :meth:`to_dict`.

        Omitted entries keep the default: a view's radius, a sphere, a field of a sphere. Spheres are matched by name;
        new names are added.

        Raises:
            GenimaError: for an unknown name, a missing file, an unknown key or a malformed value.
        """
        path = Path(name_or_file)
        if path.suffix not in (".yaml", ".yml"):
            known = [file.stem for file in paths.yaml_files(*_FOLDER)]
            if str(name_or_file) not in known:
                raise GenimaError(f"appearance {name_or_file}: unknown; use {', '.join(known)}, or a .yaml file")
            path = paths.config_file(name_or_file, *_FOLDER)
        changes, what = read_yaml(path, "appearance"), f"appearance {path}"
        settings = {} if changes is None else validate(_Changes, changes, what).model_dump(exclude_unset=True)
        data = cls().to_dict()
        spheres = {sphere["name"]: sphere for sphere in data["spheres"]}
        for sphere in settings.get("spheres", []):
            spheres[sphere["name"]] = spheres.get(sphere["name"], {}) | sphere
        radii = data["radii"] | settings.get("radii", {})
        merged = data | settings | {"spheres": list(spheres.values()), "radii": radii}
        return validate(AppearanceSchema, merged, what).appearance()


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
            raise ValueError(f"duplicate sphere name ({twice[0]!r})")
        return self

    def appearance(self) -> Appearance:
        """Return the appearance of the file."""
        spheres = (Sphere(s.name, s.frame, _rgb(s.colour), _rgb(s.closed_colour)) for s in self.spheres)
        return Appearance(tuple(spheres), dict(self.radii), self.stripe_period, self.dark, self.first_stripe)


class _SphereChanges(FileSchema):
    name: Text
    frame: _Frame = 0
    colour: _Colour = [0, 0, 0]
    closed_colour: _Colour | None = None


class _Changes(FileSchema):
    """Fields of a user's file; unset ones keep the default's values."""

    spheres: Annotated[list[_SphereChanges], Field(max_length=_MOST_SPHERES)] = []
    radii: Annotated[dict[Text, _Radius], Field(max_length=_MOST_SPHERES)] = {}
    stripe_period: _Period = 0.5
    dark: Fraction = 0.35
    first_stripe: FirstStripe = "dark"


def _rgb(values: list[int] | None) -> Any:
    return None if values is None else tuple(values)
