"""Insert a USB stick in a computer."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np

from genima_sim.motions import Motion, MoveTo, grasp, shift
from genima_sim.parts import GRIP, add_box, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_CASE, _PORT, _STAND = (0.20, 0.21, 0.24), (0.10, 0.35, 0.75), (0.55, 0.56, 0.58)
_STICK, _STEEL = (0.80, 0.16, 0.12), (0.80, 0.82, 0.85)
_GRIP_HALF = 0.017, 0.012, 0.032  # m of the stick's grip
_PLUG_HALF = 0.008, 0.004, 0.016  # m of its plug
_SLACK = 0.0015  # m on each side of the plug in the port
_DEPTH, _MOUTH = 0.021, 0.010  # m of the port, and of the funnel above it
_CASE_HEIGHT = 0.06  # m, where the port begins
_INSERTED = 0.008  # m of the plug in the port, at least
_LIFT = 0.05  # m: the plug is out of its stand
_SLOPE = 0.6  # rad of the funnel, from upright


def _add_hole(body: mujoco.MjsBody, bottom: float, slack: float, rgb: tuple[float, float, float]) -> None:
    """Add the four sides of a rectangular hole for the plug: walls, and slabs that form a funnel above them."""
    wall, slab = 0.006, 0.003  # m, half thicknesses
    c, s = np.cos(_SLOPE), np.sin(_SLOPE)
    tilt = [np.cos(_SLOPE / 2), 0, np.sin(_SLOPE / 2), 0]
    for i in range(4):
        angle, distance, width = i * np.pi / 2, _PLUG_HALF[i % 2] + slack, _PLUG_HALF[1 - i % 2] + slack + 2 * wall
        quat = [np.cos(angle / 2), 0, 0, np.sin(angle / 2)]
        side = body.add_body(name=f"{body.name}_hole_{i}", pos=[0, 0, bottom], quat=quat)
        add_box(side, [distance + wall, 0, _DEPTH / 2], [wall, width, _DEPTH / 2], rgb)
        at = [distance + _MOUTH / 2 * s / c + slab * c, 0, _DEPTH + _MOUTH / 2 - slab * s]
        add_box(side, at, [slab, width, _MOUTH / 2 / c], rgb, quat=tilt)


class UsbStick(SceneObject):
    """USB stick in a stand."""

    name = "usb_stand"
    region = Region((0.38, 0.50), (-0.24, -0.10), (-0.6, 0.6))
    radius = 0.07

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        stand = spec.worldbody.add_body(name=self.name)
        add_box(stand, [0, 0, 0.002], [0.03, 0.03, 0.002], _STAND)
        _add_hole(stand, 0.004, 2 * _SLACK, _STAND)
        height = 0.004 + _DEPTH + _MOUTH + _GRIP_HALF[2]
        usb = spec.worldbody.add_body(name="usb", pos=[0, 0, height + 0.001])
        usb.add_freejoint(name="usb")
        add_box(usb, [0, 0, 0], _GRIP_HALF, _STICK, mass=0.03, friction=GRIP)
        plug = -_GRIP_HALF[2] - _PLUG_HALF[2]
        add_box(usb, [0, 0, plug], _PLUG_HALF, _STEEL, mass=0.01, friction=[0.2, 0.005, 0.0001])
        add_site(usb, "usb_tip", [0, 0, plug - _PLUG_HALF[2]])
        add_site(usb, "usb_grip", [0, 0, 0.006], x=(0, 1, 0))


class Computer(SceneObject):
    """Desktop computer with a USB port at the top."""

    name = "computer"
    region = Region((0.42, 0.52), (0.10, 0.20), (-0.4, 0.4))
    radius = 0.14
    receives = True

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        computer = spec.worldbody.add_body(name=self.name)
        add_box(computer, [0.03, 0, _CASE_HEIGHT / 2], [0.09, 0.10, _CASE_HEIGHT / 2], _CASE)
        add_box(computer, [-0.061, 0.03, 0.03], [0.001, 0.008, 0.008], _PORT, contype=0, conaffinity=0)
        _add_hole(computer, _CASE_HEIGHT, _SLACK, _PORT)
        below = 0.002  # m: the tip may sink into the bottom of the port
        half = _PLUG_HALF[0], _PLUG_HALF[1], (_DEPTH - _INSERTED + below) / 2
        add_site(computer, "port", [0, 0, _CASE_HEIGHT - below + half[2]], half=half)
        add_site(computer, "port_mouth", [0, 0, _CASE_HEIGHT + _DEPTH + _MOUTH])
        height = _CASE_HEIGHT + 2 * _PLUG_HALF[2] + _GRIP_HALF[2] + 0.006
        add_site(computer, "usb_grip_goal", [0, 0, height], x=(0, 1, 0))


class InsertUsbInComputer(Task):
    """Judged as in the GENIMA paper, appendix A."""

    instructions = (
        "insert usb in computer",
        "pick up the usb and insert it into the computer",
        "plug the usb stick into the port of the computer",
    )
    objects = (UsbStick(), Computer())
    near_misses = {
        "above the port": {"usb": RelativePose("port_mouth", (0.0, 0.0, 0.6))},
        "on the rim of the port": {"usb": RelativePose("port_mouth", (0.02, 0.0, 0.07))},
        "lying on the computer": {"usb": RelativePose("port_mouth", (0.07, 0.0, -0.01), (0.0, 1.57, 0.0))},
        "beside the computer": {"usb": RelativePose("port_mouth", (-0.12, 0.0, 0.0))},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        return state.is_inside("usb_tip", "port")

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        grip, goal = scene.frame("usb_grip"), scene.frame("usb_grip_goal")
        yield from grasp(grip)
        yield MoveTo(shift(grip, z=_LIFT + _CASE_HEIGHT), 1.0, 0.0)
        yield MoveTo(shift(goal, z=_LIFT), 1.5, 0.0)
        yield MoveTo(shift(goal, z=0.001), 1.2, 0.0)
