"""ROS node: simulated workcell in real time. Physics and joint states run in one thread, rendering in another.

An image shows the moment of its exposure, however long rendering then takes, as with a real camera. Exposures wait for
rendering, up to the parameter ``camera_backlog``: 0 for a policy, which needs the newest, more to record without gaps.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
from numpy.typing import NDArray

from genima.cameras.calibration_board import CalibrationBoard
from genima.errors import GenimaError
from genima.io import paths
from genima_nodes.ros import parameters
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_sim.mounted_board import MountedBoard
from genima_sim.rendering import SceneRenderer
from genima_sim.scene_node import SceneNode
from genima_sim.simulation import Simulation
from genima_sim.simulators import require_perturbations

_STATE_RATE = 100.0  # Hz
_CAMERA_RATE = 12.5  # Hz: a little above the rate of the policy on two cores
_NO_BOARD = "none"
_BOARD_FILE = "calibration", "boards", "charuco_7x5_a4.yaml"


@dataclass(frozen=True)
class _Exposure:
    """Scene at one moment, for the rendering thread; a reset moves bodies in the model itself."""

    model: mujoco.MjModel
    body_pos: NDArray[np.float64]  # (nbody, 3) m, in the model
    body_quat: NDArray[np.float64]  # (nbody, 4)
    qpos: NDArray[np.float64]
    stamp: float  # s


class SimNode(SceneNode):
    """Robot, cameras and a scene that can be reset."""

    def __init__(self, simulation: Simulation | None = None) -> None:
        """Args:
        simulation: the scene; built for the parameters ``robot`` and ``board`` if None.
        """
        super().__init__("sim_node", _CAMERA_RATE)
        backlog = parameters.integer(self, "camera_backlog", 0, 0, 1000)
        board = self._calibration_board()
        self._perturbations = parameters.texts(self, "perturbations", [])  # of each episode
        require_perturbations(self._cell, self._perturbations)
        self._view = parameters.view(self, "")  # the only rendered view; empty: all
        self._simulation = simulation or Simulation(self._robot, board, self._view or None, self._cell.load_cameras())
        self._exposed: deque[_Exposure] = deque(maxlen=backlog + 1)
        self._pending = threading.Semaphore(0)  # counts exposures, and the end
        self._ending = False
        self._rendering = self._diagnostics.add_latency("rendering")
        self._rendering_thread = threading.Thread(target=self._render_loop, name="rendering", daemon=True)
        self._simulate(self._simulation, self._simulation.cameras, 1 / _STATE_RATE)
        self._rendering_thread.start()

    def _calibration_board(self) -> MountedBoard | None:
        """Return the board of the parameters ``board`` (none, table or gripper) and ``board_file``."""
        place = parameters.text(self, "board", _NO_BOARD)
        file = parameters.text(self, "board_file", "")
        if place == _NO_BOARD:
            return None
        return MountedBoard.at(CalibrationBoard.load(Path(file) if file else paths.shared(*_BOARD_FILE)), place)

    def _reset_scene(self, task: str, seed: int) -> None:
        self._simulation.reset(task, seed, perturbations=self._perturbations)

    def close(self) -> None:
        """End both threads."""
        super().close()
        self._ending = True
        self._pending.release()
        self._rendering_thread.join()

    def _advance(self, deadline: float, periods: int) -> bool:
        try:
            advanced = super()._advance(deadline, periods)
        except GenimaError as error:  # of the task's code: no joint states are published, so that the guard holds
            self._diagnostics.set_fault("task", f"{error}, then reset the scene")
            return False
        self._diagnostics.clear_fault("task")
        return advanced

    def _expose(self, stamp: float) -> None:
        if len(self._exposed) == self._exposed.maxlen:
            self._frames.drop()
        model = self._simulation.model
        self._exposed.append(
            _Exposure(model, model.body_pos.copy(), model.body_quat.copy(), self._simulation.qpos(), stamp)
        )
        self._pending.release()

    # The camera thread.

    def _render_loop(self) -> None:
        cameras = self._simulation.cameras
        rendered = {self._view: cameras[self._view]} if self._view else cameras
        with self._lock:
            source = self._simulation.model
            own = copy.copy(source)
        renderer = SceneRenderer(own, rendered)
        while True:
            self._pending.acquire()
            if self._ending:
                renderer.close()
                return
            try:
                exposure = self._exposed.popleft()
            except IndexError:  # replaced by a newer one
                continue
            start = time.monotonic()
            if exposure.model is not source:  # of a perturbed episode
                source = exposure.model
                with self._lock:
                    own = copy.copy(source)
            own.body_pos[:], own.body_quat[:] = exposure.body_pos, exposure.body_quat
            images = renderer.render(exposure.qpos, own)
            views = [view for view in self._depth_views() if view in rendered]
            depth = renderer.render_depth(exposure.qpos, own, views) if views else {}
            self._rendering.add(time.monotonic() - start)
            self._publish_images(images, exposure.stamp, depth)


main = node_main(SimNode, CONTROL_NICENESS, role="robot")
