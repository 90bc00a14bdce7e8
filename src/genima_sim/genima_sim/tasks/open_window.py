"""Turn the handle of a window to unlock it, and push the window open."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import Motion, MoveJoint, grasp
from genima_sim.parts import add_box, add_hinge, add_lever
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Latch, Region, SceneObject, Task

_FRAME, _SASH, _GLASS, _STEEL = (0.88, 0.88, 0.86), (0.40, 0.24, 0.14), (0.60, 0.80, 0.95), (0.90, 0.70, 0.20)
_WIDTH, _HALF_HEIGHT, _MIDDLE = 0.17, 0.13, 0.18  # m: of a sash, half of its height, height of its middle
_EDGE = 0.012  # m, half the width of the profiles
_LEVER = 0.10  # m
_OPEN, _UNLOCKED = np.radians(30), np.radians(25)  # rad of the window and of its handle


class Window(SceneObject):
    """Window of two sashes, each with a handle that unlocks it; they open away from the robot."""

    name = "window"
    region = Region((0.55, 0.60), (-0.04, 0.10), (-0.39, 0.25))
    radius = 0.22

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        window = spec.worldbody.add_body(name=self.name)
        half = _WIDTH + 2 * _EDGE
        for z in (0.02, _MIDDLE + _HALF_HEIGHT + 0.02):
            add_box(window, [0, 0, z], [0.02 if z < 0.1 else 0.012, half, 0.02 if z < 0.1 else 0.012], _FRAME)
        for side in (-1, 1):
            add_box(window, [0, side * half, _MIDDLE], [0.012, _EDGE, _HALF_HEIGHT + 0.02], _FRAME)
            self._add_sash(window, "left" if side > 0 else "right", side)

    def _add_sash(self, window: mujoco.MjsBody, name: str, side: int) -> None:
        """Add a sash with its hinge on the outer ``side``."""
        sash = window.add_body(name=f"window_{name}", pos=[0, side * _WIDTH, _MIDDLE])
        add_hinge(sash, f"window_{name}", [0, 0, 0], [0, 0, side], (0, 1.3), friction=0.05)
        middle, inner = -side * _WIDTH / 2, -side * (_WIDTH - _EDGE - 0.003)
        add_box(sash, [0, middle, 0], [0.004, _WIDTH / 2 - 0.01, _HALF_HEIGHT - 0.01], _GLASS, mass=0.3)
        for z in (_EDGE - _HALF_HEIGHT, _HALF_HEIGHT - _EDGE):
            add_box(sash, [0, middle, z], [0.01, _WIDTH / 2 - 0.003, _EDGE - 0.002], _SASH, mass=0.05)
        for y in (-side * _EDGE, inner):
            add_box(sash, [0, y, 0], [0.01, _EDGE - 0.002, _HALF_HEIGHT - 0.002], _SASH, mass=0.05)
        at = [-0.06, inner, 0]
        add_lever(
            sash, f"window_{name}", at, side, _LEVER, 0.05, _STEEL, approach=(1, 0, -0.68), friction=0.03, stiffness=0.1
        )


class OpenWindow(Task):
    """Judged as in the GENIMA paper, appendix A: the left window is open by 30 deg; its handle unlocks it."""

    instructions = (
        "open the left window",
        "rotate the handle to unlock the left window, then open it",
        "turn the left handle and push the left window open",
    )
    objects = (Window(),)
    latches = (
        Latch("window_left", "window_left_handle", _UNLOCKED),
        Latch("window_right", "window_right_handle", _UNLOCKED),
    )
    near_misses = {
        "handle turned, window shut": {"window_left_handle": 0.8},
        "open by half": {"window_left_handle": 0.8, "window_left": 0.5 * _OPEN},
        "open by 90%": {"window_left_handle": 0.8, "window_left": 0.9 * _OPEN},
        "the right window": {"window_right_handle": 0.8, "window_right": 1.0},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.moved("window_left") > _OPEN

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        yield from grasp(scene.frame("window_left_lever"))
        yield MoveJoint("window_left_handle", 0.62, 1.5, turn=0.0)
        yield MoveJoint("window_left", 0.65, 2.5, turn=0.0)
