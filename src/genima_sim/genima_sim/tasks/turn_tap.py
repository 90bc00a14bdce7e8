"""Turn one of two taps."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import Motion, MoveJoint, grasp
from genima_sim.parts import GRIP, add_bar, add_box, add_cylinder, add_hinge, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, SceneObject, Task

_BASIN, _CHROME = (0.88, 0.89, 0.91), (0.55, 0.58, 0.62)
_TAPS = {"left": (1, (0.75, 0.12, 0.10)), "right": (-1, (0.10, 0.20, 0.70))}  # seen from the robot: hot and cold
_SPACING = 0.12  # m between the spout and a tap
_TURNED = np.pi / 2  # rad
_MARGIN = 0.15  # rad


class Taps(SceneObject):
    """Spout with a tap to either side; the two open in opposite directions."""

    name = "taps"
    region = Region((0.54, 0.62), (-0.13, 0.13), (-0.4, 0.4))
    radius = 0.2

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        taps = spec.worldbody.add_body(name=self.name)
        add_box(taps, [0, 0, 0.015], [0.05, 0.18, 0.015], _BASIN)
        add_cylinder(taps, [0, 0, 0.08], 0.015, 0.05, _CHROME)
        add_bar(taps, [0, 0, 0.13], [-0.09, 0, 0.13], 0.012, _CHROME)
        for name, (side, rgb) in _TAPS.items():
            add_cylinder(taps, [0, side * _SPACING, 0.04], 0.02, 0.01, _CHROME)
            tap = taps.add_body(name=f"tap_{name}", pos=[0, side * _SPACING, 0.053])
            add_hinge(tap, f"tap_{name}", [0, 0, 0], [0, 0, side], (0, 2.2), damping=0.3, friction=0.3)
            add_cylinder(tap, [0, 0, 0.015], 0.012, 0.014, _CHROME, mass=0.02)
            add_box(tap, [0, 0, 0.055], [0.042, 0.011, 0.027], rgb, mass=0.05, friction=GRIP)
            add_site(tap, f"tap_{name}", [0, 0, 0.058], x=(0, 1, 0))


class TurnTap(Task):
    """Judged as RLBench does: the tap is turned by 90 degrees."""

    instructions = ("turn the {side} tap", "rotate the {side} tap", "grasp the {side} tap and turn it")
    variations = ({"side": "left"}, {"side": "right"})
    objects = (Taps(),)
    allows_scaling = True
    near_misses = {
        "turned by 90%": {"tap_left": 0.9 * _TURNED},
        "turned by half": {"tap_left": 0.5 * _TURNED},
        "the right tap": {"tap_right": 1.1 * _TURNED},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.moved(f"tap_{self.values['side']}") > _TURNED

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        tap = f"tap_{self.values['side']}"
        yield from grasp(scene.frame(tap))
        yield MoveJoint(tap, _TURNED + _MARGIN, 2.5)
