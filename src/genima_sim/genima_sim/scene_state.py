"""State of a scene: frames for experts, and what success tests judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.errors import GenimaError
from genima.robot.body import GRIPPER
from genima.robot.rigid_transforms import inverse, pose
from genima_sim.motions import back_off

if TYPE_CHECKING:
    from genima_sim.task import Placement

Array = NDArray[np.float64]
_GRIPPER_ROOM = {0.0: 0.05, 0.07: 0.08, 0.14: 0.08, 0.21: 0.08}  # m free round points, by their distance from the tip
_PADS = {f"{GRIPPER}{side}_{part}_collision": side for side in ("left", "right") for part in ("fingertip", "fingerpad")}
"""Geoms of the gripper that hold things, and the finger that each belongs to."""


class SceneFrames:
    """Frames of sites and joints, from the poses of the bodies that they belong to.

    An expert plans from these alone: a simulator in another process publishes the bodies' poses.
    """

    def __init__(self, model: mujoco.MjModel, poses: Mapping[str, Array]) -> None:
        """Args:
        model: the objects of the scene, with or without a robot.
        poses: of its bodies by name, (4, 4) in the base frame each.
        """
        self._model, self._poses = model, poses

    def frame(self, site: str) -> Array:
        """Return the pose (4, 4) of a site in the base frame."""
        found = self._model.site(site)
        return self._pose(found.bodyid[0]) @ pose(rotation_matrix(found.quat), found.pos)

    def body(self, name: str) -> Array:
        """Return the pose (4, 4) of a body in the base frame."""
        return self._pose(self._model.body(name).id)

    def joint(self, name: str) -> tuple[Array, Array, bool]:
        """Return a joint's anchor (3,) m and axis (3,) in the base frame, and whether it is a hinge."""
        joint = self._model.joint(name)
        T = self._pose(joint.bodyid[0])
        is_hinge = bool(joint.type[0] == mujoco.mjtJoint.mjJNT_HINGE)
        return T[:3, :3] @ joint.pos + T[:3, 3], T[:3, :3] @ joint.axis, is_hinge

    def clearance(self, point: Array) -> float:
        """Return the distance in m of a point (3,) in the base frame from the boxes round the objects' geoms."""
        distances = [np.inf]
        for geom in range(self._model.ngeom):
            T = self._pose(self._model.geom_bodyid[geom]) @ pose(
                rotation_matrix(self._model.geom_quat[geom]), self._model.geom_pos[geom]
            )
            centre, half = np.split(self._model.geom_aabb[geom], 2)
            local = (inverse(T) @ [*point, 1.0])[:3] - centre
            distances.append(float(np.linalg.norm(np.maximum(np.abs(local) - half, 0.0))))
        return min(distances)

    def has_room(self, grasp: Array) -> bool:
        """Return whether an open gripper has room at a grasp frame (4, 4)."""
        points = {distance: back_off(grasp, distance)[:3, 3] for distance in _GRIPPER_ROOM}
        return all(
            points[distance][2] > room and self.clearance(points[distance]) > room
            for distance, room in _GRIPPER_ROOM.items()
        )

    def _pose(self, body: int) -> Array:
        name = self._model.body(body).name
        if name not in self._poses:
            raise GenimaError(f"scene: pose of {name} missing; use experts with a simulator that publishes it")
        return self._poses[name]


def rotation_matrix(quat: Array) -> Array:
    """Return the matrix (3, 3) of a quaternion, scalar first."""
    return Rotation.from_quat(quat, scalar_first=True).as_matrix()


@dataclass(frozen=True)
class SceneState:
    """State of the scene in the simulator, for success tests."""

    model: mujoco.MjModel
    data: mujoco.MjData
    placements: Mapping[str, Placement]
    """Placements of the objects at the start of the episode, by name."""
    start: Array
    """Configuration (nq,) at the start of the episode."""

    def joint(self, name: str) -> float:
        """Return the position of a hinge or slide joint, in rad or m."""
        return float(self.data.joint(name).qpos[0])

    def moved(self, name: str) -> float:
        """Return how far a hinge or slide joint has moved since the start of the episode, in rad or m."""
        return self.joint(name) - float(self.start[self.model.joint(name).qposadr[0]])

    def position(self, name: str) -> Array:
        """Return the position (3,) of a body in m in the base frame."""
        return np.array(self.data.body(name).xpos)

    def displacement(self, name: str) -> float:
        """Return the distance in m of a body with a free joint of its name from its start."""
        at = self.model.joint(name).qposadr[0]
        return float(np.linalg.norm(self.data.qpos[at : at + 3] - self.start[at : at + 3]))

    def frame(self, site: str) -> Array:
        """Return the pose (4, 4) of a site in the base frame."""
        found = self.data.site(site)
        return pose(found.xmat.reshape(3, 3), found.xpos)

    def is_inside(self, site: str, region: str) -> bool:
        """Return whether a site is in the box of another site."""
        local = inverse(self.frame(region)) @ [*self.data.site(site).xpos, 1.0]
        return bool(np.all(np.abs(local[:3]) < self.model.site(region).size))

    def is_held(self, name: str) -> bool:
        """Return whether both fingers touch a body or one that it carries by joints."""
        sides = {side for body, side in self._touched_bodies if self._belongs_to(body, self.model.body(name).id)}
        return len(sides) == 2

    def is_touched(self, name: str) -> bool:
        """Return whether a finger touches a body or one that it carries by joints."""
        return any(self._belongs_to(body, self.model.body(name).id) for body, _ in self._touched_bodies)

    def touch(self, one: str, other: str) -> bool:
        """Return whether two bodies, or ones that they carry by joints, are in contact."""
        ids = self.model.body(one).id, self.model.body(other).id
        pairs = (self.model.geom_bodyid[contact.geom] for contact in self.data.contact[: self.data.ncon])
        return any(
            self._belongs_to(a, ids[0]) and self._belongs_to(b, ids[1])
            or self._belongs_to(b, ids[0]) and self._belongs_to(a, ids[1])
            for a, b in pairs
        )  # fmt: skip

    @property
    def _touched_bodies(self) -> set[tuple[int, str]]:
        """Bodies that a finger touches, and which finger."""
        pads = self._pads
        found = set()
        for contact in self.data.contact[: self.data.ncon]:
            for pad, geom in (contact.geom, contact.geom[::-1]):
                if pad in pads:
                    found.add((int(self.model.geom_bodyid[geom]), pads[pad]))
        return found

    @cached_property
    def _pads(self) -> Mapping[int, str]:
        return {self.model.geom(name).id: side for name, side in _PADS.items()}

    def _belongs_to(self, body: int, root: int) -> bool:
        while body and body != root:
            body = int(self.model.body_parentid[body])
        return body == root
