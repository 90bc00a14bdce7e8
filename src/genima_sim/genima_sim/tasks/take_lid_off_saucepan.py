"""Take the lid off a saucepan."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import GRIP_TIME, Motion, MoveTo, back_off, radial_grasp, shift
from genima_sim.parts import GRIP, add_box, add_cylinder, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import FailedGrasp, Region, RelativePose, SceneObject, Task

_PAN_HEIGHT = 0.08  # m, where the lid lies
_KNOB_HEIGHT = 0.05  # m, above the lid's 1 cm
_LID_GAP = 0.0005  # m between the pan and the lid at the start
_HOVER = 0.10  # m above the knob, where the straight descent begins
_GRASP = _PAN_HEIGHT + _KNOB_HEIGHT - 0.003  # m, height of the tip with the pads round the knob
_LIFT, _RETRY_LIFT = 0.18, 0.14  # m above the grasp; the second is high enough to see whether the lid is held
_FAILED_SHARE = 0.3  # of the demos begin with a failed grasp
_FAILED_DISTANCE = 0.018, 0.045  # m from the knob
_FAILED_RAISE = 0.02  # m, at most


class Saucepan(SceneObject):
    """Pan with a handle, and a loose lid with a knob."""

    name = "saucepan"
    region = Region(yaw=(-np.pi, np.pi))
    grid = Region((0.315, 0.665), (-0.22, 0.22), (-np.pi / 4, np.pi / 4))  # appendix A: 35 x 44 cm, 90 degrees
    radius = 0.11  # m: the gripper finds room beside it

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        half = _PAN_HEIGHT / 2
        pan = spec.worldbody.add_body(name=self.name)
        add_cylinder(pan, [0, 0, half], 0.085, half, [0.30, 0.42, 0.60])
        add_site(pan, "pan_top", [0, 0, _PAN_HEIGHT])
        add_box(pan, [0, 0.14, 0.055], [0.011, 0.06, 0.008], [0.12, 0.12, 0.13])
        lid = spec.worldbody.add_body(name="lid", pos=[0, 0, _PAN_HEIGHT + _LID_GAP])
        lid.add_freejoint(name="lid")
        add_cylinder(lid, [0, 0, 0.005], 0.089, 0.005, [0.62, 0.70, 0.78], mass=0.12)
        add_cylinder(
            lid, [0, 0, 0.01 + _KNOB_HEIGHT / 2], 0.02, _KNOB_HEIGHT / 2, [0.10, 0.10, 0.11],
            name="knob", mass=0.03, friction=GRIP,
        )  # fmt: skip


class TakeLidOffSaucepan(Task):
    """Judged as in the GENIMA paper, appendix A."""

    instructions = ("take the lid off the saucepan",)
    objects = (Saucepan(),)
    scene_tasks = ("push_button", "take_lid_off_saucepan")  # the scene of the bundled models

    near_misses = {
        "lid lifted too little": {"lid": RelativePose("pan_top", (0.0, 0.0, 0.08))},
        "lid beside the pan": {"lid": RelativePose("pan_top", (0.25, 0.0, -0.08))},
        "lid in the air, not held": {"lid": RelativePose("pan_top", (0.0, 0.0, 0.20))},
        "lid tilted on the rim": {"lid": RelativePose("pan_top", (0.05, 0.0, 0.03), (0.0, 0.4, 0.0))},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        lid, pan = state.position("lid"), state.placements["saucepan"]
        above = lid[2] > _PAN_HEIGHT + 0.10 and np.linalg.norm(lid[:2] - pan.xy) < 0.10
        return bool(above and state.is_held("lid"))

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        x, y, _ = scene.body("lid")[:3, 3]
        knob = radial_grasp([x, y, _GRASP])
        yield MoveTo(back_off(knob, _HOVER), 1.8, 1.0, straight=False)
        yield MoveTo(knob, 1.2, 1.0)
        yield MoveTo(knob, GRIP_TIME, 0.0)
        yield MoveTo(shift(knob, z=_LIFT), 1.5, 0.0)

    def failed_grasp(self, scene: SceneFrames, rng: np.random.Generator) -> FailedGrasp | None:
        """See :class:`Task`."""
        if rng.random() >= _FAILED_SHARE:
            return None
        angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(*_FAILED_DISTANCE)
        offset = [distance * np.cos(angle), distance * np.sin(angle), rng.uniform(0.0, _FAILED_RAISE)]
        x, y, _ = scene.body("lid")[:3, 3]
        beside = radial_grasp([x, y, _GRASP] + np.array(offset))
        return FailedGrasp(beside, shift(beside, z=_RETRY_LIFT - offset[2]))
