"""Size of objects."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from genima.errors import GenimaError
from genima_sim.perturbation import Perturbation, SceneSpec
from genima_sim.task import SceneObject, Task

SCALES = 0.9, 1.1
_PRIMITIVES = {
    mujoco.mjtGeom.mjGEOM_BOX,
    mujoco.mjtGeom.mjGEOM_CAPSULE,
    mujoco.mjtGeom.mjGEOM_CYLINDER,
    mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    mujoco.mjtGeom.mjGEOM_SPHERE,
}


class ObjectSize(Perturbation):
    """One scale for all objects of the scene, uniform from 0.9 to 1.1, so that what fits together still does.

    Sizes and positions of geoms, bodies, joints and sites are scaled about the object's origin on the table, and with
    them the ranges of slides; masses that the object gives stay. Excluded are tasks without ``allows_scaling``, whose
    success test or expert has sizes as constants: push_button and take_lid_off_saucepan among them.

    Experts know the poses of the scaled bodies, but plan with the sizes of the unperturbed ones.

    Source: MO_Size and RO_Size of The Colosseum, there 0.75 to 1.25 at most; this range is what the experts can do.
    """

    visual_only = False

    def require_task(self, task: Task, objects: Sequence[SceneObject]) -> None:
        """See :class:`Perturbation`."""
        if not task.allows_scaling:
            raise GenimaError(
                f"perturbation {self.name}: task {task.name} has sizes as constants (allows_scaling is not set); "
                "leave it out"
            )

    def change(self, scene: SceneSpec, rng: np.random.Generator) -> None:
        """See :class:`Perturbation`."""
        scale = float(rng.uniform(*SCALES))
        for each in scene.objects:
            for body in scene.object_bodies(each):
                _scale_body(body, scale, each)


def _scale_body(body: mujoco.MjsBody, scale: float, each: SceneObject) -> None:
    body.pos *= scale
    body.ipos *= scale  # NaN: from the geoms
    for geom in body.geoms:
        if geom.type not in _PRIMITIVES:
            raise GenimaError(
                f"perturbation object_size: object {each.name} has a geom that is no primitive; leave it out"
            )
        geom.pos *= scale
        geom.fromto *= scale  # NaN: not given
        geom.size *= scale
    for site in body.sites:
        site.pos *= scale
        site.size *= scale
    for joint in body.joints:
        joint.pos *= scale
        if joint.type == mujoco.mjtJoint.mjJNT_SLIDE:
            joint.range *= scale
            joint.ref *= scale
            joint.springref *= scale
