"""Push a button down."""

from __future__ import annotations

import mujoco

from genima_sim.task import Positions, SceneObject, SceneState, Task, Waypoint

_HOVER = 0.10  # m above the button, where the straight descent begins
_PRESSED = 0.071  # m, height of the tip with the cap all the way down


class Button(SceneObject):
    """Box with a cap on a spring."""

    name = "button"
    radius = 0.11  # m: the gripper finds room beside it

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        box, cylinder = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
        button = spec.worldbody.add_body(name=self.name)
        button.add_geom(type=box, pos=[0, 0, 0.0125], size=[0.05, 0.05, 0.0125], rgba=[0.75, 0.76, 0.78, 1])
        cap = button.add_body(name="button_cap", pos=[0, 0, 0.04])
        cap.add_joint(
            name="button_slide",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, 0, 1],
            range=[-0.015, 0],
            limited=True,
            stiffness=[150, 0, 0],
            damping=[8, 0, 0],
            springref=0.005,
            armature=0.02,
        )
        # Over its base, so that a finger beside the cap cannot wedge under it.
        cap.add_geom(name="button_cap", type=cylinder, size=[0.034, 0.015, 0], rgba=[0.50, 0.03, 0.10, 1], mass=0.05)
        spec.add_exclude(bodyname1=self.name, bodyname2="button_cap")  # the cap sinks into its base


class PushButton(Task):
    """Judged as in the GENIMA paper, appendix A."""

    instructions = ("push down the maroon button",)
    objects = (Button(),)
    scene_tasks = ("push_button", "take_lid_off")  # the scene of the bundled models

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.joint("button_slide") < -0.010

    def waypoints(self, positions: Positions) -> list[Waypoint]:
        """See :class:`Task`."""
        x, y, _ = map(float, positions["button"])
        return [
            Waypoint((x, y, _PRESSED + _HOVER), 1.8, 0.0, straight=False),
            Waypoint((x, y, _PRESSED), 1.2, 0.0),
            # It ends with the button down: an arm that has gone up again looks like one that has yet to come down.
            Waypoint((x, y, _PRESSED), 0.6, 0.0),
        ]
