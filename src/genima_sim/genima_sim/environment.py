"""Simulated workcell in lock-step: the robot of ``genima.closed_loop``, deterministic and without ROS."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genima.cell import SIMULATED, Cell, load_cell
from genima.types import Command, Joints, Observation
from genima_sim.rendering import SceneRenderer
from genima_sim.simulation import Simulation


class Environment:
    """Time passes only in :meth:`apply`."""

    command_rate = 50.0  # Hz

    def __init__(self, cell: Cell | None = None) -> None:
        cell = cell or load_cell(SIMULATED)
        self.simulation = Simulation(cell.robot, cameras=cell.load_cameras())
        self.renderer = SceneRenderer(self.simulation.model, self.simulation.cameras)

    def reset(self, task: str, seed: int, start: NDArray[np.float64] | None = None) -> None:
        """Start an episode; ``start`` (n,) in rad overrides the arm's random joints.

        Raises:
            GenimaError: for an unknown task.
        """
        self.simulation.reset(task, seed, start)

    @property
    def time(self) -> float:
        """Seconds since the episode's start."""
        return self.simulation.time

    @property
    def done(self) -> bool:
        """Return whether the task is accomplished."""
        return self.simulation.success

    def joints(self) -> Joints:
        """Return the measured joints."""
        return self.simulation.joints()

    def objects(self) -> dict[str, NDArray[np.float64]]:
        """Return the positions of the objects by name, (3,) m in the base frame each."""
        return self.simulation.objects()

    def observe(self) -> Observation:
        """Return images of all cameras, the measured joints and the objects' positions."""
        simulation = self.simulation
        images = self.renderer.render(simulation.qpos(), model=simulation.model)
        return Observation(self.time, images, self.joints(), simulation.instruction, self.objects())

    def apply(self, command: Command | None, seconds: float) -> None:
        """Send joint positions (None: keep the last) and simulate."""
        if command is not None:
            self.simulation.command(command.positions, command.gripper)
        self.simulation.step(seconds)

    def close(self) -> None:
        """Free the renderer."""
        self.renderer.close()
