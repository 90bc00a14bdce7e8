"""Cameras in MuJoCo models."""

from __future__ import annotations

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from genima.cameras.camera import Camera
from genima.robot.model import RobotModel

_R_OPTICAL_MUJOCO = np.diag([1.0, -1.0, -1.0])  # MuJoCo cameras: view along -z, y up


def add_camera(spec: mujoco.MjSpec, robot: RobotModel, camera: Camera) -> None:
    """Add a camera to the base or the flange, under the name of its view.

    MuJoCo cameras have square pixels and a central principal point; the calibration's are ignored.
    """
    position = camera.T_parent_camera[:3, 3].copy()
    body = spec.worldbody
    if camera.parent == "flange":
        body = spec.body("link7")
        position[2] += robot.flange_offset
    rotation = Rotation.from_matrix(camera.T_parent_camera[:3, :3] @ _R_OPTICAL_MUJOCO)
    body.add_camera(
        name=camera.view,
        pos=position.tolist(),
        quat=rotation.as_quat(scalar_first=True).tolist(),
        fovy=float(np.degrees(2 * np.arctan(camera.height / 2 / camera.fy))),
    )
