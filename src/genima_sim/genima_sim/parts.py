"""Bodies, joints and sites of scene objects from primitives, with the physics that tasks need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

Vector = Sequence[float]
GRIP = (1.5, 0.05, 0.001)
"""Friction (sliding, torsional, rolling) of what the pads grasp."""


def add_box(body: mujoco.MjsBody, pos: Vector, half: Vector, rgb: Vector, **options: Any) -> mujoco.MjsGeom:
    """Add a box with half edges (3,) in m."""
    return body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, pos=pos, size=half, rgba=[*rgb, 1], **options)


def add_cylinder(
    body: mujoco.MjsBody, pos: Vector, radius: float, half: float, rgb: Vector, **options: Any
) -> mujoco.MjsGeom:
    """Add a cylinder along z with its radius and half its height in m."""
    size = [radius, half, 0]
    return body.add_geom(type=mujoco.mjtGeom.mjGEOM_CYLINDER, pos=pos, size=size, rgba=[*rgb, 1], **options)


def add_ball(body: mujoco.MjsBody, pos: Vector, radius: float, rgb: Vector, **options: Any) -> mujoco.MjsGeom:
    """Add a sphere with its radius in m."""
    return body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, pos=pos, size=[radius, 0, 0], rgba=[*rgb, 1], **options)


def add_bar(
    body: mujoco.MjsBody, start: Vector, end: Vector, radius: float, rgb: Vector, **options: Any
) -> mujoco.MjsGeom:
    """Add a capsule with a radius in m from ``start`` to ``end``, (3,) in m each, and the friction of a handle."""
    return body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[*start, *end],
        size=[radius, 0, 0],
        rgba=[*rgb, 1],
        **{"friction": GRIP, **options},
    )


def add_hinge(
    body: mujoco.MjsBody,
    name: str,
    pos: Vector,
    axis: Vector,
    span: tuple[float, float],
    damping: float = 0.3,
    friction: float = 0.02,
    **options: Any,
) -> mujoco.MjsJoint:
    """Add a hinge at ``pos`` (3,) in m with a range in rad, damping in N m s/rad and friction in N m."""
    options = {"pos": pos, "armature": 0.005, **options}
    return _add_joint(body, mujoco.mjtJoint.mjJNT_HINGE, name, axis, span, damping, friction, options)


def add_slide(
    body: mujoco.MjsBody,
    name: str,
    axis: Vector,
    span: tuple[float, float],
    damping: float = 5.0,
    friction: float = 0.5,
    **options: Any,
) -> mujoco.MjsJoint:
    """Add a slide with a range in m, damping in N s/m and friction in N."""
    options = {"armature": 0.01, **options}
    return _add_joint(body, mujoco.mjtJoint.mjJNT_SLIDE, name, axis, span, damping, friction, options)


def _add_joint(
    body: mujoco.MjsBody,
    kind: mujoco.mjtJoint,
    name: str,
    axis: Vector,
    span: tuple[float, float],
    damping: float,
    friction: float,
    options: dict[str, Any],
) -> mujoco.MjsJoint:
    return body.add_joint(
        name=name,
        type=kind,
        axis=axis,
        range=span,
        limited=True,
        damping=[damping, 0, 0],
        frictionloss=friction,
        **options,
    )


def add_lever(
    body: mujoco.MjsBody,
    name: str,
    pos: Vector,
    side: int,
    length: float,
    shank: float,
    rgb: Vector,
    approach: Vector,
    friction: float,
    stiffness: float,
) -> None:
    """Add the body and hinge ``<name>_handle``, a sprung lever turned about x, with the grasp ``<name>_lever``.

    Args:
        body: a leaf behind the lever, in +x.
        name: of the leaf.
        pos: (3,) m, of the lever's hinge.
        side: 1 for a lever towards +y, -1 towards -y; its end moves down.
        length: m.
        shank: m, distance to the leaf.
        rgb: (3,).
        approach: (3,) of the grasp.
        friction: N m.
        stiffness: N m/rad.
    """
    handle = body.add_body(name=f"{name}_handle", pos=pos)
    add_hinge(handle, f"{name}_handle", [0, 0, 0], [-side, 0, 0], (0, 0.9), 0.05, friction, stiffness=[stiffness, 0, 0])
    add_bar(handle, [shank, 0, 0], [0, 0, 0], 0.008, rgb, mass=0.02, contype=0, conaffinity=0)
    add_bar(handle, [0, 0, 0], [0, side * length, 0], 0.009, rgb, mass=0.05)
    add_site(handle, f"{name}_lever", [0, side * 0.75 * length, 0], z=approach, x=(0, 0, 1))


def add_site(
    body: mujoco.MjsBody,
    name: str,
    pos: Vector,
    z: Vector = (0, 0, -1),
    x: Vector = (1, 0, 0),
    half: Vector = (0.005,) * 3,
) -> mujoco.MjsSite:
    """Add a frame with its z axis along ``z`` and its x axis as near to ``x`` as possible.

    As a grasp, z is the approach and x the direction in which the fingers close. As a region, it is a box with half
    edges ``half`` (3,) in m.
    """
    z_axis = np.array(z, float) / np.linalg.norm(z)
    x_axis = np.array(x, float) - z_axis * np.dot(x, z_axis)
    x_axis /= np.linalg.norm(x_axis)
    rotation = Rotation.from_matrix(np.column_stack([x_axis, np.cross(z_axis, x_axis), z_axis]))
    box = mujoco.mjtGeom.mjGEOM_BOX
    quat = rotation.as_quat(scalar_first=True)
    return body.add_site(name=name, pos=pos, quat=quat, size=list(half), type=box, group=5)
