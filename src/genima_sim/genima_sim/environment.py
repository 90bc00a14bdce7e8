"""Simulated workcell in lock-step: the robot of ``genima.closed_loop``, deterministic and without ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from genima.cell import SIMULATED, Cell, load_cell
from genima.types import Command, Joints, Observation
from genima_sim.rendering import SceneRenderer
from genima_sim.simulation import Simulation


class StateEnvironment:
    """Time passes only in :meth:`apply`; observations have no images."""

    command_rate = 50.0  # Hz

    def __init__(self, cell: Cell | None = None) -> None:
        cell = cell or load_cell(SIMULATED)
        self.simulation = Simulation(cell.robot, cameras=cell.load_cameras())
        self.perturbations: Sequence[str] = ()

    def reset(self, task: str, seed: int, start: NDArray[np.float64] | None = None) -> None:
        """Start an episode; ``start`` (n,) in rad overrides the arm's random joints.

        Raises:
            GenimaError: for an unknown task, and a perturbation that does not go with the task.
        """
        self.simulation.reset(task, seed, start, self.perturbations)

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

    def bodies(self) -> dict[str, NDArray[np.float64]]:
        """Return the poses of the objects' bodies by name, (4, 4) in the base frame each."""
        return self.simulation.bodies()

    def observe(self) -> Observation:
        """Return the measured joints and the poses of the objects' bodies."""
        return Observation(self.time, {}, self.joints(), self.simulation.instruction, self.bodies())

    def state(self) -> NDArray[np.float64]:
        """Return the configuration (nq,) of the scene."""
        return self.simulation.qpos()

    def apply(self, command: Command | None, seconds: float) -> None:
        """Send joint positions (None: keep the last) and simulate."""
        if command is not None:
            self.simulation.command(command.positions, command.gripper)
        self.simulation.step(seconds)

    def close(self) -> None:
        """See :class:`genima.evaluation.episodes.Environment`; there is nothing to free."""


class Environment(StateEnvironment):
    """Environment with images of all cameras."""

    def __init__(self, cell: Cell | None = None, depth: bool = False) -> None:
        """``depth``: observations have depth images, too."""
        super().__init__(cell)
        self._depth = depth
        self.renderer = SceneRenderer(self.simulation.model, self.simulation.cameras)

    def observe(self) -> Observation:
        """Return images of all cameras, the measured joints and the poses of the objects' bodies."""
        qpos, model = self.simulation.qpos(), self.simulation.model
        images = self.renderer.render(qpos, model)
        depth = self.renderer.render_depth(qpos, model) if self._depth else {}
        return replace(super().observe(), images=images, depth=depth)

    def close(self) -> None:
        """Free the renderer."""
        self.renderer.close()
