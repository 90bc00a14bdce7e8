"""Put a basketball through a hoop."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import GRIP_TIME, Motion, MoveTo, grasp, shift, top_down_grasp
from genima_sim.parts import add_ball, add_bar, add_box, add_cylinder, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_ORANGE = (0.88, 0.42, 0.08)
_POLE, _BOARD, _RIM, _NET = (0.35, 0.37, 0.42), (0.88, 0.89, 0.92), (0.75, 0.12, 0.08), (0.95, 0.95, 0.95)
_BALL = 0.035  # m, radius
_HEIGHT, _NET_LENGTH = 0.22, 0.09  # m
_RIM_RADIUS, _NET_RADIUS, _SIDES = 0.075, 0.052, 12  # m, of the ring and of the lower end of its net
_OVER, _RELEASE = 0.10, 0.05  # m of the ball over the rim


class Ball(SceneObject):
    """Basketball."""

    name = "ball"
    region = Region((0.36, 0.56), (-0.27, 0.1))
    radius = 0.09  # m: the gripper finds room beside it

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        ball = spec.worldbody.add_body(name=self.name, pos=[0, 0, _BALL])
        ball.add_freejoint(name=self.name)
        # It rolls little, so that it stays where it is placed.
        add_ball(ball, [0, 0, 0], _BALL, _ORANGE, mass=0.06, friction=[1.5, 0.05, 0.002], condim=6)
        add_site(ball, self.name, [0, 0, 0])


class Hoop(SceneObject):
    """Hoop with a net, in front of a board on a pole."""

    name = "hoop"
    region = Region((0.50, 0.58), (0.20, 0.27), (-0.4, 0.4))
    radius = 0.11
    receives = True

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        hoop = spec.worldbody.add_body(name=self.name)
        back = _RIM_RADIUS + 0.04
        add_box(hoop, [back + 0.02, 0, 0.008], [0.06, 0.06, 0.008], _POLE)
        add_cylinder(hoop, [back + 0.02, 0, _HEIGHT / 2], 0.015, _HEIGHT / 2, _POLE)
        add_box(hoop, [back, 0, _HEIGHT + 0.05], [0.005, 0.10, 0.07], _BOARD)
        add_bar(hoop, [_RIM_RADIUS, 0, _HEIGHT], [back, 0, _HEIGHT], 0.006, _RIM)
        angles = np.arange(_SIDES + 1) * 2 * np.pi / _SIDES
        ring = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(_SIDES + 1)])
        rim = _RIM_RADIUS * ring + [0, 0, _HEIGHT]
        end = _NET_RADIUS * ring + [0, 0, _HEIGHT - _NET_LENGTH]
        for i in range(_SIDES):
            add_bar(hoop, rim[i], rim[i + 1], 0.006, _RIM)
            add_bar(hoop, rim[i], end[i], 0.002, _NET, friction=[0.2, 0.005, 0.0001])
        add_site(hoop, "rim", [0, 0, _HEIGHT])
        half = _NET_LENGTH / 2  # m; the corners are nearer to the axis than a ball that slides down outside the net
        add_site(hoop, "net", [0, 0, _HEIGHT - 0.02 - half], z=(0, 0, 1), half=[_NET_RADIUS, _NET_RADIUS, half])


class BasketballInHoop(Task):
    """Judged as in the GENIMA paper, appendix A: the ball falls through the hoop."""

    instructions = (
        "put the ball in the hoop",
        "play basketball",
        "pick up the basketball and put it in the hoop",
    )
    objects = (Ball(), Hoop())
    allows_scaling = True
    near_misses = {
        "on the table below the hoop": {"ball": RelativePose("rim", (0.0, 0.0, _BALL - _HEIGHT))},
        "in the air above the hoop": {"ball": RelativePose("rim", (0.0, 0.0, 0.55))},
        "beside the net": {"ball": RelativePose("net", (-0.13, 0.0, 0.0))},
        "in front of the board, outside the rim": {"ball": RelativePose("rim", (0.0, 0.12, 0.05))},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.is_inside("ball", "net") and not state.is_touched("ball")

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        hoop = scene.body("hoop")
        across = np.arctan2(hoop[1, 1], hoop[0, 1])  # the fingers open along the board
        (x, y, z), (hoop_x, hoop_y, _) = scene.body("ball")[:3, 3], hoop[:3, 3]
        ball, over = top_down_grasp(x, y, z, across), top_down_grasp(hoop_x, hoop_y, _HEIGHT, across)
        yield from grasp(ball)
        yield MoveTo(shift(ball, z=_HEIGHT + _OVER - _BALL), 1.3, 0.0)
        yield MoveTo(shift(over, z=_OVER), 1.5, 0.0)
        yield MoveTo(shift(over, z=_RELEASE), 0.5, 0.0)
        yield MoveTo(shift(over, z=_RELEASE), GRIP_TIME, 1.0)
