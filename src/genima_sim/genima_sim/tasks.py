"""The tasks: what is asked, where the objects are, and when it is done (judged as in the GENIMA paper, appendix A)."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError

if TYPE_CHECKING:  # options name tasks: a help page must not load a simulator
    import mujoco

DEMO_HZ = 20  # observations and commands a second of simulated demos
DEMO_SEED = 100_000  # of the first demo: evaluations count from 0, and never share a seed with demos
PAN_HEIGHT = 0.08  # m, where the lid lies
KNOB_HEIGHT = 0.05  # m, above the lid's 1 cm
# m in the base frame: where objects may stand, within the arm's easy reach and every view
_WORKSPACE_MIN, _WORKSPACE_MAX = np.array([0.36, -0.27]), np.array([0.62, 0.27])
_CLEARANCE = 0.22  # m between the two objects, so that the gripper finds room beside each


@dataclass(frozen=True)
class Layout:
    """Where the objects of one episode stand: (2,) positions in the base frame in m, yaw in rad."""

    button: NDArray[np.float64] = field(default_factory=lambda: np.array([0.5, -0.2]))
    saucepan: NDArray[np.float64] = field(default_factory=lambda: np.array([0.5, 0.2]))
    handle_yaw: float = 0.0

    @classmethod
    def random(cls, rng: np.random.Generator) -> Layout:
        """Both objects uniformly over the workspace, apart from each other."""
        while True:
            button, saucepan = rng.uniform(_WORKSPACE_MIN, _WORKSPACE_MAX, (2, 2))
            if np.linalg.norm(button - saucepan) > _CLEARANCE:
                return cls(button, saucepan, float(rng.uniform(-np.pi, np.pi)))


ASIDE = Layout(np.array([0.98, -0.5]), np.array([0.98, 0.45]))  # out of the arm's reach


@dataclass(frozen=True)
class Task:
    """One thing to do in the scene."""

    name: str
    instruction: str
    succeeded: Callable[[mujoco.MjData, Layout], bool]


def _button_is_down(data: mujoco.MjData, layout: Layout) -> bool:
    return bool(data.joint("button_slide").qpos[0] < -0.010)


def _lid_is_lifted(data: mujoco.MjData, layout: Layout) -> bool:
    lid = data.joint("lid").qpos
    above = lid[2] > PAN_HEIGHT + 0.10
    return bool(above and np.linalg.norm(lid[:2] - layout.saucepan) < 0.10)


TASKS = {
    task.name: task
    for task in (
        Task("push_button", "push down the maroon button", _button_is_down),
        Task("take_lid_off", "take the lid off the saucepan", _lid_is_lifted),
    )
}


def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        GenimaError: when there is none, naming the nearest.
    """
    if name in TASKS:
        return TASKS[name]
    guess = difflib.get_close_matches(name, TASKS, n=1)
    hint = f"; did you mean {guess[0]}?" if guess else ""
    raise GenimaError(f"unknown task {name!r}; known tasks: {', '.join(TASKS)}{hint}")
