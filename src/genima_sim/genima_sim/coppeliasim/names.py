"""What the objects of a scene are called: ``config/coppeliasim/*.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from genima import paths
from genima.errors import GenimaError
from genima.files import FileSchema, Finite, Pixels, Positive, Text, read_yaml, validate
from genima.names import RosName
from genima.robot.model import RobotModel


class _GripperSchema(FileSchema):
    joints: Annotated[list[Text], Field(min_length=1, max_length=100)]
    open: Finite
    closed: Finite


class _SceneNamesSchema(FileSchema):
    file: str
    time_step: Annotated[Positive, Field(le=1)]
    joints: dict[Text, Text]
    gripper: _GripperSchema
    cameras: Annotated[dict[RosName, Text], Field(min_length=1, max_length=100)]
    image_size: Annotated[list[Pixels], Field(min_length=2, max_length=2)]
    objects: dict[Text, Text]
    tasks: dict[Text, Text]
    script: str


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
        names = cls._read(read_yaml(path, "the scene's names"), f"the scene's names {path}")
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
    def _read(cls, data: Any, what: str) -> SceneNames:
        said = validate(_SceneNamesSchema, data, what)
        width, height = said.image_size
        fingers = Fingers(tuple(said.gripper.joints), said.gripper.open, said.gripper.closed)
        if fingers.open == fingers.closed:
            raise GenimaError(f"{what}: the gripper's open and closed must differ ({fingers.open:g})")
        return cls(
            said.file, said.time_step, said.joints, fingers, said.cameras, (width, height), said.objects, said.tasks,
            said.script,
        )  # fmt: skip
