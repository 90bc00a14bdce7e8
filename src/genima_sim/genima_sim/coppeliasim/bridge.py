"""ROS node: robot in CoppeliaSim, with the topics and services of `sim_node`.

By default, the node steps the simulation, never faster than the clock; joints and images of one stamp are of one step.
With ``stepping:=false``, CoppeliaSim runs by itself.
"""

from __future__ import annotations

import time
from typing import Any

from genima.errors import GenimaError
from genima.types import Command
from genima_nodes.ros import messages, parameters
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_sim.coppeliasim import DEFAULT_HOST, DEFAULT_PORT, DEFAULT_SCENE
from genima_sim.coppeliasim.connection import Connection
from genima_sim.coppeliasim.names import SceneNames
from genima_sim.coppeliasim.scene import CoppeliaScene
from genima_sim.scene_node import SceneNode

_COMMAND_TIMEOUT = 0.5  # s: an older command is dropped
_RECONNECT_PERIOD = 1.0  # s
_CATCH_UP = 5  # steps at once, at most: rendering four images delays the simulation


class CoppeliaBridge(SceneNode):
    """Robot, cameras and resettable scene in CoppeliaSim."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for invalid parameters, when CoppeliaSim does not answer, and when its scene lacks objects or
                has another arm.
        """
        super().__init__("coppeliasim", **options)
        names = SceneNames.load(parameters.text(self, "scene", self._cell.scene or DEFAULT_SCENE), self._robot)
        host = parameters.text(self, "host", DEFAULT_HOST)
        port = parameters.integer(self, "port", DEFAULT_PORT, 1, 65535)
        self._stepping = parameters.flag(self, "stepping", True)
        self._remote = CoppeliaScene(lambda: Connection(host, port), names, self._robot, self._stepping)
        self._lost = False
        self._next_attempt = 0.0  # monotonic s
        self._rendering = self._diagnostics.add_latency("rendering")
        self._diagnostics.add_check(self._watch_commands)
        self._simulate(self._remote, self._remote.cameras, self._remote.period, _CATCH_UP)

    def close(self) -> None:
        """Stop the thread and the simulation."""
        super().close()
        self._remote.close()

    def _watch_commands(self) -> None:
        command = self._command
        if command is not None and (age := messages.now(self) - command.stamp) > _COMMAND_TIMEOUT:
            self._diagnostics.set_fault("commands", f"the newest is {age:.1f} s old; the arm holds")
        else:
            self._diagnostics.clear_fault("commands")

    def _due_command(self) -> Command | None:
        command = self._command
        if command is None or messages.now(self) - command.stamp > _COMMAND_TIMEOUT:
            return None  # the joints keep their last targets
        return command

    def _expose(self, stamp: float) -> None:
        start = time.monotonic()
        joints, images = self._remote.joints(), {}
        for view, image in self._remote.render():
            images[view] = image
            # Rendering delays the simulation, and the arm with it: joint states must not stop meanwhile.
            self._publish_joints(joints if self._stepping else self._remote.joints(), messages.now(self))
        self._remote.update_status()
        self._rendering.add(time.monotonic() - start)
        self._publish_images(images, stamp)

    def _advance(self, deadline: float, periods: int) -> bool:
        if deadline < self._next_attempt:
            return False
        try:
            if self._lost:
                with self._lock:
                    self._command = None  # for another configuration of the arm
                    self._remote.connect()
                    self._set_cameras(self._remote.cameras)
                    self._steps.clear()  # the simulation's time starts at 0
                self._lost = False
                self._diagnostics.clear_fault("CoppeliaSim")
            return super()._advance(deadline, periods)
        except GenimaError as error:
            self._diagnostics.set_fault("CoppeliaSim", f"{error}; connecting again")
            self._lost, self._next_attempt = True, time.monotonic() + _RECONNECT_PERIOD
            return False


main = node_main(CoppeliaBridge, CONTROL_NICENESS, role="robot")
