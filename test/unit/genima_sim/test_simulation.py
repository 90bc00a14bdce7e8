"""Simulated workcell: deterministic motion, experts, success tests, rendering."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from projection import project

from genima.cameras.camera import Camera
from genima.data.episodes import Episode
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.types import Command
from genima_sim.demo_recorder import DemoRecorder
from genima_sim.environment import Environment
from genima_sim.scene import scene_frames
from genima_sim.simulation import Simulation
from genima_sim.task import random_placements
from genima_sim.tasks import DEMO_HZ, TASKS, get_task, scene_objects

SHARED_SCENE = "push_button", "take_lid_off_saucepan"


def random_motion(simulation: Simulation, task: str, seed: int) -> np.ndarray:
    """Return all configurations during one second of random commands."""
    simulation.reset(task, seed)
    rng = np.random.default_rng(0)
    configurations = []
    for _ in range(20):
        simulation.command(simulation.robot.home + rng.uniform(-0.2, 0.2, 7), float(rng.uniform()))
        simulation.step(0.05)
        configurations.append(simulation.qpos())
    return np.array(configurations)


@pytest.mark.parametrize("task", SHARED_SCENE)
def test_motion_is_bitwise_reproducible(simulation: Simulation, task: str) -> None:
    first = random_motion(simulation, task, 5)
    random_motion(simulation, task, 6)  # another motion in between
    np.testing.assert_array_equal(random_motion(simulation, task, 5), first)
    assert np.abs(np.diff(first, axis=0)).max() > 0.01


def test_robot_with_other_gripper_is_rejected() -> None:
    with pytest.raises(
        GenimaError, match="robot fr3_franka_hand: gripper not simulated .franka_hand.; use one with a robotiq_2f140"
    ):
        Simulation(RobotModel.load("fr3_franka_hand"))


def test_seeds_change_objects_and_arm(simulation: Simulation) -> None:
    buttons, saucepans, arms = [], [], []
    for seed in range(10):
        simulation.reset("push_button", seed)
        buttons.append(simulation.placements["button"])
        saucepans.append(simulation.placements["saucepan"])
        arms.append(tuple(simulation.joints().positions))
    assert len(set(buttons)) == len(set(saucepans)) == len(set(arms)) == 10


def test_objects_are_apart_reachable_and_in_every_fixed_view(cameras: Mapping[str, Camera]) -> None:
    objects = scene_objects(get_task("push_button"))
    placements = [random_placements(objects, np.random.default_rng(seed)) for seed in range(300)]
    buttons, pans = (np.array([placed[name].xy for placed in placements]) for name in ("button", "saucepan"))
    assert np.linalg.norm(buttons - pans, axis=1).min() > 0.05 * 2**0.5 + 0.089  # the button's corner, the lid's edge
    for positions in (buttons, pans):
        distance = np.linalg.norm(positions, axis=1)
        assert distance.min() > 0.3 and distance.max() < 0.7  # m: a Panda reaches 0.855
        assert np.ptp(positions[:, 0]) > 0.2 and np.ptp(positions[:, 1]) > 0.45  # spread over the table
        for view in ("front", "left_shoulder", "right_shoulder"):
            pixels = project(cameras[view], np.column_stack([positions, np.full(len(positions), 0.05)]))
            assert np.all(pixels > 0) and np.all(pixels < 256), view


def run_expert(recorder: DemoRecorder, task: str, seed: int) -> list[bool]:
    """Play the expert; return success before it and after each step."""
    simulation = recorder.environment.simulation
    simulation.reset(task, seed)
    scene = scene_frames(simulation.task, simulation.bodies())
    trajectory = recorder.expert.plan_task(simulation.task, scene, simulation.joints().positions)
    successes = [simulation.success]
    for positions, gripper in zip(trajectory.positions, trajectory.gripper, strict=True):
        simulation.command(positions, float(gripper))
        simulation.step(1 / DEMO_HZ)
        successes.append(simulation.success)
    return successes


@pytest.mark.parametrize(("task", "other"), [SHARED_SCENE, SHARED_SCENE[::-1]])
def test_expert_completes_only_its_own_task(recorder: DemoRecorder, task: str, other: str) -> None:
    assert run_expert(recorder, task, 3)[-1]
    assert not TASKS[other].succeeded(recorder.environment.simulation.state)


def test_some_demos_recover_from_failed_grasp(recorder: DemoRecorder, robot: RobotModel, tmp_path: Path) -> None:
    assert recorder.record(tmp_path / "episode", "take_lid_off_saucepan", 100_002)
    episode = Episode.load(tmp_path / "episode", robot)
    commands = episode.command_gripper
    opened, closed_again = np.flatnonzero(np.diff(commands) != 0)
    assert commands[0] == 0 and episode.gripper[0] < 0.3  # starts closed, ...
    assert commands[opened + 1] == 1 and commands[-1] == 0  # ... opens, and closes again
    heights = robot.link_poses(episode.positions)[:, -1, 2, 3]
    assert heights[opened] > heights[0] + 0.08 and heights[closed_again] < heights[opened] - 0.08
    assert episode.success


def test_some_demos_of_any_grasp_recover(recorder: DemoRecorder, robot: RobotModel, tmp_path: Path) -> None:
    """The gripper closes before the handle, retreats, opens and grasps."""
    seed = next(s for s in range(100) if np.random.default_rng([s, 0x4E74]).random() < 0.15)
    assert recorder.record(tmp_path / "episode", "open_microwave", seed)
    episode = Episode.load(tmp_path / "episode", robot)
    assert episode.success and episode.gripper[0] < 0.3
    opened, closed_again = np.flatnonzero(np.diff(episode.command_gripper) != 0)
    start, retreat, grasp = robot.link_poses(episode.positions)[[0, opened, closed_again], -1, :3, 3]
    assert 0.06 < np.linalg.norm(start - grasp) < 0.13  # m
    assert np.linalg.norm(retreat - grasp) > np.linalg.norm(start - grasp) + 0.03


@pytest.mark.parametrize("task", ["push_button", "press_switch", "slide_block_to_target"])
def test_tasks_without_grasp_start_as_usual(recorder: DemoRecorder, task: str) -> None:
    recorder.environment.reset(task, 0)
    scene = scene_frames(get_task(task), recorder.environment.bodies())
    failed = [get_task(task).failed_grasp(scene, np.random.default_rng(seed)) for seed in range(30)]
    assert not any(failed)


def test_success_is_latched(recorder: DemoRecorder, robot: RobotModel) -> None:
    successes = run_expert(recorder, "push_button", 2)
    assert successes[-1] and successes == sorted(successes)
    simulation = recorder.environment.simulation
    for _ in range(40):
        simulation.command(robot.home, 1.0)
        simulation.step(0.05)
    assert not simulation.task.succeeded(simulation.state)  # the button is up again
    assert simulation.success
    simulation.reset("push_button", 2)
    assert not simulation.success


def test_arm_and_gripper_reach_commands(simulation: Simulation) -> None:
    target = simulation.robot.home + 0.1
    for gripper in (0.0, 1.0, 0.5):
        simulation.command(target, gripper)
        simulation.step(2.0)
        assert simulation.joints().gripper == pytest.approx(gripper, abs=0.03)
    np.testing.assert_allclose(simulation.joints().positions, target, atol=2e-3)


def test_time_starts_at_zero_and_advances_by_steps(simulation: Simulation) -> None:
    assert simulation.time == 0
    for _ in range(7):
        simulation.step(0.02)
    assert simulation.time == pytest.approx(0.14)
    assert simulation.joints().stamp == simulation.time


def test_non_finite_command_is_rejected_and_last_one_kept(simulation: Simulation) -> None:
    before = simulation.data.ctrl.copy()
    for positions, gripper in ((np.full(7, np.nan), 1.0), (np.full(7, np.inf), 1.0), (np.zeros(7), np.nan)):
        with pytest.raises(GenimaError, match="not finite"):
            simulation.command(positions, gripper)
    np.testing.assert_array_equal(simulation.data.ctrl, before)


def test_unknown_task_is_rejected_with_nearest_name(simulation: Simulation) -> None:
    with pytest.raises(GenimaError, match="'push_buton'.*push_button, .*mean push_button"):
        simulation.reset("push_buton", 0)
    with pytest.raises(GenimaError, match="known: .*push_button, .*take_lid_off_saucepan"):
        simulation.reset("zzz", 0)


def test_negative_seed_is_rejected(simulation: Simulation) -> None:
    with pytest.raises(GenimaError, match="-1"):
        simulation.reset("push_button", -1)


def test_images_show_button_at_projected_position(
    recorder: DemoRecorder, simulation: Simulation, cameras: Mapping[str, Camera]
) -> None:
    found = 0
    for seed in range(4):
        simulation.reset("push_button", seed)
        images = recorder.environment.renderer.render(simulation.qpos(), simulation.model)
        assert set(images) == set(cameras)
        for image in images.values():
            assert image.shape == (256, 256, 3) and image.dtype == np.uint8 and image.std() > 10
        cap = np.array([[*simulation.placements["button"].xy, 0.055]])
        for view in ("front", "left_shoulder", "right_shoulder"):
            red, green, blue = images[view].astype(float).transpose(2, 0, 1)
            rows, columns = np.nonzero((red > 40) & (red > 2.5 * green) & (red > 2.5 * blue))
            if len(rows) < 30:  # occluded by the arm
                continue
            centre = [columns.mean() + 0.5, rows.mean() + 0.5]
            np.testing.assert_allclose(centre, project(cameras[view], cap)[0], atol=5)
            found += 1
    assert found >= 8


def test_rendering_depends_on_configuration_only(recorder: DemoRecorder, simulation: Simulation) -> None:
    qpos = simulation.qpos()
    first = recorder.environment.renderer.render(qpos, simulation.model)
    simulation.reset("take_lid_off_saucepan", 1)
    moved = recorder.environment.renderer.render(simulation.qpos(), simulation.model)
    simulation.reset("push_button", 0)
    again = recorder.environment.renderer.render(qpos, simulation.model)
    for view in first:
        np.testing.assert_array_equal(first[view], again[view])
        assert (first[view] != moved[view]).any()


def test_observations_are_simultaneous_and_time_advances_in_apply(environment: Environment) -> None:
    environment.reset("take_lid_off_saucepan", 3)
    a, b = environment.observe(), environment.observe()
    assert a.stamp == a.joints.stamp == b.stamp == environment.time == 0
    assert a.instruction == TASKS["take_lid_off_saucepan"].instruction
    for view in a.images:
        np.testing.assert_array_equal(a.images[view], b.images[view])
    target = a.joints.positions + 0.05
    environment.apply(Command(0.0, target, gripper=0.0), 0.5)
    assert environment.time == pytest.approx(0.5)
    environment.apply(None, 1.0)  # the last command is kept
    np.testing.assert_allclose(environment.joints().positions, target, atol=2e-3)
    assert not environment.done


def test_restarted_task_resets_success(recorder: DemoRecorder, robot: RobotModel) -> None:
    assert run_expert(recorder, "push_button", 2)[-1]
    simulation = recorder.environment.simulation
    simulation.start_task()
    assert simulation.success  # the button is down: the scene has not been reset
    for _ in range(40):
        simulation.command(robot.home, 1.0)
        simulation.step(0.05)
    assert simulation.success
    simulation.start_task()
    assert not simulation.success  # the button is up
    simulation.step(1.0)
    assert not simulation.success


def test_finger_beyond_its_stop_is_measured_at_the_stop(simulation: Simulation) -> None:
    for position, fraction in ((-0.18, 1.0), (0.9, 0.0)):
        simulation.data.joint("gripper_finger_joint").qpos[0] = position
        assert simulation.joints().gripper == fraction


def test_objects_that_would_overlap_are_placed_again() -> None:
    simulation = Simulation()
    simulation.reset("push_button", 100152)  # its first placement has the pan's handle over the button
    button, pan = (simulation.placements[name] for name in ("button", "saucepan"))
    assert np.linalg.norm(button.xy - pan.xy) > 0.22
    placements = simulation.placements
    simulation.reset("push_button", 100152)
    assert simulation.placements == placements
