"""Scene in a running CoppeliaSim."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from genima_sim.simulator import Simulator, Value

if TYPE_CHECKING:
    from genima.cell import Cell
    from genima.evaluation.episodes import Environment
    from genima.policy.spec import PolicySpec
    from genima_sim.coppeliasim.names import SceneNames


class CoppeliaSim(Simulator):
    """Tasks of the cell's scene."""

    node = "coppeliasim"

    def check_cell(self, cell: Cell) -> None:
        """See :class:`Simulator`."""
        _load_names(cell)

    def require_task(self, task: str, cell: Cell) -> None:
        """See :class:`Simulator`."""
        _load_names(cell).require_task(task)

    def environment(self, cell: Cell, spec: PolicySpec, host: str, port: int) -> Environment:
        """See :class:`Simulator`."""
        from genima_sim.coppeliasim.connection import LOCKSTEP_TIMEOUT, Connection
        from genima_sim.coppeliasim.environment import CoppeliaEnvironment
        from genima_sim.coppeliasim.scene import CoppeliaScene

        names = replace(_load_names(cell), image_size=spec.camera_size)
        return CoppeliaEnvironment(CoppeliaScene(lambda: Connection(host, port, LOCKSTEP_TIMEOUT), names, cell.robot))

    def node_parameters(self, host: Value, port: Value) -> dict[str, Value]:
        """See :class:`Simulator`."""
        return {"host": host, "port": port}


def _load_names(cell: Cell) -> SceneNames:
    from genima_sim.coppeliasim import DEFAULT_SCENE
    from genima_sim.coppeliasim.names import SceneNames

    return SceneNames.load(cell.scene or DEFAULT_SCENE, cell.robot)
