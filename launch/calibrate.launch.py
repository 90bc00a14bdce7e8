"""Calibrates a camera: `ros2 launch genima_bringup calibrate.launch.py view:=front parent:=base`.

The drivers of arm and camera run already; `sim:=true` brings simulated ones, with a board. Then
`./genima calibrate live` has the keys. The arm never moves by itself before `calibrator/auto` is asked to, nor without
the command guard.
"""

from launch.conditions import IfCondition
from launch.substitutions import (
    EqualsSubstitution,
    IfElseSubstitution,
    LaunchConfiguration,
    OrSubstitution,
    PathJoinSubstitution,
)
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from genima_bringup.launching import NAMESPACE, Argument, declare, easy_handeye2, environment, node, text
from genima_bringup.processes import calibrator, guard, simulator_with_board
from launch import LaunchDescription

TEXTS = {
    "view": Argument("front", "the camera"),
    "parent": Argument("base", "what carries the camera: base or flange; the other one carries the board"),
    "board": Argument("", "YAML file of the board; empty: calibration/boards/charuco_7x5_a4.yaml"),
    "robot": Argument("panda", "a name in config/robots, or a YAML file"),
    "calibration": Argument("calibration/mine", "folder that <view>.yaml is written to"),
    "samples": Argument("", "folder of the samples; empty: data/calibration/<view>"),
}
COLOR = ["cameras/", LaunchConfiguration("view"), "/color/"]
TOPICS = {
    "image": Argument([*COLOR, "image_raw"], "topic of the camera's images"),
    "camera_info": Argument([*COLOR, "camera_info"], "topic of what its driver says of the lens"),
    "joint_states": Argument("joint_states", "topic of the measured joints"),
}
OTHERS = {
    NAMESPACE: Argument("", "of the robot's topics"),
    "speed": Argument("0.15", "of the arm's own, while it moves by itself"),
    "guard": Argument("false", "start the command guard, without which nothing moves the arm; where none runs yet"),
    "sim": Argument("false", "simulate arm, camera and board, with the guard"),
    "rviz": Argument("false", "open RViz on the live view and the frames"),
    "easy_handeye2": Argument("false", "start easy_handeye2 beside it, where that is installed"),
    "robot_base_frame": Argument("panda_link0", "for easy_handeye2"),
    "robot_effector_frame": Argument("panda_link8", "for easy_handeye2"),
}


def generate_launch_description() -> LaunchDescription:
    """The nodes of `genima_bringup.processes.calibrator`."""
    said = {name: LaunchConfiguration(name) for name in TEXTS | TOPICS | OTHERS}
    texts = {name: text(name) for name in TEXTS}  # even where they look like numbers
    (process,) = calibrator(**texts, speed=said["speed"])
    on_flange = EqualsSubstitution(said["parent"], "flange")
    place = IfElseSubstitution(on_flange, "table", "gripper")
    simulated = IfCondition(said["sim"])
    rviz = PathJoinSubstitution([FindPackageShare("genima_bringup"), "config", "rviz", "calibrate.rviz"])
    return LaunchDescription(
        [
            *declare(TEXTS | TOPICS | OTHERS),
            *environment(),
            node(process, remappings=[(topic.default, said[name]) for name, topic in TOPICS.items()]),
            node(guard(said["robot"]), IfCondition(OrSubstitution(said["guard"], said["sim"]))),
            *(node(each, simulated) for each in simulator_with_board(texts["view"], place, texts["board"])),
            easy_handeye2(
                said["view"],
                IfElseSubstitution(on_flange, "eye_in_hand", "eye_on_base"),
                said["robot_base_frame"],
                said["robot_effector_frame"],
                IfCondition(said["easy_handeye2"]),
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", rviz],
                condition=IfCondition(said["rviz"]),
            ),
        ]
    )
