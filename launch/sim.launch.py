"""The closed loop around the simulated robot: `ros2 launch genima_bringup sim.launch.py`.

`backend:=coppeliasim` takes the robot in a CoppeliaSim that runs already (docs/coppeliasim.md).
"""

from launch.conditions import IfCondition
from launch.substitutions import EqualsSubstitution, LaunchConfiguration

from genima_bringup import argument_checks as checks
from genima_bringup.launch_actions import (
    DRAWING,
    GRAPH,
    Argument,
    check_arguments,
    environment,
    node,
    sampling_arguments,
    text,
)
from genima_bringup.node_specs import coppeliasim, simulator, simulator_support_nodes
from launch import LaunchDescription

SIMULATORS = ("mujoco", "coppeliasim")
BACKEND = {"backend": Argument("mujoco", "what simulates: mujoco or coppeliasim", checks.anything, SIMULATORS)}
LOOP = {
    "checkpoint": Argument(
        "", "folder with diffusion_agent/ and controller/; empty: the models of Genima", checks.checkpoint
    ),
    "seed": Argument("0", "of the drawings", checks.integer(0, 2**62)),
    "calibration": Argument("sim", "of the cameras: a name in calibration, or a folder", checks.calibration),
    "robot": Argument(
        "panda", "the arm with its gripper that the checkpoint is of: a name in config/robots", checks.robot
    ),
}
REMOTE = {
    "scene": Argument(
        "rlbench", "names of CoppeliaSim's objects: a name in config/coppeliasim, or a YAML file", checks.filled
    ),
    "host": Argument("localhost", "where CoppeliaSim runs", checks.host),
    "port": Argument("23000", "of its ZeroMQ remote API", checks.integer(1, 65535)),
}


def generate_launch_description() -> LaunchDescription:
    """The nodes of `genima_bringup.node_specs.simulator_support_nodes`, and a simulator."""
    said = {name: LaunchConfiguration(name) for name in BACKEND | LOOP | REMOTE}
    said |= {name: text(name) for name in ("checkpoint", "calibration", "scene", "host")}
    in_mujoco, remote = (IfCondition(EqualsSubstitution(said["backend"], name)) for name in SIMULATORS)
    return check_arguments(
        BACKEND | LOOP | REMOTE | DRAWING | GRAPH,
        lambda: [
            *environment(),
            *(node(process, in_mujoco) for process in simulator()),
            node(coppeliasim(**{name: said[name] for name in REMOTE}, robot=said["robot"]), remote),
            *map(node, simulator_support_nodes(**{name: said[name] for name in LOOP}, shortcuts=sampling_arguments())),
        ],
        checks.require_simulation,
    )
