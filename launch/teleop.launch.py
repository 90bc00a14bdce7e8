"""A follower that mirrors a leader: `ros2 launch genima_bringup teleop.launch.py leader:=gello`.

The drivers of both arms run already: the follower's may be real_robot.launch.py's, which has a guard: `guard:=false`.
`jog:=true leader:=same` does without a leader's arm, `sim:=true leader:=same` brings two simulated ones.
"""

from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration

from genima_bringup.launching import NAMESPACE, Argument, declare, environment, leader_topics, node
from genima_bringup.processes import guard, jog, mirror, simulated_leader, simulator
from launch import LaunchDescription

ARGUMENTS = {
    "robot": Argument("panda", "the follower: a name in config/robots, or a YAML file"),
    "leader": Argument("panda", "the leader: a name in config/teleop, or a YAML file"),
    "leader_joints": Argument("leader/joint_states", "topic of the leader's joints"),
    "leader_gripper": Argument("leader/gripper", "topic of the leader's gripper, where its joints do not say"),
    "leader_joy": Argument("leader/joy", "topic of the pedal or gamepad whose button moves the gripper"),
    "speed": Argument("0.15", "of the follower's own, while it comes to the leader"),
    NAMESPACE: Argument("", "of the follower's topics: one for each of several arms"),
    "guard": Argument("true", "start the follower's command_guard; false where one runs already"),
    "jog": Argument("false", "the leader is a gamepad on the topic joy, or the keys of ./genima record"),
    "sim": Argument("false", "simulate both arms; the leader plays demos of the experts"),
}


def generate_launch_description() -> LaunchDescription:
    """What mirrors, the guard where none runs yet, and leaders without an arm."""
    simulated = IfCondition(LaunchConfiguration("sim"))
    robot = LaunchConfiguration("robot")
    teleop = mirror(robot, LaunchConfiguration("leader"), LaunchConfiguration("speed"), leader_topics())
    return LaunchDescription(
        [
            *declare(ARGUMENTS),
            *environment(),
            node(guard(robot), IfCondition(LaunchConfiguration("guard"))),
            node(teleop),
            node(jog(robot), IfCondition(LaunchConfiguration("jog"))),
            *(node(process, simulated) for process in [*simulator(), *simulated_leader("expert")]),
        ]
    )
