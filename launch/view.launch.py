"""RViz on a robot that runs: `ros2 launch genima_bringup view.launch.py`.

Its model as measured and, as a ghost, as commanded; the cameras and what is drawn on them; the spheres where the
controller has read them; what the nodes complain about.
"""

from launch.conditions import IfCondition
from launch.substitutions import (
    LaunchConfiguration,
    PathJoinSubstitution,
)
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import xacro
from genima_bringup.launch_actions import GRAPH, NAMESPACE, Argument, check_arguments, environment, node, text
from genima_bringup.node_specs import markers
from launch import LaunchDescription

ROBOT = LaunchConfiguration("robot")
THEIRS = [PathJoinSubstitution([FindPackageShare("franka_description"), "robots", ROBOT, ROBOT]), ".urdf.xacro"]
ARGUMENTS = {
    "robot": Argument("fr3", "as franka_description and config/robots call it", checks.robot),
    "description": Argument(THEIRS, "the arm's, a xacro file that takes hand:=false", checks.filled),
    "describe": Argument(
        "false", "publish the robot's description and frames: true where no driver of it does", checks.flag
    ),
    "checkpoint": Argument(
        "", "whose spheres are shown; empty: the one that comes with the project", checks.checkpoint
    ),
    "rviz": Argument("true", "open RViz; false: only publish what it shows", checks.flag),
    **GRAPH,
}
GHOST = "commanded"  # the namespace of its description, and before its frames


def generate_launch_description() -> LaunchDescription:
    """RViz, what it shows beyond the robot's own topics, and the ghost."""
    namespace = LaunchConfiguration(NAMESPACE)
    description = xacro([LaunchConfiguration("description")], [" hand:=false"])
    config = PathJoinSubstitution([FindPackageShare("genima_bringup"), "config", "rviz", "real_robot.rviz"])
    return check_arguments(
        ARGUMENTS,
        lambda: [
            *environment(),
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
                parameters=[{"robot_description": description, "publish_frequency": 50.0, "frame_prefix": f"{GHOST}/"}],
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
        ],
        checks.require_view,
    )
