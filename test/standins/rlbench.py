"""Stand-in for RLBench 1.2.0: the modules, classes and functions that the adapter calls, without a simulation."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

HOME = np.array([0.0, 0.18, 0.0, -0.87, 0.0, 1.22, 0.785])
_CAMERAS = ("left_shoulder", "right_shoulder", "overhead", "wrist", "front")


class Observation:
    pass


class Demo:
    def __init__(self, observations: list[Observation]) -> None:
        self._observations, self.random_seed, self.num_reset_attempts = observations, None, 1


class CameraConfig:
    def __init__(self) -> None:
        self.rgb, self.image_size = True, (128, 128)


class ObservationConfig:
    def __init__(self) -> None:
        for name in _CAMERAS:
            setattr(self, f"{name}_camera", CameraConfig())
        self.joint_positions = self.gripper_open = True

    def set_all(self, value: bool) -> None:
        for name in _CAMERAS:
            getattr(self, f"{name}_camera").rgb = value
        self.joint_positions = self.gripper_open = value


class TaskEnvironmentError(Exception):
    pass


class JointPosition:
    def __init__(self, absolute_mode: bool = True) -> None:
        assert absolute_mode


class Discrete:
    pass


class MoveArmThenGripper:
    def __init__(self, arm_action_mode: JointPosition, gripper_action_mode: Discrete) -> None:
        pass


class TaskEnvironment:
    """Task that succeeds when joint 1 has moved by 0.2 rad, and fails when joint 7 has."""

    def __init__(self, config: ObservationConfig) -> None:
        self._config, self.variation = config, -1

    def set_variation(self, v: int) -> None:
        self.variation = v

    def reset(self) -> tuple[list[str], Observation]:
        self.place = np.random.uniform(size=2)
        if self.place[0] > 0.97:
            raise TaskEnvironmentError("Could not place the task push_button in the scene.")
        self.q, self.opened = HOME.copy(), 1.0
        return ["push the maroon button", "press it"], self._observation()

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool]:
        assert action.shape == (8,) and action[7] in (0.0, 1.0)
        self.q, self.opened = action[:7].copy(), float(action[7])
        success = self.q[0] - HOME[0] > 0.2
        return self._observation(), float(success), bool(success or self.q[6] - HOME[6] > 0.2)

    def _observation(self) -> Observation:
        observation = Observation()
        observation.joint_positions, observation.gripper_open = self.q.copy(), self.opened  # type: ignore[attr-defined]
        for name in _CAMERAS:
            camera = getattr(self._config, f"{name}_camera")
            width, height = camera.image_size
            setattr(observation, f"{name}_rgb", np.full((height, width, 3), 90, np.uint8) if camera.rgb else None)
        return observation


class Environment:
    def __init__(self, action_mode: MoveArmThenGripper, obs_config: ObservationConfig, headless: bool = False) -> None:
        self.config, self.tasks, self.running = obs_config, list[str](), True

    def get_task(self, task_class: str) -> TaskEnvironment:
        self.tasks.append(task_class)
        return TaskEnvironment(self.config)

    def shutdown(self) -> None:
        self.running = False


_MODULES: dict[str, dict[str, Any]] = {
    "rlbench": {},
    "rlbench.utils": {"name_to_task_class": lambda name: name},
    "rlbench.action_modes": {},
    "rlbench.action_modes.action_mode": {"MoveArmThenGripper": MoveArmThenGripper},
    "rlbench.action_modes.arm_action_modes": {"JointPosition": JointPosition},
    "rlbench.action_modes.gripper_action_modes": {"Discrete": Discrete},
    "rlbench.backend": {},
    "rlbench.backend.exceptions": {"TaskEnvironmentError": TaskEnvironmentError},
    "rlbench.backend.observation": {"Observation": Observation},
    "rlbench.demo": {"Demo": Demo},
    "rlbench.environment": {"Environment": Environment},
    "rlbench.observation_config": {"ObservationConfig": ObservationConfig},
}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stand-in importable, and its objects pickled under RLBench's names, until the test ends."""
    for name, members in _MODULES.items():
        module = ModuleType(name)
        for key, member in members.items():
            setattr(module, key, member)
            if isinstance(member, type):
                monkeypatch.setattr(member, "__module__", name)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
