"""RViz on a running robot: `ros2 launch genima_bringup view.launch.py cell:=mine.yaml`.

The robot as measured and, as a ghost, as commanded; the cameras and the drawn targets; the decoded target spheres; the
faults of the nodes.
"""

from launch.conditions import IfCondition
from launch.substitutions import (
    LaunchConfiguration,
    PathJoinSubstitution,
)
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import BaseFrame, RobotArm, xacro
from genima_bringup.launch_actions import (
    GRAPH,
    NAMESPACE,
    REAL_CELL,
    Argument,
    check_arguments,
    environment,
    node,
    text,
)
from genima_bringup.node_specs import markers
from launch import LaunchDescription

ARM = RobotArm()
THEIRS = [PathJoinSubstitution([FindPackageShare("franka_description"), "robots", ARM, ARM]), ".urdf.xacro"]
ARGUMENTS = {
    **REAL_CELL,
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
    """Describe RViz, the nodes that it needs in addition to the robot's, and the ghost."""
    namespace = LaunchConfiguration(NAMESPACE)
    description = xacro([LaunchConfiguration("description")], [" hand:=false"])
    config = PathJoinSubstitution([FindPackageShare("genima_bringup"), "config", "rviz", "real_robot.rviz"])
    return check_arguments(
        ARGUMENTS,
        lambda: [
            *environment(),
            node(markers(text("cell"), text("checkpoint"))),
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
                arguments=["-d", config, "-f", BaseFrame()],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ],
        checks.require_view,
    )
