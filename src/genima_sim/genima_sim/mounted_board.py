"""Calibration board in the workcell: on the table for cameras on the hand, in the gripper for cameras on the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import mujoco
import numpy as np
from numpy.typing import NDArray

from genima.cameras.calibration_board import CalibrationBoard
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose

Place = Literal["table", "gripper"]

BOARD = "calibration_board"  # the body
_TEXTURE = 4000  # px/m: finer than the resolution of any camera
_MARGIN = 0.01  # m of white paper around the pattern
_PAPER, _PLATE = 2e-4, 3e-3  # m, thickness of the print and of its carrier plate
_WHITE = [0.8, 0.8, 0.8, 1.0]
_ON_TABLE = np.array([0.47, 0.0])  # m in the base frame, the board's centre
_HANDLE_TOP = 0.17  # m in the flange's frame, between the pads
_BELOW_FINGERS = 0.24  # m in the flange's frame: 6 mm below the fingertips
_CLOSING_AXIS = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)  # of the fingers, in the flange's frame


@dataclass(frozen=True)
class MountedBoard:
    """Board with its pose."""

    board: CalibrationBoard
    place: Place
    T_parent_board: NDArray[np.float64]  # (4, 4), of the board's own frame; the parent is the base or the flange

    @classmethod
    def at(cls, board: CalibrationBoard, place: str) -> MountedBoard:
        """Return the board at its nominal pose: flat in the middle of the table, or as a sheet between the fingers.

        Raises:
            GenimaError: for another place.
        """
        if place not in get_args(Place):
            raise GenimaError(f"calibration board: unknown place ({place!r}); use table or gripper")
        T = on_table(board, _ON_TABLE, 0.0) if place == "table" else in_gripper(board)
        return cls(board, place, T)  # type: ignore[arg-type]


def on_table(board: CalibrationBoard, centre: NDArray[np.float64], yaw: float) -> NDArray[np.float64]:
    """Return ``T_base_board`` (4, 4) of a board that lies face up, its centre at (2,) m, rotated by ``yaw`` in rad."""
    c, s = np.cos(yaw), np.sin(yaw)
    T_base_board = pose(np.array([[c, s, 0], [s, -c, 0], [0, 0, -1]]), np.array([*centre, _PAPER + _PLATE]))
    T_base_board[:3, 3] -= T_base_board[:3, :2] @ np.array(board.size) / 2
    return T_base_board


def in_gripper(board: CalibrationBoard) -> NDArray[np.float64]:
    """Return ``T_flange_board`` (4, 4) of a sheet between and below the closed fingers, its longer sides across."""
    into = _CLOSING_AXIS  # z of the board
    down = np.array([0.0, 0.0, 1.0])
    across = np.cross(down, into)
    width, height = board.size
    x, y = (across, down) if width >= height else (down, -across)
    centre = (_BELOW_FINGERS + _MARGIN + min(board.size) / 2) * down - (_PAPER + _PLATE / 2) * into
    return pose(np.column_stack([x, y, into]), centre - x * width / 2 - y * height / 2)


def add_board(spec: mujoco.MjSpec, robot: RobotModel, mounted: MountedBoard) -> None:
    """Add the board as a body with the frame of the board; it collides with what the robot collides with."""
    board = mounted.board
    position, parent = mounted.T_parent_board[:3, 3].copy(), spec.worldbody
    if mounted.place == "gripper":
        parent = spec.body("link7")
        position[2] += robot.flange_offset
    body = parent.add_body(name=BOARD, pos=position.tolist(), gravcomp=1.0)
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, mounted.T_parent_board[:3, :3].ravel())
    body.quat = quat

    front = board.image(_TEXTURE, _MARGIN)
    height, width, channels = front.shape
    texture = spec.add_texture(name=BOARD, type=mujoco.mjtTexture.mjTEXTURE_2D)
    texture.width, texture.height, texture.nchannel, texture.data = width, height, channels, front.tobytes()
    material = spec.add_material(name=BOARD, rgba=_WHITE, specular=0.0, shininess=0.0)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = BOARD

    x, y = np.array(board.size) / 2
    sides = [x + _MARGIN, y + _MARGIN]
    facing = [0.0, 1.0, 0.0, 0.0]  # a box's texture is upright seen from +z with y up; the board's z points into it
    box = mujoco.mjtGeom.mjGEOM_BOX
    body.add_geom(type=box, pos=[x, y, _PAPER / 2], size=[*sides, _PAPER / 2], quat=facing, material=BOARD, mass=0.01)
    body.add_geom(type=box, pos=[x, y, _PAPER + _PLATE / 2], size=[*sides, _PLATE / 2], rgba=_WHITE, mass=0.1)
    # On the table it collides with arm and fingers; held by the fingers, with arm and table.
    contype, conaffinity = (1, 3) if mounted.place == "table" else (2, 1)
    for geom in body.geoms:
        geom.contype, geom.conaffinity = contype, conaffinity
    if mounted.place == "gripper":
        top, length = _HANDLE_TOP, _BELOW_FINGERS - _HANDLE_TOP
        parent.add_geom(
            type=box, pos=[0, 0, robot.flange_offset + top + length / 2], size=[_PLATE / 2, 0.012, length / 2],
            quat=[np.cos(np.pi / 8), 0, 0, np.sin(np.pi / 8)], rgba=_WHITE, mass=0.01, contype=0, conaffinity=0,
        )  # fmt: skip
