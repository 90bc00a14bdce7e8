"""Model of a serial arm: joint names, limits and modified Denavit-Hartenberg parameters, read from YAML.

A user adds an arm by a file in ``config/robots``; docs/safety.md describes its fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import FileSchema, Text, load_yaml, parse_yaml, shorten, validate

Array = NDArray[np.float64]
TURN = 2 * np.pi  # rad
GRIPPER_SLACK = 0.25  # of the travel: calibrations differ; values further outside are in another unit
RANGE_SLACK = 0.2  # rad: an arm moved by hand may exceed its limits slightly

# ------------------------------------------------------------------------------------------------------------- files
# The bounds detect wrong units: a limit of 180 is in degrees, a gripper travel of 85 is in millimetres.

JointName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\s\x00-\x1f\x7f]+$")]
Angle = Annotated[float, Field(ge=-2 * TURN, le=2 * TURN)]  # rad
GripperPosition = Annotated[float, Field(ge=-TURN, le=TURN)]  # rad or m
_Length = Annotated[float, Field(ge=-5, le=5)]  # m


class _BrakingFields(FileSchema):
    deceleration: Annotated[float, Field(ge=0.01, le=1e3)]  # rad/s^2
    offset: Annotated[float, Field(ge=0, le=50)]  # rad/s
    min: Angle
    max: Angle


class _JointFields(FileSchema):
    name: JointName
    min: Angle
    max: Angle
    velocity: Annotated[float, Field(ge=1e-3, le=50)]  # rad/s
    acceleration: Annotated[float, Field(ge=1e-2, le=1e3)]  # rad/s^2
    jerk: Annotated[float, Field(ge=1e-1, le=1e6)]  # rad/s^3
    home: Angle
    a: _Length
    d: _Length
    alpha: Annotated[float, Field(ge=-TURN, le=TURN)]  # rad
    braking: _BrakingFields | None = None

    @model_validator(mode="after")
    def _check_order(self) -> _JointFields:
        if not self.min < self.home < self.max:
            raise ValueError(f"{self.name}: home must lie between min and max")
        if self.braking is not None and not (self.braking.min <= self.min and self.braking.max >= self.max):
            raise ValueError(f"{self.name}: braking must allow rest at every position of the range")
        if self.braking is not None:
            room = min(self.home - self.braking.min, self.braking.max - self.home)
            if (2 * self.braking.deceleration * room) ** 0.5 <= self.braking.offset:
                raise ValueError(f"{self.name}: braking must allow motion at home")
        return self


class GripperTravel(FileSchema):
    """Travel of a gripper's joint, rad or m."""

    open: GripperPosition
    closed: GripperPosition

    @model_validator(mode="after")
    def _check_travel(self) -> Self:
        if abs(self.open - self.closed) < 1e-6:
            raise ValueError("open and closed of the gripper must differ")
        return self


class _GripperFields(GripperTravel):
    model: Text
    joint: JointName
    tip_in_flange: Annotated[list[_Length], Field(min_length=3, max_length=3)]


class _RobotFields(FileSchema):
    """Fields of a robot file; with ``arm``, joints and flange come from another file."""

    name: Text
    arm: Text | None = None
    arm_name: Text | None = None  # with joints, if the arm's name differs from the robot's
    joints: Annotated[list[_JointFields], Field(min_length=1, max_length=32)] | None = None
    flange_offset: _Length | None = None
    gripper: _GripperFields | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> _RobotFields:
        own = {"joints": self.joints, "flange_offset": self.flange_offset}
        of_arm = {**own, "arm_name": self.arm_name}
        if self.arm is None and self.gripper is None:
            raise ValueError("gripper missing")
        if self.arm is None and (missing := [name for name, value in own.items() if value is None]):
            raise ValueError(f"{' and '.join(missing)} missing; give them, or name the file that has them as arm")
        if self.arm is not None and (given := [name for name, value in of_arm.items() if value is not None]):
            raise ValueError(f"{' and '.join(given)} given together with arm; remove one of them")
        return self


