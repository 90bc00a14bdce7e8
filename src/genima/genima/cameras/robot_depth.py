"""Depth images of the robot model, without a scene."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.cameras.virtual_view import robot_only_model
from genima.robot.body import finger_ratios
from genima.robot.model import RobotModel
from genima.system.opengl_context import mujoco_renderer

_FAR = 20.0  # m: larger depths are background


class RobotDepth:
    """Depth renderer of the robot for any camera pose. Its OpenGL context belongs to the creating thread."""

    def __init__(self, robot: RobotModel, camera: Camera) -> None:
        """``camera`` gives size and focal length; its pixels must be square and its principal point central.

        Takes about two seconds, most of it to read the meshes, which are cached.

        Raises:
            GenimaError: for a robot without meshes, or a missing OpenGL driver.
        """
        self.camera, self._robot = camera, robot
        model = robot_only_model(robot, replace(camera, parent="base"))
        model.vis.quality.offsamples = 0
        self._model, self._data = model, mujoco.MjData(model)
        self._arm = [model.joint(name).qposadr[0] for name in robot.joint_names]
        ratios = finger_ratios(robot)
        self._fingers = [model.joint(name).qposadr[0] for name in ratios]
        self._ratios = np.array(list(ratios.values()))
        self._renderer = mujoco_renderer(model, camera.height, camera.width)
        self._renderer.enable_depth_rendering()

    def render(
        self, T_base_camera: NDArray[np.float64], positions: NDArray[np.floating], gripper: float
    ) -> NDArray[np.float32]:
        """Render the depth (h, w) in m along the optical axis, infinite outside the robot.

        Args:
            T_base_camera: (4, 4), pose of the optical frame.
            positions: (n,) joint positions in rad.
            gripper: open fraction, 1 open .. 0 closed.
        """
        self._data.qpos[self._arm] = positions
        self._data.qpos[self._fingers] = self._ratios * self._robot.gripper_position(gripper)
        mujoco.mj_kinematics(self._model, self._data)
        self._renderer.update_scene(self._data, self.camera.view)
        for gl_camera in self._renderer.scene.camera:
            gl_camera.pos, gl_camera.forward, gl_camera.up = (
                T_base_camera[:3, 3],
                T_base_camera[:3, 2],
                -T_base_camera[:3, 1],
            )
        depth = self._renderer.render()
        depth[depth > _FAR] = np.inf
        return depth

    def close(self) -> None:
        """Free the OpenGL context, in the creating thread."""
        self._renderer.close()
