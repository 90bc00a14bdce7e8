"""Mapping of a leader's joints to its follower's, read from YAML.

A user adds a leader by a file in ``config/teleop``; docs/demos.md describes its fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import FileSchema, load_yaml
from genima.robot.model import TURN, Angle, JointName, RobotModel, open_fraction, select_by_name
from genima.teleop.gamepad import Button
from genima.types import Joints

Array = NDArray[np.float64]
SAME = "same"  # name of a leader with the joints and gripper of the follower
_MAX_TURNS = 2  # that a servo may be off after power-on
_TRIGGER = Annotated[float, Field(ge=-1e4, le=1e4)]  # of a gripper's joint, in any unit


def _require_sign(sign: float) -> float:
    if abs(sign) != 1:
        raise ValueError("must be 1 or -1")
    return sign


def _require_scale(scale: float) -> float:
    if not 1e-3 <= abs(scale) <= 1e3:
        raise ValueError("must be from 0.001 to 1000")
    return scale


def _as_mapping(joint: Any) -> Any:
    return {"name": joint} if isinstance(joint, str) else joint


class _JointFields(FileSchema):
    name: JointName
    sign: Annotated[float, AfterValidator(_require_sign)] = 1.0
    scale: Annotated[float, AfterValidator(_require_scale)] = 1.0
    offset: Angle = 0.0


class _GripperFields(FileSchema):
    joint: JointName | None = None
    closed: _TRIGGER = 0.0
    open: _TRIGGER = 1.0
    button: Button | None = None

    @model_validator(mode="after")
    def _check_kind(self) -> _GripperFields:
        if (self.joint is None) == (self.button is None):
            raise ValueError("give either the joint of the gripper, or the button that opens and closes it")
        if self.button is not None and {"closed", "open"} & self.model_fields_set:
            raise ValueError("closed and open belong to a joint, not to a button")
        if self.closed == self.open:
            raise ValueError("closed and open must differ")
        return self


class _LeaderFields(FileSchema):
    joints: Annotated[list[Annotated[_JointFields, BeforeValidator(_as_mapping)]], Field(min_length=1, max_length=32)]
    gripper: _GripperFields | None = None
    unwrap_at_start: bool = False

    @model_validator(mode="after")
    def _check_names(self) -> _LeaderFields:
        names = [joint.name for joint in self.joints]
        if self.gripper is not None and self.gripper.joint is not None:
            names.append(self.gripper.joint)
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"names twice: {', '.join(twice)}")
        return self


@dataclass(frozen=True)
class LeaderSample:
    """A leader at one moment, in the follower's joints."""

    stamp: float  # s
    positions: Array  # (n,) rad; they may lie outside the follower's range
    velocities: Array | None  # (n,) rad/s; None where the leader publishes none
    gripper: float | None  # open fraction; None where the leader has no gripper


def toggle_gripper(commanded: float | None, measured: Joints | None) -> float | None:
    """Return the open fraction opposite to the last commanded, else measured one; None where neither is known."""
    now = commanded if commanded is not None else measured.gripper if measured else None
    return None if now is None else 0.0 if now > 0.5 else 1.0