# ------------------------------------------------------------------------------------------------------------- model


@dataclass(frozen=True)
class VelocityEnvelope:
    """Velocity limits that decrease towards the ends of the joints' ranges; all arrays (n,).

    Source: Franka Control Interface documentation, "Limits for Franka Research 3". Infinite where a joint has none.
    """

    deceleration: Array  # rad/s^2
    offset: Array  # rad/s, subtracted from the velocity that this deceleration allows
    lower_end: Array  # rad, where the joint must be at rest
    upper_end: Array  # rad

    @classmethod
    def of(cls, joints: Sequence[_JointFields]) -> VelocityEnvelope | None:
        """Read the joints' ``braking`` entries; None where there are none."""
        if all(joint.braking is None for joint in joints):
            return None
        rows = [
            (np.inf, 0.0, -np.inf, np.inf)
            if (braking := joint.braking) is None
            else (braking.deceleration, braking.offset, braking.min, braking.max)
            for joint in joints
        ]
        return cls(*np.array(rows, float).T)

    def velocities(self, positions: Array) -> tuple[Array, Array]:
        """Return lowest and highest velocity in rad/s at ``positions`` (..., n) rad."""
        room = np.stack([positions - self.lower_end, self.upper_end - positions])
        speed = np.maximum(0.0, np.sqrt(2 * self.deceleration * np.maximum(room, 0.0)) - self.offset)
        return -speed[0], speed[1]


def select_by_name(what: str, names: Sequence[str], values: Sequence[float], wanted: Sequence[str]) -> Array:
    """Return the values (len(wanted),) of joints, matched **by name**; ``what`` is the subject of errors.

    Raises:
        GenimaError: when a joint is missing, named twice, without a value, or not finite.
    """
    if len(values) != len(names):
        raise GenimaError(f"{what}: lengths differ ({len(names)} names, {len(values)} values)")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise GenimaError(f"{what}: duplicate names ({', '.join(twice)})")
    by_name = dict(zip(names, values, strict=True))
    if missing := [name for name in wanted if name not in by_name]:
        raise GenimaError(f"{what}: joints missing ({', '.join(missing)}); it has {', '.join(names) or 'no joints'}")
    if bad := [name for name in wanted if not np.isfinite(by_name[name])]:
        raise GenimaError(f"{what}: not finite ({', '.join(bad)})")
    return np.array([by_name[name] for name in wanted], float)


def limit_fraction(fraction: float) -> float:
    """Limit a gripper's open fraction to 0 .. 1.

    Raises:
        GenimaError: for a value that is not finite, or outside by more than ``GRIPPER_SLACK`` (as percentages are).
    """
    if not -GRIPPER_SLACK - 1e-9 <= fraction <= 1 + GRIPPER_SLACK + 1e-9:
        raise GenimaError(f"open fraction: out of range ({fraction:g}); use 0 (closed) to 1 (open)")
    return min(1.0, max(0.0, float(fraction)))


def open_fraction(joint: str, position: float, closed: float, opened: float) -> float:
    """Return the open fraction, 1 open .. 0 closed, of a gripper whose joint is at ``position`` [rad or m].

    Raises:
        GenimaError: for a position outside the travel by more than ``GRIPPER_SLACK`` (as in another unit).
    """
    fraction = (position - closed) / (opened - closed)
    if not -GRIPPER_SLACK - 1e-9 <= fraction <= 1 + GRIPPER_SLACK + 1e-9:
        raise GenimaError(
            f"{joint}: outside its travel ({position:g}, {closed:g} closed .. {opened:g} open); is it in rad or m?"
        )
    return min(1.0, max(0.0, float(fraction)))


