"""The simulated workcell: a Panda with a Robotiq 2F-140 at a table with a button and a saucepan."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fast_simplification
import mujoco
import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.views.camera import Camera

PHYSICS_HZ = 1000
GRIPPER = "robotiq_"  # before the names of the gripper's parts
OBJECTS = 0  # geom group of the table and the objects, drawn together with the robot's meshes
_COLLISION, _VISUAL = 3, 1  # the robot's geom groups; its collision shapes are never drawn
# Position actuators of the real arm's stiffness class; damping kp/10 leaves no overshoot at 1 kHz.
_STIFFNESS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
_FACES_KEPT = 0.085  # of the visual meshes: about 17 thousand, half the drawing time of all of them


def _asset_folder() -> Path:
    """The meshes lie in the installed robosuite package, which is never imported (it needs an old MuJoCo)."""
    spec = importlib.util.find_spec("robosuite")
    if spec is None or not spec.submodule_search_locations:
        raise GenimaError("the robot's meshes are missing: run ./genima setup (it installs the package robosuite)")
    return Path(spec.submodule_search_locations[0]) / "models" / "assets"


def _decimate_visual_meshes(spec: mujoco.MjSpec, folder: Path) -> None:
    visual = {geom.meshname for geom in spec.geoms if geom.group == _VISUAL and geom.meshname}
    for mesh in spec.meshes:
        if mesh.name not in visual:
            continue
        loaded: Any = trimesh.load(folder / mesh.file, force="mesh")
        if len(loaded.faces) < 100:
            continue
        loaded.merge_vertices(merge_tex=True, merge_norm=True)
        vertices, faces = fast_simplification.simplify(
            np.asarray(loaded.vertices, np.float32), np.asarray(loaded.faces), target_reduction=1 - _FACES_KEPT
        )
        mesh.file = ""
        mesh.uservert, mesh.userface = vertices.ravel().tolist(), faces.ravel().tolist()


def _arm_spec(robot: RobotModel) -> mujoco.MjSpec:
    assets = _asset_folder()
    arm = mujoco.MjSpec.from_file(str(assets / "robots" / "panda" / "robot.xml"))
    arm.modelname = "genima"
    for actuator in list(arm.actuators):
        arm.delete(actuator)
    hand = arm.body("right_hand")
    arm.delete(hand)
    for name, i in zip(robot.joint_names, range(7), strict=True):
        joint = arm.joint(f"joint{i + 1}")
        joint.name = name
        joint.armature = 0.1
        actuator = arm.add_actuator(name=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, target=name)
        actuator.set_to_position(kp=_STIFFNESS[i], kv=_STIFFNESS[i] / 10)
    for body in arm.bodies:
        body.gravcomp = 1.0
    for camera in list(arm.cameras):
        arm.delete(camera)
    # The hand's usual -45 degree turn makes the fingers close along the flange's diagonal.
    arm.body("link7").add_site(name="flange", pos=[0, 0, robot.flange_offset])
    tip = np.array([0, 0, robot.flange_offset]) + robot.T_flange_tip[:3, 3]
    arm.body("link7").add_site(name="tip", pos=tip.tolist(), group=5)
    arm.site("flange").group = 5
    return arm


def arm_only_model(robot: RobotModel) -> mujoco.MjModel:
    """The bare arm (no gripper, no scene), for inverse kinematics."""
    return _arm_spec(robot).compile()


def _attach_gripper(arm: mujoco.MjSpec, robot: RobotModel) -> None:
    gripper = mujoco.MjSpec.from_file(str(_asset_folder() / "grippers" / "robotiq_gripper_140.xml"))
    gripper.compiler.degree = (
        False  # the file means radians but does not say so; robosuite merges it into one that does
    )
    for sensor in list(gripper.sensors):
        gripper.delete(sensor)
    for site in list(gripper.sites):
        gripper.delete(site)
    for body in gripper.bodies:
        body.gravcomp = 1.0
    _couple_fingers(gripper)
    _decimate_visual_meshes(gripper, _asset_folder() / "grippers")
    for geom in gripper.geoms:
        if geom.group == 0:
            # Fingers meet objects (whose affinity is 3) and nothing else: the linkage's hulls overlap by design.
            geom.group, geom.contype, geom.conaffinity = _COLLISION, 2, 0
        if "fingertip" in geom.name or "fingerpad" in geom.name:
            geom.friction = [1.5, 0.05, 0.001]
    # The file's base points along -z (a hand hanging down); turned by pi about x it points along the flange's z.
    mount = arm.body("link7").add_site(
        name="gripper_mount",
        pos=[0, 0, robot.flange_offset],
        quat=_wxyz(Rotation.from_euler("z", -45, degrees=True)),
        group=5,
    )
    arm.attach(gripper, prefix=GRIPPER, site=mount)


def _couple_fingers(gripper: mujoco.MjSpec) -> None:
    """One motor moves both fingers of a 2F-140, its linkage keeps the pads parallel; the file's tendons do neither."""
    for item in (*gripper.equalities, *gripper.tendons):
        gripper.delete(item)
    for joint, ratio in (
        ("left_inner_finger_joint", 1.0),
        ("left_inner_knuckle_joint", -1.0),
        ("right_outer_knuckle_joint", -1.0),
        ("right_inner_finger_joint", 1.0),
        ("right_inner_knuckle_joint", -1.0),
    ):
        equality = gripper.add_equality(
            type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT, name1=joint, name2="finger_joint"
        )
        equality.data[:2] = [0.0, ratio]
    for joint in gripper.joints:
        joint.armature, joint.damping = 0.005, [0.3, 0, 0]


