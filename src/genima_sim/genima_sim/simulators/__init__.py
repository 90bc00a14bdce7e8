"""Simulators, one module each; a cell names its simulator.

To add a simulator, put a module with one subclass of :class:`genima_sim.simulator.Simulator` here, or in
``simulators/`` of a folder in ``GENIMA_PATH`` (:mod:`genima.system.registry`). The simulator has the module's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from genima.errors import GenimaError
from genima.system.registry import Registry, subclass_factory
from genima_sim.perturbation import PerturbedEnvironment
from genima_sim.perturbations import get_perturbations, task_perturbations
from genima_sim.simulator import Simulator

if TYPE_CHECKING:
    from genima.cell import Cell
    from genima.evaluation.episodes import Environment

SIMULATORS = Registry(
    "simulator",
    __name__,
    "simulators",
    subclass_factory("simulator", Simulator),  # type: ignore[type-abstract]
)


def get_simulator(cell: Cell, real_time: bool = False) -> Simulator:
    """Return the simulator of a cell.

    Args:
        cell: a simulated one.
        real_time: the simulator must have a ROS node.

    Raises:
        GenimaError: for the cell of a real robot, an unknown or incomplete simulator, one without a node, and one
            without the depth images that the cell's file names.
    """
    if not cell.simulator:
        raise GenimaError(f"cell {cell.name}: a real robot; name a simulated cell, such as sim_panda")
    simulator = SIMULATORS.find(cell.simulator)
    if cell.depth and not simulator.has_depth:
        raise GenimaError(f"cell {cell.name}: {cell.simulator} renders no depth images; leave depth out of its file")
    if real_time and not simulator.node:
        raise GenimaError(f"cell {cell.name}: simulated by {cell.simulator}, in lock-step only; use ./genima eval")
    return simulator


def require_experts(cell: Cell) -> Simulator:
    """Return the simulator of a cell.

    Raises:
        GenimaError: for a simulator whose tasks have no scripted experts.
    """
    simulator = get_simulator(cell)
    if not simulator.has_experts:
        others = ", ".join(name for name, other in SIMULATORS.items() if other.has_experts)
        raise GenimaError(
            f"cell {cell.name}: tasks of {simulator.name} have no scripted experts; take a cell simulated by {others}"
        )
    return simulator


def require_perturbations(cell: Cell, names: Sequence[str], tasks: Sequence[str] = ()) -> None:
    """Check perturbations of scenes.

    Args:
        cell: a simulated one.
        names: of the perturbations.
        tasks: names of the tasks that they must go with.

    Raises:
        GenimaError: for a simulator without perturbations, an unknown one, and one that does not go with a task.
    """
    if not names:
        return
    simulator = get_simulator(cell)
    if not simulator.has_perturbations:
        others = ", ".join(name for name, other in SIMULATORS.items() if other.has_perturbations)
        raise GenimaError(
            f"cell {cell.name}: scenes of {simulator.name} cannot be perturbed ({', '.join(names)}); leave the "
            f"perturbations out, or take a cell simulated by {others}"
        )
    get_perturbations(names)
    from genima_sim.tasks import get_task, scene_objects  # only here: a help page must not load a simulator

    for task in map(get_task, tasks):
        task_perturbations(names, task, scene_objects(task))


def perturb(environment: Environment, names: Sequence[str]) -> None:
    """Apply perturbations at each reset from now on; the environment is of a simulator that has them."""
    if names:
        cast(PerturbedEnvironment, environment).perturbations = tuple(names)
