"""3D Diffuser Actor: the baseline that diffuses the gripper's next keypose and lets a planner move there.

Sources: Ke et al., 3D Diffuser Actor: Policy Diffusion with 3D Scene Representations, 2024; the GENIMA paper, section 3
and table 6. Its priors, which the policies of images alone do without: depth images of calibrated cameras, keyframes
that cut a demo into motions of a planner, the bounds of the workspace, and a scene that stands still meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera import Camera
from genima.cameras.tiling import crop_depth
from genima.control.joint_trajectory import JointTrajectory
from genima.control.trajectory_progress import TrajectoryProgress
from genima.errors import GenimaError
from genima.policy.keypose_planner import KeyposePlanner
from genima.policy.names import DIFFUSER_ACTOR
from genima.policy.observed_views import ObservedViews
from genima.policy.registry import PolicyOptions
from genima.policy.spec import PolicySpec, read_policy
from genima.policy.visuomotor.keypose_model import KeyposeModel, encode_history, token_points
from genima.robot.ik import UnreachableError
from genima.types import ActionChunk, Observation

_ATTEMPTS = 3  # keyposes that are sampled until one is within reach
_PATIENCE = 2.0  # s of delay of a motion after which the arm counts as blocked, and another keypose is predicted


def load(options: PolicyOptions) -> DiffuserActorPolicy:
    """Load a checkpoint of ``./genima train diffuser_actor``.

    Raises:
        GenimaError: when loading fails, the device is not available, or a view has no calibration.
    """
    folder = read_policy(DIFFUSER_ACTOR, options.checkpoint).folders[DIFFUSER_ACTOR]
    return DiffuserActorPolicy(KeyposeModel.from_pretrained(folder, options.device), load_cameras(options.calibration))


class DiffuserActorPolicy:
    """Keyposes one after the other, and the chunks of the motion to the present one."""

    def __init__(self, model: KeyposeModel, cameras: Mapping[str, Camera]) -> None:
        """Raises:
        GenimaError: when a view of the model is not in ``cameras``.
        """
        spec = model.spec
        if missing := [view for view in spec.views if view not in cameras]:
            raise GenimaError(f"policy {DIFFUSER_ACTOR}: no calibration of view {', '.join(missing)}; calibrate it")
        self._model = model
        self._cameras = {view: cameras[view].crop_square(spec.view_size) for view in spec.views}
        self._observed_views = ObservedViews(model.robot)
        self._planner = KeyposePlanner(model.robot)
        self.reset()

    @property
    def spec(self) -> PolicySpec:
        """See :class:`genima.policy.base.Policy`."""
        return self._model.spec

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`; ``seed`` determines the noise of all keyposes."""
        self._generator = torch.Generator().manual_seed(seed % 2**63)
        self._start_task("")

    def _start_task(self, instruction: str) -> None:
        self._instruction = instruction
        self._motion: TrajectoryProgress | None = None
        self._stamp = 0.0  # s, of the last observation
        self._moves = False  # the motion has begun
        self._poses: list[NDArray[np.float64]] = []  # of the tip, at the keyframes until now
        self._grippers: list[bool] = []  # open as commanded there
        self._is_open: bool | None = None  # as last commanded; None: by no motion of this task

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """See :class:`genima.policy.base.Policy`; a keypose is predicted when the one before has been reached.

        In real time, the arm rests while a keypose is predicted, and moves from the next observation on.
        """
        if not observation.instruction.strip():
            raise GenimaError("instruction: empty; publish a task")
        if observation.instruction != self._instruction:
            self._start_task(observation.instruction)
        stamp, seconds = observation.stamp, observation.stamp - self._stamp
        self._stamp = stamp
        motion = self._motion
        if motion is not None:
            covered = self.spec.horizon / self.spec.action_rate  # s: at the end of a chunk, the arm rests
            motion.advance(min(max(0.0, seconds), covered) if self._moves else 0.0, observation.joints.positions)
            self._moves = True
        if (
            motion is None
            or seconds < 0  # the clock was set back
            or motion.finished
            or motion.delay > _PATIENCE
        ):
            motion = self._motion = TrajectoryProgress(self._plan(observation))
            self._moves = not observation.latency
        return self._chunk(stamp, motion)

    def _chunk(self, stamp: float, motion: TrajectoryProgress) -> ActionChunk:
        period = 1 / self.spec.action_rate
        steps = np.arange(1, self.spec.horizon + 1) if self._moves else np.zeros(self.spec.horizon)
        actions = [motion.trajectory.at(motion.elapsed + period * step) for step in steps]
        positions, _, gripper = zip(*actions, strict=True)
        return ActionChunk(stamp, period, np.array(positions), np.array(gripper))

    def _plan(self, observation: Observation) -> JointTrajectory:
        """Predict a keypose, and plan the motion there; where none is within reach, hold."""
        joints, robot = observation.joints, self._model.robot
        is_open = joints.gripper > 0.5 if self._is_open is None else self._is_open
        self._poses.append(robot.link_poses(joints.positions)[-1])
        self._grippers.append(is_open)
        views = list(self._observed_views(observation, self.spec).values())
        points, valid = token_points(self._depth(observation), self._cameras, robot, joints.positions)
        history = encode_history(self._poses, self._grippers)
        for _ in range(_ATTEMPTS):
            sampled = self._model.predict(views, points, valid, history, observation.instruction, self._generator)
            try:
                motion = self._planner.plan(joints, is_open, *sampled)
            except UnreachableError:
                continue
            self._is_open = sampled[1]
            return motion
        return self._planner.hold(joints, is_open)

    def _depth(self, observation: Observation) -> dict[str, NDArray[np.float32]]:
        """Return the square depth images of the views."""
        width, height = self.spec.camera_size
        for view in self.spec.views:
            if view not in observation.depth:
                raise GenimaError(f"the observation has no depth image of view {view}")
            if (shape := observation.depth[view].shape) != (height, width):
                raise GenimaError(
                    f"the depth image of view {view} has shape {shape}; the checkpoint takes ({height}, {width})"
                )
        return {view: crop_depth(observation.depth[view], self.spec.view_size) for view in self.spec.views}
