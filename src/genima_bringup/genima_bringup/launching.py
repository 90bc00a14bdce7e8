"""What the launch files share. Needs an installed ROS 2: the wheels have no `launch`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from genima_bringup.processes import ENVIRONMENT, Process

NAMESPACE = "namespace"


class Argument(NamedTuple):
    """Of a launch file."""

    default: str
    help: str


def declare(arguments: Mapping[str, Argument]) -> list[DeclareLaunchArgument]:
    """The arguments of a launch file, by name."""
    return [
        DeclareLaunchArgument(name, default_value=argument.default, description=argument.help)
        for name, argument in arguments.items()
    ]


def environment() -> list[SetEnvironmentVariable]:
    """What all nodes need."""
    profile = PathJoinSubstitution([FindPackageShare("genima_bringup"), "config", "dds", "shared_memory.xml"])
    return [
        SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile),  # tiles are lost in the default one
        *(
            SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
            for name, value in ENVIRONMENT.items()
        ),
    ]


def node(process: Process, condition: IfCondition | None = None) -> Node:
    """A process as a node, in the namespace that the launch file's argument says."""
    return Node(
        package=process.package,
        executable=process.executable,
        namespace=LaunchConfiguration(NAMESPACE, default=""),
        parameters=[process.parameters] if process.parameters else [],
        remappings=list(process.remappings.items()),
        condition=condition,
        output="screen",
    )
