"""Launch actions that include the drivers of other packages. Needs an installed ROS 2."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence

from ament_index_python.packages import PackageNotFoundError
from launch.actions import (
    GroupAction,
    IncludeLaunchDescription,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
    ResetLaunchConfigurations,
)
from launch.condition import Condition
from launch.launch_context import LaunchContext
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.substitution import Substitution
from launch.substitutions import Command, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import SetRemap
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from genima.cameras.calibration_file import Frames
from genima.cell import load_cell
from genima_bringup.launch_rehearsal import RehearsedAction


def include(
    package: str,
    file: str,
    arguments: Mapping[str, SomeSubstitutionsType],
    remappings: Mapping[str, str] | None = None,
    condition: Condition | None = None,
) -> GroupAction:
    """Include a package's launch file with these arguments alone: some take all that they find for their own.

    ``remappings`` hold for all nodes in it, or with `NODE:` before a topic for those of that name. A controller manager
    hands its own on to its controllers, where they go before those that the controllers' spawners give.
    """
    source = PathJoinSubstitution([FindPackageShare(package), "launch", file])
    passed = [(name, LaunchConfiguration(name)) for name in arguments]
    return GroupAction(
        [
            PushLaunchConfigurations(),  # but not the environment: all processes need the same DDS profile
            ResetLaunchConfigurations(dict(arguments)),
            *(SetRemap(topic, other) for topic, other in (remappings or {}).items()),
            IncludeLaunchDescription(source, launch_arguments=passed),
            PopLaunchConfigurations(),
        ],
        scoped=False,
        condition=condition,
    )


class ForCell(RehearsedAction):
    """Launch the entities that ``make`` returns for the cell of the launch argument ``cell``.

    The argument ``robot_ip``, where there is one, takes the place of the cell's. ``make`` gets the values of further
    ``arguments`` after the cell.
    """

    def __init__(self, make: Callable[..., Sequence[LaunchDescriptionEntity]], *arguments: str) -> None:
        super().__init__()
        self._make, self._arguments = make, arguments

    def execute(self, context: LaunchContext) -> list[LaunchDescriptionEntity]:
        """Raises:
        GenimaError: for a missing or malformed file.
        """
        values = context.launch_configurations
        cell = load_cell(values["cell"]).with_robot_ip(values.get("robot_ip", ""))
        return list(self._make(cell, *(values[name] for name in self._arguments)))


class Executable(Substitution):
    """Path of an executable."""

    def __init__(self, name: str, package: str) -> None:
        """``package`` is the ROS package that has it."""
        super().__init__()
        self._name, self._package = name, package

    def perform(self, context: LaunchContext) -> str:
        """Raises:
        PackageNotFoundError: where it is not installed.
        """
        if (path := shutil.which(self._name)) is None:
            raise PackageNotFoundError(f"'{self._package}'")
        return path


def xacro(file: Sequence[SomeSubstitutionsType], arguments: Sequence[SomeSubstitutionsType]) -> ParameterValue:
    """Return a robot's description from a xacro file; warnings of xacro do not end the launch."""
    command = Command([Executable("xacro", "xacro"), ' "', *file, '"', *arguments], on_stderr="warn")
    return ParameterValue(command, value_type=str)


class RobotArm(Substitution):
    """Name of the arm of the cell's robot, as franka_description calls it."""

    def perform(self, context: LaunchContext) -> str:
        """Raises:
        GenimaError: for a missing or malformed file.
        """
        return load_cell(context.launch_configurations["cell"]).robot.arm


class BaseFrame(Substitution):
    """Frame of the base of the cell's robot, or with ``flange`` that of its flange, as franka_description calls it."""

    def __init__(self, flange: bool = False) -> None:
        super().__init__()
        self._flange = flange

    def perform(self, context: LaunchContext) -> str:
        """Raises:
        GenimaError: for a missing or malformed file.
        """
        robot = load_cell(context.launch_configurations["cell"]).robot
        return Frames.of(robot, "flange" if self._flange else "base", "").parent
