"""Take the lid off a saucepan."""

from __future__ import annotations

import mujoco
import numpy as np

from genima_sim.task import FailedGrasp, Placement, Positions, Region, SceneObject, SceneState, Task, Waypoint

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
    radius = 0.11  # m: the gripper finds room beside it
    movable = ("lid",)

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        box, cylinder = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
        half = _PAN_HEIGHT / 2
        pan = spec.worldbody.add_body(name=self.name)
        pan.add_geom(type=cylinder, pos=[0, 0, half], size=[0.085, half, 0], rgba=[0.30, 0.42, 0.60, 1])
        pan.add_geom(type=box, pos=[0, 0.14, 0.055], size=[0.011, 0.06, 0.008], rgba=[0.12, 0.12, 0.13, 1])
        lid = spec.worldbody.add_body(name="lid", pos=[0, 0, _PAN_HEIGHT])
        lid.add_freejoint(name="lid")
        lid.add_geom(
            type=cylinder, pos=[0, 0, 0.005], size=[0.089, 0.005, 0], rgba=[0.62, 0.70, 0.78, 1], mass=0.12
        )  # fmt: skip
        lid.add_geom(
            name="knob",
            type=cylinder,
            pos=[0, 0, 0.01 + _KNOB_HEIGHT / 2],
            size=[0.02, _KNOB_HEIGHT / 2, 0],
            rgba=[0.10, 0.10, 0.11, 1],
            mass=0.03,
            friction=[1.5, 0.05, 0.001],
        )

    def place(self, model: mujoco.MjModel, data: mujoco.MjData, placement: Placement) -> None:
        """See :class:`SceneObject`; the lid is round, and is not turned."""
        super().place(model, data, placement)
        data.joint("lid").qpos[:] = [placement.x, placement.y, _PAN_HEIGHT + _LID_GAP, 1, 0, 0, 0]


class TakeLidOff(Task):
    """Judged as in the GENIMA paper, appendix A."""

    instructions = ("take the lid off the saucepan",)
    objects = (Saucepan(),)
    scene_tasks = ("push_button", "take_lid_off")  # the scene of the bundled models

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        lid, pan = state.position("lid"), state.placements["saucepan"]
        return bool(lid[2] > _PAN_HEIGHT + 0.10 and np.linalg.norm(lid[:2] - pan.xy) < 0.10)

    def waypoints(self, positions: Positions) -> list[Waypoint]:
        """See :class:`Task`."""
        x, y, _ = map(float, positions["lid"])
        return [
            Waypoint((x, y, _GRASP + _HOVER), 1.8, 1.0, straight=False),
            Waypoint((x, y, _GRASP), 1.2, 1.0),
            Waypoint((x, y, _GRASP), 0.7, 0.0),
            Waypoint((x, y, _GRASP + _LIFT), 1.5, 0.0),
        ]

    def failed_grasp(self, positions: Positions, rng: np.random.Generator) -> FailedGrasp | None:
        """See :class:`Task`."""
        if rng.random() >= _FAILED_SHARE:
            return None
        angle, distance = rng.uniform(-np.pi, np.pi), rng.uniform(*_FAILED_DISTANCE)
        offset = [distance * np.cos(angle), distance * np.sin(angle), rng.uniform(0.0, _FAILED_RAISE)]
        x, y, _ = positions["lid"]
        return FailedGrasp(np.array([x, y, _GRASP]) + offset, _GRASP + _RETRY_LIFT)
