"""Objects that no task is about."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima_sim.perturbation import Perturbation, SceneSpec
from genima_sim.perturbations._colors import random_color

Array = NDArray[np.float64]
COUNT = 2
X, Y = (0.30, 0.75), (-0.40, 0.40)  # m in the base frame: on the table, in view
RADIUS, HALF_HEIGHT = (0.02, 0.04), (0.02, 0.05)  # m
_MARGIN = 0.03  # m between objects
_ATTEMPTS = 1000
_SHAPES = (
    mujoco.mjtGeom.mjGEOM_BOX,
    mujoco.mjtGeom.mjGEOM_CYLINDER,
    mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    mujoco.mjtGeom.mjGEOM_SPHERE,
)


class Distractors(Perturbation):
    """Two boxes, cylinders, ellipsoids or spheres on the table, 3 cm or more from the objects.

    Widths are 4 to 8 cm, heights 4 to 10 cm, colours uniform in RGB. They touch nothing: an arm passes through them,
    and the motion of arm and objects stays as it was. Where the table has no room there are fewer.

    Source: distractor objects of The Colosseum, two in its configurations, there household objects of YCB.
    """

    def change(self, scene: SceneSpec, rng: np.random.Generator) -> None:
        """See :class:`Perturbation`."""
        taken = _object_circles(scene)
        for number in range(COUNT):
            shape = _SHAPES[rng.integers(len(_SHAPES))]
            radius, half, yaw = rng.uniform(*RADIUS), rng.uniform(*HALF_HEIGHT), rng.uniform(-np.pi, np.pi)
            color = random_color(rng)
            if shape == mujoco.mjtGeom.mjGEOM_SPHERE:
                half = radius
            footprint = radius * 2**0.5 if shape == mujoco.mjtGeom.mjGEOM_BOX else radius
            candidates = np.column_stack([rng.uniform(*X, _ATTEMPTS), rng.uniform(*Y, _ATTEMPTS)])
            free = [xy for xy in candidates if _is_free(xy, footprint, taken)]
            if not free:
                continue
            taken.append((free[0], footprint))
            scene.spec.worldbody.add_geom(
                name=f"distractor_{number}",
                type=shape,
                pos=[*free[0], half],
                quat=Rotation.from_euler("z", yaw).as_quat(scalar_first=True),
                size=[radius, half, 0] if shape == mujoco.mjtGeom.mjGEOM_CYLINDER else [radius, radius, half],
                rgba=[*color, 1],
                contype=0,
                conaffinity=0,
            )


def _is_free(xy: Array, footprint: float, taken: Sequence[tuple[Array, float]]) -> bool:
    return all(np.linalg.norm(xy - centre) > radius + footprint + _MARGIN for centre, radius in taken)


def _object_circles(scene: SceneSpec) -> list[tuple[Array, float]]:
    """Return centres (2,) and radii in m of circles that cover the placed objects, and what they keep free."""
    model = scene.spec.compile()  # the bodies have their poses in the objects' frames
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    circles = []
    for each in scene.objects:
        at = scene.placements[each.name]
        circles.append((at.xy, each.radius))
        bodies = {model.body(body.name).id for body in scene.object_bodies(each)}
        c, s = np.cos(at.yaw), np.sin(at.yaw)
        for geom in np.flatnonzero(np.isin(model.geom_bodyid, list(bodies))):
            x, y, _ = data.geom_xpos[geom]
            circles.append((at.xy + [c * x - s * y, s * x + c * y], float(model.geom_rbound[geom])))
    return circles
