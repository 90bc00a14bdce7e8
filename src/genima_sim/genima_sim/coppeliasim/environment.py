"""Scene in CoppeliaSim in lock-step: the robot of ``genima.closed_loop``, without ROS."""

from __future__ import annotations

from genima.errors import GenimaError
from genima.types import Command, Joints, Observation
from genima_sim.coppeliasim.scene import CoppeliaScene


class CoppeliaEnvironment:
    """Time passes only in :meth:`apply`; each command lasts for one step of the simulation.

    The scene's script judges the task.
    """

    def __init__(self, scene: CoppeliaScene) -> None:
        """Args:
        scene: a stepped scene; the environment closes it.

        Raises:
            GenimaError: for a scene without a script, which judges success.
        """
        self._scene = scene
        self._start = 0.0  # of the episode, s of simulation time
        self._joints = scene.joints()
        if not scene.judges:
            scene.close()
            raise GenimaError(
                "scene in CoppeliaSim: no script that judges success; add `script` to its names (docs/coppeliasim.md)"
            )

    @property
    def command_rate(self) -> float:
        """Hz."""
        return 1 / self._scene.period

    def reset(self, task: str, seed: int) -> None:
        """Start an episode; raise a GenimaError for an unknown task."""
        self._scene.reset(task, seed)
        self._joints = self._scene.joints()
        self._start = self._joints.stamp

    @property
    def time(self) -> float:
        """Seconds since the episode's start."""
        return self._joints.stamp - self._start

    @property
    def done(self) -> bool:
        """Return whether the task is accomplished."""
        return self._scene.success

    def joints(self) -> Joints:
        """Return the measured joints."""
        return Joints(self.time, self._joints.positions, self._joints.gripper)

    def observe(self) -> Observation:
        """Return images of all cameras and the measured joints."""
        return Observation(self.time, dict(self._scene.render()), self.joints(), self._scene.instruction)

    def apply(self, command: Command | None, seconds: float) -> None:
        """Send joint positions (None: keep the last) and simulate."""
        if command is not None:
            self._scene.command(command.positions, command.gripper)
        self._scene.step(seconds)
        self._joints = self._scene.joints()
        self._scene.update_status()

    def close(self) -> None:
        """Stop the simulation."""
        self._scene.close()
