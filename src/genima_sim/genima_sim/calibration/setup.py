"""A calibration's truth: where the camera and the board are, and where the arm stands for each sample."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.intrinsics import CameraIntrinsics
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import inverse, pose, transform
from genima.types import Image
from genima_sim.calibration.optics import Sensor

Array = NDArray[np.float64]

_BUMP = 0.02  # m
_BUMP_TURN = np.radians(5)


@dataclass(frozen=True)
class Setup:
    """N samples of one camera and one board. The camera's parent is the base or the flange, the other one is the
    board's carrier."""

    seed: int
    robot: RobotModel
    board: CalibrationBoard
    parent: Literal["base", "flange"]
    T_parent_camera: Array  # (4, 4)
    intrinsics: CameraIntrinsics
    sensor: Sensor
    T_carrier_board: Array  # (N, 4, 4), the same for all samples unless the board was bumped
    positions: Array  # (N, n) rad, the arm's true joints

    @property
    def T_camera_board(self) -> Array:
        """(N, 4, 4)."""
        T_base_flange = self.robot.link_poses(self.positions)[:, -2]
        T_parent_carrier = T_base_flange if self.parent == "base" else inverse(T_base_flange)
        return inverse(self.T_parent_camera) @ T_parent_carrier @ self.T_carrier_board

    @property
    def pixels(self) -> Array:
        """Where all points of the board truly are in each image, (N, M, 2) px; pixel centres at n + 0.5, half a pixel
        more than OpenCV's detectors say."""
        return self.intrinsics.project(transform(self.T_camera_board, self.board.points))

    def measured(self, degrees: float) -> Array:
        """Joint readings (N, n) in rad with Gaussian noise of that standard deviation."""
        noise = np.random.default_rng([self.seed, 0x4A01]).standard_normal(self.positions.shape)
        return self.positions + np.radians(degrees) * noise

    def bumped(self, samples: Collection[int]) -> Setup:
        """The same with the board displaced by 20 mm and turned by 5 degrees within its plane in some samples;
        ``range(k, n)`` for a board that was bumped before sample k."""
        towards = np.random.default_rng([self.seed, 0xB03B]).uniform(0, 2 * np.pi)
        bump = pose(
            Rotation.from_rotvec([0.0, 0.0, _BUMP_TURN]).as_matrix(),
            _BUMP * np.array([np.cos(towards), np.sin(towards), 0.0]),
        )
        T_carrier_board = self.T_carrier_board.copy()
        T_carrier_board[list(samples)] = T_carrier_board[list(samples)] @ bump
        return replace(self, T_carrier_board=T_carrier_board)


def upside_down(images: Sequence[Image], samples: Collection[int]) -> list[Image]:
    """Images of which some are turned by 180 degrees, as by a driver with another setting; the board is still seen."""
    return [np.ascontiguousarray(image[::-1, ::-1]) if i in samples else image for i, image in enumerate(images)]


def late(images: Sequence[Image], samples: Collection[int]) -> list[Image]:
    """Images of which some are those of the sample before, as of a camera that hangs; the first's is the last's."""
    return [images[i - 1] if i in samples else image for i, image in enumerate(images)]
