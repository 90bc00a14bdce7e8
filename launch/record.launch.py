"""A follower that mirrors a leader, and the recorder: `ros2 launch genima_bringup record.launch.py leader:=gello`.

Then `./genima record --instruction "..."` has the keys. Takes all arguments of teleop.launch.py as well.
"""

from launch.actions import IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, NotEqualsSubstitution, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from genima_bringup import argument_checks as checks
from genima_bringup.launch_actions import NAMESPACE, Argument, check_arguments, leader_topics, node, text
from genima_bringup.node_specs import NodeSpec
from launch import LaunchDescription

RECORDER = {
    "robot": Argument("panda", "the follower: a name in config/robots, or a YAML file", checks.robot),
    "folder": Argument("data/demos", "where the episodes go", checks.output_folder),
    "views": Argument(
        "[wrist, front, right_shoulder, left_shoulder]", "the cameras, as in four_d415.yaml", checks.views
    ),
    "images": Argument(
        "jpeg", "how they are kept: jpeg, png (lossless) or raw", checks.anything, ["jpeg", "png", "raw"]
    ),
    "calibration": Argument(
        "", "of the cameras, to be kept beside: a name in calibration, or a folder", checks.calibration
    ),
}
OTHERS = {
    "episode": Argument("", "show its first images over the live ones, to set the scene again", checks.episode),
    "rviz": Argument("false", "with episode: open RViz on them", checks.flag),
}


def generate_launch_description() -> LaunchDescription:
    """teleop.launch.py, the recorder, and what sets the scene again."""
    share = FindPackageShare("genima_bringup")
    recorder = {name: LaunchConfiguration(name) for name in RECORDER}
    for name in ("robot", "folder", "images", "calibration"):  # texts, even where they look like numbers
        recorder[name] = text(name)
    overlay = {"episode": text("episode"), "views": recorder["views"]}
    given = IfCondition(NotEqualsSubstitution(LaunchConfiguration("episode"), ""))
    return check_arguments(
        RECORDER | OTHERS,
        lambda: [
            IncludeLaunchDescription(PathJoinSubstitution([share, "launch", "teleop.launch.py"])),
            node(NodeSpec("genima_nodes", "recorder", recorder, leader_topics())),
            node(NodeSpec("genima_nodes", "scene_overlay", overlay), given),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=LaunchConfiguration(NAMESPACE, default=""),  # the names in its file are relative
                arguments=["-d", PathJoinSubstitution([share, "config", "rviz", "scene_reset.rviz"])],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ],
    )
