"""Leader-follower teleoperation: `ros2 launch genima_bringup teleop.launch.py cell:=fr3_crisp leader:=gello`.

The drivers of both arms run already: the follower's may be real_robot.launch.py's, which has a guard: `guard:=false`.
`jog:=true leader:=same` needs no leader arm, `sim:=true leader:=same` simulates both arms.
"""

from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration

from genima.cell import Cell
from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import ForCell
from genima_bringup.launch_actions import (
    CELL,
    GRAPH,
    Argument,
    check_arguments,
    environment,
    leader_topics,
    node,
)
from genima_bringup.node_specs import (
    TELEOP_RATE,
    command_guard,
    jog,
    simulated_leader,
    simulator,
    teleop_node,
)
from launch import LaunchDescription, LaunchDescriptionEntity

ARGUMENTS = {
    **CELL,
    "leader": Argument("panda", "the leader: a name in config/teleop, or a YAML file", checks.filled),
    "leader_joints": Argument("leader/joint_states", "topic of the leader's joints", checks.topic),
    "leader_gripper": Argument(
        "leader/gripper", "topic of the leader's gripper, where its joints lack it", checks.topic
    ),
    "leader_joy": Argument("leader/joy", "topic of the pedal or gamepad whose button moves the gripper", checks.topic),
    "speed": Argument("0.15", "of the follower's own, while it comes to the leader", checks.number(0.001, 1)),
    "unwrap_at_start": Argument("false", "turn back joints of the leader that are whole turns (2 pi) off", checks.flag),
    **GRAPH,
    "guard": Argument("true", "start the follower's command_guard; false where one runs already", checks.flag),
    "jog": Argument("false", "the leader is a gamepad on the topic joy, or the keys of ./genima record", checks.flag),
    "sim": Argument("false", "simulate both arms; the leader plays demos of the experts", checks.flag),
}


def generate_launch_description() -> LaunchDescription:
    """Describe teleoperation, the guard where none runs yet, and leaders without an arm."""
    return check_arguments(ARGUMENTS, lambda: [*environment(), ForCell(_nodes)], checks.require_teleop)


def _nodes(cell: Cell) -> list[LaunchDescriptionEntity]:
    leader, speed, unwrap = (LaunchConfiguration(name) for name in ("leader", "speed", "unwrap_at_start"))
    simulated = IfCondition(LaunchConfiguration("sim"))
    simulation = [*simulator(cell), *simulated_leader(cell, "expert")] if cell.simulator else []
    return [
        node(command_guard(cell, TELEOP_RATE), IfCondition(LaunchConfiguration("guard"))),
        node(teleop_node(cell, leader, speed, leader_topics(), unwrap)),
        node(jog(cell), IfCondition(LaunchConfiguration("jog"))),
        *(node(spec, simulated) for spec in simulation),
    ]
