"""The simulated workcell: a Panda with a Robotiq 2F-140 at a table with a button and a saucepan."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco

from genima.cameras.camera import Camera
from genima.cameras.mujoco_camera import add_camera
from genima.robot.body import robot_spec
from genima.robot.model import RobotModel
from genima_sim.mounted_board import MountedBoard, add_board
from genima_sim.tasks import KNOB_HEIGHT, PAN_HEIGHT

PHYSICS_HZ = 1000
OBJECTS = 0  # geom group of the table and the objects, drawn together with the robot's meshes


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


def build_scene(robot: RobotModel, cameras: Mapping[str, Camera], board: MountedBoard | None = None) -> mujoco.MjModel:
    """Compile the whole workcell; the robot's base frame is the world frame, the table's top is z = 0."""
    spec = robot_spec(robot)
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
    if board is not None:
        add_board(spec, robot, board)
    for camera in cameras.values():
        add_camera(spec, robot, camera)
    spec.visual.global_.offwidth = max([640, *(camera.width for camera in cameras.values())])
    spec.visual.global_.offheight = max([480, *(camera.height for camera in cameras.values())])
    return spec.compile()
