"""Simulated workcell in MuJoCo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genima_sim.simulator import Simulator
from genima_sim.tasks import get_task

if TYPE_CHECKING:
    from genima.cell import Cell
    from genima.evaluation.episodes import DemoEnvironment, Environment
    from genima.policy.spec import PolicySpec


class Mujoco(Simulator):
    """Tasks of :mod:`genima_sim.tasks`."""

    node = "sim_node"
    time_limit = 10.0  # s: 200 steps at 20 Hz, as the paper's simulation
    has_experts = True
    stores_states = True
    has_perturbations = True
    has_depth = True

    def require_task(self, task: str, cell: Cell) -> None:
        """See :class:`Simulator`."""
        get_task(task)

    def environment(self, cell: Cell, spec: PolicySpec, host: str, port: int) -> Environment:
        """See :class:`Simulator`."""
        from genima_sim.environment import Environment

        return Environment(cell, spec.requires_depth)

    def demo_environment(self, cell: Cell, images: bool = True) -> DemoEnvironment:
        """See :class:`Simulator`."""
        from genima_sim import environment

        return environment.Environment(cell) if images else environment.StateEnvironment(cell)
