"""The simulator, with a service `sim/bump` that moves one of its cameras as somebody's elbow does."""

from __future__ import annotations

import sys

from std_srvs.srv import Trigger

from genima_nodes.ros import parameters
from genima_nodes.ros.node_process import CONTROL_NICENESS, run
from genima_sim.sim_node import SimNode


class BumpedSimulatorNode(SimNode):
    """Moves a camera sideways, once for each call."""

    def __init__(self) -> None:
        super().__init__()
        self._bumped = self.declare_parameter("bumped", "front").value
        self._by = parameters.number(self, "by", 0.02)  # m
        self.create_service(Trigger, "sim/bump", self._on_bump)

    def _on_bump(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        camera = self._simulation.model.camera(self._bumped)
        camera.pos[1] += self._by  # the body's y, across the view of those that look along x
        response.success, response.message = True, f"{self._bumped} is {1e3 * self._by:.0f} mm elsewhere now"
        return response


if __name__ == "__main__":
    sys.exit(run(BumpedSimulatorNode, None, CONTROL_NICENESS))