@dataclass(frozen=True)
class LeaderMapping:
    """``follower = sign * scale * leader + offset``, joint by joint; arrays (n,) in the follower's order."""

    follower: RobotModel
    joint_names: tuple[str, ...]  # the leader's
    factor: Array  # sign * scale
    offset: Array  # rad
    gripper_joint: str | None
    gripper_closed: float  # of that joint
    gripper_open: float
    gripper_button: int | None = None  # of a gamepad or a pedal: each press opens or closes
    unwrap_at_start: bool = False  # joints that are whole turns outside the follower's range are turned back

    @classmethod
    def load(cls, name_or_file: str | Path, follower: RobotModel) -> LeaderMapping:
        """Read ``config/teleop/<name>.yaml`` or a YAML file; ``same`` is a leader like the follower itself.

        Raises:
            GenimaError: for a missing file, a bad field, or another number of joints than the follower has.
        """
        if name_or_file == SAME:
            n = len(follower.joint_names)
            gripper_ends = follower.gripper_position(0.0), follower.gripper_position(1.0)
            return cls(follower, follower.joint_names, np.ones(n), np.zeros(n), follower.gripper_joint, *gripper_ends)
        path = paths.config_file(name_or_file, "config", "teleop")
        fields = load_yaml(_LeaderFields, path, "leader")
        joints, gripper = fields.joints, fields.gripper or _GripperFields(button=0)
        if len(joints) != len(follower.joint_names):
            raise GenimaError(
                f"leader {path}: wrong number of joints ({len(joints)}); "
                f"{follower.name} has {len(follower.joint_names)}"
            )
        return cls(
            follower=follower,
            joint_names=tuple(joint.name for joint in joints),
            factor=np.array([joint.sign * joint.scale for joint in joints], float),
            offset=np.array([joint.offset for joint in joints], float),
            gripper_joint=gripper.joint,
            gripper_closed=gripper.closed,
            gripper_open=gripper.open,
            gripper_button=gripper.button if fields.gripper is not None else None,
            unwrap_at_start=fields.unwrap_at_start,
        )

    def has_arm_joints(self, names: Sequence[str]) -> bool:
        """True where a joint state has any of the arm's joints: some drivers publish the gripper's separately."""
        return not set(names).isdisjoint(self.joint_names)

    def sample(
        self, stamp: float, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float] = ()
    ) -> LeaderSample:
        """Return a joint state of the leader in the follower's joints, matched **by name**.

        Incomplete or non-finite velocities are dropped.

        Raises:
            GenimaError: when a joint is missing, named twice, without a value, or not finite, and for a gripper far
                beyond its travel.
        """
        raw = select_by_name("leader", names, positions, self.joint_names)
        speeds = None
        if len(velocities) == len(names):
            speeds_by_name = dict(zip(names, velocities, strict=True))
            speeds = self.factor * np.array([speeds_by_name[name] for name in self.joint_names])
        return LeaderSample(
            stamp,
            self.factor * raw + self.offset,
            speeds if speeds is not None and bool(np.all(np.isfinite(speeds))) else None,
            self.gripper_fraction(names, positions),
        )

    def gripper_fraction(self, names: Sequence[str], positions: Sequence[float]) -> float | None:
        """Return the gripper's open fraction, 1 open .. 0 closed; None where a joint state lacks it.

        Raises:
            GenimaError: for a position that is not finite, or far beyond the gripper's travel.
        """
        if self.gripper_joint is None or self.gripper_joint not in names or len(positions) != len(names):
            return None
        position = positions[list(names).index(self.gripper_joint)]
        return open_fraction(self.gripper_joint, position, self.gripper_closed, self.gripper_open)

    # A servo does not know its number of turns after power-on.

    def unwrap(self, positions: Array, towards: Array, slack: float) -> NDArray[np.int64]:
        """Return the turns (n,) that bring each joint of the leader into the follower's range.

        Args:
            positions: (n,) rad, the leader's in the follower's joints.
            towards: (n,) rad, the follower's; of several candidates, the nearest to it is taken.
            slack: rad that a joint may be outside the range.

        Joints that are within the range, or that no turn of at most two brings there, get 0.
        """
        turns = np.zeros(len(positions), np.int64)
        for i in np.flatnonzero(self._beyond(positions) > slack):
            if found := self._turns_into_range(positions, int(i), slack):
                turns[i] = min(found, key=lambda k: abs(positions[i] + self.turn_offset(k)[i] - towards[i]))
        return turns

    def turn_offset(self, turns: NDArray[np.int64] | int) -> Array:
        """Return the offset (n,) rad of the follower's joints for ``turns`` (n,) of the leader's."""
        return np.asarray(self.factor * TURN * turns)

    def require_within_range(self, positions: Array, slack: float) -> None:
        """Check that the follower can reach the leader's joints.

        Args:
            positions: (n,) rad, the leader's in the follower's joints.
            slack: rad that a joint may be outside the range.

        Raises:
            GenimaError: with every joint that is further outside, and the likely cause.
        """
        wrong = np.flatnonzero(self._beyond(positions) > slack)
        if len(wrong) == 0:
            return
        low, high = self.follower.position_min, self.follower.position_max
        lines = [
            f"{self.joint_names[i]} is at {positions[i]:.2f} rad, outside the range {low[i]:.2f} .. {high[i]:.2f} of "
            f"the follower's {self.follower.joint_names[i]}"
            for i in wrong
        ]
        turns = {int(i): self._turns_into_range(positions, int(i), slack) for i in wrong}
        if all(turns.values()):
            i = next(iter(turns))
            k, by = turns[i][0], self.turn_offset(turns[i][0])[i]
            hint = (
                f"it seems to be {_turns(k)} (2 pi) off, as servos may be after power-on: {positions[i]:.2f} "
                f"{'+' if by > 0 else '-'} {abs(by):.2f} = {positions[i] + by:.2f} rad would be inside. Restart the "
                "leader, or set unwrap_at_start"
            )
        elif np.any(np.abs(positions[wrong]) > TURN):
            hint = "joint states are in rad: are these degrees?"
        else:
            hint = "move the leader back into the range"
        raise GenimaError(f"leader: {', '.join(lines)}; {hint}")

    def _beyond(self, positions: Array) -> Array:
        return np.asarray(np.maximum(self.follower.position_min - positions, positions - self.follower.position_max))

    def _turns_into_range(self, positions: Array, joint: int, slack: float) -> list[int]:
        """Return the turns other than 0 that bring a joint into the range, the smallest first."""
        candidates = sorted((k for k in range(-_MAX_TURNS, _MAX_TURNS + 1) if k), key=abs)
        return [k for k in candidates if self._beyond(positions + self.turn_offset(k))[joint] <= slack]


def _turns(turns: int) -> str:
    return f"{abs(turns)} turn{'s' if abs(turns) > 1 else ''}"
