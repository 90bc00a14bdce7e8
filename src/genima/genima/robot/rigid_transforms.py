"""Rigid transforms (..., 4, 4) and twists (..., 6): translation in m, then rotation vector in rad."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]


def pose(R: Array, t: Array) -> Array:
    """Compose rotations (..., 3, 3) and translations (..., 3)."""
    T = np.zeros((*np.broadcast_shapes(R.shape[:-2], t.shape[:-1]), 4, 4))
    T[..., :3, :3], T[..., :3, 3], T[..., 3, 3] = R, t, 1.0
    return T


def inverse(T: Array) -> Array:
    """Invert rigid transforms (..., 4, 4)."""
    R_t = np.swapaxes(T[..., :3, :3], -1, -2)
    return pose(R_t, -(R_t @ T[..., :3, 3:])[..., 0])


def transform(T: Array, points: Array) -> Array:
    """Transform points (..., M, 3) by T (..., 4, 4)."""
    return points @ np.swapaxes(T[..., :3, :3], -1, -2) + T[..., None, :3, 3]


def apply_twist(T: Array, twist: Array) -> Array:
    """Apply a twist (6,) in the frame of T (4, 4), to first order in the coupling of its two parts."""
    return pose(T[:3, :3] @ Rotation.from_rotvec(twist[3:]).as_matrix(), T[:3, 3] + T[:3, :3] @ twist[:3])


def skew(v: Array) -> Array:
    """Return the matrices (..., 3, 3) of the cross product with ``v`` (..., 3) from the left."""
    x, y, z = np.moveaxis(v, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*v.shape[:-1], 3, 3)


def mean_pose(T: Array) -> Array:
    """Average poses (..., N, 4, 4) over N: mean translation and chordal mean rotation.

    Source: Hartley, Trumpf, Dai, Li, Rotation averaging, IJCV 103 (2013), section 5.3.
    """
    return pose(nearest_rotation(T[..., :3, :3].sum(-3)), T[..., :3, 3].mean(-2))


def nearest_rotation(M: Array) -> Array:
    """Return the rotations (..., 3, 3) nearest to matrices (..., 3, 3), least squares."""
    U, _, Vt = np.linalg.svd(M)
    U = U * np.stack([np.ones(M.shape[:-2]), np.ones(M.shape[:-2]), np.linalg.det(U @ Vt)], -1)[..., None, :]
    return U @ Vt


def rotation_vector(R: Array) -> Array:
    """Return the rotation vectors (..., 3) of rotations (..., 3, 3), rad."""
    return Rotation.from_matrix(R.reshape(-1, 3, 3)).as_rotvec().reshape(*R.shape[:-2], 3)


def pose_distance(T_a: Array, T_b: Array) -> tuple[float, float]:
    """Return the distance of two poses (4, 4) in m and rad."""
    angle = np.linalg.norm(rotation_vector(T_a[:3, :3].T @ T_b[:3, :3]))
    return float(np.linalg.norm(T_a[:3, 3] - T_b[:3, 3])), float(angle)


def rotation_columns(R: Array) -> Array:
    """Return the first two columns (..., 6) of rotations (..., 3, 3): a representation without discontinuity.

    Source: Zhou et al., On the Continuity of Rotation Representations in Neural Networks, CVPR 2019.
    """
    return np.concatenate([R[..., 0], R[..., 1]], axis=-1)


def rotation_from_columns(columns: Array) -> Array:
    """Return the rotations (..., 3, 3) of two columns (..., 6), made orthonormal by Gram and Schmidt."""
    x = columns[..., :3] / np.linalg.norm(columns[..., :3], axis=-1, keepdims=True)
    y = columns[..., 3:] - np.sum(x * columns[..., 3:], axis=-1, keepdims=True) * x
    y = y / np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], axis=-1)
