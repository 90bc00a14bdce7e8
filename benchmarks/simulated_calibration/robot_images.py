"""Simulated images of the arm in the scene of the tasks, without a board, by a fixed camera of known pose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera import Camera
from genima.cameras.intrinsics import CameraIntrinsics
from genima.control.collision import SelfCollision
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.body import finger_ratios
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import inverse, transform
from genima.types import Image
from genima_sim.rendering import SceneRenderer
from genima_sim.scene import build_scene
from genima_sim.task import Placement, random_placements
from genima_sim.tasks import get_task, scene_objects
from simulated_calibration import optics
from simulated_calibration.optics import RENDER_FOCAL, RENDER_HEIGHT, RENDER_WIDTH, Sensor
from simulated_calibration.workcell import random_transform

Array = NDArray[np.float64]

_CAMERA = "camera"
_REFERENCE_VIEWS = ("front", "left_shoulder", "right_shoulder")
_CAMERA_SPREAD = 0.06, 5.0  # m, degrees: deviations from the reference view
_JOINT_SPREAD = np.array([0.7, 0.5, 0.5, 0.5, 0.6, 0.6, 0.8])  # rad from home
_LOWEST = 0.06  # m of joints and tip above the table
_ATTEMPTS = 2000


@dataclass(frozen=True)
class RobotImageSet:
    """N images of one camera: ground truth, and joints of each image."""

    seed: int
    T_base_camera: Array  # (4, 4)
    intrinsics: CameraIntrinsics
    sensor: Sensor
    placements: Mapping[str, Placement]  # of the objects on the table
    positions: Array  # (N, n) rad
    gripper: Array  # (N,) open fraction

    def noisy_joints(self, degrees: float) -> Array:
        """Return joints (N, n) in rad with Gaussian noise of that standard deviation."""
        noise = np.random.default_rng([self.seed, 0x4A01]).standard_normal(self.positions.shape)
        return self.positions + np.radians(degrees) * noise


class RobotImageGenerator:
    """Generate random cameras and joints, and their images. Its OpenGL context belongs to the thread that made it."""

    def __init__(self, robot: RobotModel) -> None:
        """Raise a GenimaError for a robot without meshes."""
        self._robot = robot
        size, middle = (RENDER_WIDTH, RENDER_HEIGHT), (RENDER_WIDTH / 2, RENDER_HEIGHT / 2)
        camera = Camera(_CAMERA, "base", np.eye(4), *size, RENDER_FOCAL, RENDER_FOCAL, *middle)
        self._objects = scene_objects(get_task("push_button"))
        self._scene = build_scene(robot, {_CAMERA: camera}, self._objects)
        self._model = self._scene.model
        self._data = mujoco.MjData(self._model)
        self._arm = [self._model.joint(name).qposadr[0] for name in robot.joint_names]
        self._renderer = SceneRenderer(self._model, {_CAMERA: camera})
        self._self_collision = SelfCollision(robot)

    def random_set(self, seed: int, count: int) -> RobotImageSet:
        """Return a random camera near a reference view, with random joints whose images show the hand.

        Equal seeds give equal sets.

        Raises:
            GenimaError: when too few such joints are found.
        """
        rng = np.random.default_rng([seed, 0x0B07])
        reference = load_cameras(paths.shared("calibration", "sim"))[str(rng.choice(_REFERENCE_VIEWS))]
        T_base_camera = reference.T_parent_camera @ random_transform(rng, *_CAMERA_SPREAD)
        intrinsics, placements = optics.random_intrinsics(rng), random_placements(self._objects, rng)
        found: list[Array] = []
        for _ in range(_ATTEMPTS):
            if len(found) == count:
                break
            positions = self._robot.home + rng.uniform(-1, 1, len(self._robot.home)) * _JOINT_SPREAD
            positions = np.clip(positions, self._robot.position_min + 0.05, self._robot.position_max - 0.05)
            points = self._robot.link_poses(positions)[2:, :3, 3]
            pixels = intrinsics.project(transform(inverse(T_base_camera), points[-2:]))
            visible = np.all((pixels > 20) & (pixels < np.array([intrinsics.width, intrinsics.height]) - 20))
            if visible and points[:, 2].min() > _LOWEST and not self._self_collision.depth(positions):
                found.append(positions)
        if len(found) < count:
            raise GenimaError(f"robot images: found {len(found)} of {count} poses that show the hand; ask for fewer")
        gripper = rng.uniform(0, 1, count)
        return RobotImageSet(seed, T_base_camera, intrinsics, Sensor(), placements, np.array(found), gripper)

    def images(self, image_set: RobotImageSet) -> Sequence[Image]:
        """Return the images, (480, 640, 3) each; equal for equal sets."""
        rng = np.random.default_rng([image_set.seed, 0x1A6E])
        rays = optics.pixel_rays(image_set.intrinsics)
        self._scene.place(self._data, image_set.placements)
        placed, T = self._model.camera(_CAMERA), image_set.T_base_camera @ np.diag([1.0, -1.0, -1.0, 1.0])
        placed.pos[:] = T[:3, 3]
        mujoco.mju_mat2Quat(placed.quat, T[:3, :3].ravel())
        images = []
        for positions, gripper in zip(image_set.positions, image_set.gripper, strict=True):
            self._data.qpos[self._arm] = positions
            finger = self._robot.gripper_position(gripper)
            for name, ratio in finger_ratios(self._robot).items():
                self._data.joint(name).qpos[:] = ratio * finger
            render = self._renderer.render(self._data.qpos, self._model)[_CAMERA]
            images.append(optics.expose(render, rays, image_set.sensor, rng))
        return images

    def close(self) -> None:
        """Free the OpenGL context; call it in the thread that made it."""
        self._renderer.close()
