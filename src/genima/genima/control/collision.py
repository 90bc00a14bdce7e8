"""Forbidden regions of the arm: outside its workspace, and in contact with itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from genima.control.guard_status import GuardReason
from genima.errors import GenimaError
from genima.robot.body import COLLISION, GRIPPER, robot_spec
from genima.robot.model import RobotModel

Array = NDArray[np.float64]
_NEIGHBOURS = 2  # links: pairs at most this far apart along the arm are not checked
_FIRST = 3  # the frames of the joints before this one stay above the base


class ForbiddenRegion(ABC):
    """Configurations that the arm must avoid; an arm inside may only move out."""

    reason: GuardReason

    @abstractmethod
    def depth(self, positions: Array) -> float:
        """Return the depth in m of an arm at ``positions`` (n,) rad inside the region; 0 outside."""

    def allows(self, now: Array, path: Array) -> bool:
        """True where an arm at ``now`` (n,) rad may come to rest along ``path`` (m, n)."""
        depth = max(self.depth(positions) for positions in path)
        return depth <= 0 or depth < self.depth(now)


class Workspace(ForbiddenRegion):
    """Outside of a box in the base frame, for the arm's joints from the elbow on, its flange and its tip."""

    reason = GuardReason.WORKSPACE

    def __init__(self, robot: RobotModel, lowest: Sequence[float], highest: Sequence[float]) -> None:
        """The box's corners (x, y, z) in m.

        Raises:
            GenimaError: for corners that are no box.
        """
        self._robot, self._low, self._high = robot, np.array(lowest, float), np.array(highest, float)
        if self._low.shape != (3,) or self._high.shape != (3,) or not np.all(self._low < self._high):
            raise GenimaError(
                f"workspace: no box ({list(lowest)}, {list(highest)}); "
                "give its lowest and its highest corner, each x, y, z in m"
            )

    def depth(self, positions: Array) -> float:
        """See :class:`ForbiddenRegion`."""
        points = self._robot.link_poses(positions)[_FIRST:, :3, 3]
        return float(max(0.0, np.max(self._low - points), np.max(points - self._high)))


class SelfCollision(ForbiddenRegion):
    """Contact between parts of the arm and its gripper, except neighbours along the arm.

    Neighbours are kept apart by the joints' limits, while their convex hulls, which are compared, overlap.

    The shapes are the simulator's collision meshes, with the open gripper.
    """

    reason = GuardReason.SELF_COLLISION

    def __init__(self, robot: RobotModel, clearance: float = 0.01) -> None:
        """``clearance`` in m counts as touching.

        Raises:
            GenimaError: for a robot without meshes.
        """
        self._clearance = clearance
        spec = robot_spec(robot)
        parts: list[tuple[int, mujoco.MjsBody]] = []  # bodies with shapes, and their places along the arm
        for geom in spec.geoms:
            solid = geom.group == COLLISION
            geom.contype = geom.conaffinity = int(solid)
            geom.margin = clearance
            if solid and all(geom.parent.name != body.name for _, body in parts):
                parts.append((_place(geom.parent.name), geom.parent))
        for i, (a, one) in enumerate(parts):
            for b, other in parts[i + 1 :]:
                if abs(a - b) <= _NEIGHBOURS:
                    spec.add_exclude(bodyname1=one.name, bodyname2=other.name)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._arm = np.array([self._model.joint(name).qposadr[0] for name in robot.joint_names])

    def depth(self, positions: Array) -> float:
        """See :class:`ForbiddenRegion`."""
        self._data.qpos[self._arm] = positions
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_collision(self._model, self._data)
        contacts = self._data.contact.dist
        return float(max(0.0, self._clearance - contacts.min())) if len(contacts) else 0.0


def _place(body: str) -> int:
    """Return the position of a body along the arm: 0 the base, i link i, then the gripper."""
    if body.startswith(GRIPPER) or "hand" in body:
        return 8
    return int(body.removeprefix("link")) if body.startswith("link") else 0
