"""Data types of the control loop. Times are seconds on one clock; images (h, w, 3) rgb uint8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Joints:
    """Measured joints at one time."""

    stamp: float
    positions: NDArray[np.float64]  # (n,) rad, in the robot model's order
    gripper: float  # open fraction, 1 open .. 0 closed


@dataclass(frozen=True)
class Observation:
    """Camera images, joints and task at one time."""

    stamp: float  # of the oldest image
    images: Mapping[str, Image]  # by view
    joints: Joints
    instruction: str
    bodies: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Poses (4, 4) of the objects' bodies in the base frame, by name; simulated only."""
    latency: float = 0.0  # s from the stamp until the chunk can be followed, as measured with the last chunks
    depth: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Depth images (h, w) of the same cameras by view, m along the optical axis, 0 unknown; for policies that require
    them."""


@dataclass(frozen=True)
class DrawnTarget:
    """Tile with spheres where the joints should be K steps after ``stamp``."""

    stamp: float
    instruction: str
    views: tuple[str, ...]  # tile order, row by row
    tile: Image
    steps: int = 0  # diffusion steps
    seed: int = 0
    latency: float = 0.0  # s of inference


@dataclass(frozen=True)
class ActionChunk:
    """K actions; action k is due at ``stamp + (k + 1) * period``."""

    stamp: float
    period: float  # s
    positions: NDArray[np.float64]  # (K, n) rad
    gripper: NDArray[np.float64]  # (K,) probability of open

    @property
    def due(self) -> NDArray[np.float64]:
        """Times of the actions, (K,) s."""
        return self.stamp + self.period * np.arange(1, len(self.positions) + 1, dtype=np.float64)


@dataclass(frozen=True)
class Command:
    """One set-point for the robot."""

    stamp: float
    positions: NDArray[np.float64]  # (n,) rad
    velocities: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # (n,) rad/s
    gripper: float = 1.0  # open fraction


class TaskOutcome(IntEnum):
    """End of a task, with the numbers of RunTask.action."""

    UNKNOWN = 0
    SUCCEEDED = 1
    FINISHED = 2  # ended by the user without success
    TIMEOUT = 3
    STOPPED = 4
