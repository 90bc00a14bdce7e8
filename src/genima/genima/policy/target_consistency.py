"""Consistency of a drawn target with the joints predicted from it, checked before the arm moves."""

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
    """Comparison of a drawn target with the rendered spheres of predicted joints."""

    def __init__(self, spec: PolicySpec, robot: RobotModel, cameras: Mapping[str, Camera]) -> None:
        """``cameras`` by view; views without a camera, such as the virtual one, are not compared.

        Raises:
            GenimaError: when no view has a camera.
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
        """Return the fraction of sphere pixels of ``target`` (n,) rad that have their colours in ``tile``.

        At most the expected number of pixels of each stripe colour counts: a uniform image scores at most 0.5.
        ``current`` (n,) rad places a camera on the flange. 0 where no sphere is in view.
        """
        views = untile(tile, self._spec.views)
        matching = total = 0
        for view, camera in self._cameras.items():
            placed = place_spheres(camera, self._robot, self._spec.appearance, target, gripper_open, current)
            labels = label_stripes(camera, placed, self._spec.appearance)
            total += int(np.count_nonzero(labels))
            for i, sphere in enumerate(placed):
                first, second = labels == 2 * i + 1, labels == 2 * i + 2
                pixels = views[view][first | second].astype(np.int16)
                colours = stripe_colours(sphere, self._spec.appearance)[:, :3].astype(np.int16)
                errors = np.abs(pixels[:, None] - colours).mean(-1)
                matches = (errors < _NEAR) & (errors == errors.min(1, keepdims=True))
                expected = np.count_nonzero(first), np.count_nonzero(second)
                matching += int(np.minimum(matches.sum(0), expected).sum())
        return matching / total if total else 0.0
