"""The closed loop around the simulated robot: `ros2 launch genima_bringup sim.launch.py`.

`backend:=coppeliasim` takes the robot in a CoppeliaSim that runs already (docs/coppeliasim.md).
"""

from launch.conditions import IfCondition
from launch.substitutions import EqualsSubstitution, LaunchConfiguration

from genima_bringup.launching import DRAWING, Argument, chosen_shortcuts, declare, environment, node, text
from genima_bringup.processes import around_simulator, coppeliasim, simulator
from launch import LaunchDescription

BACKEND = {"backend": Argument("mujoco", "what simulates: mujoco or coppeliasim", ["mujoco", "coppeliasim"])}
LOOP = {
    "checkpoint": Argument("", "folder with diffusion_agent/ and controller/; empty: the models of Genima"),
    "seed": Argument("0", "of the drawings"),
    "calibration": Argument("sim", "of the cameras: a name in calibration, or a folder"),
    "robot": Argument("panda", "the arm with its gripper that the checkpoint is of: a name in config/robots"),
}
REMOTE = {
    "scene": Argument("rlbench", "names of CoppeliaSim's objects: a name in config/coppeliasim, or a YAML file"),
    "host": Argument("localhost", "where CoppeliaSim runs"),
    "port": Argument("23000", "of its ZeroMQ remote API"),
}


def generate_launch_description() -> LaunchDescription:
    """The nodes of `genima_bringup.processes.around_simulator`, and a simulator."""
    said = {name: LaunchConfiguration(name) for name in BACKEND | LOOP | REMOTE}
    said |= {name: text(name) for name in ("checkpoint", "calibration", "scene", "host")}
    in_mujoco, remote = (IfCondition(EqualsSubstitution(said["backend"], name)) for name in BACKEND["backend"].choices)
    return LaunchDescription(
        [
            *declare(BACKEND | LOOP | REMOTE | DRAWING),
            *environment(),
            *(node(process, in_mujoco) for process in simulator()),
            node(coppeliasim(**{name: said[name] for name in REMOTE}, robot=said["robot"]), remote),
            *map(node, around_simulator(**{name: said[name] for name in LOOP}, shortcuts=chosen_shortcuts())),
        ]
    )
