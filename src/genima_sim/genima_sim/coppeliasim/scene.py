"""Scene in CoppeliaSim: joints, cameras and tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.cameras.camera import Camera
from genima.errors import GenimaError
from genima.robot.model import RobotModel, open_fraction
from genima.robot.placement import base_pose
from genima.robot.rigid_transforms import pose
from genima.types import Image, Joints
from genima_sim.coppeliasim.connection import Connection
from genima_sim.coppeliasim.names import SceneNames

Array = NDArray[np.float64]
_SLOW_TIMEOUT = 30.0  # s: for opening a scene, and for stopping the simulation
_NO_ERROR = {"noError": True}
_OPTICAL = np.diag([-1.0, -1.0, 1.0, 1.0])  # a vision sensor's z is forward, its y up; of the optical frame, down


@dataclass(frozen=True)
class _Handles:
    """Object handles of CoppeliaSim."""

    joints: tuple[int, ...]
    fingers: tuple[int, ...]
    cameras: Mapping[str, int]
    objects: Mapping[str, int]
    script: int | None


class CoppeliaScene:
    """Scene that is stepped, for one thread at a time.

    Attributes:
        cameras: by view, as the scene has them.
        period: s that a step of the simulation takes.
        instruction: the task in words.
        success: the goal state was reached since the task started, as of the last :meth:`update_status`.
    """

    def __init__(
        self, connect: Callable[[], Connection], names: SceneNames, robot: RobotModel, stepping: bool = True
    ) -> None:
        """Args:
        connect: makes a connection.
        names: of the objects.
        robot: the arm.
        stepping: time passes only in :meth:`step`; otherwise by itself, in real time.

        Raises:
            Unreachable: when CoppeliaSim does not answer.
            GenimaError: when the scene lacks objects, or its arm is another one.
        """
        self._connect, self._names, self._robot, self._stepping = connect, names, robot, stepping
        self.instruction, self.success = "", False
        self._bodies: dict[str, Array] = {}
        self._sim = connect()
        self._initialize()

    def connect(self) -> None:
        """Connect again and restart the simulation; raise as the constructor does."""
        self._sim.close()
        self._sim = self._connect()
        self._initialize()

    def _initialize(self) -> None:
        try:
            self._stop()
            if self._names.file:
                self._sim.call("loadScene", self._names.file, timeout=_SLOW_TIMEOUT)
            self._handles = self._find()
            self._prepare()
            self._read_frames()  # before anything moves
            self._start()
            self.period = float(self._sim.call("getSimulationTimeStep"))
        except BaseException:
            self._sim.close()
            raise

    def close(self) -> None:
        """Stop the simulation, where it still answers, and disconnect."""
        try:
            self._stop()
        except GenimaError:
            pass
        self._sim.close()

    def reset(self, task: str, seed: int) -> None:
        """Start an episode: restore the saved scene, and let its script place the objects.

        Raises:
            GenimaError: for an unknown task, when the script fails, and for a goal state that holds already.
        """
        self._names.require_task(task)
        self._stop()
        self._start()
        self.success, self.instruction = False, self._names.tasks[task]
        if self._handles.script is not None:
            self.instruction = str(self._script("reset", task, seed) or self.instruction)
        self.update_status()
        if self.success:
            self.success = False
            raise GenimaError(
                f"task {task}, seed {seed}: the goal state holds at the start of the episode; correct the script of "
                "the scene"
            )

    def start_task(self) -> None:
        """Judge success from now on; it is true at once where the goal state holds already."""
        self.success = False
        self.update_status()

    def command(self, positions: NDArray[np.floating], gripper: float) -> None:
        """Set the joint position targets (n,) in rad and the gripper's open fraction; held until the next."""
        fingers = self._names.gripper
        finger = fingers.closed + gripper * (fingers.open - fingers.closed)
        targets = [*positions, *[finger] * len(fingers.joints)]
        for joint, target in zip((*self._handles.joints, *self._handles.fingers), targets, strict=True):
            self._sim.call("setJointTargetPosition", joint, float(target))

    def step(self, seconds: float) -> None:
        """Advance by whole steps; do nothing where time passes by itself."""
        if self._stepping:
            for _ in range(round(seconds / self.period)):
                self._sim.call("step")

    def joints(self) -> Joints:
        """Return the joints as measured now, stamped by the simulation's time."""
        fingers = self._names.gripper
        measured = [float(self._sim.call("getJointPosition", joint)) for joint in self._handles.fingers]
        opened = open_fraction(fingers.joints[0], float(np.mean(measured)), fingers.closed, fingers.open)
        return Joints(float(self._sim.call("getSimulationTime")), self._positions(), opened)

    def render(self) -> Iterator[tuple[str, Image]]:
        """Render each view; yield its name and image.

        Raises:
            GenimaError: for an image of another size than the camera's.
        """
        for view, sensor in self._handles.cameras.items():
            self._sim.call("handleVisionSensor", sensor)
            data, (width, height) = self._sim.call("getVisionSensorImg", sensor)
            camera = self.cameras[view]
            if (width, height) != (camera.width, camera.height) or len(data) != 3 * width * height:
                raise GenimaError(
                    f"vision sensor {self._names.cameras[view]}: image of {width}x{height} px and {len(data)} bytes, "
                    f"not of {camera.width}x{camera.height} px; restart the node"
                )
            yield view, np.frombuffer(data, np.uint8).reshape(height, width, 3)[::-1]  # the bottom row comes first

    @property
    def judges(self) -> bool:
        """Return whether the scene has a script that judges success."""
        return self._handles.script is not None

    def bodies(self) -> dict[str, Array]:
        """Return the poses of the objects by name, (4, 4) in the base frame, as of :meth:`update_status`."""
        return self._bodies

    def update_status(self) -> None:
        """Read the poses of the objects, and judge success."""
        if self._handles.script is not None:
            self.success = self.success or bool(self._script("success"))
        self._bodies = {name: self._T_base_world @ self._pose(o) for name, o in self._handles.objects.items()}

    def _script(self, function: str, *arguments: object) -> object:
        return self._sim.call("callScriptFunction", function, self._handles.script, *arguments, timeout=_SLOW_TIMEOUT)

    # Starting and stopping.

    def _find(self) -> _Handles:
        names, sim = self._names, self._sim
        joint, sensor = sim.sceneobject_joint, sim.sceneobject_visionsensor
        missing: list[str] = []

        def find(path: str, kind: int | None = None, of: str = "") -> int:
            handle = int(sim.call("getObject", path, _NO_ERROR))
            if handle < 0:
                missing.append(path)
            elif kind is not None and sim.call("getObjectType", handle) != kind:
                missing.append(f"{path} as a {of}")
            return handle

        handles = _Handles(
            tuple(find(names.joints[name], joint, "joint") for name in self._robot.joint_names),
            tuple(find(path, joint, "joint") for path in names.gripper.joints),
            {view: find(path, sensor, "vision sensor") for view, path in names.cameras.items()},
            {name: find(path) for name, path in names.objects.items()},
            find(names.script) if names.script else None,
        )
        if missing:
            raise GenimaError(
                f"scene in CoppeliaSim: missing {', '.join(missing)}; set the names in a copy of "
                "config/coppeliasim/rlbench.yaml"
            )
        return handles

    def _prepare(self) -> None:
        """Set what can be set only while the simulation is stopped."""
        sim, handles = self._sim, self._handles
        sim.call("setFloatParam", sim.floatparam_simulation_time_step, self._names.time_step)
        sim.call("setBoolParam", sim.boolparam_realtime_simulation, not self._stepping)
        for joint in (*handles.joints, *handles.fingers):
            sim.call("setObjectInt32Param", joint, sim.jointintparam_dynctrlmode, sim.jointdynctrl_position)
        width, height = self._names.image_size
        for sensor in handles.cameras.values():
            sim.call("setObjectInt32Param", sensor, sim.visionintparam_resolution_x, width)
            sim.call("setObjectInt32Param", sensor, sim.visionintparam_resolution_y, height)
            sim.call("setExplicitHandling", sensor, 1)  # it renders on request, not in every step

    def _start(self) -> None:
        if self._stepping:
            self._sim.call("setStepping", True)  # stopping ends it
        self._sim.call("startSimulation")
        if self._stepping:
            self._sim.call("step")  # starts only with the first step

    def _stop(self) -> None:
        sim, deadline = self._sim, time.monotonic() + _SLOW_TIMEOUT
        if sim.call("getSimulationState") != sim.simulation_stopped:
            sim.call("stopSimulation")
        while sim.call("getSimulationState") != sim.simulation_stopped:
            if time.monotonic() > deadline:
                raise GenimaError(f"CoppeliaSim: simulation not stopped after {_SLOW_TIMEOUT:.0f} s; stop it by hand")
            time.sleep(0.02)

    # Poses.

    def _read_frames(self) -> None:
        joints = np.stack([self._pose(joint) for joint in self._handles.joints])
        positions = self._positions()
        T_world_base = base_pose(self._robot, positions, joints)
        self._T_base_world = np.linalg.inv(T_world_base)
        T_base_flange = self._robot.link_poses(positions)[-2]
        self.cameras = {
            view: self._camera(view, sensor, np.linalg.inv(T_base_flange))
            for view, sensor in self._handles.cameras.items()
        }

    def _camera(self, view: str, sensor: int, T_flange_base: Array) -> Camera:
        sim = self._sim
        if not sim.call("getObjectInt32Param", sensor, sim.visionintparam_perspective_operation):
            raise GenimaError(f"vision sensor {self._names.cameras[view]}: not in perspective mode; set that mode")
        width = int(sim.call("getObjectInt32Param", sensor, sim.visionintparam_resolution_x))
        height = int(sim.call("getObjectInt32Param", sensor, sim.visionintparam_resolution_y))
        angle = float(sim.call("getObjectFloatParam", sensor, sim.visionfloatparam_perspective_angle))
        f = focal_length(width, height, angle)
        T_base_camera = self._T_base_world @ self._pose(sensor) @ _OPTICAL
        on_hand = self._is_on_hand(sensor)
        T_parent_camera = T_flange_base @ T_base_camera if on_hand else T_base_camera
        parent = "flange" if on_hand else "base"
        return Camera(view, parent, T_parent_camera, width, height, f, f, width / 2, height / 2)  # type: ignore[arg-type]

    def _is_on_hand(self, handle: int) -> bool:
        while handle >= 0:
            if handle == self._handles.joints[-1]:
                return True
            handle = int(self._sim.call("getObjectParent", handle))
        return False

    def _positions(self) -> Array:
        return np.array([self._sim.call("getJointPosition", joint) for joint in self._handles.joints], float)

    def _pose(self, handle: int) -> Array:
        """``T_world_object`` (4, 4)."""
        x, y, z, *quaternion = self._sim.call("getObjectPose", handle, self._sim.handle_world)
        return pose(Rotation.from_quat(quaternion).as_matrix(), np.array([x, y, z], float))


def focal_length(width: int, height: int, angle: float) -> float:
    """Return the focal length in px of a vision sensor whose angle of view in rad is that of its longer side.

    Source: CoppeliaSim's manual, "Vision sensor properties", perspective angle.
    """
    return float(max(width, height) / (2 * np.tan(angle / 2)))
