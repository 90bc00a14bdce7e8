"""Rigid motions as (..., 4, 4) arrays; small ones as twists (..., 6): translation in m, then rotation vector in rad."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]


def pose(R: Array, t: Array) -> Array:
    """Of rotations (..., 3, 3) and translations (..., 3)."""
    T = np.zeros((*np.broadcast_shapes(R.shape[:-2], t.shape[:-1]), 4, 4))
    T[..., :3, :3], T[..., :3, 3], T[..., 3, 3] = R, t, 1.0
    return T


def inverse(T: Array) -> Array:
    """Of rigid motions (..., 4, 4)."""
    R_t = np.swapaxes(T[..., :3, :3], -1, -2)
    return pose(R_t, -(R_t @ T[..., :3, 3:])[..., 0])


def transform(T: Array, points: Array) -> Array:
    """Points (..., M, 3) moved by T (..., 4, 4)."""
    return points @ np.swapaxes(T[..., :3, :3], -1, -2) + T[..., None, :3, 3]


def moved(T: Array, twist: Array) -> Array:
    """T (4, 4) after a twist (6,) in its own frame, to first order in the coupling of its two parts."""
    return pose(T[:3, :3] @ Rotation.from_rotvec(twist[3:]).as_matrix(), T[:3, 3] + T[:3, :3] @ twist[:3])


def skew(v: Array) -> Array:
    """Matrices (..., 3, 3) that multiply like a cross product with ``v`` (..., 3) from the left."""
    x, y, z = np.moveaxis(v, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*v.shape[:-1], 3, 3)


def mean_pose(T: Array) -> Array:
    """Mean (..., 4, 4) over the last stack axis of T (..., N, 4, 4): of translations, and the chordal one of rotations.

    Source: Hartley, Trumpf, Dai, Li, Rotation averaging, IJCV 103 (2013), section 5.3.
    """
    return pose(nearest_rotation(T[..., :3, :3].sum(-3)), T[..., :3, 3].mean(-2))


def nearest_rotation(M: Array) -> Array:
    """The rotations (..., 3, 3) nearest to matrices (..., 3, 3), least squares."""
    U, _, Vt = np.linalg.svd(M)
    U = U * np.stack([np.ones(M.shape[:-2]), np.ones(M.shape[:-2]), np.linalg.det(U @ Vt)], -1)[..., None, :]
    return U @ Vt


def rotation_vector(R: Array) -> Array:
    """(..., 3) of rotations (..., 3, 3), rad."""
    return Rotation.from_matrix(R.reshape(-1, 3, 3)).as_rotvec().reshape(*R.shape[:-2], 3)


def difference(T_a: Array, T_b: Array) -> tuple[float, float]:
    """How far in m and rad two poses (4, 4) lie apart."""
    angle = np.linalg.norm(rotation_vector(T_a[:3, :3].T @ T_b[:3, :3]))
    return float(np.linalg.norm(T_a[:3, 3] - T_b[:3, 3])), float(angle)
