"""MuJoCo model of the simulated workcell: robot, table, objects of the tasks, cameras and calibration board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mujoco

from genima.cameras.camera import Camera
from genima.cameras.virtual_view import add_camera
from genima.robot.body import robot_spec
from genima.robot.model import RobotModel
from genima_sim.mounted_board import MountedBoard, add_board
from genima_sim.task import SceneObject

PHYSICS_HZ = 1000
OBJECTS = 0  # geom group of the table and the objects, drawn together with the robot's meshes


def _add_table(world: mujoco.MjsBody) -> None:
    box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
    world.add_light(pos=[0.6, 0.3, 2.5], dir=[-0.1, -0.1, -1], diffuse=[0.5] * 3, ambient=[0.18] * 3, castshadow=False)
    world.add_light(pos=[1.6, -0.8, 1.6], dir=[-0.7, 0.4, -0.6], diffuse=[0.25] * 3, castshadow=False)
    world.add_geom(type=plane, pos=[0, 0, -0.75], size=[4, 4, 0.1], rgba=[0.36, 0.39, 0.42, 1])
    world.add_geom(name="table", type=box, pos=[0.5, 0, -0.025], size=[0.65, 0.7, 0.025], rgba=[0.80, 0.70, 0.55, 1])


def build_scene(
    robot: RobotModel,
    cameras: Mapping[str, Camera],
    objects: Sequence[SceneObject] = (),
    board: MountedBoard | None = None,
) -> mujoco.MjModel:
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
    for each in objects:
        each.build(spec)
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
