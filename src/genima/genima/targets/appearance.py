"""What the spheres look like; the defaults are those of the GENIMA paper (section 2.1 and table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True)
class Appearance:
    """Everything that decides how a drawn target looks; it is stored in the checkpoint and must agree everywhere."""

    spheres: tuple[Sphere, ...] = _PAPER
    radii: Mapping[str, float] = field(  # m, by view
        default_factory=lambda: {"wrist": 0.03, "front": 0.08, "right_shoulder": 0.065, "left_shoulder": 0.065}
    )
    bands: int = 4  # stripes across the diameter, coloured and dark in turn; even, so that half a turn shows
    dark: float = 0.35  # brightness of a dark stripe

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
            "bands": self.bands,
            "dark": self.dark,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Appearance:
        """The inverse of :meth:`to_dict`; KeyError or TypeError where a field is missing or malformed."""
        spheres = tuple(
            Sphere(s["name"], int(s["frame"]), _colour(s["colour"]), s["closed_colour"] and _colour(s["closed_colour"]))
            for s in data["spheres"]
        )
        return cls(spheres, dict(data["radii"]), int(data["bands"]), float(data["dark"]))


def _colour(values: Any) -> Colour:
    r, g, b = (int(v) for v in values)
    return r, g, b
