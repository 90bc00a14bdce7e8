"""RLBench, where it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genima_sim.rlbench.tasks import RATE, STEPS, require_task
from genima_sim.simulator import Simulator

if TYPE_CHECKING:
    from genima.cell import Cell
    from genima.evaluation.episodes import Environment
    from genima.policy.spec import PolicySpec


class RLBench(Simulator):
    """The paper's tasks of RLBench."""

    time_limit = STEPS / RATE

    def require_task(self, task: str, cell: Cell) -> None:
        """See :class:`Simulator`."""
        require_task(task)

    def environment(self, cell: Cell, spec: PolicySpec, host: str, port: int) -> Environment:
        """See :class:`Simulator`."""
        from genima_sim.rlbench.environment import RLBenchEnvironment

        return RLBenchEnvironment(spec.camera_size)
