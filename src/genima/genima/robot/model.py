"""A serial arm as data: joint names, limits and modified Denavit-Hartenberg parameters, read from YAML.

A user adds an arm by a file beside those in ``config/robots``; docs/safety.md says what its fields mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genima import paths
from genima.errors import GenimaError
from genima.files import read_yaml

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Braking:
    """A joint may move towards an end of its range only so fast that it can brake before it; all arrays (n,).

    Source: Franka Control Interface documentation, "Limits for Franka Research 3". Infinite where a joint has none.
    """

    deceleration: Array  # rad/s^2
    offset: Array  # rad/s, taken off what that deceleration would allow
    lower_end: Array  # rad, where the joint must have come to rest
    upper_end: Array  # rad

    @classmethod
    def of(cls, joints: Sequence[Mapping[str, Any]]) -> Braking | None:
        """Read the joints' ``braking`` entries; None where there are none."""
        if not any("braking" in joint for joint in joints):
            return None
        rows = [joint.get("braking", _NO_BRAKING) for joint in joints]
        return cls(*(np.array([row[f] for row in rows], float) for f in ("deceleration", "offset", "min", "max")))

    def velocities(self, positions: Array) -> tuple[Array, Array]:
        """Lowest and highest velocity in rad/s at ``positions`` (..., n) rad, from the braking alone."""
        room = np.stack([positions - self.lower_end, self.upper_end - positions])
        speed = np.maximum(0.0, np.sqrt(2 * self.deceleration * np.maximum(room, 0.0)) - self.offset)
        return -speed[0], speed[1]


def pick(what: str, names: Sequence[str], values: Sequence[float], wanted: Sequence[str]) -> Array:
    """Values (len(wanted),) picked **by name** from a joint-state-like pair of lists; ``what`` names it in errors.

    Raises:
        GenimaError: when a joint is missing, named twice, without a value, or not finite.
    """
    if len(values) != len(names):
        raise GenimaError(f"{what} has {len(names)} names but {len(values)} values")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise GenimaError(f"{what} names twice: {', '.join(twice)}")
    by_name = dict(zip(names, values, strict=True))
    if missing := [name for name in wanted if name not in by_name]:
        raise GenimaError(f"{what} lacks {', '.join(missing)}; it has {', '.join(names) or 'no joints'}")
    if bad := [name for name in wanted if not np.isfinite(by_name[name])]:
        raise GenimaError(f"{what} is not finite at {', '.join(bad)}")
    return np.array([by_name[name] for name in wanted], float)


