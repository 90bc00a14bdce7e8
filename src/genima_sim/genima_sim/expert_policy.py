"""Policy that does the simulated tasks as the scripted experts do, for graphs without a model.

It needs to know where the objects are: ``Observation.bodies``, which only simulators fill in.
"""

from __future__ import annotations

import numpy as np

from genima.control.joint_trajectory import JointTrajectory
from genima.errors import GenimaError
from genima.policy.registry import PolicyOptions
from genima.policy.spec import PolicySpec
from genima.policy.trajectory_policy import TrajectoryPolicy
from genima.robot.model import RobotModel
from genima.types import Observation
from genima_sim.experts import Expert
from genima_sim.scene import scene_frames
from genima_sim.tasks import DEMO_HZ, find_task


def load(options: PolicyOptions) -> TrajectoryPolicy:
    """Load the experts of the tasks for a robot.

    Raises:
        GenimaError: for an unknown robot.
    """
    robot = RobotModel.load(options.robot)
    expert = Expert(robot)
    spec = PolicySpec(robot.name, robot.joint_names, options.views, action_rate=float(DEMO_HZ))
    return TrajectoryPolicy(spec, lambda observation: plan(expert, observation), pause=1.0)


def plan(expert: Expert, observation: Observation) -> JointTrajectory:
    """Plan the task of the observation from its joints.

    Raises:
        GenimaError: for an instruction of no task, and without the bodies' poses.
    """
    task = find_task(observation.instruction)
    if task is None:
        raise GenimaError(f"policy expert: instruction of no task ({observation.instruction!r}); give a task's own")
    start = observation.joints.positions
    trajectory = expert.plan_task(task, scene_frames(task, observation.bodies), start)
    return JointTrajectory(
        np.arange(len(trajectory.positions) + 1) / DEMO_HZ,
        np.vstack([start, trajectory.positions]),
        np.append(trajectory.gripper[0], trajectory.gripper),
    )
