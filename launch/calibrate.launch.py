"""Calibration of a camera: `ros2 launch genima_bringup calibrate.launch.py view:=front parent:=base`.

The drivers of arm and camera run already; `sim:=true` starts simulated ones, with a board. Then
`./genima calibrate live` takes the keys. The arm never moves by itself before the service `calibrator/auto` is called,
nor without the command guard.
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

from genima.cell import Cell
from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import BaseFrame, ForCell
from genima_bringup.launch_actions import (
    CELL,
    GRAPH,
    NAMESPACE,
    Argument,
    check_arguments,
    easy_handeye2,
    environment,
    node,
    text,
)
from genima_bringup.node_specs import TELEOP_RATE, calibrator, command_guard, simulator_with_board
from launch import LaunchDescription, LaunchDescriptionEntity

TEXTS = {
    "view": Argument("front", "the camera", checks.view),
    "parent": Argument(
        "base",
        "what carries the camera: base or flange; the other one carries the board",
        checks.anything,
        ["base", "flange"],
    ),
    "board": Argument("", "YAML file of the board; empty: calibration/boards/charuco_7x5_a4.yaml", checks.board),
    "calibration": Argument("calibration/mine", "folder that <view>.yaml is written to", checks.filled),
    "samples": Argument("", "folder of the samples; empty: data/calibration/<view>", checks.anything),
}
COLOR = ["cameras/", LaunchConfiguration("view"), "/color/"]
TOPICS = {
    "image": Argument([*COLOR, "image_raw"], "topic of the camera's images", checks.topic),
    "camera_info": Argument([*COLOR, "camera_info"], "topic of its camera_info", checks.topic),
    "joint_states": Argument("joint_states", "topic of the measured joints", checks.topic),
}
OTHERS = {
    **CELL,
    **GRAPH,
    "speed": Argument("0.15", "of the arm's own, while it moves by itself", checks.number(0.01, 1)),
    "guard": Argument(
        "false", "start the command guard, without which nothing moves the arm; where none runs yet", checks.flag
    ),
    "sim": Argument("false", "simulate arm, camera and board, with the guard", checks.flag),
    "rviz": Argument("false", "open RViz on the live view and the frames", checks.flag),
    "easy_handeye2": Argument("false", "start easy_handeye2 as well, where that is installed", checks.flag),
    "robot_base_frame": Argument(
        BaseFrame(), "the robot's base in tf, for the calibration and easy_handeye2", checks.frame
    ),
    "robot_effector_frame": Argument(
        BaseFrame(flange=True), "the robot's flange in tf, for the calibration and easy_handeye2", checks.frame
    ),
}


def generate_launch_description() -> LaunchDescription:
    """Describe the calibrator, and with `sim` a simulated robot."""
    rviz = PathJoinSubstitution([FindPackageShare("genima_bringup"), "config", "rviz", "calibrate.rviz"])
    return check_arguments(
        TEXTS | TOPICS | OTHERS,
        lambda: [
            *environment(),
            ForCell(_nodes),
            easy_handeye2(
                LaunchConfiguration("view"),
                IfElseSubstitution(_on_flange(), "eye_in_hand", "eye_on_base"),
                LaunchConfiguration("robot_base_frame"),
                LaunchConfiguration("robot_effector_frame"),
                IfCondition(LaunchConfiguration("easy_handeye2")),
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                namespace=LaunchConfiguration(NAMESPACE),  # the names in its file are relative
                arguments=["-d", rviz, "-f", BaseFrame()],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ],
        checks.require_calibration,
    )


def _on_flange() -> EqualsSubstitution:
    return EqualsSubstitution(LaunchConfiguration("parent"), "flange")


def _nodes(cell: Cell) -> list[LaunchDescriptionEntity]:
    texts = {name: text(name) for name in TEXTS}  # even where they look like numbers
    frames = {"base_frame": text("robot_base_frame"), "flange_frame": text("robot_effector_frame")}
    sim, guard = LaunchConfiguration("sim"), LaunchConfiguration("guard")
    place = IfElseSubstitution(_on_flange(), "table", "gripper")
    board = simulator_with_board(cell, texts["view"], place, texts["board"]) if cell.simulator else []
    topics = [(topic.default, LaunchConfiguration(name)) for name, topic in TOPICS.items()]
    return [
        node(calibrator(cell, **texts, speed=LaunchConfiguration("speed"), **frames), remappings=topics),
        node(command_guard(cell, TELEOP_RATE), IfCondition(OrSubstitution(guard, sim))),
        *(node(spec, IfCondition(sim)) for spec in board),
    ]
