"""Where the arm may not be: beyond its workspace, and in touch with itself."""

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
_NEIGHBOURS = 2  # links apart
_FIRST = 3  # the frames of the joints before this one stand above the base, whatever the arm does


class ForbiddenRegion(ABC):
    """A place that the arm must stay out of; an arm that is in it may only leave."""

    reason: GuardReason

    @abstractmethod
    def depth(self, positions: Array) -> float:
        """How far in m an arm at ``positions`` (n,) rad is inside; 0 where it is not."""

    def allows(self, now: Array, way: Array) -> bool:
        """Whether an arm at ``now`` (n,) rad may come to rest by ``way`` (m, n)."""
        depth = max(self.depth(positions) for positions in way)
        return depth <= 0 or depth < self.depth(now)


class Workspace(ForbiddenRegion):
    """All that is outside a box in the base frame, for the arm's joints from the elbow on, its flange and its tip."""

    reason = GuardReason.WORKSPACE

    def __init__(self, robot: RobotModel, lowest: Sequence[float], highest: Sequence[float]) -> None:
        """The box's corners (x, y, z) in m.

        Raises:
            GenimaError: when they are none.
        """
        self._robot, self._low, self._high = robot, np.array(lowest, float), np.array(highest, float)
        if self._low.shape != (3,) or self._high.shape != (3,) or not np.all(self._low < self._high):
            raise GenimaError(
                f"the workspace is given by its lowest and highest corner, each x, y, z in m; not {list(lowest)} and "
                f"{list(highest)}"
            )

    def depth(self, positions: Array) -> float:
        """See :class:`ForbiddenRegion`."""
        points = self._robot.link_poses(positions)[_FIRST:, :3, 3]
        return float(max(0.0, np.max(self._low - points), np.max(points - self._high)))


class SelfCollision(ForbiddenRegion):
    """Configurations in which parts of the arm or its gripper touch others, but for neighbours along the arm.

    Neighbours are kept apart by the joints' own limits, while their hulls, which are what is compared, overlap.

    The shapes are the collision meshes that the simulator has, the gripper's at its widest.
    """

    reason = GuardReason.SELF_COLLISION

    def __init__(self, robot: RobotModel, clearance: float = 0.01) -> None:
        """``clearance`` in m counts as touching.

        Raises:
            GenimaError: for a robot whose meshes are not known.
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
    """Along the arm: 0 the base, i link i, then the gripper."""
    if body.startswith(GRIPPER) or "hand" in body:
        return 8
    return int(body.removeprefix("link")) if body.startswith("link") else 0
