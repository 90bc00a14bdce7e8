"""Consistency of a drawn target with the joints that were predicted from it, checked before the arm moves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.cameras.tiling import untile
from genima.errors import GenimaError
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.targets.rendering import label_stripes
from genima.targets.sphere_geometry import place_spheres, stripe_colours
from genima.types import Image

_NEAR = 45.0  # grey levels, mean over the channels: between a sphere's colours and a blurred image of them


class TargetConsistency:
    """Renders the spheres of joints and compares a drawn target with them."""

    def __init__(self, spec: PolicySpec, robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
        """``cameras`` are those of the target's views; views without one, as a virtual one, are not compared.

        Raises:
            GenimaError: when there is none at all.
        """
        self._spec, self._robot = spec, robot
        self._cameras = {view: cameras[view].crop_square(spec.view_size) for view in spec.views if view in cameras}
        if not self._cameras:
            raise GenimaError(
                f"no calibration for any of the views {', '.join(spec.views)}; there are {', '.join(cameras) or 'none'}"
            )

    def __call__(
        self, tile: Image, target: NDArray[np.floating], gripper_open: bool, current: NDArray[np.floating]
    ) -> float:
        """Share of the pixels of the spheres of ``target`` (n,) rad that ``tile`` has in their colours.

        Of each sphere's two colours no more pixels count than it should show: a uniform image never agrees by more
        than half. ``current`` (n,) rad places a camera that moves with the arm. 0 where no sphere is in view.
        """
        views = untile(tile, self._spec.views)
        right = seen = 0
        for view, camera in self._cameras.items():
            placed = place_spheres(camera, self._robot, self._spec.appearance, target, gripper_open, current)
            labels = label_stripes(camera, placed, self._spec.appearance)
            seen += int(np.count_nonzero(labels))
            for i, sphere in enumerate(placed):
                first, second = labels == 2 * i + 1, labels == 2 * i + 2
                drawn = views[view][first | second].astype(np.int16)
                colours = stripe_colours(sphere, self._spec.appearance)[:, :3].astype(np.int16)
                off = np.abs(drawn[:, None] - colours).mean(-1)
                found = (off < _NEAR) & (off == off.min(1, keepdims=True))
                shown = np.count_nonzero(first), np.count_nonzero(second)
                right += int(np.minimum(found.sum(0), shown).sum())
        return right / seen if seen else 0.0
