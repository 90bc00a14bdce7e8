"""A view that needs no camera: the arm's measured state, drawn alone (GENIMA paper, appendix J, figure 13).

Tiled with the cameras' views it always shows the whole arm, where those see it cut off or hidden, or not at all.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import VIRTUAL, Camera
from genima.cameras.mujoco_camera import add_camera
from genima.errors import GenimaError
from genima.robot.body import COLLISION, finger_ratios, robot_spec
from genima.robot.model import RobotModel
from genima.system.opengl_context import mujoco_renderer
from genima.types import Image

BACKGROUND = 127  # grey level of everything that is not the robot
_SIZE = 256  # px
_FIELD_OF_VIEW = np.radians(40)
# From the front right, where arm and gripper cover each other least; in m in the base frame.
_EYE, _LOOKED_AT = np.array([1.15, -1.45, 0.95]), np.array([0.29, 0.0, 0.43])


def virtual_camera() -> Camera:
    """The camera of the virtual view, 256 x 256 px, fixed to the base. In it are all of an arm at work in front of its
    base, and the spheres of its targets."""
    z = (_LOOKED_AT - _EYE) / np.linalg.norm(_LOOKED_AT - _EYE)
    x = np.cross(z, [0.0, 0.0, 1.0]) / np.linalg.norm(z[:2])
    T_base_camera = np.eye(4)
    T_base_camera[:3, :3] = np.column_stack([x, np.cross(z, x), z])
    T_base_camera[:3, 3] = _EYE
    focal = float(_SIZE / 2 / np.tan(_FIELD_OF_VIEW / 2))
    return Camera(VIRTUAL, "base", T_base_camera, _SIZE, _SIZE, focal, focal, _SIZE / 2, _SIZE / 2)


class VirtualView:
    """Draws the robot without its scene. Its OpenGL context belongs to the thread that made it."""

    def __init__(self, robot: RobotModel) -> None:
        """Takes about two seconds, most of it to read the meshes (kept for the next).

        Raises:
            GenimaError: for a robot other than the Panda, or where the meshes or an OpenGL driver are missing.
        """
        self._robot = robot
        model = robot_only_model(robot, virtual_camera())
        self._model, self._data = model, mujoco.MjData(model)
        self._arm = [model.joint(name).qposadr[0] for name in robot.joint_names]
        ratios = finger_ratios(robot)
        self._fingers = [model.joint(name).qposadr[0] for name in ratios]
        self._ratios = np.array(list(ratios.values()))
        self._renderer: mujoco.Renderer | None = mujoco_renderer(model, _SIZE, _SIZE)

    def render(self, positions: NDArray[np.floating], gripper: float) -> Image:
        """The robot at joint positions (n,) in rad with the gripper at an open fraction (1 open .. 0 closed): an
        image (256, 256, 3) as ``virtual_camera`` sees it, the same for the same joints.

        Raises:
            GenimaError: for joint positions of another shape, or that are not finite; after ``close``.
        """
        if self._renderer is None:
            raise GenimaError("the virtual view has been closed: make another to draw with")
        if np.shape(positions) != (len(self._arm),) or not np.isfinite([*positions, gripper]).all():
            raise GenimaError(
                f"the virtual view draws {len(self._arm)} finite joint positions and a finite gripper opening, "
                f"not {np.asarray(positions).tolist()} and {gripper}"
            )
        self._data.qpos[self._arm] = positions
        self._data.qpos[self._fingers] = self._ratios * self._robot.gripper_position(gripper)
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, VIRTUAL)
        return self._renderer.render()

    def close(self) -> None:
        """Free the OpenGL context; call it in the thread that made it."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def robot_only_model(robot: RobotModel, camera: Camera) -> mujoco.MjModel:
    """The robot's visual meshes and nothing else before a grey background, with a camera.

    Raises:
        GenimaError: for a robot other than the Panda, or where its meshes are missing.
    """
    spec = robot_spec(robot)
    for geom in list(spec.geoms):
        if geom.group == COLLISION:
            spec.delete(geom)
    drawn = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in drawn:
            spec.delete(mesh)
    grey = [BACKGROUND / 255] * 3
    spec.add_texture(
        name="background", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        rgb1=grey, rgb2=grey, width=4, height=24,
    )  # fmt: skip
    spec.worldbody.add_light(pos=[0.5, -0.5, 2.5], dir=[-0.1, 0.2, -1], diffuse=[0.4] * 3, castshadow=False)
    spec.visual.headlight.diffuse = [0.4] * 3
    spec.visual.headlight.ambient = [0.2] * 3
    spec.visual.headlight.specular = [0.0] * 3
    spec.visual.quality.offsamples = 4
    spec.visual.quality.shadowsize = 0
    add_camera(spec, robot, camera)
    spec.visual.global_.offwidth, spec.visual.global_.offheight = max(640, camera.width), max(480, camera.height)
    return spec.compile()
