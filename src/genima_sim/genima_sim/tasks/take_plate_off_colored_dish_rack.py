"""Take a plate off the dish rack of a colour and leave it on the table."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import GRIP_TIME, Motion, MoveTo, Pose, back_off, grasp, shift
from genima_sim.parts import GRIP, add_bar, add_box, add_cylinder, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_COLOURS = {"black": (0.06, 0.06, 0.07), "red": (0.78, 0.10, 0.10)}
_CHINA, _RING = (0.90, 0.90, 0.92), (0.55, 0.66, 0.85)
_BASE = 0.012  # m, height
_RADIUS, _THICKNESS = 0.06, 0.005  # m: of a plate, and half its thickness
_INNER = _RADIUS * np.cos(np.pi / 8)  # m from the centre to an edge of the octagon that collides
_GRASP = _INNER - 0.024  # m from the plate's centre, towards its upper edge
_LIFT = 0.14  # m: the plate is above the racks
_LEAN = 0.9  # rad of the gripper to the right when it lays the plate down
_CLEARANCE = 0.004  # m under the lower edge then
_PLACE = 0.57, -0.05  # m in the base frame, beyond the racks: where plates are laid down
_TABLE = (0.3, 0.75), (-0.4, 0.4)  # m, ranges of x and y


class BlackRack(SceneObject):
    """Black dish rack with a plate that stands in it."""

    name = "black_rack"
    region = Region((0.38, 0.45), (-0.22, 0.22), (-np.pi / 2 - 0.4, -np.pi / 2 + 0.4))
    radius = 0.1
    color_matters = True

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        colour = self.name.removesuffix("_rack")
        rgb = _COLOURS[colour]
        rack = spec.worldbody.add_body(name=self.name)
        add_box(rack, [0, 0, _BASE / 2], [0.03, 0.055, _BASE / 2], rgb)
        for x in (-1, 1):
            for y in (-1, 1):
                foot = x * (_THICKNESS + 0.007), y * 0.038
                add_bar(rack, [*foot, _BASE], [*foot, 0.085], 0.004, rgb, friction=[0.3, 0.005, 0.0001])
        name = f"{colour}_plate"
        plate = spec.worldbody.add_body(name=name, pos=[0, 0, _BASE + _INNER + 0.0005])
        plate.add_freejoint(name=name)
        sideways = [np.sqrt(0.5), 0, np.sqrt(0.5), 0]
        for radius, thicker, shade in (_RADIUS, 0.0002, _CHINA), (0.042, 0.0005, _RING), (0.036, 0.001, _CHINA):
            disc = radius, _THICKNESS + thicker, shade
            add_cylinder(plate, [0, 0, 0], *disc, quat=sideways, contype=0, conaffinity=0, mass=0)
        for turn in np.arange(4) * np.pi / 4:
            half = [_THICKNESS, _INNER, _RADIUS * np.sin(np.pi / 8)]
            quat = [np.cos(turn / 2), np.sin(turn / 2), 0, 0]
            add_box(plate, [0, 0, 0], half, _CHINA, quat=quat, mass=0.03, friction=GRIP)
        add_site(plate, name, [0, 0, 0], z=(1, 0, 0), x=(0, 1, 0))
        add_site(plate, f"{name}_edge", [0, 0, _GRASP], x=(1, 0, 0))


class RedRack(BlackRack):
    """Red dish rack with a plate that stands in it."""

    name = "red_rack"


class TakePlateOffColoredDishRack(Task):
    """Judged as in the GENIMA paper, appendix A: the plate of the rack of that colour lies on the table, released."""

    instructions = (
        "take plate off the {colour} dish rack",
        "slide the plate off the {colour} dish rack and leave it on the table top",
        "get the plate from the {colour} dish rack and lower it onto the table",
    )
    variations = ({"colour": "black"}, {"colour": "red"})
    objects = (BlackRack(), RedRack())
    allows_scaling = True
    near_misses = {
        "above the rack": {"black_plate": RelativePose("black_plate", (0.0, 0.0, 0.6))},
        "on edge on the table": {"black_plate": RelativePose("black_plate", (0.1, 0.0, -0.012))},
        "on top of the rack": {"black_plate": RelativePose("black_plate", (0.0, 0.0, 0.025), (1.57, 0.0, 0.0))},
        "the other plate": {"red_plate": RelativePose("red_plate", (0.15, 0.0, -0.05), (1.57, 0.0, 0.0))},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        plate = f"{self.values['colour']}_plate"
        frame = state.frame(plate)
        x, y, z = frame[:3, 3]
        lies = z < 2 * _THICKNESS and abs(frame[2, 2]) > 0.99
        on_table = _TABLE[0][0] < x < _TABLE[0][1] and _TABLE[1][0] < y < _TABLE[1][1]
        return bool(lies and on_table and not state.is_touched(plate))

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        edge = scene.frame(f"{self.values['colour']}_plate_edge")
        laid = _leaning_grasp(*_PLACE)
        yield from grasp(edge)
        yield MoveTo(shift(edge, z=_LIFT), 1.0, 0.0)
        yield MoveTo(shift(laid, z=0.08), 1.5, 0.0)
        yield MoveTo(laid, 0.7, 0.0)
        yield MoveTo(laid, GRIP_TIME, 1.0)
        yield MoveTo(back_off(laid, 0.06), 0.7, 1.0)


def _leaning_grasp(x: float, y: float) -> Pose:
    """Return the grasp of a plate that leans to the left, its lower edge on the table."""
    c, s = np.cos(_LEAN), np.sin(_LEAN)
    frame = np.eye(4)
    closing, approach = np.array([0.0, -c, s]), np.array([0.0, -s, -c])
    frame[:3, :3] = np.column_stack([closing, np.cross(approach, closing), approach])
    frame[:3, 3] = x, y + _GRASP * s, (_INNER + _GRASP) * c + _THICKNESS * s + _CLEARANCE
    return frame
