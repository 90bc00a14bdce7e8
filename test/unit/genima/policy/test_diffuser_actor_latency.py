"""The policy ``diffuser_actor`` in real time: predictions that take long, and an arm that is held."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genima.cameras.calibration_file import load_cameras
from genima.control.chunk_stream import ChunkStream
from genima.policy.diffuser_actor import DiffuserActorPolicy
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose, pose_distance
from genima.types import Joints, Observation

SIZE = 16  # px
STEP = 0.02  # s of the commands
CHUNK_SECONDS = 0.02  # s that a chunk of the present motion takes
FRAMES = 4  # steps between images
TRACKING = 0.3  # share of its distance to the command that the arm covers in a step


class StandInModel:
    """Model that returns given keyposes and logs when it was asked."""

    def __init__(self, robot: RobotModel, keyposes: list[np.ndarray]) -> None:
        self.robot, self.keyposes, self.asked = robot, keyposes, 0
        self.spec = PolicySpec("panda", robot.joint_names, ("front",), (SIZE, SIZE), SIZE, requires_depth=True)

    def predict(self, *_: Any) -> tuple[np.ndarray, bool]:
        self.asked += 1
        return self.keyposes[(self.asked - 1) % len(self.keyposes)], True


def make_policy(robot: RobotModel) -> tuple[DiffuserActorPolicy, StandInModel]:
    here = robot.link_poses(robot.home)[-1]
    goals = [here @ pose(np.eye(3), np.array(by)) for by in ([0.0, 0.1, 0.12], [0.15, -0.1, 0.0])]
    goals[1] = goals[1] @ pose(Rotation.from_euler("z", 0.5).as_matrix(), np.zeros(3))
    model = StandInModel(robot, goals)
    cameras = {view: camera.scale(SIZE, SIZE) for view, camera in load_cameras("sim").items()}
    policy = DiffuserActorPolicy(model, cameras)  # type: ignore[arg-type]
    policy.reset()
    return policy, model


@pytest.mark.parametrize("prediction", [0.1, 1.5])  # s
@pytest.mark.parametrize("horizon", [None, 5])  # actions of a chunk that are executed
@pytest.mark.parametrize("held", [None, (2.0, 4.0)])  # s while which the arm is held and no images come
def test_keyposes_are_predicted_at_rest_and_motions_begin_at_their_start(
    robot: RobotModel, prediction: float, horizon: int | None, held: tuple[float, float] | None
) -> None:
    """As in the graph: the newest images are taken, a chunk comes late, and its past actions are skipped."""
    policy, model = make_policy(robot)
    stream = ChunkStream(robot, 1 / STEP, horizon)
    arm = robot.home.copy()
    stream.reset(Joints(0.0, arm, 1.0))
    latencies: deque[float] = deque(maxlen=10)
    ready, chunk = 0.0, None
    speeds, commands, speed = [], [], 0.0
    image, depth = np.zeros((SIZE, SIZE, 3), np.uint8), np.full((SIZE, SIZE), 0.7, np.float32)
    observation = Observation(0.0, {"front": image}, Joints(0.0, arm, 1.0), "push", depth={"front": depth})
    for tick in range(round(10 / STEP)):
        now = tick * STEP
        blind = held is not None and held[0] <= now < held[1]
        if not blind and tick % FRAMES == 0:
            observation = replace(observation, stamp=now, joints=Joints(now, arm.copy(), 1.0))
        if chunk is not None and now >= ready:
            stream.add(chunk)
            latencies.append(now - chunk.stamp)
            chunk = None
        if chunk is None and not blind and tick % FRAMES == 0:
            asked = model.asked
            chunk = policy.predict_chunk(replace(observation, latency=max(latencies, default=0.1)))
            ready = now + (prediction if model.asked > asked else CHUNK_SECONDS)
            if model.asked > asked:
                speeds.append(speed)
        if blind:
            stream.hold()
        command = stream.command(now, Joints(now, arm, 1.0))
        before = arm.copy()
        if command is not None:
            commands.append(command.positions)
            arm += TRACKING * (command.positions - arm)
        speed = np.abs(arm - before).max() / STEP
    assert len(speeds) >= 3 and max(speeds) < 0.03  # rad/s
    for keypose, reached in zip(model.keyposes, policy._poses[1:], strict=False):
        metres, angle = pose_distance(keypose, reached)
        assert metres < 0.008 and angle < 0.01  # where the next was predicted
    fastest = np.abs(np.diff(commands, axis=0)).max() / STEP
    assert fastest < 1.4 * planned_speed(policy, model)


def planned_speed(policy: DiffuserActorPolicy, model: StandInModel) -> float:
    """Return the greatest joint speed of the motions between the keyposes, rad/s."""
    here = model.robot.home
    fastest = 0.0
    for goal in [*model.keyposes, model.keyposes[0]]:
        motion = policy._planner.plan(Joints(0.0, here, 1.0), True, goal, True)
        times = np.arange(0.0, motion.seconds, STEP)
        fastest = max(fastest, np.abs([motion.at(time)[1] for time in times]).max())
        here = motion.at(motion.seconds)[0]
    return fastest