@dataclass(frozen=True)
class RobotModel:
    """Arm with a parallel gripper. Joint arrays have shape (n,), in the order of ``joint_names``."""

    name: str
    arm: str  # name of the arm without gripper, as in its URDF
    joint_names: tuple[str, ...]
    gripper: str  # model: robotiq_2f140 and franka_hand have meshes, and files in config/backends
    gripper_joint: str
    gripper_open: float  # rad or m of that joint
    gripper_closed: float
    position_min: Array  # rad
    position_max: Array  # rad
    velocity_max: Array  # rad/s
    braking: VelocityEnvelope | None  # decreases the velocity limit near the ends of the joints' ranges
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
            GenimaError: for a missing file, a missing field, or invalid limits.
        """
        path = paths.config_file(name_or_file, "config", "robots")
        return cls._assemble(load_yaml(_RobotFields, path, "robot model"), f"robot model {path}")

    @classmethod
    def parse(cls, text: str, what: str) -> RobotModel:
        """Read a robot model from the text of its file; ``what`` is the subject of errors.

        Raises:
            GenimaError: as :meth:`load`.
        """
        return cls._assemble(validate(_RobotFields, parse_yaml(text, what), what), what)

    @classmethod
    def _assemble(cls, fields: _RobotFields, what: str) -> RobotModel:
        arm = fields
        if fields.arm is not None:  # another gripper on the same arm
            arm_path = paths.config_file(fields.arm, "config", "robots")
            arm = load_yaml(_RobotFields, arm_path, "robot model")
            if arm.joints is None:
                raise GenimaError(f"{what}: arm has no joints ({shorten(fields.arm)}); name a file with joints")
        joints, gripper = arm.joints or [], fields.gripper or arm.gripper
        if gripper is None:
            raise GenimaError(f"{what}: gripper missing; add it")
        names = [joint.name for joint in joints]
        if len({*names, gripper.joint}) <= len(names):
            raise GenimaError(f"{what}: duplicate joint names ({', '.join([*names, gripper.joint])}); use each once")
        T_flange_tip = np.eye(4)
        T_flange_tip[:3, 3] = gripper.tip_in_flange

        def column(name: str) -> Array:
            return np.array([getattr(joint, name) for joint in joints], float)

        return cls(
            name=fields.name,
            arm=fields.arm or fields.arm_name or fields.name,
            joint_names=tuple(names),
            gripper=gripper.model,
            gripper_joint=gripper.joint,
            gripper_open=gripper.open,
            gripper_closed=gripper.closed,
            position_min=column("min"),
            position_max=column("max"),
            velocity_max=column("velocity"),
            braking=VelocityEnvelope.of(joints),
            acceleration_max=column("acceleration"),
            jerk_max=column("jerk"),
            home=column("home"),
            dh=np.stack([column("a"), column("d"), column("alpha")], axis=1),
            flange_offset=arm.flange_offset or 0.0,
            T_flange_tip=T_flange_tip,
        )

    def to_dict(self) -> dict[str, object]:
        """Return the content of a file of the model that names no other file; :meth:`parse` reads it as YAML."""
        joints = []
        for i, name in enumerate(self.joint_names):
            joint: dict[str, object] = {"name": name}
            columns = {
                "min": self.position_min, "max": self.position_max, "velocity": self.velocity_max,
                "acceleration": self.acceleration_max, "jerk": self.jerk_max, "home": self.home,
                "a": self.dh[:, 0], "d": self.dh[:, 1], "alpha": self.dh[:, 2],
            }  # fmt: skip
            joint |= {key: float(column[i]) for key, column in columns.items()}
            if (braking := self.braking) is not None and np.isfinite(braking.deceleration[i]):
                ends = {"deceleration": braking.deceleration, "offset": braking.offset}
                ends |= {"min": braking.lower_end, "max": braking.upper_end}
                joint["braking"] = {key: float(column[i]) for key, column in ends.items()}
            joints.append(joint)
        return {
            "name": self.name,
            "arm_name": self.arm,
            "joints": joints,
            "flange_offset": float(self.flange_offset),
            "gripper": {
                "model": self.gripper,
                "joint": self.gripper_joint,
                "open": float(self.gripper_open),
                "closed": float(self.gripper_closed),
                "tip_in_flange": self.T_flange_tip[:3, 3].tolist(),
            },
        }

    def has_kinematics(self, other: RobotModel) -> bool:
        """Return whether joints, gripper and kinematics are those of another model; limits may differ."""
        mine, theirs = (
            (model.joint_names, model.gripper_joint, model.gripper_open, model.gripper_closed, model.flange_offset)
            for model in (self, other)
        )
        return (
            mine == theirs
            and np.array_equal(self.dh, other.dh)
            and np.array_equal(self.T_flange_tip, other.T_flange_tip)
        )

    def velocity_limits(self, positions: NDArray[np.floating]) -> tuple[Array, Array]:
        """Return lowest and highest velocity at ``positions`` (..., n) rad, in rad/s."""
        q = np.asarray(positions, float)
        high = np.broadcast_to(self.velocity_max, q.shape)
        if self.braking is None:
            return -high, high
        low, up = self.braking.velocities(q)
        return np.maximum(-high, low), np.minimum(high, up)

    def open_fraction(self, gripper_position: float) -> float:
        """Return the open fraction, 1 open .. 0 closed, at a measured position of the gripper's joint in rad or m.

        Raises:
            GenimaError: for a position that this gripper cannot have.
        """
        return open_fraction(self.gripper_joint, gripper_position, self.gripper_closed, self.gripper_open)

    def gripper_position(self, open_fraction: float) -> float:
        """Return the joint position for an open fraction: the inverse of :meth:`open_fraction`."""
        return float(self.gripper_closed + np.clip(open_fraction, 0, 1) * (self.gripper_open - self.gripper_closed))

    def link_poses(self, positions: NDArray[np.floating]) -> Array:
        """Compute forward kinematics.

        Args:
            positions: (..., n) joint positions in rad.

        Returns:
            (..., n + 2, 4, 4): ``T_base_link`` of links 1..n, the flange and the tip.

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
        link = poses[..., 0, :, :] = local[..., 0, :, :]
        for i in range(1, n):
            link = poses[..., i, :, :] = link @ local[..., i, :, :]
        T_link_flange = np.eye(4)
        T_link_flange[2, 3] = self.flange_offset
        poses[..., n, :, :] = link @ T_link_flange
        poses[..., n + 1, :, :] = poses[..., n, :, :] @ self.T_flange_tip
        return poses

    def require_in_range(self, positions: Array, slack: float = RANGE_SLACK) -> None:
        """Check measured positions (n,) rad against the joints' ranges.

        Raises:
            GenimaError: for a joint outside by more than ``slack`` [rad].
        """
        beyond = np.maximum(self.position_min - positions, positions - self.position_max)
        i = int(np.argmax(beyond))  # also finds NaN
        if not beyond[i] <= slack:
            value, low, high = positions[i], self.position_min[i], self.position_max[i]
            hint = "are these degrees?" if abs(value) > 2 * TURN else f"is the robot a {self.name}?"
            raise GenimaError(
                f"{self.joint_names[i]}: outside its range {low:.2f} .. {high:.2f} ({value:.2f} rad); {hint}"
            )

    def select_joints(self, names: Sequence[str], values: Sequence[float]) -> tuple[Array, float]:
        """Return arm positions (n,) and gripper value of a joint state, matched **by name**.

        Raises:
            GenimaError: when a joint is missing, named twice, without a value, or not finite.
        """
        joints = select_by_name("joint state", names, values, (*self.joint_names, self.gripper_joint))
        return joints[:-1], float(joints[-1])

    def joints_by_name(self, positions: Array, gripper: float) -> dict[str, float]:
        """Return values by joint name: the inverse of :meth:`select_joints`."""
        return {**dict(zip(self.joint_names, positions.tolist(), strict=True)), self.gripper_joint: gripper}
