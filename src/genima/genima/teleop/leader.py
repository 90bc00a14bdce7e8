"""How the joints of a leader become those of its follower, read from YAML.

A user adds a leader by a file beside those in ``config/teleop``; docs/demos.md says what its fields mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genima import paths
from genima.errors import GenimaError
from genima.files import read_yaml
from genima.observation import Joints
from genima.robot.model import RobotModel, pick

Array = NDArray[np.float64]
SAME = "same"  # the name of a leader that has the follower's own joints and gripper


@dataclass(frozen=True)
class Sample:
    """A leader at one moment, as the follower would stand there."""

    stamp: float  # s
    positions: Array  # (n,) rad, within the follower's range
    velocities: Array | None  # (n,) rad/s; None where the leader does not tell
    gripper: float | None  # open fraction; None where the leader has no gripper


def toggled(told: float | None, measured: Joints | None) -> float:
    """The gripper's open fraction once a button is pressed: what was told last, else what is measured, turned round."""
    now = told if told is not None else measured.gripper if measured else 1.0
    return 0.0 if now > 0.5 else 1.0


@dataclass(frozen=True)
class Leader:
    """``follower = sign * scale * leader + offset``, joint by joint; arrays (n,) in the follower's order."""

    joint_names: tuple[str, ...]  # the leader's
    factor: Array  # sign * scale
    offset: Array  # rad
    position_min: Array  # rad, the follower's
    position_max: Array  # rad
    gripper_joint: str | None
    gripper_closed: float  # of that joint
    gripper_open: float
    gripper_button: int | None = None  # of a gamepad or a pedal: each press opens or closes

    @classmethod
    def load(cls, name_or_file: str | Path, follower: RobotModel) -> Leader:
        """Read ``config/teleop/<name>.yaml`` or a YAML file; ``same`` is a leader like the follower itself.

        Raises:
            GenimaError: for a missing file, a bad field, or another number of joints than the follower has.
        """
        if name_or_file == SAME:
            n = len(follower.joint_names)
            ends = follower.position_min, follower.position_max
            gripper_ends = follower.gripper_position(0.0), follower.gripper_position(1.0)
            return cls(follower.joint_names, np.ones(n), np.zeros(n), *ends, follower.gripper_joint, *gripper_ends)
        path = paths.named(name_or_file, "config", "teleop")
        data = read_yaml(path, "leader")
        try:
            joints = [joint if isinstance(joint, dict) else {"name": str(joint)} for joint in data["joints"]]
            if unknown := {key for joint in joints for key in joint} - {"name", "sign", "scale", "offset"}:
                raise GenimaError(f"leader {path}: a joint has no field {', '.join(sorted(map(str, unknown)))}")
            gripper = data.get("gripper") or {}
            leader = cls(
                joint_names=tuple(str(joint["name"]) for joint in joints),
                factor=np.array([float(joint.get("sign", 1)) * float(joint.get("scale", 1)) for joint in joints]),
                offset=np.array([float(joint.get("offset", 0)) for joint in joints]),
                position_min=follower.position_min,
                position_max=follower.position_max,
                gripper_joint=str(gripper["joint"]) if gripper and "button" not in gripper else None,
                gripper_closed=float(gripper.get("closed", 0)),
                gripper_open=float(gripper.get("open", 1)),
                gripper_button=int(gripper["button"]) if "button" in gripper else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise GenimaError(f"leader {path}: bad or missing field: {error!r}") from None
        leader._require_sensible(path, follower)
        return leader

    def _require_sensible(self, path: Path, follower: RobotModel) -> None:
        if len(self.joint_names) != len(follower.joint_names):
            raise GenimaError(
                f"leader {path} has {len(self.joint_names)} joints, {follower.name} has {len(follower.joint_names)}"
            )
        names = [*self.joint_names, *([self.gripper_joint] if self.gripper_joint else [])]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise GenimaError(f"leader {path} names twice: {', '.join(twice)}")
        numbers = (self.factor, self.offset, self.gripper_closed, self.gripper_open)
        if not all(np.all(np.isfinite(number)) for number in numbers) or np.any(self.factor == 0):
            raise GenimaError(f"leader {path}: every number must be finite, and sign and scale not 0")
        if self.gripper_button is not None and self.gripper_button < 0:
            raise GenimaError(f"leader {path}: the gripper's button counts from 0")
        if self.gripper_joint and self.gripper_closed == self.gripper_open:
            raise GenimaError(f"leader {path}: the gripper's closed and open must differ")

    def speaks_of_arm(self, names: Sequence[str]) -> bool:
        """Whether a joint state has any of the arm's joints: some drivers tell of the gripper apart."""
        return not set(names).isdisjoint(self.joint_names)

    def sample(
        self, stamp: float, names: Sequence[str], positions: Sequence[float], velocities: Sequence[float] = ()
    ) -> Sample:
        """A joint state of the leader, picked **by name**, in the follower's joints.

        Velocities that are not all there and finite are left out; positions outside the follower's range are clipped.

        Raises:
            GenimaError: when a joint is missing, named twice, without a value, or not finite.
        """
        raw = pick("leader", names, positions, self.joint_names)
        speeds = None
        if len(velocities) == len(names):
            speeds_by_name = dict(zip(names, velocities, strict=True))
            speeds = self.factor * np.array([speeds_by_name[name] for name in self.joint_names])
        there = np.clip(self.factor * raw + self.offset, self.position_min, self.position_max)
        return Sample(
            stamp,
            there,
            speeds if speeds is not None and bool(np.all(np.isfinite(speeds))) else None,
            self.gripper_in(names, positions),
        )

    def gripper_in(self, names: Sequence[str], positions: Sequence[float]) -> float | None:
        """The gripper's open fraction, 1 open .. 0 closed; None where a joint state does not tell."""
        if self.gripper_joint is None or self.gripper_joint not in names or len(positions) != len(names):
            return None
        position = positions[list(names).index(self.gripper_joint)]
        if not np.isfinite(position):
            return None
        return float(np.clip((position - self.gripper_closed) / (self.gripper_open - self.gripper_closed), 0, 1))
