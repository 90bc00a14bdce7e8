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
from genima.policy.chunk_sampling_options import MAX_SPREAD, SAMPLER_STEPS, SAMPLES
from genima.policy.diffusion_agent.sampling_options import CONTROLNET_EVERY, STEPS, STRENGTH
from genima.policy.names import GENIMA
from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import include
from genima_bringup.launch_rehearsal import Argument, check_arguments
from genima_bringup.node_specs import (
    CHUNK_SAMPLING_PARAMETERS,
    ENVIRONMENT,
    SAMPLING_PARAMETERS,
    NodeSpec,
    PolicyArguments,
    Value,
)

__all__ = ["Argument", "check_arguments"]

NAMESPACE, DDS = "namespace", "dds"
EASY_HANDEYE2 = "easy_handeye2"
CELL = {"cell": Argument(SIMULATED, "robot cell: a name in config/cells, or a YAML file", checks.cell)}
REAL_CELL = {"cell": Argument(ROS_DRIVER, "cell of a real robot: a name in config/cells, or a YAML file", checks.cell)}
GRAPH = {  # arguments of the launch files that start nodes
    NAMESPACE: Argument("", "of all topics: one for each of several arms", checks.namespace),
    DDS: Argument("shared_memory", "a profile in config/dds: shared_memory, or two_machines", checks.dds),
}

POLICY = {
    "policy": Argument(
        GENIMA,
        "genima or act (of checkpoint), expert, replay (of episode), yours, or a server (ws://host:8000)",
        checks.policy,
    ),
    "checkpoint": Argument("", "folder of a trained policy; empty: the models of Genima", checks.anything),
    "episode": Argument("", "folder of the episode that policy:=replay replays", checks.episode),
}

_SAMPLING_CHECKS = {
    "steps": checks.integer(0, STEPS[1]),  # 0: the checkpoint's
    "strength": checks.number(*STRENGTH),
    "controlnet_every": checks.integer(*CONTROLNET_EVERY),
    "tiny_decoder": checks.anything,
}
_CHUNK_SAMPLING_CHECKS = {
    "sampler": checks.sampler,
    "sampler_steps": checks.integer(*SAMPLER_STEPS),
    "real_time_chunking": checks.flag,
    "samples": checks.integer(*SAMPLES),
    "max_spread": checks.number(*MAX_SPREAD),
}
SAMPLING = {
    name: Argument(str(option.default), option.help, (_SAMPLING_CHECKS | _CHUNK_SAMPLING_CHECKS)[name])
    for name, option in (SAMPLING_PARAMETERS | CHUNK_SAMPLING_PARAMETERS).items()
}


def text(name: str) -> ParameterValue:
    """Return an argument as a parameter that stays a text, even where it looks like a number."""
    return ParameterValue(LaunchConfiguration(name), value_type=str)


def policy_arguments(name: str, device: Value = "cpu", seed: Value = 0) -> PolicyArguments:
    """Return a policy whose parameters are the arguments ``POLICY`` and ``SAMPLING``."""
    sampling, chunk_sampling = (
        {
            option: text(option) if isinstance(described.default, str) else LaunchConfiguration(option)
            for option, described in described_options.items()
        }
        for described_options in (SAMPLING_PARAMETERS, CHUNK_SAMPLING_PARAMETERS)
    )
    return PolicyArguments(name, text("checkpoint"), text("episode"), device, seed, sampling, chunk_sampling)


def leader_topics() -> dict[str, LaunchConfiguration]:
    """Return the launch arguments with the topics of a leader, by our names of these topics."""
    arguments = {"leader/joint_states": "leader_joints", "leader/gripper": "leader_gripper", "leader/joy": "leader_joy"}
    return {topic: LaunchConfiguration(name) for topic, name in arguments.items()}


def environment() -> list[SetEnvironmentVariable]:
    """Set the environment variables of all nodes; the argument ``dds`` names a profile in config/dds."""
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
    """Start easy_handeye2's own calibration of the board that the calibrator publishes on `/tf`, where it is installed.

    ``kind`` is eye_in_hand or eye_on_base; ``base`` and ``effector`` are the robot's frames.
    """

    def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
        try:
            get_package_share_directory(EASY_HANDEYE2)
        except PackageNotFoundError:
            return [LogInfo(msg=f"{EASY_HANDEYE2}: not installed; the calibrator runs without it")]
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
    spec: NodeSpec,
    condition: IfCondition | None = None,
    remappings: Sequence[tuple[SomeSubstitutionsType, SomeSubstitutionsType]] = (),
) -> Node:
    """Return the launch action of a node, in the namespace of the launch argument; ``remappings`` add to its own."""
    return Node(
        package=spec.package,
        executable=spec.executable,
        name=spec.name or None,
        namespace=LaunchConfiguration(NAMESPACE, default=""),
        parameters=[{name: _value(value) for name, value in spec.parameters.items()}] if spec.parameters else [],
        remappings=[*spec.remappings.items(), *remappings],
        condition=condition,
        output="screen",
    )


def _value(value: SomeSubstitutionsType | ParameterValue) -> SomeSubstitutionsType | ParameterValue:
    """Return a parameter's value; a text stays one, even where it looks like a number, or is empty."""
    return ParameterValue(value, value_type=str) if isinstance(value, str) else value
