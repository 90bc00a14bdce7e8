"""Leader-follower teleoperation with the recorder: `ros2 launch genima_bringup record.launch.py leader:=gello`.

Then `./genima record --instruction "..."` has the keys. Takes all arguments of teleop.launch.py as well.
"""

from launch.actions import IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, NotEqualsSubstitution, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from genima.cell import Cell
from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import ForCell
from genima_bringup.launch_actions import CELL, NAMESPACE, Argument, check_arguments, leader_topics, node, text
from genima_bringup.node_specs import NodeSpec, recorder
from launch import LaunchDescription, LaunchDescriptionEntity

ARGUMENTS = {
    **CELL,
    "folder": Argument("data/demos", "where the episodes go", checks.output_folder),
    "images": Argument(
        "jpeg", "how they are kept: jpeg, png (lossless) or raw", checks.anything, ["jpeg", "png", "raw"]
    ),
    "episode": Argument("", "show its first images over the live ones, to set the scene again", checks.episode),
    "rviz": Argument("false", "with episode: open RViz on them", checks.flag),
}


def generate_launch_description() -> LaunchDescription:
    """Describe teleop.launch.py, the recorder, and the nodes that show how to reset the scene."""
    share = FindPackageShare("genima_bringup")
    return check_arguments(
        ARGUMENTS,
        lambda: [
            IncludeLaunchDescription(PathJoinSubstitution([share, "launch", "teleop.launch.py"])),
            ForCell(_nodes),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=LaunchConfiguration(NAMESPACE, default=""),  # the names in its file are relative
                arguments=["-d", PathJoinSubstitution([share, "config", "rviz", "scene_reset.rviz"])],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ],
    )


def _nodes(cell: Cell) -> list[LaunchDescriptionEntity]:
    options = {name: text(name) for name in ("folder", "images")}  # texts, even where they look like numbers
    overlay = NodeSpec("genima_nodes", "scene_overlay", {"cell": cell.reference, "episode": text("episode")})
    return [
        node(recorder(cell, options, leader_topics())),
        node(overlay, IfCondition(NotEqualsSubstitution(LaunchConfiguration("episode"), ""))),
    ]
