"""Arm and gripper as MuJoCo bodies: joints, actuators and decimated meshes.

The simulator adds them to its scene, the virtual view renders them without a scene, inverse kinematics uses the arm.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import fast_simplification
import mujoco
import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from genima.errors import GenimaError
from genima.robot.model import RobotModel

VISUAL, COLLISION = 1, 3  # geom groups: rendered, and in contact
GRIPPER = "gripper_"  # prefix of the names of the gripper's parts
# Position actuators of the real arm's stiffness class; damping kp/10 leaves no overshoot at 1 kHz.
_STIFFNESS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
_FACE_FRACTION = 0.085  # of the visual meshes: about 17 thousand faces, half the rendering time


@dataclass(frozen=True)
class _Gripper:
    """Meshes and coupled joints of a gripper."""

    file: str
    driven: str  # the joint that the others follow
    ratios: Mapping[str, float]  # positions of the others as multiples of it


_GRIPPERS = {
    # One motor moves both fingers; the linkage keeps the pads parallel.
    "robotiq_2f140": _Gripper(
        "robotiq_gripper_140.xml",
        "finger_joint",
        {
            "left_inner_finger_joint": 1.0,
            "left_inner_knuckle_joint": -1.0,
            "right_outer_knuckle_joint": -1.0,
            "right_inner_finger_joint": 1.0,
            "right_inner_knuckle_joint": -1.0,
        },
    ),
    "franka_hand": _Gripper("panda_gripper.xml", "finger_joint1", {"finger_joint2": -1.0}),
}


def finger_ratios(robot: RobotModel) -> dict[str, float]:
    """Return the gripper's joints in :func:`robot_spec`, as multiples of the robot's gripper joint.

    Raises:
        GenimaError: for a gripper that has no meshes.
    """
    gripper = _gripper(robot)
    return {GRIPPER + name: ratio for name, ratio in {gripper.driven: 1.0, **gripper.ratios}.items()}


def _gripper(robot: RobotModel) -> _Gripper:
    if robot.gripper not in _GRIPPERS:
        raise GenimaError(
            f"robot {robot.name}: no meshes for its gripper ({robot.gripper}); "
            f"use one with {' or '.join(_GRIPPERS)} to simulate or render"
        )
    return _GRIPPERS[robot.gripper]


def arm_only_model(robot: RobotModel) -> mujoco.MjModel:
    """Return the arm without gripper and scene, with sites ``flange`` and ``tip``, for inverse kinematics.

    Raises:
        GenimaError: for a robot other than Panda and FR3, or when the meshes are not installed.
    """
    return _arm_spec(robot).compile()


def robot_spec(robot: RobotModel) -> mujoco.MjSpec:
    """Return the arm with its gripper, the base frame at the origin, to be completed and compiled.

    Its geoms are in the groups ``VISUAL`` and ``COLLISION``. Arm joints and actuators have the robot model's names,
    names of the gripper start with ``GRIPPER``.

    Raises:
        GenimaError: for an arm or a gripper that has no meshes, or when they are not installed.
    """
    spec = _arm_spec(robot)
    _decimate_visual_meshes(spec, asset_folder() / "robots" / "panda")
    for geom in spec.geoms:
        if geom.group == 0:
            geom.group = COLLISION
    _attach_gripper(spec, robot)
    return spec


def has_meshes(robot: RobotModel) -> bool:
    """True where :func:`robot_spec` has meshes of the arm and its gripper."""
    return _has_arm_meshes(robot) and robot.gripper in _GRIPPERS


def _has_arm_meshes(robot: RobotModel) -> bool:
    shape = RobotModel.load("panda").dh  # also the FR3's
    return robot.dh.shape == shape.shape and np.allclose(robot.dh, shape)


def asset_folder() -> Path:
    """Return the folder of meshes and textures in the robosuite package, which needs an older MuJoCo to be imported."""
    spec = importlib.util.find_spec("robosuite")
    if spec is None or not spec.submodule_search_locations:
        raise GenimaError("robot meshes: missing (package robosuite); run ./genima setup")
    return Path(spec.submodule_search_locations[0]) / "models" / "assets"


def _arm_spec(robot: RobotModel) -> mujoco.MjSpec:
    if not _has_arm_meshes(robot):
        raise GenimaError(f"robot {robot.name}: no meshes; use panda or fr3 to simulate or render")
    arm = mujoco.MjSpec.from_file(str(asset_folder() / "robots" / "panda" / "robot.xml"))
    arm.modelname = "genima"
    for actuator in list(arm.actuators):
        arm.delete(actuator)
    hand = arm.body("right_hand")
    arm.delete(hand)
    for name, i in zip(robot.joint_names, range(7), strict=True):
        joint = arm.joint(f"joint{i + 1}")
        joint.name = name
        joint.range = [robot.position_min[i], robot.position_max[i]]
        joint.armature = 0.1
        actuator = arm.add_actuator(name=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, target=name)
        actuator.set_to_position(kp=_STIFFNESS[i], kv=_STIFFNESS[i] / 10)
    for body in arm.bodies:
        body.gravcomp = 1.0
    for camera in list(arm.cameras):
        arm.delete(camera)
    # The hand's mount is turned by -45 degrees: the fingers close along the flange's diagonal.
    arm.body("link7").add_site(name="flange", pos=[0, 0, robot.flange_offset])
    tip = np.array([0, 0, robot.flange_offset]) + robot.T_flange_tip[:3, 3]
    arm.body("link7").add_site(name="tip", pos=tip.tolist(), group=5)
    arm.site("flange").group = 5
    return arm


def _attach_gripper(arm: mujoco.MjSpec, robot: RobotModel) -> None:
    description = _gripper(robot)
    gripper = mujoco.MjSpec.from_file(str(asset_folder() / "grippers" / description.file))
    # The file is in radians without declaring it; robosuite merges it into a file that does.
    gripper.compiler.degree = False
    for sensor in list(gripper.sensors):
        gripper.delete(sensor)
    for site in list(gripper.sites):
        gripper.delete(site)
    for body in gripper.bodies:
        body.gravcomp = 1.0
    _couple_fingers(gripper, description)
    _decimate_visual_meshes(gripper, asset_folder() / "grippers")
    for geom in gripper.geoms:
        if geom.group == 0:
            # Fingers collide only with objects (affinity 3): the hulls of the linkage overlap by design.
            geom.group, geom.contype, geom.conaffinity = COLLISION, 2, 0
        if "fingertip" in geom.name or "fingerpad" in geom.name:
            geom.friction = [1.5, 0.05, 0.001]
    # The file's base points along -z (a hand hanging down); turned by pi about x it points along the flange's z.
    mount = arm.body("link7").add_site(
        name="gripper_mount",
        pos=[0, 0, robot.flange_offset],
        quat=Rotation.from_euler("z", -45, degrees=True).as_quat(scalar_first=True).tolist(),
        group=5,
    )
    arm.attach(gripper, prefix=GRIPPER, site=mount)


def _couple_fingers(gripper: mujoco.MjSpec, description: _Gripper) -> None:
    """Replace tendons and equalities by joint ratios: the files' do not keep the pads parallel."""
    for item in (*gripper.equalities, *gripper.tendons):
        gripper.delete(item)
    for joint, ratio in description.ratios.items():
        equality = gripper.add_equality(
            type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT, name1=joint, name2=description.driven
        )
        equality.data[:2] = [0.0, ratio]
    for joint in gripper.joints:
        joint.armature, joint.damping = 0.005, [0.3, 0, 0]


def _decimate_visual_meshes(spec: mujoco.MjSpec, folder: Path) -> None:
    visual = {geom.meshname for geom in spec.geoms if geom.group == VISUAL and geom.meshname}
    for mesh in spec.meshes:
        if mesh.name in visual and (decimated := _decimate(folder / mesh.file)):
            mesh.file = ""
            mesh.uservert, mesh.userface = decimated


@cache  # reading the meshes takes most of the time of building a scene
def _decimate(file: Path) -> tuple[list[float], list[int]] | None:
    """Return vertices and faces, flat; None for a mesh with fewer than 100 faces."""
    loaded: Any = trimesh.load(file, force="mesh")
    if len(loaded.faces) < 100:
        return None
    loaded.merge_vertices(merge_tex=True, merge_norm=True)
    vertices, faces = fast_simplification.simplify(
        np.asarray(loaded.vertices, np.float32), np.asarray(loaded.faces), target_reduction=1 - _FACE_FRACTION
    )
    return vertices.ravel().tolist(), faces.ravel().tolist()
