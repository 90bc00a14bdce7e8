"""Calibration samples: joints, and the board's points in the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Parent
from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import inverse
from genima_calibration.board_detection import Detection, board_pose

JOINT_TOLERANCE = 0.05  # s between an image and its joints

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Sample of one stationary pose."""

    name: str
    joints: Array  # (n,) rad, measured, in the order of RobotModel.joint_names
    detection: Detection


@dataclass(frozen=True)
class SampleStack:
    """N samples as arrays, points padded to M, with their camera and robot."""

    names: tuple[str, ...]
    joints: Array  # (N, n) rad
    pixels: Array  # (N, M, 2)
    points: Array  # (N, M, 3) m
    seen: NDArray[np.bool_]  # (N, M), false where padded
    T_camera_board: Array  # (N, 4, 4), from each image alone
    intrinsics: CameraIntrinsics
    robot: RobotModel

    def __len__(self) -> int:
        return len(self.names)

    @property
    def T_base_flange(self) -> Array:
        """Return (N, 4, 4) by forward kinematics."""
        return self.robot.link_poses(self.joints)[:, -2]

    def T_parent_carrier(self, parent: Parent) -> Array:
        """Return (N, 4, 4) by forward kinematics: pose of the board's carrier in the camera's parent."""
        return self.T_base_flange if parent == "base" else inverse(self.T_base_flange)

    def take(self, which: NDArray[np.bool_]) -> SampleStack:
        """Return the samples where ``which`` (N,) is true."""
        return replace(
            self,
            names=tuple(name for name, wanted in zip(self.names, which, strict=True) if wanted),
            **{key: getattr(self, key)[which] for key in ("joints", "pixels", "points", "seen", "T_camera_board")},
        )


def stack_samples(samples: Sequence[Sample], intrinsics: CameraIntrinsics, robot: RobotModel) -> SampleStack:
    """Stack samples as arrays.

    Raises:
        GenimaError: for two samples of one name, or joints that are not this robot's.
    """
    names = tuple(sample.name for sample in samples)
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise GenimaError(f"samples: repeated names ({', '.join(repeated)}); rename them")
    n = len(robot.joint_names)
    for sample in samples:
        if sample.joints.shape != (n,) or not np.all(np.isfinite(sample.joints)):
            raise GenimaError(
                f"sample {sample.name}: not {n} finite joints of {robot.name} ({sample.joints.tolist()}); check the "
                "robot model"
            )
        slack = np.radians(1.0)
        beyond = (sample.joints < robot.position_min - slack) | (sample.joints > robot.position_max + slack)
        if np.any(beyond):
            wrong = ", ".join(f"{robot.joint_names[i]} at {sample.joints[i]:.2f} rad" for i in np.flatnonzero(beyond))
            raise GenimaError(
                f"sample {sample.name}: joints outside the range of {robot.name} ({wrong}); check the robot model, the "
                "order and the unit (rad)"
            )
    most = max((len(sample.detection.ids) for sample in samples), default=0)
    pixels, points = np.zeros((len(samples), most, 2)), np.zeros((len(samples), most, 3))
    seen = np.zeros((len(samples), most), bool)
    for i, sample in enumerate(samples):
        m = len(sample.detection.ids)
        pixels[i, :m], points[i, :m], seen[i, :m] = sample.detection.pixels, sample.detection.points, True
        # padding repeats the first point, so that everything computed from it is finite
        pixels[i, m:], points[i, m:] = sample.detection.pixels[0], sample.detection.points[0]
    joints = np.array([sample.joints for sample in samples], float).reshape(-1, n)
    T = np.array([board_pose(sample.detection, intrinsics) for sample in samples]).reshape(-1, 4, 4)
    return SampleStack(names, joints, pixels, points, seen, T, intrinsics, robot)
