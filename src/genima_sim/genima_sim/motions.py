"""Motions of scripted experts: goals of the gripper, and handles moved along their joints.

A grasp frame is at the gripper's tip: z is the approach, the fingers close along x. Poses are (4, 4) in the base frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Pose = NDArray[np.float64]
GRIP_TIME = 0.7  # s that the gripper takes to close or open


@dataclass(frozen=True)
class MoveTo:
    """Gripper to a grasp frame."""

    grasp: Pose
    seconds: float  # at least; more where the arm's limits demand it
    gripper: float  # 1 open or 0 closed, from the motion's start on: policies choose between the two
    straight: bool = True  # the tip moves along a line; otherwise the joints are interpolated


@dataclass(frozen=True)
class MoveJoint:
    """Gripper along the path on which it moves a joint of the scene: an arc about its axis, or a line."""

    joint: str
    by: float  # rad or m
    seconds: float  # at least
    gripper: float = 0.0
    turn: float = 1.0  # share of a hinge's rotation that the gripper makes; the handle slips in it for the rest


Motion = MoveTo | MoveJoint


def shift(frame: Pose, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Pose:
    """Return a frame moved by metres along the base frame's axes."""
    moved = frame.copy()
    moved[:3, 3] += [x, y, z]
    return moved


def back_off(frame: Pose, distance: float) -> Pose:
    """Return a frame moved by ``distance`` m against its approach."""
    moved = frame.copy()
    moved[:3, 3] -= distance * frame[:3, 2]
    return moved


def top_down_grasp(x: float, y: float, z: float, yaw: float = 0.0) -> Pose:
    """Return a grasp frame at x, y, z in m whose approach is straight down; the fingers close along ``yaw`` in rad."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, s, 0, x], [s, -c, 0, y], [0, 0, -1, z], [0, 0, 0, 1.0]])


def radial_grasp(position: ArrayLike) -> Pose:
    """Return a grasp frame at ``position`` (3,) m that points down and closes along the direction from the base."""
    x, y, z = np.asarray(position, float)
    return top_down_grasp(x, y, z, np.arctan2(y, x))


def grasp(frame: Pose, hover: float = 0.1) -> Iterator[Motion]:
    """Yield the motions of a grasp: to ``hover`` m before it, along the approach, and close."""
    yield MoveTo(back_off(frame, hover), 1.8, 1.0, straight=False)
    yield MoveTo(frame, 1.2, 1.0)
    yield MoveTo(frame, GRIP_TIME, 0.0)


def first_grasp(motions: Iterable[Motion]) -> Pose | None:
    """Return the grasp frame at which the gripper first closes at rest; None: it does not."""
    for before, closing in itertools.pairwise(motions):
        if isinstance(before, MoveTo) and isinstance(closing, MoveTo) and before.gripper > closing.gripper:
            return closing.grasp if np.allclose(before.grasp, closing.grasp) else None
    return None
