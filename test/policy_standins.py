"""Stand-ins for the networks of GENIMA: fast and deterministic."""

from __future__ import annotations

import time

import numpy as np

from genima.cameras.tiling import tile
from genima.errors import GenimaError
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.types import ActionChunk, DrawnTarget, Joints, Observation

PANDA = RobotModel.load("panda")
VIEWS = ("wrist", "front", "right_shoulder", "left_shoulder")
SIZE = 16


class StandInAgent:
    """Agent that returns the inverted observation."""

    views, camera_views, camera_size, robot = VIEWS, VIEWS, (SIZE, SIZE), PANDA

    def __init__(self) -> None:
        self.finite = True

    def generate(self, observation: Observation, seed: int, previous: DrawnTarget | None = None) -> DrawnTarget:
        if not self.finite:
            raise GenimaError("the drawn target is not finite")
        time.sleep(0.02)
        drawn = 255 - tile(observation.images, VIEWS)
        return DrawnTarget(observation.stamp, observation.instruction, VIEWS, drawn, 5, seed, 0.02)


class StandInController:
    """Controller that holds the given joints, with a small motion of one joint."""

    robot = PANDA
    spec = PolicySpec("panda", PANDA.joint_names)
    beyond = 0.0  # rad, offset of the last joint

    def predict_chunk(self, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
        if drawn.tile.shape[0] != 2 * SIZE:
            raise GenimaError(f"the drawn target is {drawn.tile.shape[0]} px wide, {2 * SIZE} is needed")
        ahead = np.tile(joints.positions, (20, 1))
        ahead[:, 0] += np.linspace(0, 0.1, 20)
        ahead[:, 6] += self.beyond
        return ActionChunk(drawn.stamp, 0.05, ahead, np.ones(20))
