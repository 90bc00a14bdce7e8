"""Scoop up a cube with a spatula and lift it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from genima_sim.motions import Motion, MoveTo, grasp, shift, top_down_grasp
from genima_sim.parts import GRIP, add_bar, add_box, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_STEEL, _HANDLE, _CUBE = (0.35, 0.45, 0.60), (0.10, 0.10, 0.11), (0.85, 0.70, 0.10)
_SMOOTH = [0.05, 0.005, 0.0001]  # friction: the cube slides onto the blade
_BLADE = 0.05, 0.045, 0.0007  # m: half length, half width, half thickness
_BEVEL, _SLOPE = 0.014, 0.12  # m, half length of the bevelled front; rad
_GRIP_HALF = 0.02, 0.013, 0.04  # m of the handle
_GRIP_AT = -0.10, 0.0, 0.075  # m from the blade's middle
_SIDE = 0.019  # m, half
_SUCCESS = 0.10  # m, height of the cube
_UNDER = 0.09  # m between the handle and the cube when the cube is on the blade
_SCOOP = 0.35  # rad: the cube slides to the rear of the blade
_PRESS = 0.003  # m: the blade stays on the table
_LIFT = 0.12  # m
_REST = 0.3  # s


class Spatula(SceneObject):
    """Spatula on the table, with a handle that stands up."""

    name = "spatula"
    region = Region((0.42, 0.46), (-0.12, 0.12), (-0.3, 0.3))
    radius = 0.10

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        spatula = spec.worldbody.add_body(name=self.name, pos=[0, 0, _BLADE[2] + 0.0003])
        spatula.add_freejoint(name=self.name)
        add_box(spatula, [0, 0, 0], _BLADE, _STEEL, mass=0.06, friction=_SMOOTH)
        for side in (-1, 1):
            rail = [0.006, side * _BLADE[1], 0.006], [_BLADE[0] + 0.012, 0.002, 0.006]
            add_box(spatula, *rail, _STEEL, mass=0.01, friction=_SMOOTH)
        add_box(spatula, [-_BLADE[0], 0, 0.01], [0.002, _BLADE[1], 0.011], _STEEL, mass=0.01)
        # The lower side of the bevel ends below the table's surface: the cube cannot be pushed by its edge.
        turn = [np.cos(_SLOPE / 2), 0, np.sin(_SLOPE / 2), 0]
        bevel = spatula.add_body(name="spatula_bevel", pos=[_BLADE[0] + 0.008, 0, -0.0015], quat=turn)
        add_box(bevel, [0, 0, 0], [_BEVEL, _BLADE[1] - 0.002, _BLADE[2]], _STEEL, mass=0.005, friction=_SMOOTH)
        spec.add_exclude(bodyname1="spatula_bevel", bodyname2="world")
        add_bar(spatula, [-_BLADE[0], 0, 0.008], [-0.10, 0, 0.045], 0.006, _STEEL, mass=0.01)
        add_box(spatula, _GRIP_AT, _GRIP_HALF, _HANDLE, mass=0.04, friction=GRIP)
        add_site(spatula, "spatula_handle", _GRIP_AT, x=(0, 1, 0))
        add_site(spatula, "blade", [0, 0, 0.02], half=(_BLADE[0], _BLADE[1], 0.02))


class Cube(SceneObject):
    """Cube on the table."""

    name = "cube"
    region = Region((0.60, 0.65), (-0.12, 0.12), (-0.4, 0.4))
    radius = 0.05

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        cube = spec.worldbody.add_body(name=self.name, pos=[0, 0, _SIDE + 0.0005])
        cube.add_freejoint(name=self.name)
        add_box(cube, [0, 0, 0], [_SIDE] * 3, _CUBE, mass=0.05, friction=_SMOOTH)
        add_site(cube, "cube", [0, 0, 0])


class ScoopWithSpatula(Task):
    """Judged as in the GENIMA paper, appendix A."""

    instructions = (
        "scoop up the cube and lift it with the spatula",
        "scoop up the block and lift it up with the spatula",
        "use the spatula to lift the cube off the table",
    )
    objects = (Spatula(), Cube())
    allows_scaling = True
    near_misses = {
        "beside the spatula": {"cube": RelativePose("blade", (0.0, 0.09, 0.0))},
        "on the spatula on the table": {"cube": RelativePose("blade", (0.0, 0.0, 0.002))},
        "in the air": {"cube": RelativePose("blade", (0.0, 0.0, 0.6))},
        "lifted, the spatula not held": {
            "spatula": RelativePose("cube", (0.0, 0.0, 0.5)),
            "cube": RelativePose("cube", (0.0, 0.0, 0.52)),
        },
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        lifted = state.position("cube")[2] > _SUCCESS and state.is_inside("cube", "blade")
        return bool(lifted and state.touch("cube", "spatula") and state.is_held("spatula"))

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        handle, cube = scene.frame("spatula_handle"), scene.frame("cube")
        hover, approach, close = grasp(handle)
        # The arm is at rest before the gripper closes: a spatula that is gripped on the way down tilts.
        yield from (hover, approach, replace(approach, seconds=_REST), close)
        ahead = cube[:2, 3] - handle[:2, 3]
        distance = float(np.linalg.norm(ahead))
        ahead = ahead / distance
        x, y, z = handle[:3, 3]
        aligned = top_down_grasp(x, y, z, np.arctan2(ahead[1], ahead[0]) + np.pi / 2)
        yield MoveTo(aligned, 0.6, 0.0)
        x, y = (distance - _UNDER) * ahead
        under = shift(aligned, x, y, -_PRESS)
        yield MoveTo(under, 1.6, 0.0)
        scooped = shift(under, z=0.02)
        turn = Rotation.from_rotvec([_SCOOP * ahead[1], -_SCOOP * ahead[0], 0.0])
        scooped[:3, :3] = turn.as_matrix() @ under[:3, :3]
        yield MoveTo(scooped, 0.8, 0.0)
        yield MoveTo(shift(scooped, z=_LIFT), 1.0, 0.0)
