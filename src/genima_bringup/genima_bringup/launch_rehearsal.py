"""Rehearsal of launch descriptions: find every error before anything is started.

An error in the middle of a launch ends `ros2 launch`, but not the processes that were started before it: an arm's
driver would stay, alone. So the first action of each of our launch files checks its arguments, and then walks through
all that will be launched, the launch files of other packages included, without starting anything.

Needs an installed ROS 2, as :mod:`genima_bringup.launch_actions`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ament_index_python.packages import PackageNotFoundError
from launch.action import Action
from launch.actions import (
    AppendEnvironmentVariable,
    DeclareLaunchArgument,
    ExecuteLocal,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    PopEnvironment,
    PopLaunchConfigurations,
    PushEnvironment,
    PushLaunchConfigurations,
    ResetEnvironment,
    ResetLaunchConfigurations,
    SetEnvironmentVariable,
    SetLaunchConfiguration,
    UnsetEnvironmentVariable,
    UnsetLaunchConfiguration,
)
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.substitutions import LocalSubstitution
from launch.utilities import perform_substitutions
from launch_ros.actions import Node, PushRosNamespace, SetParameter, SetParametersFromFile, SetRemap

from genima.errors import GenimaError
from genima.io.files import shorten
from genima.system.terminal import printable
from genima_bringup.argument_checks import Check, require

_rehearsing = False  # launch files within others are rehearsed with these


class RehearsedAction(Action):
    """Base class of our actions whose execution only returns other actions."""


_STRUCTURE = (
    AppendEnvironmentVariable, DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, OpaqueFunction,
    PopEnvironment, PopLaunchConfigurations, PushEnvironment, PushLaunchConfigurations, PushRosNamespace,
    RehearsedAction, ResetEnvironment, ResetLaunchConfigurations, SetEnvironmentVariable, SetLaunchConfiguration,
    SetParameter, SetParametersFromFile, SetRemap, UnsetEnvironmentVariable, UnsetLaunchConfiguration,
)  # fmt: skip


class Argument(NamedTuple):
    """Argument of a launch file."""

    default: SomeSubstitutionsType
    help: str
    check: Check
    choices: Sequence[str] | None = None  # None: anything that passes the check


def check_arguments(
    arguments: Mapping[str, Argument],
    entities: Callable[[], Sequence[LaunchDescriptionEntity]],
    together: Callable[[Mapping[str, str]], None] = lambda values: None,
) -> LaunchDescription:
    """Describe a launch that checks its arguments, files, packages and executables first.

    Args:
        arguments: by name.
        entities: makes what is launched; called twice, as entities keep what they have done.
        together: raises a GenimaError where arguments, by name, do not go together.
    """

    def check(context: LaunchContext) -> None:
        values = {name: context.launch_configurations[name] for name in arguments}
        for name, argument in arguments.items():
            require(name, values, argument.check)
        with _one_line():
            together(values)
            if not _rehearsing:
                _rehearse(entities(), context)

    return LaunchDescription([*_declare(arguments), OpaqueFunction(function=check), *entities()])


def _declare(arguments: Mapping[str, Argument]) -> list[DeclareLaunchArgument]:
    return [
        DeclareLaunchArgument(name, default_value=argument.default, description=argument.help, choices=argument.choices)
        for name, argument in arguments.items()
    ]


def _rehearse(entities: Sequence[LaunchDescriptionEntity], context: LaunchContext) -> None:
    global _rehearsing
    other = LaunchContext(argv=context.argv, noninteractive=context.noninteractive)
    other.launch_configurations.update(context.launch_configurations)
    _rehearsing = True
    try:
        for entity in entities:
            _visit(entity, other)
    finally:
        _rehearsing = False


def _visit(entity: LaunchDescriptionEntity, context: LaunchContext) -> None:
    if isinstance(entity, Action) and entity.condition is not None and not entity.condition.evaluate(context):
        return
    if isinstance(entity, ExecuteLocal):
        _try_process(entity, context)
    elif isinstance(entity, _STRUCTURE) or not isinstance(entity, Action):
        for below in entity.visit(context) or []:
            _visit(below, context)


def _try_process(process: ExecuteLocal, context: LaunchContext) -> None:
    """Raise what would be raised when it is started: a package or executable that is missing, a wrong parameter."""
    if isinstance(process, Node):
        process._create_params_file_from_dict = lambda parameters: __file__  # any file: it is never read
        process._perform_substitutions(context)
    command = [part for part in process.cmd if not any(isinstance(word, LocalSubstitution) for word in part)]
    words = [perform_substitutions(context, part) for part in command]
    if shutil.which(words[0]) is None:
        raise GenimaError(f"{words[0]} is not installed, or cannot be run")


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except GenimaError:
        raise
    except PackageNotFoundError as error:
        package = str(error.args[0] if error.args else error).split("'")[1::2][:1] or [str(error)]
        distribution = os.environ.get("ROS_DISTRO", "jazzy")
        raise GenimaError(
            f"the package {package[0]} is not installed; sudo apt install ros-{distribution}-"
            f"{package[0].replace('_', '-')}, build it, or leave out what needs it"
        ) from None
    except Exception as error:  # launch files of others raise anything
        raise GenimaError(f"cannot be launched: {printable(shorten(str(error), 400))}") from None
