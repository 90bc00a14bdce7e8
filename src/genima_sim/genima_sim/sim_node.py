"""Node: the simulated workcell in real time. Physics and joint states in one thread, cameras in another.

Cameras see the moment that they expose at, however long their images then take, as real ones do. What they exposed
meanwhile waits, up to the parameter ``camera_backlog``: none to act on what is new, some to record without gaps.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np

from genima.cameras.calibration_board import CalibrationBoard
from genima.io import paths
from genima_nodes.ros import parameters
from genima_nodes.ros.node_process import CONTROL_NICENESS, run
from genima_sim.mounted_board import MountedBoard
from genima_sim.rendering import SceneRenderer
from genima_sim.scene_node import SceneNode
from genima_sim.simulation import Simulation

_STATE_RATE = 100.0  # Hz
_CAMERA_RATE = 12.5  # Hz: a little more than two cores draw beside it
_NO_BOARD = "none"
_BOARD_FILE = "calibration", "boards", "charuco_7x5_a4.yaml"


class SimNode(SceneNode):
    """A robot, four cameras and a scene that can be reset."""

    def __init__(self, simulation: Simulation | None = None) -> None:
        """Args:
        simulation: the scene; built for the parameters ``robot`` and ``board`` if None.
        """
        super().__init__("sim_node", _CAMERA_RATE)
        backlog = parameters.integer(self, "camera_backlog", 0, 0, 1000)
        board = self._calibration_board()
        self._view = parameters.view(self, "")  # the only one that is filmed; empty: all
        self._simulation = simulation or Simulation(self._robot, board, self._view or None)
        self._exposed: deque[tuple[np.ndarray, float]] = deque(maxlen=backlog + 1)  # configuration, stamp in s
        self._seen = threading.Semaphore(0)  # counts exposures, and the end
        self._ending = False
        self._rendering = self._health.latency("rendering")
        self._filming = threading.Thread(target=self._film, name="cameras", daemon=True)
        self._simulate(self._simulation, self._simulation.cameras, 1 / _STATE_RATE)
        self._filming.start()

    def _calibration_board(self) -> MountedBoard | None:
        """For the parameters ``board`` (none, table or gripper) and ``board_file``."""
        place = parameters.text(self, "board", _NO_BOARD)
        file = parameters.text(self, "board_file", "")
        if place == _NO_BOARD:
            return None
        return MountedBoard.at(CalibrationBoard.load(Path(file) if file else paths.shared(*_BOARD_FILE)), place)

    def close(self) -> None:
        """End both threads."""
        super().close()
        self._ending = True
        self._seen.release()
        self._filming.join()

    def _expose(self, stamp: float) -> None:
        if len(self._exposed) == self._exposed.maxlen:
            self._frames.drop()
        self._exposed.append((self._simulation.qpos(), stamp))
        self._seen.release()

    # The camera thread.

    def _film(self) -> None:
        cameras = self._simulation.cameras
        filmed = {self._view: cameras[self._view]} if self._view else cameras
        renderer = SceneRenderer(self._simulation.model, filmed)
        while True:
            self._seen.acquire()
            if self._ending:
                renderer.close()
                return
            try:
                qpos, stamp = self._exposed.popleft()
            except IndexError:  # it was overtaken by a newer one
                continue
            start = time.monotonic()
            images = renderer.render(qpos)
            self._rendering.add(time.monotonic() - start)
            self._publish_images(images, stamp)


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(SimNode, args, CONTROL_NICENESS, role="robot")


if __name__ == "__main__":
    sys.exit(main())
