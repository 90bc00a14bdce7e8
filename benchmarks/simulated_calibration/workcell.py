"""Simulated workcell with a calibration board: random setups and their images."""

from __future__ import annotations

from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera import Camera
from genima.cameras.intrinsics import CameraIntrinsics
from genima.control.collision import SelfCollision
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.body import COLLISION, arm_only_model, finger_ratios
from genima.robot.ik import InverseKinematics
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import inverse, pose, transform
from genima.types import Image
from genima_sim.mounted_board import BOARD, MountedBoard, in_gripper, on_table
from genima_sim.rendering import SceneRenderer
from genima_sim.scene import build_scene
from genima_sim.task import OBJECT_GROUP
from simulated_calibration import optics
from simulated_calibration.optics import RENDER_FOCAL, RENDER_HEIGHT, RENDER_WIDTH, Sensor
from simulated_calibration.setup import CalibrationSetup

Array = NDArray[np.float64]

_CAMERA = "camera"
_REFERENCE_VIEWS = {"base": ("front", "left_shoulder", "right_shoulder"), "flange": ("wrist",)}
_CAMERA_SPREAD = {"base": (0.06, 5.0), "flange": (0.015, 4.0)}  # m, degrees: deviations from the reference view
_BOARD_SPREAD = 0.004, 2.0  # m, degrees: deviations from the nominal pose in the gripper
_ON_TABLE = (0.42, -0.10), (0.54, 0.10)  # m in the base frame: range of the centre of the board
_DISTANCE = {"base": (0.45, 0.80), "flange": (0.30, 0.52)}  # m of the centre of the board along the optical axis
_OFF_AXIS = np.array([0.30, 0.22])  # of that distance
_TILT = np.radians(45)  # of the board against the line of sight, at most
_BORDER = 8  # px between the board and the image's border
_SQUARE = 21.0  # px, minimum extent in an image: at least two per cell of a marker
_MIN_ANGLE = np.radians(10)  # between the board's orientations in any two samples, at least
_REACH = 0.3, 0.8  # m of the flange from the shoulder
_LIMIT_MARGIN = 0.05  # rad kept free at both ends of every joint's range
_ATTEMPTS = 3000
_HEADLIGHT = 0.45  # the scene's lights do not reach a board in the gripper
_SIGHT_CLEARANCE = 0.005  # m in front of a point of the board; a nearer hit is the board itself


