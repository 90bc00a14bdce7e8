"""Driver of a Robotiq 2F-140, in the namespace `robotiq`: `ros2 launch genima_bringup robotiq.launch.py`.

robotiq_description's own robotiq_control.launch.py has the controllers of a 2F-85, and absolute names: in a graph with
an arm, both controller managers and both joint states would be called the same.
"""

from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from genima.cell import Cell
from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import BaseFrame, ForCell, xacro
from genima_bringup.launch_actions import GRAPH, NAMESPACE, REAL_CELL, check_arguments, environment
from launch import LaunchDescription, LaunchDescriptionEntity


def generate_launch_description() -> LaunchDescription:
    """Describe ros2_control with the gripper's hardware, its controllers, and its description."""
    return check_arguments(REAL_CELL | GRAPH, lambda: [*environment(), ForCell(_nodes)], checks.require_robotiq)


def _nodes(cell: Cell) -> list[LaunchDescriptionEntity]:
    grippers = PathJoinSubstitution([FindPackageShare("genima_bringup"), "config", "grippers"])
    namespace = PathJoinSubstitution([LaunchConfiguration(NAMESPACE), "robotiq"])
    model = PathJoinSubstitution([grippers, "robotiq_2f140.urdf.xacro"])
    port = cell.require_driver().com_port
    description = xacro([model], [" parent:=", BaseFrame(flange=True), f" com_port:={port}"])
    controllers = PathJoinSubstitution([grippers, "robotiq_2f140.controllers.yaml"])
    return [
        Node(
            package="robot_state_publisher",
            executable="robot_state_publisher",
            namespace=namespace,
            parameters=[{"robot_description": description}],
        ),
        Node(
            package="controller_manager",
            executable="ros2_control_node",
            namespace=namespace,
            parameters=[controllers],
            output="screen",
        ),
        Node(
            package="controller_manager",
            executable="spawner",
            namespace=namespace,
            arguments=[
                "joint_state_broadcaster",
                "robotiq_activation_controller",
                "robotiq_gripper_controller",
                "--controller-manager-timeout",
                "30",
            ],
            output="screen",
        ),
    ]