@dataclass(frozen=True)
class RobotModel:
    """One arm with a parallel gripper. All joint arrays have shape (n,), in the order of ``joint_names``."""

    name: str
    arm: str  # without its gripper, as its description calls it
    joint_names: tuple[str, ...]
    gripper: str  # what it is: robotiq_2f140 and franka_hand have meshes, and files in config/backends
    gripper_joint: str
    gripper_open: float  # rad or m of that joint
    gripper_closed: float
    position_min: Array  # rad
    position_max: Array  # rad
    velocity_max: Array  # rad/s
    braking: Braking | None  # how the velocity limit shrinks near the ends of the joints' ranges
    acceleration_max: Array  # rad/s^2
    jerk_max: Array  # rad/s^3
    home: Array  # rad, where episodes start
    dh: Array  # (n, 3): a [m], d [m], alpha [rad] of each joint (Craig's convention)
    flange_offset: float  # m, along the last joint's axis
    T_flange_tip: Array  # (4, 4), between the finger pads of the closed gripper

    @classmethod
    def load(cls, name_or_file: str | Path) -> RobotModel:
        """Read ``config/robots/<name>.yaml`` or a YAML file.

        Raises:
            GenimaError: for a missing file, a missing field, or limits that make no sense.
        """
        path = paths.named(name_or_file, "config", "robots")
        data = read_yaml(path, "robot model")
        try:
            if "arm" in data:  # another gripper on the same arm
                data = read_yaml(paths.named(data["arm"], "config", "robots"), "robot model") | data
            joints: Sequence[Mapping[str, float]] = data["joints"]
            column = {key: np.array([j[key] for j in joints], float) for key in _JOINT_FIELDS}
            T_flange_tip = np.eye(4)
            T_flange_tip[:3, 3] = data["gripper"]["tip_in_flange"]
            robot = cls(
                name=data["name"],
                arm=data.get("arm", data["name"]),
                joint_names=tuple(str(j["name"]) for j in joints),
                gripper=str(data["gripper"]["model"]),
                gripper_joint=data["gripper"]["joint"],
                gripper_open=float(data["gripper"]["open"]),
                gripper_closed=float(data["gripper"]["closed"]),
                position_min=column["min"],
                position_max=column["max"],
                velocity_max=column["velocity"],
                braking=Braking.of(joints),
                acceleration_max=column["acceleration"],
                jerk_max=column["jerk"],
                home=column["home"],
                dh=np.stack([column["a"], column["d"], column["alpha"]], axis=1),
                flange_offset=float(data["flange_offset"]),
                T_flange_tip=T_flange_tip,
            )
            robot._require_sensible()
            return robot
        except (KeyError, TypeError, ValueError) as error:
            raise GenimaError(f"robot model {path}: bad or missing field: {error!r}") from None

    def _require_sensible(self) -> None:
        """Raise a ValueError for limits that would let the arm do anything, or nothing."""
        names = np.array(self.joint_names)
        limits = np.stack([self.velocity_max, self.acceleration_max, self.jerk_max])
        braking = self.braking
        checks = {
            "min, max, home and kinematics must be finite": np.isfinite(
                np.column_stack([self.position_min, self.position_max, self.home, self.dh])
            ).all(1),
            "home must lie between min and max": (self.position_min < self.home) & (self.home < self.position_max),
            "velocity, acceleration and jerk must be positive": (np.isfinite(limits) & (limits > 0)).all(0),
            "braking must be positive and let the joint stand anywhere in its range": braking is None
            or (braking.deceleration > 0)
            & (braking.offset >= 0)
            & (braking.lower_end <= self.position_min)
            & (braking.upper_end >= self.position_max),
        }
        for rule, fine in checks.items():
            if not np.all(fine):
                raise ValueError(f"{rule}: {', '.join(names[~np.broadcast_to(fine, names.shape)])}")
        if len(set(self.joint_names)) < len(names) or self.gripper_joint in self.joint_names:
            raise ValueError("every joint needs a name of its own")
        if not np.isfinite(self.gripper_closed - self.gripper_open) or self.gripper_closed == self.gripper_open:
            raise ValueError("the gripper's open and closed must be finite, and differ")

    def velocity_limits(self, positions: NDArray[np.floating]) -> tuple[Array, Array]:
        """Lowest and highest velocity allowed at ``positions`` (..., n) rad, in rad/s."""
        q = np.asarray(positions, float)
        high = np.broadcast_to(self.velocity_max, q.shape)
        if self.braking is None:
            return -high, high
        low, up = self.braking.velocities(q)
        return np.maximum(-high, low), np.minimum(high, up)

    def open_fraction(self, gripper_position: float) -> float:
        """How far the gripper is open, 1 open .. 0 closed, at a measured position of its joint in rad or m."""
        way = self.gripper_open - self.gripper_closed
        return float(np.clip((gripper_position - self.gripper_closed) / way, 0, 1))

    def gripper_position(self, open_fraction: float) -> float:
        """The inverse of :meth:`open_fraction`."""
        return float(self.gripper_closed + np.clip(open_fraction, 0, 1) * (self.gripper_open - self.gripper_closed))

    def link_poses(self, positions: NDArray[np.floating]) -> Array:
        """Forward kinematics.

        Args:
            positions: (..., n) joint positions in rad.

        Returns:
            (..., n + 2, 4, 4): ``T_base_link`` of links 1..n (each turns with its own joint), the flange and the tip.

        Source: J. J. Craig, Introduction to Robotics, 3rd ed., eq. 3.6 (modified DH).
        """
        q = np.asarray(positions, float)
        a, d, alpha = self.dh.T
        c, s, ca, sa = np.cos(q), np.sin(q), np.cos(alpha), np.sin(alpha)
        local = np.zeros((*q.shape, 4, 4))
        local[..., 0, 0], local[..., 0, 1], local[..., 0, 3] = c, -s, a
        local[..., 1, 0], local[..., 1, 1], local[..., 1, 2], local[..., 1, 3] = s * ca, c * ca, -sa, -d * sa
        local[..., 2, 0], local[..., 2, 1], local[..., 2, 2], local[..., 2, 3] = s * sa, c * sa, ca, d * ca
        local[..., 3, 3] = 1.0
        n = q.shape[-1]
        poses = np.empty((*q.shape[:-1], n + 2, 4, 4))
        pose = local[..., 0, :, :]
        poses[..., 0, :, :] = pose
        for i in range(1, n):
            pose = pose @ local[..., i, :, :]
            poses[..., i, :, :] = pose
        T_link_flange = np.eye(4)
        T_link_flange[2, 3] = self.flange_offset
        poses[..., n, :, :] = pose @ T_link_flange
        poses[..., n + 1, :, :] = poses[..., n, :, :] @ self.T_flange_tip
        return poses

    def in_order(self, names: Sequence[str], values: Sequence[float]) -> tuple[Array, float]:
        """Arm positions (n,) and gripper value, picked **by name** from a joint-state-like pair of lists.

        Raises:
            GenimaError: when a joint is missing, named twice, without a value, or not finite.
        """
        picked = pick("joint state", names, values, (*self.joint_names, self.gripper_joint))
        return picked[:-1], float(picked[-1])

    def by_name(self, positions: Array, gripper: float) -> dict[str, float]:
        """The inverse of :meth:`in_order`: values by name, of arm positions (n,) and the gripper's joint."""
        return {**dict(zip(self.joint_names, positions.tolist(), strict=True)), self.gripper_joint: gripper}


_NO_BRAKING = {"deceleration": np.inf, "offset": 0.0, "min": -np.inf, "max": np.inf}
_JOINT_FIELDS = ("min", "max", "velocity", "acceleration", "jerk", "home", "a", "d", "alpha")
