"""Names of the objects of a scene: ``config/coppeliasim/*.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import FileSchema, Pixels, Text, load_yaml
from genima.robot.model import GripperTravel, JointName, RobotModel
from genima.system.ros_names import RosName


class Fingers(GripperTravel):
    """Joints of a parallel gripper, which move alike."""

    joints: Annotated[tuple[Text, ...], Field(strict=False, min_length=1, max_length=16)]


class _SceneFields(FileSchema):
    file: Annotated[str, Field(max_length=1000)]
    time_step: Annotated[float, Field(ge=1e-3, le=1)]
    joints: dict[JointName, Text]
    gripper: Fingers
    cameras: Annotated[dict[RosName, Text], Field(min_length=1, max_length=64)]
    image_size: Annotated[tuple[Pixels, Pixels], Field(strict=False)]
    objects: dict[Text, Text]
    tasks: dict[Text, Text]
    script: Annotated[str, Field(max_length=1000)]


@dataclass(frozen=True)
class SceneNames:
    """Names of objects, as paths for ``sim.getObject``."""

    file: str  # opened at the start; empty: the scene that is open
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
        path = paths.config_file(name_or_file, "config", "coppeliasim")
        names = cls(**dict(load_yaml(_SceneFields, path, "scene names")))
        if set(names.joints) != set(robot.joint_names):
            raise GenimaError(
                f"scene names {path}: joints do not fit robot {robot.name} ({', '.join(names.joints) or 'none'}); "
                f"name {', '.join(robot.joint_names)}"
            )
        return names

    def require_task(self, task: str) -> None:
        """Raise a GenimaError for a task without an instruction."""
        if task not in self.tasks:
            raise GenimaError(f"task {task!r}: unknown; known in the scene: {', '.join(self.tasks) or 'none'}")
