"""Poses of the fixed cameras."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from genima_sim.perturbation import Perturbation, SceneSpec

SHIFT = 0.1  # m along each axis
TURN = 0.05  # rad about each axis


class CameraPose(Perturbation):
    """Fixed cameras moved by up to 0.1 m along, and turned by up to 0.05 rad about each axis, uniformly.

    The calibration stays that of the unperturbed cameras, also in ``camera_info`` and ``/tf_static``: as in a lab where
    cameras were knocked. Cameras on the flange stay.

    Source: camera_pose of The Colosseum.
    """

    def change(self, scene: SceneSpec, rng: np.random.Generator) -> None:
        """See :class:`Perturbation`."""
        for camera in scene.spec.worldbody.cameras:
            camera.pos += rng.uniform(-SHIFT, SHIFT, 3)
            turn = Rotation.from_euler("xyz", rng.uniform(-TURN, TURN, 3))
            turned = Rotation.from_quat(camera.quat, scalar_first=True) * turn
            camera.quat = turned.as_quat(scalar_first=True)
