"""A Robotiq 2F-140's driver, in the namespace `robotiq`: `ros2 launch genima_bringup robotiq.launch.py`.

robotiq_description's own robotiq_control.launch.py has the controllers of a 2F-85, and absolute names: in a graph with
an arm, both controller managers and both joint states would be called the same.
"""

from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import xacro
from genima_bringup.launch_actions import GRAPH, NAMESPACE, Argument, check_arguments, environment
from launch import LaunchDescription

ARGUMENTS = {
    "com_port": Argument(
        "/dev/ttyUSB0", "of the gripper's RS-485 adapter; /dev/serial/by-id/... does not change", checks.filled
    ),
    "parent": Argument("fr3_link8", "the arm's frame that it is mounted on", checks.frame),
    **GRAPH,
}


def generate_launch_description() -> LaunchDescription:
    """ros2_control with the gripper's hardware, its controllers, and its description."""
    grippers = PathJoinSubstitution([FindPackageShare("genima_bringup"), "config", "grippers"])
    namespace = PathJoinSubstitution([LaunchConfiguration(NAMESPACE), "robotiq"])
    model = PathJoinSubstitution([grippers, "robotiq_2f140.urdf.xacro"])
    arguments = [" parent:=", LaunchConfiguration("parent"), " com_port:=", LaunchConfiguration("com_port")]
    description = xacro([model], arguments)
    controllers = PathJoinSubstitution([grippers, "robotiq_2f140.controllers.yaml"])
    return check_arguments(
        ARGUMENTS,
        lambda: [
            *environment(),
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
        ],
    )
