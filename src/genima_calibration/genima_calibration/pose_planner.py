"""Collision-free poses and trajectories for an automatic calibration.

The first poses are small rotations about the present one, until the camera is roughly known; then each is the pose with
the most informative sample (:mod:`genima_calibration.pose_selection`). A trajectory is a straight line in joint space,
slow, and rejected as a whole where any part of it comes near the table, the arm itself, or the end of the workspace.
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

_CLEARANCE = 0.03  # m between parts of the arm: three times what the command guard insists on
_FIRST = np.array([0.1, 0.25, 0.25, 0.35])  # rad, of the last joints: how far first turns go, at most
_SHORTEST = 0.6  # of that, at least: small turns tell little
_TRIES = 200  # first turns that are thought of
_MISSED = 0.6  # of the turns' size after one that lost the board
_CANDIDATES, _REACH = 400, 0.5  # rad from where samples were taken
_REFUSED = 20  # of the candidates, tried one after the other
_NEAR_MISS = 0.15  # rad, of the joint that differs most: there, the board was not seen before
_STEP = 0.02  # rad between checks along a trajectory
_ACROSS = 5  # points of a board, each way
_WRIST, _THICK = 4, 0.13  # which joint it is, from 0; m from a link's axis, of which the links fill 0.1
_CALM = 0.1  # of the arm's acceleration
_QUICKEST = 0.5  # s, of the shortest way


def forbidden_regions(robot: RobotModel, workspace: Sequence[float] | None, lowest: float) -> list[ForbiddenRegion]:
    """Return regions that no trajectory may enter; takes a second, to read the arm's shape.

    Args:
        robot: the arm.
        workspace: lowest and highest corner (x, y, z, x, y, z) of a box in the base's frame, m, as the command
            guard's; None for none.
        lowest: m above the base's origin: the arm does not come below, but to rise from there.

    Raises:
        GenimaError: for an arm whose shape is not known, or a box that is none.
    """
    box = list(workspace or (-np.inf, -np.inf, -np.inf, np.inf, np.inf, np.inf))
    if len(box) == 6:
        box[2] = max(box[2], lowest)
    return [Workspace(robot, box[:3], box[3:]), SelfCollision(robot, _CLEARANCE)]


class PosePlanner:
    """Planner of one pose after the other, without a clock or motion."""

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
        parent: what carries the camera.
        board: on the flange where the camera is on the base.
        keep_outs: see :func:`forbidden_regions`.
        lowest: m above the base's origin: what the arm carries does not come below, either.
        """
        self._robot, self._parent, self._board = robot, parent, board
        self._keep_outs, self._lowest = tuple(forbidden_regions), lowest
        self._rng = np.random.default_rng(0)
        self._missed: list[Array] = []  # where the board was not seen
        self._size = 1.0  # of the first turns

    def miss(self, positions: Array) -> None:
        """Take note that the board was not seen from ``positions`` (n,) rad."""
        self._missed.append(positions)
        self._size *= _MISSED

    def first(self, around: Array, present: Array) -> Array:
        """Return joints (n,) rad of a small rotation ``around`` (n,) rad, reachable from ``present``.

        Raises:
            GenimaError: when there is none.
        """
        held = self._held_object_regions(None)
        turned = min(len(_FIRST), len(around))
        for _ in range(_TRIES):
            turn = self._rng.uniform(_SHORTEST, 1, turned) * self._rng.choice([-1, 1], turned)
            goal = around.copy()
            goal[-turned:] += self._size * _FIRST[-turned:] * turn
            if self._rejection_reason(present, goal, held) is None and not self._near_miss(goal):
                return goal
        raise GenimaError(
            "no small turn from here is free of the table, the arm itself and the ends of its joints: bring the arm "
            "elsewhere, higher or less folded"
        )

    def next(self, outcome: HandEyeResult, present: Array) -> Array:
        """Return joints (n,) rad of the most informative sample reachable from ``present`` (n,).

        Raises:
            GenimaError: when none can be.
        """
        held = self._held_object_regions(outcome)
        seed = int(self._rng.integers(2**31))
        candidates = sample_candidates(outcome.samples, _CANDIDATES, _REACH, seed)
        fine = [self._rejection_reason(q, q, held) is None and not self._near_miss(q) for q in candidates]
        candidates = candidates[fine]
        refusal = "the board would not be in view"
        for _ in range(_REFUSED):
            if not len(candidates):
                break
            best = next_pose(outcome.samples, outcome.fit, self._board, candidates)
            refused = self._rejection_reason(present, best.joints, held)
            if refused is None:
                return best.joints
            refusal, candidates = refused, np.delete(candidates, best.index, axis=0)
        raise GenimaError(f"no more poses within reach: {refusal}; bring the arm elsewhere, or the board")

    def plan_trajectory(
        self, start: Array, goal: Array, gripper: float, speed: float, outcome: HandEyeResult | None = None
    ) -> JointTrajectory:
        """Return a rest-to-rest trajectory from ``start`` to ``goal`` (n,) rad, with the gripper unchanged.

        Args:
            start: where the arm stands.
            goal: where it shall stand.
            gripper: open fraction.
            speed: of the arm's velocity limits, 0..1.
            outcome: what is known of the camera by now.

        Raises:
            GenimaError: where it must not be gone.
        """
        if (refused := self._rejection_reason(start, goal, self._held_object_regions(outcome))) is not None:
            raise GenimaError(f"the way is not free: {refused}")
        apart = np.abs(goal - start)
        # a cubic from rest to rest is at most 1.5 times as fast as on average; it begins with 6 times its length over
        # the squared time
        by_speed = 1.5 * apart / (speed * self._robot.velocity_max)
        by_acceleration = np.sqrt(6 * apart / (_CALM * self._robot.acceleration_max))
        seconds = max(_QUICKEST, float(np.max([by_speed, by_acceleration])))
        return JointTrajectory(np.array([0.0, seconds]), np.stack([start, goal]), np.full(2, gripper))

    def _rejection_reason(self, start: Array, goal: Array, held: ForbiddenRegion) -> str | None:
        """Return the reason why a straight motion is not allowed; None where it is."""
        limits = MotionLimits.of(self._robot, 1, 1, 1, _STEP)
        if np.any((goal < limits.position_min) | (goal > limits.position_max)):
            return "a joint would be at the end of its range"
        steps = int(np.ceil(np.abs(goal - start).max() / _STEP)) + 1
        for at in np.linspace(start, goal, steps)[-1::-1]:  # the end is what is most likely not free
            for place in (*self._keep_outs, held):
                if not (place.depth(at) <= 0 or np.array_equal(at, start) or place.allows(start, at[None])):
                    return place.reason.text
        return None

    def _near_miss(self, goal: Array) -> bool:
        return any(np.abs(goal - missed).max() < _NEAR_MISS for missed in self._missed)

    def _held_object_regions(self, outcome: HandEyeResult | None) -> ForbiddenRegion:
        """Forbid collisions of the held board or camera; with an unknown board, of a sphere around the tip."""
        if self._parent == "flange":
            at = np.zeros((1, 3)) if outcome is None else outcome.fit.hand_eye.T_parent_camera[None, :3, 3]
            return TableClearance(self._robot, at, 0.0, self._lowest)
        width, height = self._board.size
        if outcome is None:
            tip = self._robot.T_flange_tip[None, :3, 3]
            return TableClearance(self._robot, tip, float(np.hypot(width, height)), self._lowest)
        x, y = np.meshgrid(np.linspace(0, width, _ACROSS), np.linspace(0, height, _ACROSS))
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
        # the links as thick lines from joint to joint, up to the wrist, which what is held is always near to
        a, b = (ends[:, None] for ends in (np.vstack([np.zeros(3), links[:_WRIST, :3, 3]]), links[: _WRIST + 1, :3, 3]))
        along = np.sum((points - a) * (b - a), -1) / np.maximum(np.sum((b - a) ** 2, -1), 1e-12)
        nearest = a + np.clip(along, 0, 1)[..., None] * (b - a)
        return float(max(0.0, low, _THICK - np.linalg.norm(points - nearest, axis=-1).min()))
