"""Put a telephone's handset on its base."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import GRIP_TIME, Motion, MoveTo, grasp, shift
from genima_sim.parts import GRIP, add_box, add_cylinder, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_PHONE, _BASE, _DIAL = (0.75, 0.10, 0.10), (0.16, 0.26, 0.38), (0.85, 0.85, 0.82)
_BAR = (0.014, 0.10, 0.012)  # m, half edges of the handset's grip
_END = (0.022, 0.02, 0.012)  # m, half edges of its ends, below the grip
_REACH = 0.082  # m from the middle of the handset to that of an end
_POST, _TOP = (0.026, 0.014, 0.02), 0.065  # m: half edges of a post on which the grip lies; height of the posts
_GAP = 0.042  # m from the middle of the base to that of a post: the fingers find room between the posts
_GUIDE = 0.022  # m from the middle of a post to the guides beside the grip
_SIDES = -1, 1  # of the base, along y
_GRASP = 0.007  # m of the tip over the middle of the grip: the pads reach 27 mm further
_LIFT, _OVER = 0.13, 0.06  # m


class Handset(SceneObject):
    """Grip with an end for the ear and one for the mouth."""

    name = "phone"
    region = Region((0.38, 0.58), (-0.25, 0.25), (-0.8, 0.8))
    radius = 0.11

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        phone = spec.worldbody.add_body(name=self.name, pos=[0, 0, 2 * _END[2] + _BAR[2]])
        phone.add_freejoint(name=self.name)
        add_box(phone, [0, 0, 0], _BAR, _PHONE, mass=0.06, friction=GRIP)
        for name, side in (("ear", 1), ("mouth", -1)):
            pos = [0, side * _REACH, -_BAR[2] - _END[2]]
            add_box(phone, pos, _END, _PHONE, mass=0.03)
            add_site(phone, f"phone_{name}", pos)
        add_site(phone, self.name, [0, 0, _GRASP])


class PhoneBase(SceneObject):
    """Base with two posts between which and beside which the handset fits."""

    name = "phone_base"
    region = Region((0.46, 0.58), (-0.22, 0.22), (-0.4, 0.4))
    radius = 0.12
    receives = True

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        base = spec.worldbody.add_body(name=self.name)
        add_box(base, [0, 0, 0.0125], [0.06, 0.075, 0.0125], _BASE)
        add_cylinder(base, [-0.042, 0, 0.027], 0.014, 0.002, _DIAL)
        for side in _SIDES:
            add_box(base, [0, side * _GAP, _TOP - _POST[2]], _POST, _BASE)
            for guide in (-1, 1):
                add_box(base, [guide * _GUIDE, side * _GAP, _TOP + 0.006], [0.004, _POST[1], 0.006], _BASE)
            half = [0.015, 0.015, 0.008]
            add_site(base, f"cradle_{side}", [0, side * _REACH, _TOP - _END[2]], z=(0, 0, 1), half=half)
        add_site(base, self.name, [0, 0, _TOP + _BAR[2] + _GRASP])


class PhoneOnBase(Task):
    """Judged as in the GENIMA paper, appendix A: the phone lies on its base, and is released."""

    instructions = (
        "put the phone on the base",
        "put the phone on the holder base",
        "pick up the phone and place it on its base",
    )
    objects = (Handset(), PhoneBase())
    allows_scaling = True
    near_misses = {
        "in the air above the base": {"phone": RelativePose("phone_base", (0.0, 0.0, 0.55))},
        "beside the base": {"phone": RelativePose("phone_base", (-0.12, 0.0, 2 * _END[2] - _TOP - _GRASP))},
        "shifted, one end on a post": {"phone": RelativePose("phone_base", (0.0, 0.05, 0.03))},
        "across the posts": {"phone": RelativePose("phone_base", (0.0, 0.0, 0.02), (0.0, 0.0, np.pi / 2))},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        cradles = [
            {side for side in _SIDES if state.is_inside(f"phone_{end}", f"cradle_{side}")} for end in ("ear", "mouth")
        ]
        return set.union(*cradles) == set(_SIDES) and all(cradles) and not state.is_touched("phone")

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        phone, base = scene.frame("phone"), scene.frame("phone_base")
        if phone[:3, 0] @ base[:3, 0] < 0:  # the handset fits either way round
            base[:3, :2] *= -1
        yield from grasp(phone)
        yield MoveTo(shift(phone, z=_LIFT), 1.0, 0.0)
        yield MoveTo(shift(base, z=_OVER), 1.6, 0.0)
        yield MoveTo(shift(base, z=0.003), 1.0, 0.0)
        yield MoveTo(shift(base, z=0.003), GRIP_TIME, 1.0)
