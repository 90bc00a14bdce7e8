"""Deterministic physics of the simulated workcell, without clock, threads or ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera import Camera
from genima.errors import GenimaError
from genima.io.files import describe_error
from genima.robot.body import GRIPPER
from genima.robot.model import RobotModel
from genima.types import Joints
from genima_sim.mounted_board import MountedBoard
from genima_sim.perturbation import Perturbation, SceneSpec
from genima_sim.perturbations import generator, task_perturbations
from genima_sim.scene import PHYSICS_HZ, Scene, build_scene
from genima_sim.scene_state import SceneState
from genima_sim.task import Latch, Placement, SceneObject, Task, random_placements
from genima_sim.tasks import TASKS, get_task, scene_objects

_GRIPPER = "robotiq_2f140"
START_NOISE = 0.06  # rad, uniform: deviation of the arm from home at the start of an episode
_BOARD_OFFSET = np.array([0.0, -0.05, 0.0, 0.55, 0.0, -0.6, 0.0])  # rad from home: a held board clears the table
_TURNS, _TURN_MARGIN = 49, 0.4  # candidates of the last joint; rad to its limits, left for calibration poses
_BOARD_CAMERA_SIZE = 640  # px: the markers of a board are too small for the images of the policy


_PLACEMENTS = 20  # attempts: radii keep objects apart roughly, a handle may reach further


class OverlapError(GenimaError):
    """Bodies that overlap at the start of an episode."""


class Simulation:
    """Scene in time: joint position commands, physics at 1 kHz; equal seeds give equal episodes.

    With a calibration board, the scene has no objects of tasks, and the cameras' images are larger.

    Attributes:
        model: the compiled scene of the task; another one after the reset to a task with another scene, and in each
            perturbed episode.
        placements: of the objects at the start of the episode, by name.
        state: what success tests judge.
        success: the goal state was reached since the task started; stays true.
    """

    def __init__(
        self,
        robot: RobotModel | None = None,
        board: MountedBoard | None = None,
        facing: str | None = None,
        cameras: Mapping[str, Camera] | None = None,
    ) -> None:
        """Args:
        robot: the arm.
        board: a calibration board in the scene.
        facing: the view that a board in the gripper faces at the start of an episode.
        cameras: by view; None: those of calibration/sim.

        Raises:
            GenimaError: for an unknown view, and for a robot with another gripper.
        """
        self.robot = robot or RobotModel.load("panda")
        if self.robot.gripper != _GRIPPER:
            raise GenimaError(
                f"robot {self.robot.name}: gripper not simulated ({self.robot.gripper}); use one with a {_GRIPPER}"
            )
        self.board = board
        self.cameras: Mapping[str, Camera] = cameras or load_cameras("sim")
        if board is not None:
            size = _BOARD_CAMERA_SIZE
            self.cameras = {view: camera.scale(size, size) for view, camera in self.cameras.items()}
        self._board_offset = _BOARD_OFFSET.copy()
        if facing is not None:
            self._board_offset[-1] = self._turn_to(facing)
        self._scenes: dict[tuple[tuple[SceneObject, ...], tuple[Latch, ...]], Scene] = {}
        self._perturbed: tuple[object, Scene] | None = None  # the last perturbed episode, and its scene
        self.task: Task
        self.placements: Mapping[str, Placement]
        self.state: SceneState
        self.reset("push_button", 0)

    def _build_scene(
        self,
        objects: tuple[SceneObject, ...],
        latches: tuple[Latch, ...],
        perturbations: Sequence[Perturbation],
        placements: Mapping[str, Placement],
        seed: int,
    ) -> Scene:
        """Return the scene with these objects, compiled for the first of equal episodes or, unperturbed, of all."""
        if not perturbations:
            key = objects, latches
            if key not in self._scenes:
                self._scenes[key] = build_scene(self.robot, self.cameras, objects, self.board, latches)
            return self._scenes[key]
        episode = objects, latches, tuple(perturbations), placements, seed
        if self._perturbed is None or self._perturbed[0] != episode:

            def change(spec: mujoco.MjSpec, bodies: Mapping[str, Sequence[str]]) -> None:
                scene = SceneSpec(spec, objects, bodies, placements)
                for each in perturbations:
                    each.change(scene, generator(seed, each.name))

            scene = build_scene(self.robot, self.cameras, objects, self.board, latches, change)
            self._perturbed = episode, scene
        return self._perturbed[1]

    def _load_scene(self, scene: Scene) -> None:
        """Change to a scene."""
        if getattr(self, "_scene", None) is scene:
            return
        self._scene = scene
        self.model = model = self._scene.model
        self.data = mujoco.MjData(model)
        self._arm_qpos = np.array([model.joint(name).qposadr[0] for name in self.robot.joint_names])
        self._finger_qpos = model.joint(GRIPPER + "finger_joint").qposadr[0]
        self._arm_ctrl = np.array([model.actuator(name).id for name in self.robot.joint_names])
        self._finger_ctrl = [model.actuator(GRIPPER + name).id for name in ("finger_1", "finger_2")]
        self._finger_sign = np.array([1.0, -1.0])  # the second knuckle turns the other way

    def reset(
        self,
        task: str,
        seed: int,
        start: NDArray[np.float64] | None = None,
        perturbations: Sequence[str] = (),
    ) -> None:
        """Start an episode: the seed places objects and arm.

        Args:
            task: name, with its variation.
            seed: from 0.
            start: (7,) rad, overrides the arm's joints.
            perturbations: names of :mod:`genima_sim.perturbations`, in the order in which they are applied.

        Raises:
            GenimaError: for an unknown task or perturbation, a perturbation that does not go with the task, a negative
                seed, and a goal state that holds already.
        """
        found = get_task(task)
        if seed < 0:
            raise GenimaError(f"seed: negative ({seed}); count from 0")
        objects = scene_objects(found) if self.board is None else ()
        rng = np.random.default_rng([seed, 0x6E1A])
        perturbed = task_perturbations(perturbations, found, objects)
        for _ in range(_PLACEMENTS):
            self._place(found, objects, seed, rng, perturbed)
            if not (overlap := self._scene.overlap(self.data)):
                break
        self.success = False
        noise = rng.uniform(-START_NOISE, START_NOISE, len(self.robot.home))
        holds_board = self.board is not None and self.board.place == "gripper"
        if start is None:
            start = self.robot.home + noise + (self._board_offset if holds_board else 0.0)
        self.data.qpos[self._arm_qpos] = start
        # Also for a start that is rejected below: the physics of a node goes on, with this scene.
        self.state = SceneState(self.model, self.data, self.placements, self.qpos())
        self.command(start, 0.0 if holds_board else 1.0)
        mujoco.mj_forward(self.model, self.data)
        if overlap := overlap or self._scene.overlap(self.data, with_arm=True):
            raise OverlapError(f"task {task}, seed {seed}: {overlap} at the start; correct {TASKS.file(found.module)}")
        self.step(0.6 if holds_board else 0.1)  # let the fingers close, and loose objects settle
        self.state = SceneState(self.model, self.data, self.placements, self.qpos())
        self.data.time = 0.0
        if self.success:
            self.success = False
            raise GenimaError(
                f"task {task}, seed {seed}: the goal state holds at the start of the episode; correct the task's "
                "placement or success test"
            )

    def _place(
        self,
        task: Task,
        objects: tuple[SceneObject, ...],
        seed: int,
        rng: np.random.Generator,
        perturbations: Sequence[Perturbation],
    ) -> None:
        """Load the scene and place its objects at random, with the arm at home.

        Raises:
            GenimaError: for a scene that cannot be built.
        """
        placements: Mapping[str, Placement] = random_placements(objects, rng)
        for each in perturbations:
            placements = each.place(task, objects, seed, generator(seed, each.name)) or placements
        latches = tuple(task.latches) if objects else ()
        try:
            self._load_scene(self._build_scene(objects, latches, perturbations, placements, seed))
        except ValueError as error:  # of MuJoCo's compiler
            file = TASKS.file(task.module)
            raise GenimaError(
                f"task {task.name}: the scene cannot be built ({describe_error(error)}); correct {file}"
            ) from None
        self.task, self.placements = task, placements
        mujoco.mj_resetData(self.model, self.data)
        self._scene.place(self.data, placements)
        if not np.isfinite(self.data.qpos).all():
            raise GenimaError(
                f"task {task.name}: placed objects are not at finite positions; correct {TASKS.file(task.module)}"
            )
        self.data.qpos[self._arm_qpos] = self.robot.home
        mujoco.mj_fwdPosition(self.model, self.data)  # finds the contacts

    def _turn_to(self, view: str) -> float:
        """Return the turn of the last joint in rad with which a held board faces the camera of a view."""
        if view not in self.cameras:
            raise GenimaError(f"view {view!r}: not in the scene; use one of {', '.join(self.cameras)}")
        if self.board is None or self.board.place != "gripper":
            return 0.0
        turns = np.linspace(-np.pi, np.pi, _TURNS)
        positions = np.tile(self.robot.home + _BOARD_OFFSET, (_TURNS, 1))
        positions[:, -1] += turns
        low, high = self.robot.position_min[-1] + _TURN_MARGIN, self.robot.position_max[-1] - _TURN_MARGIN
        T = self.robot.link_poses(positions)[:, -2] @ self.board.T_parent_board
        towards = self.cameras[view].T_base_camera(self.robot, positions)[:, :3, 3] - T[:, :3, 3]
        faces = -np.sum(T[:, :3, 2] * towards, axis=1) / np.linalg.norm(towards, axis=1)
        return float(turns[np.argmax(np.where((positions[:, -1] > low) & (positions[:, -1] < high), faces, -np.inf))])

    def place_body(self, name: str, T: NDArray[np.float64]) -> None:
        """Put a top-level body at a pose (4, 4) in the base frame."""
        self._scene.place_body(self.data, name, T)

    def start_task(self) -> None:
        """Judge success from now on; it is true at once where the goal state holds already."""
        self.success = self._is_goal_state()

    def _is_goal_state(self) -> bool:
        return self.board is None and bool(self.task.succeeded(self.state))  # a ROS message takes no NumPy bool

    def bodies(self) -> dict[str, NDArray[np.float64]]:
        """Return the poses of all bodies of the objects by name, (4, 4) in the base frame each."""
        return self._scene.poses(self.data)

    @property
    def instruction(self) -> str:
        """Instruction of the episode."""
        return self.task.instruction

    @property
    def time(self) -> float:
        """Simulated seconds since the episode's start."""
        return float(self.data.time)

    def command(self, positions: NDArray[np.floating], gripper: float) -> None:
        """Set the joint position targets (7,) in rad and the gripper's open fraction; held until the next."""
        if not (np.all(np.isfinite(positions)) and np.isfinite(gripper)):
            raise GenimaError("joint command: not finite; correct its source")
        self.data.ctrl[self._arm_ctrl] = positions
        self.data.ctrl[self._finger_ctrl] = self._finger_sign * self.robot.gripper_position(gripper)

    def step(self, seconds: float) -> None:
        """Advance physics by ``seconds`` (rounded to whole milliseconds) and judge success."""
        mujoco.mj_step(self.model, self.data, nstep=max(1, round(seconds * PHYSICS_HZ)))
        self._scene.release_latches(self.data, self.state.start)
        self.success = self.success or self._is_goal_state()

    def joints(self) -> Joints:
        """Measured arm positions and the gripper's open fraction."""
        # Contacts push the fingers beyond MuJoCo's soft stops; those of a real gripper are hard.
        stops = sorted((self.robot.gripper_open, self.robot.gripper_closed))
        finger = min(max(float(self.data.qpos[self._finger_qpos]), stops[0]), stops[1])
        return Joints(self.time, self.data.qpos[self._arm_qpos].copy(), self.robot.open_fraction(finger))

    def qpos(self) -> NDArray[np.float64]:
        """Return a copy of the whole configuration, for a renderer in another thread."""
        return self.data.qpos.copy()
