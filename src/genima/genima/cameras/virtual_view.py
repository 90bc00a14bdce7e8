"""Virtual view: rendering of the measured arm without a scene (GENIMA paper, appendix J, figure 13).

Tiled with the cameras' views, it always shows the whole arm, which they may see only in part.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.cameras.camera import VIRTUAL, Camera
from genima.errors import GenimaError
from genima.robot.body import COLLISION, finger_ratios, robot_spec
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose
from genima.system.opengl_context import mujoco_renderer
from genima.types import Image

BACKGROUND = 127  # grey level outside the robot
_SIZE = 256  # px
_FIELD_OF_VIEW = np.radians(40)
# Front right, where arm and gripper occlude each other least; m in the base frame.
_POSITION, _CENTRE = np.array([1.15, -1.45, 0.95]), np.array([0.29, 0.0, 0.43])
_R_OPTICAL_MUJOCO = np.diag([1.0, -1.0, -1.0])  # MuJoCo's cameras look along -z, with y up


def virtual_camera() -> Camera:
    """Return the camera of the virtual view, 256 x 256 px, fixed to the base.

    It sees the whole arm in front of its base, and the spheres of its targets.
    """
    z = (_CENTRE - _POSITION) / np.linalg.norm(_CENTRE - _POSITION)
    x = np.cross(z, [0.0, 0.0, 1.0]) / np.linalg.norm(z[:2])
    T_base_camera = pose(np.column_stack([x, np.cross(z, x), z]), _POSITION)
    focal = float(_SIZE / 2 / np.tan(_FIELD_OF_VIEW / 2))
    return Camera(VIRTUAL, "base", T_base_camera, _SIZE, _SIZE, focal, focal, _SIZE / 2, _SIZE / 2)


class VirtualView:
    """Renderer of the robot without a scene. Its OpenGL context belongs to the creating thread."""

    def __init__(self, robot: RobotModel) -> None:
        """Takes about two seconds, most of it to read the meshes, which are cached.

        Raises:
            GenimaError: for a robot without meshes, or a missing OpenGL driver.
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
        """Render the robot at joint positions (n,) rad and gripper opening (1 open .. 0 closed), (256, 256, 3).

        The image is of ``virtual_camera``, and deterministic.

        Raises:
            GenimaError: for joint positions of another shape or not finite, and after ``close``.
        """
        if self._renderer is None:
            raise GenimaError("virtual view: closed; create another")
        if np.shape(positions) != (len(self._arm),) or not np.isfinite([*positions, gripper]).all():
            raise GenimaError(
                f"virtual view: not {len(self._arm)} finite joint positions and a finite gripper opening "
                f"({np.asarray(positions).tolist()}, {gripper}); check the joint states"
            )
        self._data.qpos[self._arm] = positions
        self._data.qpos[self._fingers] = self._ratios * self._robot.gripper_position(gripper)
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, VIRTUAL)
        return self._renderer.render()

    def close(self) -> None:
        """Free the OpenGL context, in the creating thread."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def robot_only_model(robot: RobotModel, camera: Camera) -> mujoco.MjModel:
    """Return a model of the robot's visual meshes on a grey background, with a camera.

    Raises:
        GenimaError: for a robot without meshes.
    """
    spec = robot_spec(robot)
    for geom in list(spec.geoms):
        if geom.group == COLLISION:
            spec.delete(geom)
    visual = {geom.meshname for geom in spec.geoms}
    for mesh in list(spec.meshes):
        if mesh.name not in visual:
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


def add_camera(spec: mujoco.MjSpec, robot: RobotModel, camera: Camera) -> None:
    """Add a camera to the base or the flange, under the name of its view.

    MuJoCo cameras have square pixels and a central principal point; the calibration's are ignored.
    """
    position = camera.T_parent_camera[:3, 3].copy()
    body = spec.worldbody
    if camera.parent == "flange":
        body = spec.body("link7")
        position[2] += robot.flange_offset
    rotation = Rotation.from_matrix(camera.T_parent_camera[:3, :3] @ _R_OPTICAL_MUJOCO)
    body.add_camera(
        name=camera.view,
        pos=position.tolist(),
        quat=rotation.as_quat(scalar_first=True).tolist(),
        fovy=float(np.degrees(2 * np.arctan(camera.height / 2 / camera.fy))),
    )
