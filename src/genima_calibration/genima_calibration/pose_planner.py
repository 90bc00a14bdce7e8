"""Collision-free poses and trajectories for an automatic calibration.

The first poses are small rotations about the present one, until there is a first result; then each is the pose with the
most informative sample (:mod:`genima_calibration.pose_selection`). A trajectory is a slow straight line in joint space,
and rejected as a whole if any part of it comes near the table, the arm itself, or the end of the workspace.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.camera import Parent
from genima.control.collision import ForbiddenRegion, SelfCollision, Workspace
from genima.control.guard_status import GuardReason
from genima.control.jerk_limited_motion import MotionLimits
from genima.control.joint_trajectory import JointTrajectory
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import transform
from genima_calibration.hand_eye import HandEyeResult
from genima_calibration.pose_selection import next_pose, sample_candidates

Array = NDArray[np.float64]

_CLEARANCE = 0.03  # m between parts of the arm: three times that of the command guard
_MAX_ROTATION = np.array([0.1, 0.25, 0.25, 0.35])  # rad of the last joints, in the first poses
_MIN_FRACTION = 0.6  # of that: smaller rotations yield little information
_TRIES = 200  # random first poses
_SHRINK = 0.6  # factor of the rotations after a pose without the board
_CANDIDATES, _REACH = 400, 0.5  # rad around the poses of samples
_MAX_REJECTED = 20  # candidates that are tried in order
_MISS_DISTANCE = 0.15  # rad of any joint around a pose without the board
_STEP = 0.02  # rad between checks along a trajectory
_GRID = 5  # points of a board in each direction
_WRIST, _LINK_RADIUS = 4, 0.13  # index of the joint; m around a link's axis, of which the links fill 0.1
_ACCELERATION = 0.1  # of the arm's limits
_MIN_DURATION = 0.5  # s of a trajectory


def forbidden_regions(robot: RobotModel, workspace: Sequence[float] | None, lowest: float) -> list[ForbiddenRegion]:
    """Return regions that no trajectory may enter; takes a second to load the arm's meshes.

    Args:
        robot: the arm.
        workspace: lowest and highest corner (x, y, z, x, y, z) of a box in the base's frame, m, as the command
            guard's; None: no box.
        lowest: m above the base's origin: minimum height of the arm, which may only rise from below.

    Raises:
        GenimaError: for an arm without meshes, or an invalid box.
    """
    box = list(workspace or (-np.inf, -np.inf, -np.inf, np.inf, np.inf, np.inf))
    if len(box) == 6:
        box[2] = max(box[2], lowest)
    return [Workspace(robot, box[:3], box[3:]), SelfCollision(robot, _CLEARANCE)]


class PosePlanner:
    """Planner of calibration poses and the trajectories to them."""

    def __init__(
        self,
        robot: RobotModel,
        parent: Parent,
        board: CalibrationBoard,
        forbidden_regions: Sequence[ForbiddenRegion],
        lowest: float,
    ) -> None:
        """Args:
        robot: the arm.
        parent: of the camera.
        board: on the flange if the camera is on the base.
        forbidden_regions: regions that the arm may not enter.
        lowest: m above the base's origin: minimum height of the object on the flange.
        """
        self._robot, self._parent, self._board = robot, parent, board
        self._forbidden_regions, self._lowest = tuple(forbidden_regions), lowest
        self._rng = np.random.default_rng(0)
        self._misses: list[Array] = []  # (n,) rad, poses from which the board was not detected
        self._size = 1.0  # of the first rotations

    def add_miss(self, positions: Array) -> None:
        """Exclude the surroundings of ``positions`` (n,) rad, from which the board was not detected."""
        self._misses.append(positions)
        self._size *= _SHRINK

    def first_pose(self, around: Array, present: Array) -> Array:
        """Return joints (n,) rad of a small rotation ``around`` (n,) rad, reachable from ``present``.

        Raises:
            GenimaError: when no such pose is allowed.
        """
        held = self._held_object_region(None)
        turned = min(len(_MAX_ROTATION), len(around))
        for _ in range(_TRIES):
            turn = self._rng.uniform(_MIN_FRACTION, 1, turned) * self._rng.choice([-1, 1], turned)
            goal = around.copy()
            goal[-turned:] += self._size * _MAX_ROTATION[-turned:] * turn
            if self._rejection_reason(present, goal, held) is None and not self._near_miss(goal):
                return goal
        raise GenimaError(
            "pose: no small rotation from here is free of collisions and within the joint limits; move the arm higher, "
            "or less folded"
        )

    def next_pose(self, outcome: HandEyeResult, present: Array) -> Array:
        """Return joints (n,) rad of the most informative sample reachable from ``present`` (n,).

        Raises:
            GenimaError: when no such pose is allowed.
        """
        held = self._held_object_region(outcome)
        seed = int(self._rng.integers(2**31))
        candidates = sample_candidates(outcome.samples, _CANDIDATES, _REACH, seed)
        fine = [self._rejection_reason(q, q, held) is None and not self._near_miss(q) for q in candidates]
        candidates = candidates[fine]
        reason = "the board would not be in view"
        for _ in range(_MAX_REJECTED):
            if not len(candidates):
                break
            best = next_pose(outcome.samples, outcome.fit, self._board, candidates)
            rejected = self._rejection_reason(present, best.joints, held)
            if rejected is None:
                return best.joints
            reason, candidates = rejected, np.delete(candidates, best.index, axis=0)
        raise GenimaError(f"pose: no more candidates within reach ({reason}); move the arm or the board")

    def plan_trajectory(
        self, start: Array, goal: Array, gripper: float, speed: float, outcome: HandEyeResult | None = None
    ) -> JointTrajectory:
        """Return a rest-to-rest trajectory from ``start`` to ``goal`` (n,) rad, with the gripper unchanged.

        Args:
            start: present joints.
            goal: joints at the end.
            gripper: open fraction.
            speed: of the arm's velocity limits, 0..1.
            outcome: present result of the calibration.

        Raises:
            GenimaError: when the trajectory is not allowed.
        """
        if (rejected := self._rejection_reason(start, goal, self._held_object_region(outcome))) is not None:
            raise GenimaError(f"trajectory: not free ({rejected})")
        apart = np.abs(goal - start)
        # a rest-to-rest cubic has a peak velocity of 1.5 times its mean velocity, and starts with an acceleration of 6
        # times its length over its squared duration
        by_speed = 1.5 * apart / (speed * self._robot.velocity_max)
        by_acceleration = np.sqrt(6 * apart / (_ACCELERATION * self._robot.acceleration_max))
        seconds = max(_MIN_DURATION, float(np.max([by_speed, by_acceleration])))
        return JointTrajectory(np.array([0.0, seconds]), np.stack([start, goal]), np.full(2, gripper))

    def _rejection_reason(self, start: Array, goal: Array, held: ForbiddenRegion) -> str | None:
        """Return the reason why a straight motion is not allowed; None if it is."""
        limits = MotionLimits.of(self._robot, 1, 1, 1, _STEP)
        if np.any((goal < limits.position_min) | (goal > limits.position_max)):
            return "a joint would be at the end of its range"
        steps = int(np.ceil(np.abs(goal - start).max() / _STEP)) + 1
        for at in np.linspace(start, goal, steps)[-1::-1]:  # the end first: it is most likely not free
            for place in (*self._forbidden_regions, held):
                if not (place.depth(at) <= 0 or np.array_equal(at, start) or place.allows(start, at[None])):
                    return place.reason.text
        return None

    def _near_miss(self, goal: Array) -> bool:
        return any(np.abs(goal - miss).max() < _MISS_DISTANCE for miss in self._misses)

    def _held_object_region(self, outcome: HandEyeResult | None) -> ForbiddenRegion:
        """Return the region of collisions of the held board or camera; before a first result, of a sphere around it."""
        if self._parent == "flange":
            at = np.zeros((1, 3)) if outcome is None else outcome.fit.hand_eye.T_parent_camera[None, :3, 3]
            return TableClearance(self._robot, at, 0.0, self._lowest)
        width, height = self._board.size
        if outcome is None:
            tip = self._robot.T_flange_tip[None, :3, 3]
            return TableClearance(self._robot, tip, float(np.hypot(width, height)), self._lowest)
        x, y = np.meshgrid(np.linspace(0, width, _GRID), np.linspace(0, height, _GRID))
        points = np.column_stack([x.ravel(), y.ravel(), np.zeros(x.size)])
        return TableClearance(self._robot, transform(outcome.fit.hand_eye.T_carrier_board, points), 0.0, self._lowest)


class TableClearance(ForbiddenRegion):
    """Clearance of objects on the flange to the table and to the arm's upper links."""

    reason = GuardReason.WORKSPACE

    def __init__(self, robot: RobotModel, points: Array, radius: float, lowest: float) -> None:
        """``points`` (M, 3) m in the flange's frame, with ``radius`` m around each; ``lowest`` m in the base's."""
        self._robot, self._points, self._radius, self._lowest = robot, points, radius, lowest

    def depth(self, positions: Array) -> float:
        """See :class:`ForbiddenRegion`."""
        links = self._robot.link_poses(positions)
        points = transform(links[-2], self._points)
        low = self._lowest + self._radius - points[:, 2].min()
        # the links as thick lines from joint to joint, up to the wrist: the held object is always near the others
        a, b = (ends[:, None] for ends in (np.vstack([np.zeros(3), links[:_WRIST, :3, 3]]), links[: _WRIST + 1, :3, 3]))
        along = np.sum((points - a) * (b - a), -1) / np.maximum(np.sum((b - a) ** 2, -1), 1e-12)
        nearest = a + np.clip(along, 0, 1)[..., None] * (b - a)
        return float(max(0.0, low, _LINK_RADIUS - np.linalg.norm(points - nearest, axis=-1).min()))
