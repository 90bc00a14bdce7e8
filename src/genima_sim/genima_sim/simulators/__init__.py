"""Simulators, one module each; a cell names its simulator.

To add a simulator, put a module with one subclass of :class:`genima_sim.simulator.Simulator` here, or in
``simulators/`` of a folder in ``GENIMA_PATH`` (:mod:`genima.system.registry`). The simulator has the module's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from genima.errors import GenimaError
from genima.system.registry import Registry, subclass_factory
from genima_sim.simulator import Simulator

if TYPE_CHECKING:
    from genima.cell import Cell

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
        GenimaError: for the cell of a real robot, an unknown or incomplete simulator, and one without a node.
    """
    if not cell.simulator:
        raise GenimaError(f"cell {cell.name}: a real robot; name a simulated cell, such as sim_panda")
    simulator = SIMULATORS.find(cell.simulator)
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