def _wxyz(rotation: Rotation) -> list[float]:
    x, y, z, w = rotation.as_quat()
    return [float(w), float(x), float(y), float(z)]


def _add_cameras(spec: mujoco.MjSpec, cameras: Mapping[str, Camera], robot: RobotModel) -> None:
    optical_to_mujoco = np.diag([1.0, -1.0, -1.0])  # MuJoCo's camera looks along -z with y up
    for camera in cameras.values():
        position = camera.T_parent_camera[:3, 3].copy()
        body = spec.worldbody
        if camera.parent == "flange":
            body = spec.body("link7")
            position[2] += robot.flange_offset
        body.add_camera(
            name=camera.view,
            pos=position.tolist(),
            quat=_wxyz(Rotation.from_matrix(camera.T_parent_camera[:3, :3] @ optical_to_mujoco)),
            fovy=float(np.degrees(2 * np.arctan(camera.height / 2 / camera.fy))),
        )


def _add_table(world: mujoco.MjsBody) -> None:
    box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
    world.add_light(pos=[0.6, 0.3, 2.5], dir=[-0.1, -0.1, -1], diffuse=[0.5] * 3, ambient=[0.18] * 3, castshadow=False)
    world.add_light(pos=[1.6, -0.8, 1.6], dir=[-0.7, 0.4, -0.6], diffuse=[0.25] * 3, castshadow=False)
    world.add_geom(type=plane, pos=[0, 0, -0.75], size=[4, 4, 0.1], rgba=[0.36, 0.39, 0.42, 1])
    world.add_geom(name="table", type=box, pos=[0.5, 0, -0.025], size=[0.65, 0.7, 0.025], rgba=[0.80, 0.70, 0.55, 1])


def _add_button(world: mujoco.MjsBody) -> None:
    box, cylinder = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
    button = world.add_body(name="button", pos=[0.5, -0.2, 0])
    button.add_geom(type=box, pos=[0, 0, 0.0125], size=[0.05, 0.05, 0.0125], rgba=[0.75, 0.76, 0.78, 1])
    cap = button.add_body(name="button_cap", pos=[0, 0, 0.04])
    cap.add_joint(
        name="button_slide",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[0, 0, 1],
        range=[-0.015, 0],
        limited=True,
        stiffness=[150, 0, 0],
        damping=[8, 0, 0],
        springref=0.005,
        armature=0.02,
    )
    # Over its base, so that a finger beside the cap cannot wedge under it.
    cap.add_geom(name="button_cap", type=cylinder, size=[0.034, 0.015, 0], rgba=[0.50, 0.03, 0.10, 1], mass=0.05)


def _add_saucepan(world: mujoco.MjsBody) -> None:
    box, cylinder = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
    pan = world.add_body(name="saucepan", pos=[0.5, 0.2, 0])
    pan.add_geom(type=cylinder, pos=[0, 0, PAN_HEIGHT / 2], size=[0.085, PAN_HEIGHT / 2, 0], rgba=[0.30, 0.42, 0.60, 1])
    pan.add_geom(type=box, pos=[0, 0.14, 0.055], size=[0.011, 0.06, 0.008], rgba=[0.12, 0.12, 0.13, 1])
    lid = world.add_body(name="lid", pos=[0.5, 0.2, PAN_HEIGHT])
    lid.add_freejoint(name="lid")
    lid.add_geom(type=cylinder, pos=[0, 0, 0.005], size=[0.089, 0.005, 0], rgba=[0.62, 0.70, 0.78, 1], mass=0.12)
    lid.add_geom(
        name="knob",
        type=cylinder,
        pos=[0, 0, 0.01 + KNOB_HEIGHT / 2],
        size=[0.02, KNOB_HEIGHT / 2, 0],
        rgba=[0.10, 0.10, 0.11, 1],
        mass=0.03,
        friction=[1.5, 0.05, 0.001],
    )


PAN_HEIGHT = 0.08  # m, where the lid lies
KNOB_HEIGHT = 0.05  # m, above the lid's 1 cm


def build_scene(robot: RobotModel, cameras: Mapping[str, Camera]) -> mujoco.MjModel:
    """Compile the whole workcell; the robot's base frame is the world frame, the table's top is z = 0."""
    spec = _arm_spec(robot)
    _decimate_visual_meshes(spec, _asset_folder() / "robots" / "panda")
    for geom in spec.geoms:
        if geom.group == 0:
            geom.group = _COLLISION
    _attach_gripper(spec, robot)
    spec.option.timestep = 1 / PHYSICS_HZ
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.visual.quality.offsamples = 0  # multisampling multiplies the cost on a software renderer
    spec.visual.quality.shadowsize = 0
    spec.visual.headlight.diffuse = [0.15] * 3
    spec.visual.headlight.ambient = [0.12] * 3
    spec.visual.headlight.specular = [0.0] * 3
    _add_table(spec.worldbody)
    _add_button(spec.worldbody)
    spec.add_exclude(bodyname1="button", bodyname2="button_cap")  # the cap sinks into its base
    _add_saucepan(spec.worldbody)
    for geom in spec.geoms:
        if geom.group == OBJECTS:
            geom.conaffinity = 3
    _add_cameras(spec, cameras, robot)
    return spec.compile()
