"""The control loop around a simulated robot: `ros2 launch genima_bringup sim.launch.py`.

`cell:=sim_fr3 policy:=expert` simulates an FR3 that the scripted expert moves (the bundled models are the Panda's);
`cell:=sim_coppeliasim` takes the robot in a CoppeliaSim that runs already (docs/coppeliasim.md).
"""

from launch.substitutions import LaunchConfiguration

from genima.cell import Cell
from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import ForCell
from genima_bringup.launch_actions import (
    CELL,
    GRAPH,
    POLICY,
    SAMPLING,
    Argument,
    check_arguments,
    environment,
    node,
    policy_arguments,
    text,
)
from genima_bringup.node_specs import simulation_stack
from launch import LaunchDescription, LaunchDescriptionEntity

ARGUMENTS = {
    **CELL,
    **POLICY,
    "seed": Argument("0", "of the policy", checks.integer(0, 2**62)),
    "host": Argument("localhost", "where CoppeliaSim runs", checks.host),
    "port": Argument("23000", "of its ZeroMQ remote API", checks.integer(1, 65535)),
    "perturbations": Argument(
        "", "of each scene, such as object_color,distractors (docs/tasks.md)", checks.perturbations
    ),
}


def generate_launch_description() -> LaunchDescription:
    """Describe the nodes of `genima_bringup.node_specs.simulation_stack`."""
    return check_arguments(
        ARGUMENTS | SAMPLING | GRAPH,
        lambda: [*environment(), ForCell(_nodes, "policy", "perturbations")],
        checks.require_simulation,
    )


def _nodes(cell: Cell, policy: str, perturbations: str) -> list[LaunchDescriptionEntity]:
    arguments = policy_arguments(policy, seed=LaunchConfiguration("seed"))
    port = LaunchConfiguration("port")
    return [node(spec) for spec in simulation_stack(cell, arguments, text("host"), port, checks.names(perturbations))]
