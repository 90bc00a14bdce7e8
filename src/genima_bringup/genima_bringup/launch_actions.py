"""Shared parts of the launch files. Needs an installed ROS 2: the wheels have no `launch`."""

from __future__ import annotations

from collections.abc import Sequence

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch.actions import LogInfo, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.launch_context import LaunchContext
from launch.launch_description_entity import LaunchDescriptionEntity
from launch.some_substitutions_type import SomeSubstitutionsType
from launch.substitution import Substitution
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from genima.cell import ROS_DRIVER, SIMULATED
from genima.policy.diffusion_agent.sampling_options import CONTROLNET_EVERY, STEPS, STRENGTH
from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import include
from genima_bringup.launch_rehearsal import Argument, check_arguments
from genima_bringup.node_specs import ENVIRONMENT, SAMPLING_PARAMETERS, NodeSpec, Value

__all__ = ["Argument", "check_arguments"]

NAMESPACE, DDS = "namespace", "dds"
EASY_HANDEYE2 = "easy_handeye2"
CELL = {"cell": Argument(SIMULATED, "robot cell: a name in config/cells, or a YAML file", checks.cell)}
REAL_CELL = {"cell": Argument(ROS_DRIVER, "cell of a real robot: a name in config/cells, or a YAML file", checks.cell)}
GRAPH = {  # arguments of the launch files that start nodes
    NAMESPACE: Argument("", "of all topics: one for each of several arms", checks.namespace),
    DDS: Argument("shared_memory", "a profile in config/dds: shared_memory, or two_machines", checks.dds),
}

_DRAWING_CHECKS = {
    "steps": checks.integer(0, STEPS[1]),  # 0: the checkpoint's
    "strength": checks.number(*STRENGTH),
    "controlnet_every": checks.integer(*CONTROLNET_EVERY),
    "tiny_decoder": checks.anything,
}
DRAWING = {
    name: Argument(str(shortcut.default), shortcut.help, _DRAWING_CHECKS[name])
    for name, shortcut in SAMPLING_PARAMETERS.items()
}


def text(name: str) -> ParameterValue:
    """An argument as a parameter that stays a text, even where it looks like a number."""
    return ParameterValue(LaunchConfiguration(name), value_type=str)


def sampling_arguments() -> dict[str, Value]:
    """The arguments ``DRAWING`` as parameters of diffusion_agent."""
    return {
        name: text(name) if isinstance(shortcut.default, str) else LaunchConfiguration(name)
        for name, shortcut in SAMPLING_PARAMETERS.items()
    }


def leader_topics() -> dict[str, LaunchConfiguration]:
    """The arguments that say where a leader speaks, by our names of these topics."""
    arguments = {"leader/joint_states": "leader_joints", "leader/gripper": "leader_gripper", "leader/joy": "leader_joy"}
    return {topic: LaunchConfiguration(name) for topic, name in arguments.items()}


def environment() -> list[SetEnvironmentVariable]:
    """Make the variables that all nodes need; the argument ``dds`` names a profile in config/dds."""
    name = LaunchConfiguration(DDS)
    profile = [PathJoinSubstitution([FindPackageShare("genima_bringup"), "config", "dds", name]), ".xml"]
    return [
        SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile),  # tiles are lost in the default one
        *(
            SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
            for name, value in ENVIRONMENT.items()
        ),
    ]


def easy_handeye2(
    view: Substitution, kind: Substitution, base: Substitution, effector: Substitution, condition: IfCondition
) -> OpaqueFunction:
    """easy_handeye2's own calibration, of the board that the calibrator tells on `/tf`; a word where it is missing.

    ``kind`` is eye_in_hand or eye_on_base; ``base`` and ``effector`` are the robot's frames.
    """

    def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        try:
            get_package_share_directory(EASY_HANDEYE2)
        except PackageNotFoundError:
            return [LogInfo(msg=f"{EASY_HANDEYE2} is not installed; the calibrator does without it")]
        arguments = {
            "name": view,
            "calibration_type": kind,
            "tracking_base_frame": [view, "_link"],
            "tracking_marker_frame": [view, "_board"],
            "robot_base_frame": base,
            "robot_effector_frame": effector,
        }
        return [include(EASY_HANDEYE2, "calibrate.launch.py", arguments)]

    return OpaqueFunction(function=start, condition=condition)


def node(
    process: NodeSpec,
    condition: IfCondition | None = None,
    remappings: Sequence[tuple[SomeSubstitutionsType, SomeSubstitutionsType]] = (),
) -> Node:
    """A process as a node, in the namespace that the launch file's argument says; ``remappings`` go beyond its own."""
    return Node(
        package=process.package,
        executable=process.executable,
        name=process.name or None,
        namespace=LaunchConfiguration(NAMESPACE, default=""),
        parameters=[{name: _value(value) for name, value in process.parameters.items()}] if process.parameters else [],
        remappings=[*process.remappings.items(), *remappings],
        condition=condition,
        output="screen",
    )


def _value(value: SomeSubstitutionsType | ParameterValue) -> SomeSubstitutionsType | ParameterValue:
    """A text stays a text, even where it looks like a number, or is empty."""
    return ParameterValue(value, value_type=str) if isinstance(value, str) else value
