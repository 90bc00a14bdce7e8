"""A real Franka arm with its cameras and gripper, and Genima's policy:
`ros2 launch genima_bringup real_robot.launch.py cell:=mine.yaml checkpoint:=runs/mine`.

With `policy:=false` on the robot's machine and `hardware:=false` on that with the GPU it runs on two; the cameras may
be at either (`cameras:=false` at the other). docs/real_robot.md has the rest of the set-up.
"""

import sys

from launch.actions import ExecuteProcess, LogInfo
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, NotEqualsSubstitution, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from genima.cell import ROBOTIQ, Cell
from genima.policy.registry import GENIMA
from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import ForCell, include
from genima_bringup.launch_actions import (
    DDS,
    GRAPH,
    NAMESPACE,
    POLICY,
    REAL_CELL,
    SAMPLING,
    Argument,
    check_arguments,
    environment,
    node,
    policy_arguments,
    text,
)
from genima_bringup.node_specs import (
    CLOCK_WATCH,
    TASK_RUNNER,
    adapters,
    own_drivers,
    real_policy_nodes,
    recorder,
    safety_nodes,
)
from launch import LaunchDescription, LaunchDescriptionEntity

ARGUMENTS = {
    **REAL_CELL,
    "robot_ip": Argument("", "address or name of the robot; empty: the cell's", checks.optional_host),
    **POLICY,
    "policy": Argument(
        GENIMA,
        "genima (of checkpoint), replay (of episode), or one of yours; false: none here",
        checks.optional_policy,
    ),
    "device": Argument("cuda", "that the models compute on: cuda, or cpu", checks.device),
    "task": Argument(
        "", "run it as soon as all nodes are ready: the ARM MOVES; empty: wait for a goal of run_task", checks.anything
    ),
    "time_limit": Argument("60", "of that task, in s", checks.number(0, 86400)),
    "hardware": Argument("true", "start the robot's drivers, the guard and what belongs to them here", checks.flag),
    "cameras": Argument("true", "start the cameras' drivers here", checks.flag),
    "record": Argument("false", "start the recorder here", checks.flag),
    "folder": Argument("data/demos", "where it puts the episodes", checks.filled),
    "rviz": Argument("false", "open RViz here", checks.flag),
    **GRAPH,
}

# arguments of the included launch files, too
_SHARED = {name: LaunchConfiguration(name) for name in ("cell", NAMESPACE, DDS)}


def generate_launch_description() -> LaunchDescription:
    """Describe drivers, guard, policy, visualisation and recorder."""
    return check_arguments(
        ARGUMENTS | SAMPLING, lambda: [*environment(), ForCell(_entities, "policy")], checks.require_real_robot
    )


def _entities(cell: Cell, policy: str) -> list[LaunchDescriptionEntity]:
    flags = {name: LaunchConfiguration(name) for name in ("hardware", "cameras", "record", "rviz")}
    task = LaunchConfiguration("task")
    arguments = None if policy == checks.NO_POLICY else policy_arguments(policy, text("device"))
    uncalibrated = f"cell {cell.name}: not calibrated yet ({cell.calibration}); no transforms of its cameras"
    return [
        *([] if cell.calibrated else [LogInfo(msg=uncalibrated)]),
        *_drivers(cell),
        *(
            node(spec, IfCondition(flags["hardware"]))
            for spec in [*own_drivers(cell), *adapters(cell), *safety_nodes(cell), TASK_RUNNER]
        ),
        include(
            "genima_bringup",
            "cameras.launch.py",
            _SHARED,
            condition=IfCondition(flags["cameras"]),
        ),
        *map(node, real_policy_nodes(cell, arguments)),
        node(CLOCK_WATCH),
        node(recorder(cell, {"folder": text("folder")}), IfCondition(flags["record"])),
        include(
            "genima_bringup",
            "view.launch.py",
            _SHARED
            | {
                "checkpoint": LaunchConfiguration("checkpoint"),
                "describe": str(cell.require_driver().kind == "franka_arm").lower(),
            },
            condition=IfCondition(flags["rviz"]),
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


def _drivers(cell: Cell) -> list[LaunchDescriptionEntity]:
    """Return ROS's own drivers of arm and gripper."""
    driver, backend, hardware = cell.require_driver(), cell.arm_backend, IfCondition(LaunchConfiguration("hardware"))
    drivers: list[LaunchDescriptionEntity] = []
    if driver.kind == "franka_ros2" and backend is not None:
        share = FindPackageShare("genima_bringup")
        controllers = PathJoinSubstitution([share, "config", "controllers", f"{backend.name}.yaml"])
        drivers += [
            include(
                "franka_bringup",
                "franka.launch.py",
                {
                    "robot_type": cell.robot.arm,
                    "robot_ip": driver.robot_ip,
                    "namespace": LaunchConfiguration(NAMESPACE),
                    "load_gripper": str(driver.gripper == checks.HAND).lower(),
                    "controllers_yaml": controllers,
                },
                # joint_states are arm_adapter's; the controllers' own, franka/joint_states, stay as they are
                remappings={
                    f"{name}:joint_states": "franka/all_joint_states"
                    for name in ("joint_state_publisher", "robot_state_publisher")
                },
                condition=hardware,
            ),
            Node(
                package="controller_manager",
                executable="spawner",
                namespace=LaunchConfiguration(NAMESPACE),
                arguments=[
                    backend.controller,
                    *("--controller-manager-timeout", "60"),
                    "--controller-ros-args",  # the adapter behind the guard alone shall speak to it
                    f"--remap {backend.subscribes}:={backend.target}",
                ],
                condition=hardware,
                output="screen",
            ),
        ]
    if driver.gripper == ROBOTIQ:
        drivers.append(include("genima_bringup", "robotiq.launch.py", _SHARED, condition=hardware))
    return drivers
