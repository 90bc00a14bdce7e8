"""The closed loop around the simulated robot: `ros2 launch genima_bringup sim.launch.py`."""

from launch.substitutions import LaunchConfiguration

from genima_bringup.launching import Argument, declare, environment, node
from genima_bringup.processes import simulated
from launch import LaunchDescription

ARGUMENTS = {
    "checkpoint": Argument("", "folder with diffusion_agent/ and controller/; empty: the models of Genima"),
    "seed": Argument("0", "of the drawings"),
}


def generate_launch_description() -> LaunchDescription:
    """The nodes of `genima_bringup.processes.simulated`."""
    processes = simulated(**{name: LaunchConfiguration(name) for name in ARGUMENTS})
    return LaunchDescription([*declare(ARGUMENTS), *environment(), *map(node, processes)])
