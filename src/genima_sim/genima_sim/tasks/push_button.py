"""Push a button down."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco

from genima_sim.motions import Motion, MoveTo, back_off, radial_grasp
from genima_sim.parts import add_box, add_cylinder, add_slide
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import SceneObject, Task

_HOVER = 0.10  # m above the button, where the straight descent begins
_PRESSED = 0.071  # m, height of the tip with the cap all the way down
_STROKE = 0.003  # m, that counts as pressed in RLBench
_COLOURS = {
    "maroon": (0.50, 0.03, 0.10),
    "green": (0.05, 0.45, 0.12),
    "blue": (0.06, 0.12, 0.70),
    "yellow": (0.90, 0.75, 0.05),
    "black": (0.04, 0.04, 0.05),
}


class Button(SceneObject):
    """Box with a cap of a colour on a spring."""

    name = "button"
    radius = 0.11  # m: the gripper finds room beside it
    color_matters = True

    def __init__(self, rgb: tuple[float, float, float]) -> None:
        self._rgb = rgb

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        button = spec.worldbody.add_body(name=self.name)
        add_box(button, [0, 0, 0.0125], [0.05, 0.05, 0.0125], [0.75, 0.76, 0.78])
        cap = button.add_body(name="button_cap", pos=[0, 0, 0.04])
        add_slide(
            cap, "button_slide", [0, 0, 1], (-0.015, 0), 8, 0, stiffness=[150, 0, 0], springref=0.005, armature=0.02
        )
        # Over its base, so that a finger beside the cap cannot wedge under it.
        add_cylinder(cap, [0, 0, 0], 0.034, 0.015, self._rgb, name="button_cap", mass=0.05)
        spec.add_exclude(bodyname1=self.name, bodyname2="button_cap")  # the cap sinks into its base


_BUTTONS = [Button(rgb) for rgb in _COLOURS.values()]  # each variation's, the same in all episodes


class PushButton(Task):
    """Judged as in the GENIMA paper, appendix A."""

    instructions = ("push down the {colour} button", "push the {colour} button", "press the {colour} button")
    variations = tuple({"colour": colour} for colour in _COLOURS)
    near_misses = {
        "touched": {"button_slide": -0.1 * _STROKE},
        "half pressed": {"button_slide": -0.5 * _STROKE},
        "almost pressed": {"button_slide": -0.9 * _STROKE},
    }

    def __init__(self, variation: int = 0) -> None:
        super().__init__(variation)
        self.objects = (_BUTTONS[variation],)
        self.scene_tasks = (self.name, "take_lid_off_saucepan")  # the scene of the bundled models

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.joint("button_slide") < -_STROKE

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        x, y, _ = scene.body(self.objects[0].name)[:3, 3]
        pressed = radial_grasp([x, y, _PRESSED])
        yield MoveTo(back_off(pressed, _HOVER), 1.8, 0.0, straight=False)
        yield MoveTo(pressed, 1.2, 0.0)
        # It ends with the button down: an arm that has gone up again looks like one that has yet to come down.
        yield MoveTo(pressed, 0.6, 0.0)
