"""Representations of a chunk's joint positions as a network predicts them (figure 3 of the GENIMA paper)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose, rotation_columns, rotation_from_columns

JOINTS, DELTA_JOINTS, END_EFFECTOR = "joints", "delta_joints", "end_effector"


@dataclass(frozen=True)
class JointStatistics:
    """Mean and standard deviation (n,), or centre and half range: of joints in rad, or of another space's columns."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def normalise(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Normalise (..., n) to zero mean and unit variance, or to [-1, 1]."""
        return (values - self.mean) / self.deviation

    def denormalise(self, normalised: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the inverse of :meth:`normalise`, (..., n)."""
        return normalised * self.deviation + self.mean


class ActionSpace(ABC):
    """Representation of the positions (K, n) rad of a chunk that begins at the measured positions (n,) rad."""

    def __init__(self, robot: RobotModel) -> None:
        self._robot = robot

    @property
    def size(self) -> int:
        """Number of columns."""
        return len(self._robot.joint_names)

    @abstractmethod
    def encode(self, positions: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the columns (K, size) of positions (K, n) rad after ``start`` (n,) rad."""

    @abstractmethod
    def decode(self, columns: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the inverse of :meth:`encode`, (K, n) rad.

        Raises:
            GenimaError: for columns that the arm cannot follow.
        """


class JointPositions(ActionSpace):
    """Joint positions, as in the paper's controller."""

    def encode(self, positions: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`ActionSpace`."""
        return positions

    def decode(self, columns: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`ActionSpace`."""
        return columns


class JointDeltas(ActionSpace):
    """Change of the joint positions from one action to the next, rad; the first one's from the measured positions."""

    def encode(self, positions: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`ActionSpace`."""
        return np.diff(positions, axis=0, prepend=start[None])

    def decode(self, columns: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`ActionSpace`."""
        return start + np.cumsum(columns, axis=0)


class TipPoses(ActionSpace):
    """Poses of the gripper's tip in the base frame: position in m, and the first two columns of the rotation matrix.

    Sources: Zhou et al., On the Continuity of Rotation Representations in Neural Networks, 2019 (six numbers, which are
    orthonormalised); joints by inverse kinematics, each action from the one before, nearest to the home posture.
    """

    size = 9

    def encode(self, positions: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`ActionSpace`."""
        T = self._robot.link_poses(positions)[..., -1, :, :]
        return np.concatenate([T[..., :3, 3], rotation_columns(T[..., :3, :3])], axis=-1)

    def decode(self, columns: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """See :class:`ActionSpace`."""
        from genima.robot.body import arm_only_model  # here: MuJoCo takes a moment
        from genima.robot.ik import InverseKinematics

        ik = InverseKinematics(arm_only_model(self._robot), self._robot.home)
        positions, q = [], start
        for T_base_tip in pose(rotation_from_columns(columns[:, 3:]), columns[:, :3]):
            q = ik.solve(T_base_tip, q)
            positions.append(q)
        return np.array(positions)


ACTION_SPACES: dict[str, type[ActionSpace]] = {
    JOINTS: JointPositions,
    DELTA_JOINTS: JointDeltas,
    END_EFFECTOR: TipPoses,
}
"""Representations by name."""


@dataclass(frozen=True)
class ActionEncoding:
    """Action space with the statistics (size,) that normalise its columns."""

    space: ActionSpace
    statistics: JointStatistics

    @property
    def name(self) -> str:
        """Name in :data:`ACTION_SPACES`."""
        return next(name for name, space in ACTION_SPACES.items() if type(self.space) is space)

    def encode(self, positions: NDArray[np.float64], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the normalised columns (K, size) of positions (K, n) rad after ``start`` (n,) rad."""
        return self.statistics.normalise(self.space.encode(positions, start))

    def decode(self, normalised: NDArray[np.floating], start: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the inverse of :meth:`encode`.

        Raises:
            GenimaError: for actions that the arm cannot follow.
        """
        return self.space.decode(self.statistics.denormalise(normalised), start)
