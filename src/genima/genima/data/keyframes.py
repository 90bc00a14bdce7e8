"""Keyframes of demos: the few poses between which a motion planner can move by itself.

Source: James and Davison, Q-attention: Enabling Efficient Learning for Vision-based Robotic Manipulation, 2022
(section IV-C), as in PerAct, Act3D and 3D Diffuser Actor: the gripper changes, or the joints are nearly at rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

REST_VELOCITY = 0.06  # rad/s of the fastest joint; demos pass through rest between two motions
_LEAST_MOTION = 0.03  # rad of any joint between two keyframes with the gripper alike: 1 to 2 cm of the tip


def find_keyframes(
    stamps: NDArray[np.float64], positions: NDArray[np.float64], gripper: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the keyframes of a demo as rising sample indices.

    A keyframe is where the gripper's command changes, the middle of a rest without such a change, or the last sample;
    not the start, and none that has the joints and the gripper of the one before.

    Args:
        stamps: (T,) s, rising.
        positions: (T, n) rad, measured.
        gripper: (T,) commanded open fraction after each sample.
    """
    last = len(stamps) - 1
    if last < 1:
        return np.arange(0)
    velocity = np.abs(np.gradient(positions, stamps, axis=0)).max(axis=1)
    is_open = gripper > 0.5
    changes = np.flatnonzero(is_open[1:] != is_open[:-1]) + 1
    edges = np.flatnonzero(np.diff(np.concatenate([[False], velocity < REST_VELOCITY, [False]]).astype(int)))
    rests = [
        (begin + end - 1) // 2
        for begin, end in edges.reshape(-1, 2)  # samples begin to end - 1
        if begin > 0 and end <= last and not np.any((changes >= begin) & (changes <= end))
    ]
    keyframes = [0]
    for i in np.unique(np.concatenate([changes, rests, [last]]).astype(int)):
        moved = np.abs(positions[i] - positions[keyframes[-1]]).max() > _LEAST_MOTION
        if moved or is_open[i] != is_open[keyframes[-1]]:
            keyframes.append(i)
    return np.array(keyframes[1:], np.int64)


def settle(
    stamps: NDArray[np.float64], positions: NDArray[np.float64], keyframes: NDArray[np.int64], seconds: float
) -> NDArray[np.int64]:
    """Return for each keyframe the last sample within ``seconds`` after it at which the arm is still there.

    A policy sees the scene then: the gripper has closed or opened. Other arguments as :func:`find_keyframes`.
    """
    settled = []
    for i in keyframes:
        within = np.searchsorted(stamps, stamps[i] + seconds + 1e-6)
        left = np.abs(positions[i:within] - positions[i]).max(axis=1) > _LEAST_MOTION
        settled.append(i + (int(np.argmax(left)) if left.any() else len(left)) - 1)
    return np.array(settled, np.int64)
