"""RViz on a robot that runs: `ros2 launch genima_bringup view.launch.py`.

Its model as measured and, as a ghost, as commanded; the cameras and what is drawn on them; the spheres where the
controller has read them; what the nodes complain about.
"""

from launch.conditions import IfCondition
from launch.substitutions import (
    AllSubstitution,
    Command,
    EqualsSubstitution,
    FindExecutable,
    LaunchConfiguration,
    PathJoinSubstitution,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from genima_bringup.including import refuse
from genima_bringup.launching import DDS, NAMESPACE, Argument, declare, environment, node, text
from genima_bringup.processes import markers
from launch import LaunchDescription

ROBOT = LaunchConfiguration("robot")
THEIRS = [PathJoinSubstitution([FindPackageShare("franka_description"), "robots", ROBOT, ROBOT]), ".urdf.xacro"]
ARGUMENTS = {
    "robot": Argument("fr3", "as franka_description and config/robots call it"),
    "description": Argument(THEIRS, "the arm's, a xacro file that takes hand:=false"),
    "describe": Argument("false", "publish the robot's description and frames: true where no driver of it does"),
    "checkpoint": Argument("", "whose spheres are shown; empty: the one that comes with the project"),
    "rviz": Argument("true", "open RViz; false: only publish what it shows"),
    NAMESPACE: Argument("", "of all topics: one for each of several arms"),
    DDS: Argument("shared_memory", "a profile in config/dds: shared_memory, or two_machines"),
}
GHOST = "commanded"  # the namespace of its description, and before its frames


def generate_launch_description() -> LaunchDescription:
    """RViz, what it shows beyond the robot's own topics, and the ghost."""
    namespace = LaunchConfiguration(NAMESPACE)
    xacro = [FindExecutable(name="xacro"), " ", LaunchConfiguration("description"), " hand:=false"]
    description = ParameterValue(Command(xacro), value_type=str)
    config = PathJoinSubstitution([FindPackageShare("genima_bringup"), "config", "rviz", "real_robot.rviz"])
    return LaunchDescription(
        [
            *declare(ARGUMENTS),
            *environment(),
            refuse(
                "franka_description has no robot whose joints are a Panda's: start view.launch.py robot:=panda with a "
                "xacro file that has, by description:=FILE",
                IfCondition(
                    AllSubstitution(
                        EqualsSubstitution(ROBOT, "panda"),
                        EqualsSubstitution(LaunchConfiguration("description"), THEIRS),
                    )
                ),
            ),
            node(markers(text("checkpoint"))),
            Node(
                package="robot_state_publisher",
                executable="robot_state_publisher",
                namespace=namespace,
                parameters=[{"robot_description": description, "publish_frequency": 50.0}],
                condition=IfCondition(LaunchConfiguration("describe")),
            ),
            Node(
                package="robot_state_publisher",
                executable="robot_state_publisher",
                namespace=PathJoinSubstitution([namespace, GHOST]),
                parameters=[
                    {"robot_description": description, "publish_frequency": 50.0, "frame_prefix": f"{GHOST}/"}
                ],
                remappings=[("joint_states", PathJoinSubstitution(["/", namespace, "joint_command"]))],
            ),
            Node(
                package="tf2_ros",
                executable="static_transform_publisher",
                name="commanded_base",
                namespace=namespace,
                arguments=["--frame-id", "base", "--child-frame-id", f"{GHOST}/base"],
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=namespace,  # the names in its file are relative
                arguments=["-d", config, "-f", [ROBOT, "_link0"]],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )
