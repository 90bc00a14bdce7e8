"""Ground truth of a simulated calibration: poses of camera and board, joints of each sample."""

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
from simulated_calibration.optics import Sensor

Array = NDArray[np.float64]

_BOARD_SHIFT = 0.02  # m
_BOARD_ROTATION = np.radians(5)


@dataclass(frozen=True)
class CalibrationSetup:
    """N samples of one camera and one board.

    The parent of the camera is the base or the flange; the other one is the carrier of the board.
    """

    seed: int
    robot: RobotModel
    board: CalibrationBoard
    parent: Literal["base", "flange"]
    T_parent_camera: Array  # (4, 4)
    intrinsics: CameraIntrinsics
    sensor: Sensor
    T_carrier_board: Array  # (N, 4, 4), equal for all samples unless the board was displaced
    positions: Array  # (N, n) rad, true joints

    @property
    def T_camera_board(self) -> Array:
        """(N, 4, 4)."""
        T_base_flange = self.robot.link_poses(self.positions)[:, -2]
        T_parent_carrier = T_base_flange if self.parent == "base" else inverse(T_base_flange)
        return inverse(self.T_parent_camera) @ T_parent_carrier @ self.T_carrier_board

    @property
    def pixels(self) -> Array:
        """True pixels of the points of the board in each image, (N, M, 2) px.

        Pixel centres are at n + 0.5, half a pixel more than in OpenCV's detectors.
        """
        return self.intrinsics.project(transform(self.T_camera_board, self.board.points))

    def noisy_joints(self, degrees: float) -> Array:
        """Return joints (N, n) in rad with Gaussian noise of that standard deviation."""
        noise = np.random.default_rng([self.seed, 0x4A01]).standard_normal(self.positions.shape)
        return self.positions + np.radians(degrees) * noise

    def displace_board(self, samples: Collection[int]) -> CalibrationSetup:
        """Return the setup with the board displaced by 20 mm and rotated by 5 degrees in its plane, in some samples.

        ``range(k, n)``: for a board that was displaced before sample k.
        """
        towards = np.random.default_rng([self.seed, 0xB03B]).uniform(0, 2 * np.pi)
        bump = pose(
            Rotation.from_rotvec([0.0, 0.0, _BOARD_ROTATION]).as_matrix(),
            _BOARD_SHIFT * np.array([np.cos(towards), np.sin(towards), 0.0]),
        )
        T_carrier_board = self.T_carrier_board.copy()
        T_carrier_board[list(samples)] = T_carrier_board[list(samples)] @ bump
        return replace(self, T_carrier_board=T_carrier_board)


def rotate_images(images: Sequence[Image], samples: Collection[int]) -> list[Image]:
    """Rotate some images by 180 degrees, as by another setting of the driver; the board is still visible."""
    return [np.ascontiguousarray(image[::-1, ::-1]) if i in samples else image for i, image in enumerate(images)]


def delay_images(images: Sequence[Image], samples: Collection[int]) -> list[Image]:
    """Replace some images by those of the sample before, as of a camera that is late; the first by the last."""
    return [images[i - 1] if i in samples else image for i, image in enumerate(images)]
