"""What the objects of a scene are called: ``config/coppeliasim/*.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from genima import paths
from genima.errors import GenimaError
from genima.files import read_yaml
from genima.robot.model import RobotModel


@dataclass(frozen=True)
class Fingers:
    """Of a parallel gripper, all moving alike."""

    joints: tuple[str, ...]
    open: float  # m or rad
    closed: float


@dataclass(frozen=True)
class SceneNames:
    """Objects are paths as ``sim.getObject`` takes them."""

    file: str  # to open at start; empty: the scene that is open
    time_step: float  # s
    joints: Mapping[str, str]  # by the robot model's names, in its order
    gripper: Fingers
    cameras: Mapping[str, str]  # by view
    image_size: tuple[int, int]  # px, width and height
    objects: Mapping[str, str]  # by name
    tasks: Mapping[str, str]  # their instructions, by name
    script: str  # empty: none

    @classmethod
    def load(cls, name_or_file: str | Path, robot: RobotModel) -> SceneNames:
        """Read ``config/coppeliasim/<name>.yaml`` or a YAML file.

        Raises:
            GenimaError: for a missing file, for missing, unknown or malformed fields, and for joints that are not the
                robot's.
        """
        path = paths.named(name_or_file, "config", "coppeliasim")
        data = read_yaml(path, "scene's names file")
        try:
            names = cls._read(data)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GenimaError(f"the scene's names {path}: {error}") from None
        if set(names.joints) != set(robot.joint_names):
            raise GenimaError(
                f"the scene's names {path} have {len(names.joints)} joints, {', '.join(names.joints) or 'none'}; "
                f"{robot.name} has {len(robot.joint_names)}, {', '.join(robot.joint_names)}"
            )
        return names

    def require_task(self, task: str) -> None:
        """Raise a GenimaError for a task without an instruction."""
        if task not in self.tasks:
            raise GenimaError(f"unknown task {task!r}; the scene's names know {', '.join(self.tasks) or 'none'}")

    @classmethod
    def _read(cls, data: Any) -> SceneNames:
        known = [field.name for field in fields(cls)]
        if not isinstance(data, Mapping) or set(data) != set(known):
            raise ValueError(f"the fields are {', '.join(known)}, not {', '.join(data or ['none'])}")
        gripper, (width, height) = data["gripper"], data["image_size"]
        fingers = Fingers(tuple(map(str, gripper["joints"])), float(gripper["open"]), float(gripper["closed"]))
        if not fingers.joints or fingers.open == fingers.closed:
            raise ValueError("the gripper needs joints, and open that is not closed")
        if not float(data["time_step"]) > 0 or min(int(width), int(height)) < 1 or not data["cameras"]:
            raise ValueError("time_step and image_size must be positive, and there must be cameras")
        texts = {key: _texts(data[key]) for key in ("joints", "cameras", "objects", "tasks")}
        file, script = str(data["file"]), str(data["script"])
        return cls(
            file=file, time_step=float(data["time_step"]), gripper=fingers, image_size=(int(width), int(height)),
            script=script, **texts,
        )  # fmt: skip


def _texts(data: Mapping[Any, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in data.items()}
