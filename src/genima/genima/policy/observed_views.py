"""Images of an observation as policies take them."""

from __future__ import annotations

from typing import Any

from genima.cameras.camera import VIRTUAL
from genima.cameras.tiling import crop_square
from genima.errors import GenimaError
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.types import Image, Observation


class ObservedViews:
    """Function from an observation to the square images of a specification's views."""

    def __init__(self, robot: RobotModel) -> None:
        self._robot = robot
        self._virtual: Any = None

    def __call__(self, observation: Observation, spec: PolicySpec) -> dict[str, Image]:
        """Return the images (s, s, 3) by view, in tile order; s = spec.view_size.

        Raises:
            GenimaError: for a missing view, and an image of another size.
        """
        return {view: self._image(observation, view, spec) for view in spec.views}

    def _image(self, observation: Observation, view: str, spec: PolicySpec) -> Image:
        if view == VIRTUAL:
            from genima.cameras.virtual_view import VirtualView  # here: imports MuJoCo

            self._virtual = self._virtual or VirtualView(self._robot)
            joints = observation.joints
            return crop_square(self._virtual.render(joints.positions, joints.gripper), spec.view_size)
        if view not in observation.images:
            raise GenimaError(f"the observation has no image of view {view}")
        image, (width, height) = observation.images[view], spec.camera_size
        if image.shape != (height, width, 3):
            raise GenimaError(
                f"the image of view {view} has shape {image.shape}; the checkpoint takes ({height}, {width}, 3)"
            )
        return crop_square(image, spec.view_size)
