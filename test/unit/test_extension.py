"""Add a view, a robot, a cell, a task, a policy and a simulator by files in one folder, and evaluate them together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from genima.cell import load_cell
from genima.errors import GenimaError
from genima.io import paths
from genima_cli import evaluate
from genima_cli.__main__ import main

ROBOT = (
    paths.shared("config", "robots", "fr3.yaml")
    .read_text(encoding="utf-8")
    .replace("name: fr3\n", "name: slow_fr3\n")
    .replace("velocity: 2.62", "velocity: 1.0")
)

VIEW = """
# Camera above the table, looking down: metres, pixels.
parent: base
translation: [0.5, 0.0, 1.5]
rotation_xyzw: [0.707106781, -0.707106781, 0.0, 0.0]
width: 256
height: 256
fx: 300.0
fy: 300.0
cx: 128.0
cy: 128.0
frames: {parent: fr3_link0, camera: overhead_color_optical_frame}
method: drawing of the lab
"""

CELL = """
robot: slow_fr3
simulator: kinematic
calibration: lab
views: [overhead]
guard: {rate: 50.0}
"""

TASK = '''
"""Turn the arm towards a ball."""

import mujoco
import numpy as np

from genima_sim.motions import MoveTo, radial_grasp
from genima_sim.task import Region, SceneObject, Task


class Ball(SceneObject):
    name = "ball"
    radius = 0.05  # m
    region = Region(x=(0.4, 0.6), y=(0.15, 0.3))  # m in the base frame

    def build(self, spec):
        ball = spec.worldbody.add_body(name=self.name)
        ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.03, 0, 0], pos=[0, 0, 0.03], rgba=[0.9, 0, 0, 1])


class PointAtBall(Task):
    instructions = ("point at the ball",)
    objects = (Ball(),)

    def succeeded(self, state):
        x, y = state.placements["ball"].xy
        return abs(state.joint("fr3_joint1") - np.arctan2(y, x)) < 0.02  # rad

    def motions(self, scene):
        x, y, _ = scene.body("ball")[:3, 3]
        yield MoveTo(radial_grasp([x, y, 0.3]), 2.0, 1.0, straight=False)
'''

POLICY = '''
"""Turn the arm towards the red ball that the overhead camera sees."""

import numpy as np

from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.types import ActionChunk


class LookAndPoint:
    def __init__(self, robot):
        self.spec = PolicySpec(robot.name, robot.joint_names, views=("overhead",))

    def reset(self, seed=0):
        pass  # nothing is remembered

    def predict_chunk(self, observation):
        image = observation.images["overhead"].astype(int)
        rows, columns = np.nonzero(image[..., 0] > image[..., 1:].max(axis=-1) + 60)  # px of the ball
        x, y = 0.5 + (128 - rows.mean()) * 1.5 / 300, (128 - columns.mean()) * 1.5 / 300  # m in the base frame
        start = goal = observation.joints.positions
        goal = np.concatenate([[np.arctan2(y, x)], start[1:]])
        share = np.linspace(0, 1, self.spec.horizon)[:, None]
        return ActionChunk(observation.stamp, 1 / 20, start + share * (goal - start), np.ones(self.spec.horizon))


def load(options):
    return LookAndPoint(RobotModel.load(options.robot))
'''

SIMULATOR = '''
"""The workcell without physics: joints are at once where they are commanded."""

import mujoco

from genima_sim.environment import Environment
from genima_sim.simulator import Simulator
from genima_sim.tasks import get_task


class KinematicEnvironment(Environment):
    def apply(self, command, seconds):
        simulation = self.simulation
        if command is not None:
            for name, position in zip(simulation.robot.joint_names, command.positions):
                simulation.data.joint(name).qpos[0] = position
        simulation.data.time += seconds
        mujoco.mj_forward(simulation.model, simulation.data)
        simulation.success = simulation.success or bool(simulation.task.succeeded(simulation.state))


class Kinematic(Simulator):
    time_limit = 5.0  # s of an episode

    def require_task(self, task, cell):
        get_task(task)

    def environment(self, cell, spec, host, port):
        return KinematicEnvironment(cell)
'''

FILES = {
    "config/robots/slow_fr3.yaml": ROBOT,
    "calibration/lab/overhead.yaml": VIEW,
    "config/cells/lab.yaml": CELL,
    "tasks/point_at_ball.py": TASK,
    "policies/look_and_point.py": POLICY,
    "simulators/kinematic.py": SIMULATOR,
}
"""All files of a user. The folder has the layout of the source tree; ``GENIMA_PATH`` names it."""


@pytest.fixture
def folder(write_module: Callable[..., Path], tmp_path: Path) -> Path:
    for name, text in FILES.items():
        write_module(name, text)
    return tmp_path


def test_user_files_add_view_robot_task_policy_and_simulator(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_cell("lab").robot.velocity_max[0] == 1.0
    assert (
        evaluate.main(["--cell", "lab", "--task", "point_at_ball", "--policy", "look_and_point", "--episodes=3"]) == 0
    )
    assert "point_at_ball: 3 of 3" in capsys.readouterr().out


def test_error_of_policy_is_one_line_with_file(
    folder: Path, write_module: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_module("policies/look_and_point.py", POLICY, ('images["overhead"]', 'images["above"]'))
    assert main(["eval", "--cell", "lab", "--task", "point_at_ball", "--policy", "look_and_point"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"policy look_and_point: LookAndPoint.predict_chunk failed (KeyError: 'above'); correct {file}" in line


def test_name_of_project_is_rejected(folder: Path) -> None:
    (folder / "config" / "cells" / "lab.yaml").rename(folder / "config" / "cells" / "sim_panda.yaml")
    with pytest.raises(GenimaError, match="sim_panda.yaml: the name is taken .*; rename yours"):
        load_cell("sim_panda")


def test_user_files_are_listed_with_those_of_the_project(folder: Path) -> None:
    assert {"fr3", "panda", "slow_fr3"} <= {file.stem for file in paths.yaml_files("config", "robots")}