class CalibrationWorkcell:
    """Workcell with one board: in the gripper for a camera on the base, on the table for one on the flange.

    Its OpenGL context belongs to the thread that made it::

        workcell = CalibrationWorkcell(board, "flange")
        setup = workcell.random_setup(seed=0)
        images, joints = workcell.images(setup), setup.noisy_joints(degrees=0.1)
        ...  # calibrate with setup.intrinsics; compare with setup.T_parent_camera and setup.T_carrier_board
        workcell.close()

    For outliers, use ``setup.displace_board([3, 8])``, ``rotate_images(images, [3])``, ``delay_images(images, [8])``,
    or the images of another workcell with another board.
    """

    def __init__(self, board: CalibrationBoard, parent: Literal["base", "flange"]) -> None:
        """Build the workcell; takes about five seconds, mostly to read the meshes (cached).

        Raises:
            GenimaError: for another parent.
        """
        if parent not in _REFERENCE_VIEWS:
            raise GenimaError(f"parent of the camera: base or flange, not {parent!r}")
        self._robot = RobotModel.load("panda")
        self._board, self._parent = board, parent
        size = RENDER_WIDTH, RENDER_HEIGHT
        middle = RENDER_WIDTH / 2, RENDER_HEIGHT / 2
        camera = Camera(_CAMERA, parent, np.eye(4), *size, RENDER_FOCAL, RENDER_FOCAL, *middle)
        mounted = MountedBoard.at(board, "gripper" if parent == "base" else "table")
        self._model = build_scene(self._robot, {_CAMERA: camera}, board=mounted).model
        self._model.vis.headlight.diffuse[:] = _HEADLIGHT
        self._data = mujoco.MjData(self._model)
        finger = self._robot.gripper_position(0.0 if parent == "base" else 1.0)
        for name, ratio in finger_ratios(self._robot).items():
            self._data.joint(name).qpos[:] = ratio * finger
        self._arm = [self._model.joint(name).qposadr[0] for name in self._robot.joint_names]
        self._renderer = SceneRenderer(self._model, {_CAMERA: camera})
        self._ik = InverseKinematics(arm_only_model(self._robot), self._robot.home)
        self._self_collision = SelfCollision(self._robot)

    def random_setup(self, seed: int, samples: int = 15) -> CalibrationSetup:
        """Return a random setup; equal for equal seeds.

        The camera is near a reference view. In each sample, the whole board is visible and nothing collides; the
        directions of view differ.

        Raises:
            GenimaError: for a negative seed, or when too few such samples are found.
        """
        if seed < 0:
            raise GenimaError(f"seeds count from 0; {seed} is negative")
        rng = np.random.default_rng([seed, 0xCA11])
        intrinsics = optics.random_intrinsics(rng)
        T_parent_camera, T_carrier_board = self._random_camera(rng), self._random_board(rng)
        found: list[Array] = []
        orientations: list[Rotation] = []
        for _ in range(_ATTEMPTS):
            if len(found) == samples:
                break
            T_camera_board = self._random_board_pose(rng)
            orientation = Rotation.from_matrix(T_camera_board[:3, :3])
            if any((orientation * other.inv()).magnitude() < _MIN_ANGLE for other in orientations):
                continue
            if not self._is_readable(intrinsics, T_camera_board):
                continue
            T_parent_carrier = T_parent_camera @ T_camera_board @ inverse(T_carrier_board)
            T_base_flange = T_parent_carrier if self._parent == "base" else inverse(T_parent_carrier)
            positions = self._reach(T_base_flange, rng)
            if positions is not None and self._is_valid(T_parent_camera, T_carrier_board, positions):
                found.append(positions)
                orientations.append(orientation)
        if len(found) < samples:
            raise GenimaError(
                f"calibration setup: found {len(found)} of {samples} samples; ask for fewer, or use another board"
            )
        boards = np.tile(T_carrier_board, (samples, 1, 1))
        return CalibrationSetup(
            seed, self._robot, self._board, self._parent, T_parent_camera, intrinsics, Sensor(), boards, np.array(found)
        )

    def images(self, setup: CalibrationSetup) -> list[Image]:
        """Return the image of each sample, (480, 640, 3) each; equal for equal setups."""
        rng = np.random.default_rng([setup.seed, 0x1A6E])
        rays = optics.pixel_rays(setup.intrinsics)
        images = []
        for positions, T_carrier_board in zip(setup.positions, setup.T_carrier_board, strict=True):
            self._set_sample(setup.T_parent_camera, T_carrier_board, positions)
            render = self._renderer.render(self._data.qpos, self._model)[_CAMERA]
            images.append(optics.expose(render, rays, setup.sensor, rng))
        return images

    def close(self) -> None:
        """Free the OpenGL context; call it in the thread that made it."""
        self._renderer.close()

    def _random_camera(self, rng: np.random.Generator) -> Array:
        """``T_parent_camera`` (4, 4)."""
        reference = load_cameras(paths.shared("calibration", "sim"))[str(rng.choice(_REFERENCE_VIEWS[self._parent]))]
        return reference.T_parent_camera @ random_transform(rng, *_CAMERA_SPREAD[self._parent])

    def _random_board(self, rng: np.random.Generator) -> Array:
        """``T_carrier_board`` (4, 4)."""
        if self._parent == "base":
            return in_gripper(self._board) @ random_transform(rng, *_BOARD_SPREAD)
        return on_table(self._board, rng.uniform(*_ON_TABLE), rng.uniform(-np.pi, np.pi))

    def _random_board_pose(self, rng: np.random.Generator) -> Array:
        """Return ``T_camera_board`` (4, 4) of a board in front of the camera, tilted in any direction."""
        distance, azimuth = rng.uniform(*_DISTANCE[self._parent]), rng.uniform(0, 2 * np.pi)
        tilt = _TILT * np.sqrt(rng.uniform()) * np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
        rotation = Rotation.from_euler("z", rng.uniform(-np.pi, np.pi)) * Rotation.from_rotvec(tilt)
        middle = distance * np.array([*rng.uniform(-_OFF_AXIS, _OFF_AXIS), 1.0])
        return pose(rotation.as_matrix(), middle - rotation.apply([*np.array(self._board.size) / 2, 0.0]))

    def _is_readable(self, intrinsics: CameraIntrinsics, T_camera_board: Array) -> bool:
        """Return whether the board lies within the image and is not too small."""
        width, height = self._board.size
        corners = np.array([[0, 0, 0], [width, 0, 0], [width, height, 0], [0, height, 0]])
        pixels = intrinsics.project(transform(T_camera_board, corners))
        size = np.array([intrinsics.width, intrinsics.height])
        square = corners.mean(0) + self._board.square * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
        origin, x, y = intrinsics.project(transform(T_camera_board, square))
        shortest = np.linalg.svd(np.stack([x, y]) - origin, compute_uv=False)[-1]
        return bool(shortest > _SQUARE and np.all((pixels > _BORDER) & (pixels < size - _BORDER)))

    def _reach(self, T_base_flange: Array, rng: np.random.Generator) -> Array | None:
        """Return joints (n,) in rad for a pose of the flange, from a random start; None where it is out of reach."""
        robot = self._robot
        shoulder = robot.link_poses(robot.home)[1, :3, 3]
        if not _REACH[0] < np.linalg.norm(T_base_flange[:3, 3] - shoulder) < _REACH[1]:
            return None
        start = robot.home + rng.uniform(-0.3, 0.3, len(robot.home))
        start[0] = np.arctan2(T_base_flange[1, 3], T_base_flange[0, 3])
        try:
            positions = self._ik.solve(T_base_flange @ robot.T_flange_tip, start)
        except GenimaError:
            return None
        low, high = robot.position_min + _LIMIT_MARGIN, robot.position_max - _LIMIT_MARGIN
        return positions if np.all((positions > low) & (positions < high)) else None

    def _is_valid(self, T_parent_camera: Array, T_carrier_board: Array, positions: Array) -> bool:
        """Return whether nothing collides, and no point of the board is hidden."""
        if self._self_collision.depth(positions) > 0:
            return False
        model, data = self._model, self._data
        self._set_sample(T_parent_camera, T_carrier_board, positions)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        mujoco.mj_collision(model, data)
        board = data.body(BOARD)
        for geoms in data.contact.geom:
            if {OBJECT_GROUP, COLLISION} == set(model.geom_group[geoms]) or board.id in model.geom_bodyid[geoms]:
                return False
        origin = data.camera(_CAMERA).xpos
        points = transform(pose(board.xmat.reshape(3, 3), board.xpos), self._board.points)
        return all(self._is_visible(origin, point) for point in points)

    def _is_visible(self, origin: Array, point: Array) -> bool:
        distance = float(np.linalg.norm(point - origin))
        rendered = np.array([1, 1, 0, 0, 0, 0], np.uint8)  # geom groups
        hit = mujoco.mj_ray(self._model, self._data, origin, (point - origin) / distance, rendered, True, -1, None)
        return hit < 0 or hit > distance - _SIGHT_CLEARANCE

    def _set_sample(self, T_parent_camera: Array, T_carrier_board: Array, positions: Array) -> None:
        """Set the poses of camera and board, and the joints, of one sample."""
        self._data.qpos[self._arm] = positions
        T_link_flange = np.eye(4)
        T_link_flange[2, 3] = self._robot.flange_offset
        T_camera_mujoco = np.diag([1.0, -1.0, -1.0, 1.0])
        camera, board = T_parent_camera @ T_camera_mujoco, T_carrier_board
        if self._parent == "base":
            board = T_link_flange @ board
        else:
            camera = T_link_flange @ camera
        for placed, T in ((self._model.camera(_CAMERA), camera), (self._model.body(BOARD), board)):
            placed.pos[:] = T[:3, 3]
            mujoco.mju_mat2Quat(placed.quat, T[:3, :3].ravel())


def random_transform(rng: np.random.Generator, metres: float, degrees: float) -> Array:
    """Return a small transform (4, 4) with these standard deviations along and about each axis."""
    rotation = Rotation.from_rotvec(rng.normal(0.0, np.radians(degrees), 3))
    return pose(rotation.as_matrix(), rng.normal(0.0, metres, 3))
