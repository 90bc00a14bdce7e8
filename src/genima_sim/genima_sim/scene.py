"""MuJoCo model of the simulated workcell: robot, table, objects of the tasks, cameras and calibration board."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.cameras.camera import Camera
from genima.cameras.virtual_view import add_camera
from genima.robot.body import robot_spec
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose
from genima_sim.mounted_board import MountedBoard, add_board
from genima_sim.scene_state import SceneFrames, rotation_matrix
from genima_sim.task import OBJECT_GROUP, Latch, Placement, SceneObject, Task
from genima_sim.tasks import scene_objects

Array = NDArray[np.float64]
PHYSICS_HZ = 1000
_OVERLAP = 0.002  # m: what rests on something sinks in by less


@dataclass(frozen=True)
class Scene:
    """Compiled scene."""

    model: mujoco.MjModel
    bodies: Mapping[str, Mapping[str, Array]]
    """Top-level bodies of each object by name, with their poses (4, 4) in its frame."""
    parts: Sequence[str]
    """Names of all bodies of the objects."""
    latches: Sequence[Latch] = ()

    def place(self, data: mujoco.MjData, placements: Mapping[str, Placement]) -> None:
        """Put the objects at their placements."""
        for name, bodies in self.bodies.items():
            at = placements[name]
            T = pose(Rotation.from_euler("z", at.yaw).as_matrix(), np.array([at.x, at.y, 0.0]))
            for body, T_object_body in bodies.items():
                self.place_body(data, body, T @ T_object_body)

    def place_body(self, data: mujoco.MjData, name: str, T: Array) -> None:
        """Put a top-level body at a pose (4, 4) in the base frame."""
        body, quat = self.model.body(name), Rotation.from_matrix(T[:3, :3]).as_quat(scalar_first=True)
        if body.jntnum[0] and self.model.jnt_type[body.jntadr[0]] == mujoco.mjtJoint.mjJNT_FREE:
            data.joint(name).qpos[:] = [*T[:3, 3], *quat]
        else:
            body.pos[:], body.quat[:] = T[:3, 3], quat

    def poses(self, data: mujoco.MjData) -> dict[str, Array]:
        """Return the poses (4, 4) in the base frame of all bodies of the objects, by name."""
        bodies = {name: data.body(name) for name in self.parts}
        return {name: pose(body.xmat.reshape(3, 3), body.xpos) for name, body in bodies.items()}

    def overlap(self, data: mujoco.MjData, with_arm: bool = False) -> str:
        """Return which body overlaps with one of an object, and by how much; empty: none does.

        Contacts with the arm count only ``with_arm``.
        """
        parts = {self.model.body(name).id for name in self.parts}
        for contact in data.contact[: data.ncon]:
            bodies = set(map(int, self.model.geom_bodyid[contact.geom]))
            counts = not parts.isdisjoint(bodies) and (with_arm or bodies <= parts | {0})
            if contact.dist < -_OVERLAP and counts:
                one, other = (self.model.body(body).name if body else "the table" for body in bodies)
                return f"{one} overlaps with {other} by {-1e3 * contact.dist:.1f} mm"
        return ""

    def release_latches(self, data: mujoco.MjData, start: Array) -> None:
        """Unlock the joints whose handles have moved far enough from the configuration ``start`` (nq,)."""
        for latch in self.latches:
            at = self.model.joint(latch.handle).qposadr[0]
            if abs(data.qpos[at] - start[at]) > latch.release:
                data.eq_active[self.model.equality(latch.joint).id] = 0


@cache
def compile_objects(objects: tuple[SceneObject, ...]) -> mujoco.MjModel:
    """Compile the objects of a scene alone, for :class:`genima_sim.scene_state.SceneFrames`."""
    spec = mujoco.MjSpec()
    for each in objects:
        each.build(spec)
    return spec.compile()


def scene_frames(task: Task, poses: Mapping[str, Array]) -> SceneFrames:
    """Return the frames of a task's scene from the poses (4, 4) of its bodies."""
    return SceneFrames(compile_objects(scene_objects(task)), poses)


def build_scene(
    robot: RobotModel,
    cameras: Mapping[str, Camera],
    objects: Sequence[SceneObject] = (),
    board: MountedBoard | None = None,
    latches: Sequence[Latch] = (),
    change: Callable[[mujoco.MjSpec, Mapping[str, Sequence[str]]], None] | None = None,
) -> Scene:
    """Compile the whole workcell; the robot's base frame is the world frame, the table's top is z = 0.

    ``change`` is called before, with the scene and the names of the top-level bodies of each object.

    Raises:
        ValueError: for bodies that MuJoCo's compiler rejects.
    """
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
    top_level = {each.name: _build_object(spec, each) for each in objects}
    for geom in spec.geoms:
        if geom.group == OBJECT_GROUP and geom.contype:
            geom.conaffinity = 3
    for latch in latches:
        joint = mujoco.mjtObj.mjOBJ_JOINT
        lock = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, objtype=joint, name=latch.joint, name1=latch.joint)
        lock.data[:5] = 0.0
        lock.solimp[:2] = 0.999, 0.9999  # else an arm that pushes a light door forces it
    if board is not None:
        add_board(spec, robot, board)
    for camera in cameras.values():
        add_camera(spec, robot, camera)
    spec.visual.global_.offwidth = max([640, *(camera.width for camera in cameras.values())])
    spec.visual.global_.offheight = max([480, *(camera.height for camera in cameras.values())])
    if change is not None:
        change(spec, top_level)
    model = spec.compile()
    bodies = {
        name: {b: pose(rotation_matrix(model.body(b).quat), model.body(b).pos.copy()) for b in names}
        for name, names in top_level.items()
    }
    tops = {model.body(name).id for names in top_level.values() for name in names}
    parts = [model.body(i).name for i in range(model.nbody) if model.body_rootid[i] in tops]
    return Scene(model, bodies, parts, tuple(latches))


def _add_table(world: mujoco.MjsBody) -> None:
    box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
    world.add_light(pos=[0.6, 0.3, 2.5], dir=[-0.1, -0.1, -1], diffuse=[0.5] * 3, ambient=[0.18] * 3, castshadow=False)
    world.add_light(pos=[1.6, -0.8, 1.6], dir=[-0.7, 0.4, -0.6], diffuse=[0.25] * 3, castshadow=False)
    world.add_geom(type=plane, pos=[0, 0, -0.75], size=[4, 4, 0.1], rgba=[0.36, 0.39, 0.42, 1])
    world.add_geom(name="table", type=box, pos=[0.5, 0, -0.025], size=[0.65, 0.7, 0.025], rgba=[0.80, 0.70, 0.55, 1])


def _build_object(spec: mujoco.MjSpec, each: SceneObject) -> list[str]:
    """Add an object; return the names of its top-level bodies."""
    before = {body.name for body in spec.worldbody.bodies}
    each.build(spec)
    names = [body.name for body in spec.worldbody.bodies if body.name not in before]
    if each.name not in names:
        raise ValueError(f"object {each.name} adds no body of its name to the world")
    return names
