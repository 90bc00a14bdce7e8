"""Joint trajectories through the motions of scripted experts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.control.tip_motion import interpolate_pose, time_path, trace_path
from genima.errors import GenimaError
from genima.robot.body import arm_only_model
from genima.robot.ik import InverseKinematics, UnreachableError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import inverse, pose
from genima_sim.motions import Motion, MoveJoint, MoveTo, Pose
from genima_sim.scene_state import SceneFrames
from genima_sim.task import Task
from genima_sim.tasks import DEMO_HZ

Array = NDArray[np.float64]
# The fingers close along the flange's diagonal: tip frame of a grasp frame.
_T_GRASP_TIP = pose(Rotation.from_euler("z", -np.pi / 4).as_matrix(), np.zeros(3))
_HALF_TURN = pose(Rotation.from_euler("z", np.pi).as_matrix(), np.zeros(3))  # the gripper looks the same
_POINTS_HZ = 20.0  # of a path, per nominal second
_SLOW = 1.15  # times the nominal duration: look for a faster plan
_BRANCHES = ((0.0, 0.0), (0.6, -0.6), (-0.6, 0.6))  # rad added to joints 1 and 3 of the posture that a search starts at


@dataclass(frozen=True)
class Trajectory:
    """Commands at ``DEMO_HZ``."""

    positions: Array  # (T, n) rad
    gripper: Array  # (T,) open fraction


class Expert:
    """Plan joint trajectories through motions, with minimum-jerk timing within the arm's limits.

    A plan is made as a whole before the arm moves. Candidates are both directions of the symmetric gripper and several
    postures of the arm; the first is taken that the arm's limits slow down little, else the fastest.
    """

    def __init__(self, robot: RobotModel) -> None:
        self.robot = robot
        self._ik = InverseKinematics(arm_only_model(robot), robot.home)

    def reach(self, grasp: Pose, start: Array) -> Array:
        """Return joints (n,) in rad with the gripper at a grasp frame (4, 4), near ``start``.

        Raises:
            UnreachableError: when it is out of reach.
        """
        return self._ik.solve(grasp @ _T_GRASP_TIP, start)

    def reach_symmetric(self, grasp: Pose, start: Array) -> Array:
        """As :meth:`reach`, with the fingers swapped where ``start`` has them so."""
        swapped = np.dot(self.grasp_frame(start)[:3, 0], grasp[:3, 0]) < 0
        return self.reach(grasp @ _HALF_TURN if swapped else grasp, start)

    def grasp_frame(self, positions: Array) -> Pose:
        """Return the grasp frame (4, 4) of the gripper at joints (n,) in rad."""
        return self.robot.link_poses(positions)[-1] @ _T_TIP_GRASP

    def plan_task(self, task: Task, scene: SceneFrames, start: Array) -> Trajectory:
        """Return the trajectory of a task from joints ``start``.

        Raises:
            UnreachableError: naming the task's file, for a motion out of reach.
        """
        return self.plan_motions(task, list(task.motions(scene)), scene, start)

    def plan_motions(self, task: Task, motions: Sequence[Motion], scene: SceneFrames, start: Array) -> Trajectory:
        """Return the trajectory of motions of a task, as :meth:`plan_task`."""
        try:
            return self.plan(motions, start, scene)
        except UnreachableError as error:
            file = inspect.getfile(type(task))
            raise UnreachableError(f"task {task.name}: {error}; correct motions in {file}") from None

    def plan(
        self, motions: Sequence[Motion], start: Array, scene: SceneFrames | None = None, settle_seconds: float = 0.5
    ) -> Trajectory:
        """Return a trajectory from joints ``start`` (n,) through motions, then at rest for ``settle_seconds``.

        Args:
            motions: at least one.
            start: rad.
            scene: where the motions move joints.
            settle_seconds: s.

        Raises:
            UnreachableError: when no candidate is within reach.
        """
        candidates, problem = [], None
        for flip in (np.eye(4), _HALF_TURN):
            for branch in _BRANCHES:
                try:
                    candidates.append((flip, self._key_positions(motions, start, scene, flip, branch)))
                except UnreachableError as error:
                    problem = problem or error
        nominal = sum(motion.seconds for motion in motions) + settle_seconds
        best: Trajectory | None = None
        for flip, keys in sorted(candidates, key=lambda candidate: self._cost(start, candidate[1])):
            try:
                trajectory = self._trajectory(motions, start, flip, keys, scene, settle_seconds)
            except UnreachableError as error:
                problem = error
                continue
            if best is None or len(trajectory.positions) < len(best.positions):
                best = trajectory
            if len(best.positions) < _SLOW * nominal * DEMO_HZ:
                break
        if best is None:
            assert problem is not None
            raise problem
        return best

    def _key_positions(
        self,
        motions: Sequence[Motion],
        start: Array,
        scene: SceneFrames | None,
        flip: Pose,
        branch: tuple[float, float],
    ) -> list[Array]:
        """Return the joints (n,) at the end of each motion."""
        keys: list[Array] = []
        q, frame = start, self.grasp_frame(start)
        first = self.robot.home.copy()
        first[[0, 2]] += branch
        for motion in motions:
            path = _path(motion, frame, flip, scene)
            frame = path(1.0)
            if keys:
                for s in (0.5, 1.0) if isinstance(motion, MoveJoint) else (1.0,):
                    q = self.reach(path(s), q)
            else:
                q = self.reach(frame, first)
            keys.append(q)
        return keys

    def _cost(self, start: Array, keys: Sequence[Array]) -> float:
        """Return the time in s that the motions take at the joints' limits of velocity."""
        moved = np.abs(np.diff(np.vstack([start, *keys]), axis=0))
        return float((moved / self.robot.velocity_max).max(axis=1).sum())

    def _trajectory(
        self,
        motions: Sequence[Motion],
        start: Array,
        flip: Pose,
        keys: Sequence[Array],
        scene: SceneFrames | None,
        settle_seconds: float,
    ) -> Trajectory:
        positions, gripper, q = [start[None]], [], start
        for motion, key in zip(motions, keys, strict=True):
            points = max(4, round(motion.seconds * _POINTS_HZ))
            if isinstance(motion, MoveTo) and not motion.straight:
                path = q + np.linspace(0, 1, points + 1)[:, None] * (key - q)
            else:
                path = self._follow(_path(motion, self.grasp_frame(q), flip, scene), q, points)
            timed = time_path(path, motion.seconds, self.robot, DEMO_HZ)
            q = timed[-1]
            positions.append(timed)
            gripper += [motion.gripper] * len(timed)
        rest = round(settle_seconds * DEMO_HZ)
        positions.append(np.tile(q, (rest, 1)))
        return Trajectory(np.vstack(positions)[1:], np.array(gripper + [gripper[-1]] * rest))

    def _follow(self, path: Callable[[float], Pose], start: Array, points: int) -> Array:
        """Return joints (points + 1, n) along a path of the gripper."""
        return trace_path(self._ik, lambda share: path(share) @ _T_GRASP_TIP, start, points)


_T_TIP_GRASP = inverse(_T_GRASP_TIP)


def _path(motion: Motion, start: Pose, flip: Pose, scene: SceneFrames | None) -> Callable[[float], Pose]:
    """Return the gripper's frame (4, 4) as a function of the share of a motion that is done."""
    if isinstance(motion, MoveTo):
        goal = motion.grasp @ flip
        return lambda share: interpolate_pose(start, goal, share)
    if scene is None:
        raise GenimaError(f"motion of joint {motion.joint}: no scene")
    anchor, axis, is_hinge = scene.joint(motion.joint)

    def along(share: float) -> Pose:
        if not is_hinge:
            return pose(start[:3, :3], start[:3, 3] + share * motion.by * axis)
        position = Rotation.from_rotvec(share * motion.by * axis).apply(start[:3, 3] - anchor) + anchor
        turned = Rotation.from_rotvec(motion.turn * share * motion.by * axis).as_matrix() @ start[:3, :3]
        return pose(turned, position)

    return along
