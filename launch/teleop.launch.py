"""A follower that mirrors a leader: `ros2 launch genima_bringup teleop.launch.py leader:=gello`.

The drivers of both arms run already: the follower's may be real_robot.launch.py's, which has a guard: `guard:=false`.
`sim:=true leader:=same` brings simulated ones.
"""

from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration

from genima_bringup.launching import NAMESPACE, Argument, declare, environment, node
from genima_bringup.processes import guard, mirror, simulated_leader, simulator
from launch import LaunchDescription

ARGUMENTS = {
    "robot": Argument("panda", "the follower: a name in config/robots, or a YAML file"),
    "leader": Argument("panda", "the leader: a name in config/teleop, or a YAML file"),
    "leader_joints": Argument("leader/joint_states", "topic of the leader's joints"),
    "leader_gripper": Argument("leader/gripper", "topic of the leader's gripper, where its joints do not say"),
    "speed": Argument("0.15", "of the follower's own, while it comes to the leader"),
}
OTHERS = {
    NAMESPACE: Argument("", "of the follower's topics: one for each of several arms"),
    "guard": Argument("true", "start the follower's command_guard; false where one runs already"),
    "sim": Argument("false", "simulate both arms; the leader plays demos of the experts"),
}


def generate_launch_description() -> LaunchDescription:
    """The nodes of `genima_bringup.processes.following`, the guard where none runs yet."""
    simulated = IfCondition(LaunchConfiguration("sim"))
    return LaunchDescription(
        [
            *declare(ARGUMENTS | OTHERS),
            *environment(),
            node(guard(LaunchConfiguration("robot")), IfCondition(LaunchConfiguration("guard"))),
            node(mirror(**{name: LaunchConfiguration(name) for name in ARGUMENTS})),
            *(node(process, simulated) for process in [*simulator(), *simulated_leader("expert")]),
        ]
    )
