"""The control loop around a simulated robot: `ros2 launch genima_bringup sim.launch.py`.

`cell:=sim_fr3` simulates an FR3; `cell:=sim_coppeliasim` takes the robot in a CoppeliaSim that runs already
(docs/coppeliasim.md).
"""

from launch.substitutions import LaunchConfiguration

from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import ForCell
from genima_bringup.launch_actions import (
    CELL,
    DRAWING,
    GRAPH,
    Argument,
    check_arguments,
    environment,
    node,
    sampling_arguments,
    text,
)
from genima_bringup.node_specs import simulation_stack
from launch import LaunchDescription

ARGUMENTS = {
    **CELL,
    "checkpoint": Argument(
        "", "folder with diffusion_agent/ and controller/; empty: the models of Genima", checks.checkpoint
    ),
    "seed": Argument("0", "of the drawings", checks.integer(0, 2**62)),
    "host": Argument("localhost", "where CoppeliaSim runs", checks.host),
    "port": Argument("23000", "of its ZeroMQ remote API", checks.integer(1, 65535)),
}


def generate_launch_description() -> LaunchDescription:
    """Describe the nodes of `genima_bringup.node_specs.simulation_stack`."""
    seed, port = LaunchConfiguration("seed"), LaunchConfiguration("port")
    return check_arguments(
        ARGUMENTS | DRAWING | GRAPH,
        lambda: [
            *environment(),
            ForCell(
                lambda cell: [
                    node(spec)
                    for spec in simulation_stack(
                        cell, text("checkpoint"), seed, sampling_arguments(), text("host"), port
                    )
                ]
            ),
        ],
        checks.require_simulation,
    )
