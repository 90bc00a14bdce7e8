"""Scene states of simulated demos, from which images of any camera can be rendered again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genima.data.episodes.bag import JOINT_COMMAND, JOINT_STATES, SCENE, SCENE_STATE, SUCCESS, TASK, read_messages
from genima.data.episodes.errors import EpisodeError
from genima.data.keyframes import find_keyframes, settle
from genima.errors import GenimaError
from genima.io.files import FileSchema, parse_yaml, validate
from genima.robot.model import RobotModel
from genima.types import Command, Joints

Array = NDArray[np.float64]


class SceneDescription(FileSchema):
    """Task, seed and perturbations of a simulated scene."""

    task: str
    seed: int
    perturbations: list[str]


@dataclass(frozen=True)
class SceneDemo:
    """Simulated demo as states and actions: T samples at the times of its joint states."""

    instruction: str
    scene: SceneDescription
    joints: list[Joints]  # T
    states: Array  # (T, nq) configurations of the scene
    commands: list[Command]  # the command after each sample
    success: bool

    @classmethod
    def load(cls, folder: Path, robot: RobotModel) -> SceneDemo:
        """Read the states and actions of a demo.

        Raises:
            EpisodeError: for a bag that cannot be read, and for a demo without scene states.
        """
        messages = read_messages(folder)
        for topic in (TASK, SCENE, SCENE_STATE, JOINT_STATES, JOINT_COMMAND):
            if not messages.get(topic):
                raise EpisodeError(folder, "no messages; only demos of ./genima record --lockstep have states", topic)
        try:
            scene = validate(SceneDescription, parse_yaml(messages[SCENE][0].data, "scene"), "scene")
        except GenimaError as error:
            raise EpisodeError(folder, str(error), SCENE) from None
        joints = [_joints(message, robot) for message in messages[JOINT_STATES]]
        rows = [np.asarray(message.data, np.float64) for message in messages[SCENE_STATE]]
        if len(rows) != len(joints) or len(messages[JOINT_COMMAND]) != len(joints):
            counts = f"{len(rows)} states, {len(joints)} joint states, {len(messages[JOINT_COMMAND])} commands"
            raise EpisodeError(folder, f"samples are missing ({counts})", SCENE_STATE)
        if len({row.shape for row in rows}) != 1 or not all(np.isfinite(row).all() for row in rows):
            raise EpisodeError(folder, "configurations of different lengths, or not finite", SCENE_STATE)
        return cls(
            instruction=messages[TASK][0].data,
            scene=scene,
            joints=joints,
            states=np.array(rows),
            commands=[_command(message) for message in messages[JOINT_COMMAND]],
            success=bool(messages[SUCCESS][-1].data) if messages.get(SUCCESS) else False,
        )

    def keyframes(self) -> NDArray[np.int64]:
        """Return the samples at keyframes: see :func:`genima.data.keyframes.find_keyframes`."""
        return find_keyframes(*self._motion(), np.array([command.gripper for command in self.commands]))

    def settled(self, keyframes: NDArray[np.int64], seconds: float) -> NDArray[np.int64]:
        """Return the samples after keyframes when the gripper has moved: see :func:`genima.data.keyframes.settle`."""
        return settle(*self._motion(), keyframes, seconds)

    def _motion(self) -> tuple[Array, Array]:
        stamps, positions = zip(*((joints.stamp, joints.positions) for joints in self.joints), strict=True)
        return np.array(stamps), np.array(positions)


def _joints(message: Any, robot: RobotModel) -> Joints:
    *positions, gripper = message.position
    return Joints(_seconds(message), np.array(positions), robot.open_fraction(gripper))


def _command(message: Any) -> Command:
    *positions, gripper = message.position
    return Command(_seconds(message), np.array(positions), gripper=float(gripper))


def _seconds(message: Any) -> float:
    return float(message.header.stamp.sec + message.header.stamp.nanosec * 1e-9)
