"""Tasks of RLBench in lock-step: the robot of ``genima.closed_loop``."""

from __future__ import annotations

from typing import Any

import numpy as np

from genima.errors import GenimaError
from genima.types import Command, Joints, Observation
from genima_sim.rlbench.tasks import RATE, VARIATION, require_task

VIEWS = ("front", "left_shoulder", "right_shoulder", "wrist")


class RLBenchEnvironment:
    """One action is one step of RLBench: joint positions of the arm, and an open or closed gripper.

    Opening and closing take further steps of the simulation, which are not counted, as in RLBench's own demos.
    """

    command_rate = RATE

    def __init__(self, size: tuple[int, int]) -> None:
        """Args:
        size: width and height of the images in px.

        Raises:
            GenimaError: when RLBench is not installed.
        """
        try:
            from rlbench import utils
            from rlbench.action_modes.action_mode import MoveArmThenGripper
            from rlbench.action_modes.arm_action_modes import JointPosition
            from rlbench.action_modes.gripper_action_modes import Discrete
            from rlbench.backend.exceptions import TaskEnvironmentError
            from rlbench.environment import Environment
            from rlbench.observation_config import ObservationConfig
        except ImportError as error:
            raise GenimaError(
                f"RLBench: cannot be imported ({error}); unpack CoppeliaSim 4.1, set COPPELIASIM_ROOT, then "
                "pip install git+https://github.com/stepjam/RLBench.git (docs/coppeliasim.md)"
            ) from None
        config = ObservationConfig()
        config.set_all(False)
        config.joint_positions = config.gripper_open = True
        for view in VIEWS:
            camera = getattr(config, f"{view}_camera")
            camera.rgb, camera.image_size = True, size
        self._class_of, self._unplaced = utils.name_to_task_class, TaskEnvironmentError
        action_mode = MoveArmThenGripper(JointPosition(absolute_mode=True), Discrete())
        self._environment = Environment(action_mode, obs_config=config, headless=True)
        self._name = ""
        self._task: Any = None  # RLBench's task environment

    def reset(self, task: str, seed: int) -> None:
        """Start an episode; equal seeds place the objects equally.

        Raises:
            GenimaError: for an unknown task, and when RLBench finds no place for the objects.
        """
        require_task(task)
        if task != self._name:
            self._name, self._task = task, self._environment.get_task(self._class_of(task))
            self._task.set_variation(VARIATION)
        np.random.seed(seed)  # RLBench draws from NumPy's global state
        try:
            wordings, self._seen = self._task.reset()
        except self._unplaced as error:
            raise GenimaError(f"RLBench task {task}, seed {seed}: {' '.join(str(error).split())}") from None
        self._instruction = str(wordings[0])
        self._steps, self._success, self._failed = 0, False, False
        self._last = Command(0.0, *self._measured())

    @property
    def time(self) -> float:
        """Seconds since the episode's start."""
        return self._steps / RATE

    @property
    def done(self) -> bool:
        """Return whether the task is accomplished."""
        return self._success

    def joints(self) -> Joints:
        """Return the measured joints."""
        positions, _, gripper = self._measured()
        return Joints(self.time, positions, gripper)

    def observe(self) -> Observation:
        """Return images of all cameras and the measured joints."""
        images = {view: np.asarray(getattr(self._seen, f"{view}_rgb"), np.uint8) for view in VIEWS}
        return Observation(self.time, images, self.joints(), self._instruction)

    def apply(self, command: Command | None, seconds: float) -> None:
        """Send joint positions (None: keep the last) and make a step of RLBench."""
        self._last = self._last if command is None else command
        opened = float(self._last.gripper > 0.5)
        self._seen, reward, terminate = self._task.step(np.append(self._last.positions, opened))
        self._steps += 1
        self._success = self._success or (bool(reward) and not self._failed)
        self._failed = self._failed or (bool(terminate) and not self._success)  # a later reward is not counted

    def close(self) -> None:
        """Shut CoppeliaSim down."""
        self._environment.shutdown()

    def _measured(self) -> tuple[Any, Any, float]:
        """Return positions (n,), no velocities, and the open fraction."""
        return np.asarray(self._seen.joint_positions, float), np.zeros(0), float(self._seen.gripper_open)
