"""Open a drawer of a cabinet."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco

from genima_sim.motions import Motion, MoveJoint, grasp
from genima_sim.parts import add_bar, add_box, add_site, add_slide
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, SceneObject, Task

_WOOD, _FRONT, _STEEL = (0.45, 0.30, 0.20), (0.62, 0.44, 0.30), (0.75, 0.75, 0.78)
_HALF, _DEPTH, _SPACING = 0.12, 0.09, 0.11  # m: half the width, half the depth, between two drawers
_OPEN = 0.15  # m


class Cabinet(SceneObject):
    """Cabinet of three drawers with handles."""

    name = "cabinet"
    region = Region((0.70, 0.75), (-0.12, 0.12), (-0.4, 0.4))
    radius = 0.2

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        cabinet = spec.worldbody.add_body(name=self.name)
        add_box(cabinet, [_DEPTH, 0, 0.02], [_DEPTH, _HALF, 0.02], _WOOD)
        add_box(cabinet, [_DEPTH, 0, 0.388], [_DEPTH, _HALF, 0.008], _WOOD)
        add_box(cabinet, [2 * _DEPTH, 0, 0.19], [0.006, _HALF, 0.19], _WOOD)
        for side in (-1, 1):
            add_box(cabinet, [_DEPTH, side * _HALF, 0.19], [_DEPTH, 0.006, 0.19], _WOOD)
        for i, name in enumerate(("bottom", "middle", "top")):
            drawer = cabinet.add_body(name=f"drawer_{name}", pos=[0, 0, 0.1 + i * _SPACING])
            add_slide(drawer, f"drawer_{name}", [-1, 0, 0], (0, 0.2))
            add_box(drawer, [0, 0, 0], [0.008, _HALF - 0.008, 0.05], _FRONT, mass=0.3)
            add_box(drawer, [_DEPTH, 0, -0.045], [_DEPTH - 0.02, _HALF - 0.02, 0.004], _FRONT, mass=0.2)
            add_bar(drawer, [-0.055, 0, -0.02], [-0.055, 0, 0.02], 0.009, _STEEL, mass=0.05)
            add_bar(drawer, [-0.055, 0, 0], [0, 0, 0], 0.007, _STEEL, mass=0.02)
            add_site(drawer, f"handle_{name}", [-0.055, 0, 0], z=(1, 0, -2.2), x=(0, 1, 0))


class OpenDrawer(Task):
    """Judged as RLBench does: the drawer is open by 0.15 m."""

    instructions = (
        "open the {drawer} drawer",
        "grip the {drawer} handle and pull the {drawer} drawer open",
        "slide the {drawer} drawer open",
    )
    variations = ({"drawer": "bottom"}, {"drawer": "middle"}, {"drawer": "top"})
    objects = (Cabinet(),)
    allows_scaling = True
    near_misses = {
        "open by 90%": {"drawer_bottom": 0.9 * _OPEN},
        "the middle drawer": {"drawer_middle": 0.19},
        "the top drawer": {"drawer_top": 0.19},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.joint(f"drawer_{self.values['drawer']}") > _OPEN

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        drawer = self.values["drawer"]
        yield from grasp(scene.frame(f"handle_{drawer}"))
        yield MoveJoint(f"drawer_{drawer}", 0.17, 2.5)
