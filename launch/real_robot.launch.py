"""A real Franka arm with its cameras and gripper, and Genima's policy:
`ros2 launch genima_bringup real_robot.launch.py robot_ip:=172.16.0.2 cameras:=mine.yaml checkpoint:=runs/mine`.

With `policy:=false` on the robot's machine and `hardware:=false` on that with the GPU it runs on two; the cameras may
be at either (`camera_driver:=none` at the other). docs/real_robot.md says what else that needs.
"""

import sys

from launch.actions import ExecuteProcess
from launch.conditions import IfCondition
from launch.substitutions import (
    AllSubstitution,
    AnySubstitution,
    EqualsSubstitution,
    IfElseSubstitution,
    LaunchConfiguration,
    NotEqualsSubstitution,
    NotSubstitution,
    PathJoinSubstitution,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import OfBackend, Views, include
from genima_bringup.launch_actions import (
    DDS,
    DRAWING,
    GRAPH,
    NAMESPACE,
    Argument,
    check_arguments,
    environment,
    node,
    sampling_arguments,
    text,
)
from genima_bringup.node_specs import (
    CLOCK_WATCH,
    RECOVERY,
    TASK_RUNNER,
    NodeSpec,
    adapters,
    camera_watch,
    own_drivers,
    policy,
    safety_nodes,
)
from launch import LaunchDescription, LaunchDescriptionEntity

FRANKA_ROS2, OURS, ELSEWHERE = ("crisp", "gello", "jtc"), "franka_arm", "multipanda"
ARGUMENTS = {
    "robot": Argument("fr3", "the arm", checks.anything, ["fr3", "panda"]),
    "robot_ip": Argument("172.16.0.2", "its address, or name", checks.host),
    "backend": Argument(
        "crisp",
        "who follows set-points: a controller under franka_ros2 (crisp, gello, jtc), our own driver over pylibfranka "
        "(franka_arm), or multipanda_ros2, started on a machine of its own (multipanda)",
        checks.anything,
        [*FRANKA_ROS2, OURS, ELSEWHERE],
    ),
    "gripper": Argument(
        "robotiq_2f140", "a name in config/backends", checks.anything, ["robotiq_2f140", "franka_hand"]
    ),
    "com_port": Argument(
        "/dev/ttyUSB0", "of a Robotiq's adapter; /dev/serial/by-id/... does not change", checks.filled
    ),
    "cameras": Argument(
        "four_d415", "which camera is which view: a name in config/cameras, or a YAML file", checks.cameras
    ),
    "camera_driver": Argument(
        "realsense2_camera",
        "ROS's, our own over pyrealsense2, or none here",
        checks.anything,
        ["realsense2_camera", "realsense_camera", "none"],
    ),
    "calibration": Argument(
        "calibration/mine",
        "of the cameras: a name in calibration, or a folder; none: not calibrated yet, with policy:=false",
        checks.filled,
    ),
    "checkpoint": Argument(
        "", "folder with diffusion_agent/ and controller/; empty: the models of Genima", checks.anything
    ),
    "device": Argument("cuda", "that the models compute on: cuda, or cpu", checks.device),
    "task": Argument(
        "", "begin with it, once all is ready: the ARM MOVES; empty: wait for a goal of run_task", checks.anything
    ),
    "time_limit": Argument("60", "of that task, in s", checks.number(0, 86400)),
    "hardware": Argument("true", "start the robot's drivers, the guard and what belongs to them here", checks.flag),
    "policy": Argument("true", "start the models here", checks.flag),
    "record": Argument("false", "start the recorder here", checks.flag),
    "folder": Argument("data/demos", "where it puts the episodes", checks.filled),
    "rviz": Argument("false", "open RViz here", checks.flag),
    **GRAPH,
}


def generate_launch_description() -> LaunchDescription:
    """Describe drivers, what keeps the arm safe, the policy, and what shows and records it."""
    return check_arguments(ARGUMENTS | DRAWING, _entities, checks.require_real_robot)


def _entities() -> list[LaunchDescriptionEntity]:
    share = FindPackageShare("genima_bringup")
    robot, backend, gripper = (LaunchConfiguration(name) for name in ("robot", "backend", "gripper"))
    here = {name: LaunchConfiguration(name) for name in (NAMESPACE, DDS)}
    hardware, models, task = (LaunchConfiguration(name) for name in ("hardware", "policy", "task"))
    calibrated = NotEqualsSubstitution(LaunchConfiguration("calibration"), "none")
    franka_ros2 = AnySubstitution(*(EqualsSubstitution(backend, name) for name in FRANKA_ROS2))
    robotiq = EqualsSubstitution(gripper, "robotiq_2f140")
    hand = EqualsSubstitution(gripper, "franka_hand")
    ours = EqualsSubstitution(backend, OURS)
    model = IfElseSubstitution(hand, [robot, "_franka_hand"], robot)  # a name in config/robots
    recovers = NotEqualsSubstitution(backend, ELSEWHERE)
    arm_adapter, gripper_adapter, arm_recovery = adapters(model, backend, gripper)
    franka_arm, franka_hand = own_drivers(model, text("robot_ip"))
    recovery = ParameterValue(IfElseSubstitution(recovers, RECOVERY, ""), value_type=str)
    views = Views(LaunchConfiguration("cameras"))
    guard, camera_transforms = safety_nodes(model, text("calibration"), views, recovery)
    recorder = {
        "robot": model,
        "folder": text("folder"),
        "views": views,
        "calibration": ParameterValue(
            IfElseSubstitution(calibrated, LaunchConfiguration("calibration"), ""), value_type=str
        ),
    }

    driver = [
        include(
            "franka_bringup",
            "franka.launch.py",
            {
                "robot_type": robot,
                "robot_ip": LaunchConfiguration("robot_ip"),
                "namespace": LaunchConfiguration(NAMESPACE),
                "load_gripper": hand,
                "controllers_yaml": [PathJoinSubstitution([share, "config", "controllers", backend]), ".yaml"],
            },
            # joint_states are arm_adapter's; the controllers' own, franka/joint_states, stay as they are
            remappings={
                f"{name}:joint_states": "franka/all_joint_states"
                for name in ("joint_state_publisher", "robot_state_publisher")
            },
            condition=IfCondition(AllSubstitution(hardware, franka_ros2)),
        ),
        Node(
            package="controller_manager",
            executable="spawner",
            namespace=LaunchConfiguration(NAMESPACE),
            arguments=[
                OfBackend(backend, lambda found: found.controller),
                *("--controller-manager-timeout", "60"),
                "--controller-ros-args",  # the adapter behind the guard alone shall speak to it
                OfBackend(backend, lambda found: f"--remap {found.subscribes}:={found.target}"),
            ],
            condition=IfCondition(AllSubstitution(hardware, franka_ros2)),
            output="screen",
        ),
        include(
            "genima_bringup",
            "robotiq.launch.py",
            here | {"com_port": LaunchConfiguration("com_port"), "parent": [robot, "_link8"]},
            condition=IfCondition(AllSubstitution(hardware, robotiq)),
        ),
        node(arm_adapter, IfCondition(AllSubstitution(hardware, NotSubstitution(ours)))),
        node(gripper_adapter, IfCondition(AllSubstitution(hardware, NotSubstitution(AllSubstitution(ours, hand))))),
        node(arm_recovery, IfCondition(AllSubstitution(hardware, franka_ros2))),
        node(franka_arm, IfCondition(AllSubstitution(hardware, ours))),
        node(franka_hand, IfCondition(AllSubstitution(hardware, ours, hand))),
        node(guard, IfCondition(hardware)),
        node(camera_transforms, IfCondition(AllSubstitution(hardware, calibrated))),
        node(TASK_RUNNER, IfCondition(hardware)),
    ]
    cameras = include(
        "genima_bringup",
        "cameras.launch.py",
        here | {name: LaunchConfiguration(name) for name in ("cameras", "camera_driver")},
    )
    return [
        *environment(),
        *driver,
        cameras,
        *(
            node(process, IfCondition(models))
            for process in [
                *policy(text("checkpoint"), text("calibration"), text("device"), shortcuts=sampling_arguments()),
                camera_watch(model, text("calibration"), views),
            ]
        ),
        node(CLOCK_WATCH),
        node(NodeSpec("genima_nodes", "recorder", recorder), IfCondition(LaunchConfiguration("record"))),
        include(
            "genima_bringup",
            "view.launch.py",
            here | {"robot": robot, "checkpoint": LaunchConfiguration("checkpoint"), "describe": ours},
            condition=IfCondition(LaunchConfiguration("rviz")),
        ),
        ExecuteProcess(
            name="task",
            cmd=[
                *(sys.executable, "-m", "genima_cli", "task", task),
                *("--time-limit", LaunchConfiguration("time_limit")),
                *("--namespace", LaunchConfiguration(NAMESPACE)),
            ],
            condition=IfCondition(NotEqualsSubstitution(task, "")),
            output="screen",
        ),
    ]
