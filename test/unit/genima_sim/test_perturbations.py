"""Perturbations: each changes what it says and nothing else, by the seed alone; without any, nothing changes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import mujoco
import numpy as np
import pytest
import rclpy
from domains import free_domain

from genima.cell import load_cell
from genima.data.episodes import Episode
from genima.errors import GenimaError
from genima.robot.body import asset_folder
from genima.robot.model import RobotModel
from genima.types import Image
from genima_bringup import argument_checks as checks
from genima_bringup.node_specs import recording_stack, simulation_stack
from genima_cli.__main__ import main
from genima_cli.demo_report import Report
from genima_cli.evaluate import Evaluate, settings
from genima_interfaces.srv import ResetScene
from genima_sim.demo_recorder import DemoRecorder
from genima_sim.environment import Environment
from genima_sim.experts import Expert
from genima_sim.perturbations import (
    PERTURBATIONS,
    distractors,
    domain_randomization,
    generator,
    light_brightness,
    light_color,
    object_size,
)
from genima_sim.perturbations._textures import TEXTURES
from genima_sim.perturbations.grid_placement import CELLS, grid_cells
from genima_sim.scene import scene_frames
from genima_sim.scene_state import SceneFrames
from genima_sim.sim_node import SimNode
from genima_sim.simulation import Simulation
from genima_sim.simulators import perturb, require_perturbations
from genima_sim.task import Placement, Region, Task
from genima_sim.tasks import DEMO_HZ, DEMO_SEED, TASKS, get_task, scene_objects

FIELDS = {
    "object_color": {"geom_rgba"},
    "receiver_color": {"geom_rgba"},
    "part_color": {"geom_rgba"},
    "light_color": {"light_diffuse"},
    "light_brightness": {"light_diffuse", "light_ambient"},
    "camera_pose": {"cam_pos", "cam_quat", "cam_pos0", "cam_mat0", "cam_poscom0"},
}
"""Fields of the model that perturbations without new geoms or textures change."""
VISUAL = [name for name in PERTURBATIONS if name not in ("grid_placement", "object_size", "receiver_color")]
BASKET = """
import mujoco

from genima_sim.task import SceneObject, Task


class Ball(SceneObject):
    name = "ball"
    radius = 0.03

    def build(self, spec):
        body = spec.worldbody.add_body(name="ball", pos=[0, 0, 0.03])
        body.add_freejoint(name="ball")
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.03, 0, 0], rgba=[0.1, 0.6, 0.2, 1], mass=0.1)


class Mat(SceneObject):
    name = "mat"
    radius = 0.1
    receives = True

    def build(self, spec):
        body = spec.worldbody.add_body(name="mat", pos=[0, 0, 0.002])
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.08, 0.08, 0.002], rgba=[0.6, 0.6, 0.2, 1])


class Basket(Task):
    instructions = ("put the ball onto the mat",)
    objects = (Ball(), Mat())

    def succeeded(self, state):
        return state.touch("ball", "mat")

    def motions(self, scene):
        yield from ()
"""


@pytest.fixture(scope="module")
def scenes(robot: RobotModel) -> Iterator[Environment]:
    """Environment whose simulation a test resets with perturbations."""
    environment = Environment()
    yield environment
    environment.close()


def fields(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Return copies of all arrays of a model."""
    names = [name for name in dir(model) if not name.startswith("_")]
    values = {name: getattr(model, name) for name in names}
    return {name: value.copy() for name, value in values.items() if isinstance(value, np.ndarray)}


def changed(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not np.array_equal(before[name], after[name], equal_nan=True)}


def images(environment: Environment) -> dict[str, Image]:
    return environment.renderer.render(environment.simulation.qpos(), model=environment.simulation.model)


def differ(one: Mapping[str, Image], other: Mapping[str, Image]) -> dict[str, float]:
    """Return the share of pixels of each view that differ."""
    return {view: float((one[view] != other[view]).any(axis=-1).mean()) for view in one}


def digest(environment: Environment, task: str, seed: int) -> str:
    """Return a digest of the model, the motion under commands, and images at its end."""
    simulation = environment.simulation
    simulation.reset(task, seed)
    found = hashlib.sha256()
    for value in fields(simulation.model).values():
        found.update(value.tobytes())
    simulation.command(simulation.robot.home + 0.1, 0.3)
    simulation.step(0.3)
    found.update(simulation.qpos().tobytes())
    for image in images(environment).values():
        found.update(image.tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("task", ["push_button", "open_drawer"])
def test_episodes_without_perturbations_are_as_before(scenes: Environment, task: str) -> None:
    before = digest(scenes, task, 3)
    scenes.simulation.reset(task, 3, perturbations=[*VISUAL, "grid_placement"])
    images(scenes)
    scenes.simulation.step(0.1)
    assert digest(scenes, task, 3) == before
    assert digest(Environment(), task, 3) == before


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "receiver_color"])
def test_only_named_fields_of_the_model_change(scenes: Environment, name: str) -> None:
    simulation = scenes.simulation
    simulation.reset("push_button", 5)
    before, placements, qpos, seen = fields(simulation.model), simulation.placements, simulation.qpos(), images(scenes)
    simulation.reset("push_button", 5, perturbations=[name])
    found = changed(before, fields(simulation.model))
    assert found and found <= FIELDS[name]
    assert simulation.placements == placements
    np.testing.assert_array_equal(simulation.qpos(), qpos)
    assert max(differ(seen, images(scenes)).values()) > 0.001


@pytest.mark.parametrize("name", VISUAL)
def test_visual_perturbations_change_images_but_no_motion(scenes: Environment, name: str) -> None:
    simulation = scenes.simulation
    ends, seen = [], []
    for names in ([], [name], [name]):
        simulation.reset("take_lid_off_saucepan", 4, perturbations=names)
        simulation.command(simulation.robot.home + [0.1, 0.5, 0, 0, 0, 0.2, 0], 0.2)
        simulation.step(1.0)
        ends.append(simulation.qpos())
        seen.append(images(scenes))
    np.testing.assert_array_equal(ends[0], ends[1])
    assert max(differ(seen[0], seen[1]).values()) > 0.001
    assert not any(differ(seen[1], seen[2]).values())  # equal seeds
    simulation.reset("take_lid_off_saucepan", 5)
    other = fields(simulation.model)
    simulation.reset("take_lid_off_saucepan", 5, perturbations=[name])
    one = fields(simulation.model)
    simulation.reset("take_lid_off_saucepan", 6, perturbations=[name])
    two = fields(simulation.model)
    shared = {key for key in one if one[key].shape == two[key].shape} - {"body_pos", "body_quat", "geom_quat"}
    assert any(not np.array_equal(one[key], two[key], equal_nan=True) for key in shared)  # other seeds
    assert simulation.model.nq == len(other["qpos0"])


def test_scene_before_a_reset_can_still_be_rendered(scenes: Environment) -> None:
    simulation = scenes.simulation
    simulation.reset("push_button", 0, perturbations=[*VISUAL, "grid_placement"])
    model, qpos, before = simulation.model, simulation.qpos(), images(scenes)
    simulation.reset("push_button", 1, perturbations=[*VISUAL, "grid_placement"])
    assert max(differ(before, images(scenes)).values()) > 0.1
    assert not any(differ(before, scenes.renderer.render(qpos, model=model)).values())


def test_named_colours_stay(scenes: Environment) -> None:
    simulation = scenes.simulation
    for seed in range(10):
        simulation.reset("push_button", 0)
        before = colours(simulation.model)
        simulation.reset("push_button", seed, perturbations=["object_color", "part_color"])
        after = colours(simulation.model)
        assert before["button"] == after["button"] and before["button_cap"] == after["button_cap"]
        assert before["lid"] != after["lid"] and before["saucepan"] != after["saucepan"]


def colours(model: mujoco.MjModel) -> dict[str, list[list[float]]]:
    """Return the colours of all bodies' geoms, by body."""
    bodies = {model.body(i).name: np.flatnonzero(model.geom_bodyid == i) for i in range(model.nbody)}
    return {name: model.geom_rgba[geoms].tolist() for name, geoms in bodies.items()}


def test_one_part_is_coloured(scenes: Environment) -> None:
    simulation = scenes.simulation
    parts = set()
    for seed in range(12):
        simulation.reset("open_drawer", seed)
        before = simulation.model.geom_rgba.copy()
        simulation.reset("open_drawer", seed, perturbations=["part_color"])
        different = np.flatnonzero((simulation.model.geom_rgba != before).any(axis=1))
        assert len(different) == 1
        parts.add(int(different[0]))
    assert len(parts) > 5


def test_receivers_and_manipulated_objects_are_coloured_apart(
    scenes: Environment, write_module: Callable[..., Path]
) -> None:
    write_module("tasks/basket.py", BASKET)
    simulation = scenes.simulation
    simulation.reset("basket", 0)
    plain = colours(simulation.model)
    for name, coloured in {"object_color": "ball", "receiver_color": "mat"}.items():
        simulation.reset("basket", 0, perturbations=[name])
        after = colours(simulation.model)
        assert {body for body in after if after[body] != plain[body]} == {coloured}


def test_perturbations_do_not_change_each_other(scenes: Environment) -> None:
    simulation = scenes.simulation
    simulation.reset("open_drawer", 8, perturbations=["camera_pose"])
    cameras = simulation.model.cam_pos.copy()
    simulation.reset("open_drawer", 8, perturbations=["object_color"])
    cabinet = colours(simulation.model)["cabinet"]
    names = ["distractors", "object_color", "light_color", "camera_pose", "background", "table_texture"]
    for order in (names, names[::-1]):
        simulation.reset("open_drawer", 8, perturbations=order)
        np.testing.assert_array_equal(simulation.model.cam_pos, cameras)
        assert colours(simulation.model)["cabinet"] == cabinet
    assert {generator(8, name).random() for name in names} != {generator(9, name).random() for name in names}


def test_calibration_stays_that_of_unmoved_cameras(scenes: Environment) -> None:
    simulation = scenes.simulation
    simulation.reset("push_button", 2)
    model = simulation.model
    simulation.reset("push_button", 2, perturbations=["camera_pose"])
    moved = simulation.model
    assert simulation.cameras.keys() == load_cell("sim_panda").load_cameras().keys()
    for view, camera in simulation.cameras.items():
        np.testing.assert_array_equal(
            camera.T_parent_camera, load_cell("sim_panda").load_cameras()[view].T_parent_camera
        )
        shift = moved.camera(view).pos - model.camera(view).pos
        angle = 2 * np.arccos(np.clip(abs(moved.camera(view).quat @ model.camera(view).quat), 0, 1))
        if camera.parent == "flange":
            assert not shift.any() and angle == pytest.approx(0, abs=1e-7)
        else:
            assert 0.01 < np.abs(shift).max() <= 0.1 and 0.005 < angle < 0.05 * 3**0.5 + 1e-6


def test_training_has_none_of_the_tests_textures_and_half_their_range_of_light(scenes: Environment) -> None:
    simulation = scenes.simulation
    simulation.reset("push_button", 0)
    plain = fields(simulation.model)
    colors = colours(simulation.model)
    factors, shares = [], []
    for seed in range(DEMO_SEED, DEMO_SEED + 20):
        simulation.reset("push_button", seed, perturbations=["domain_randomization"])
        model = simulation.model
        added = [model.tex(i) for i in range(model.ntex) if model.tex(i).name.startswith("randomized")]
        assert {texture.name for texture in added} == {f"randomized_{part}" for part in ("table", "floor", "room")}
        assert all(texture.width[0] == 64 for texture in added)  # px; those of the tests are larger
        after = colours(model)
        assert after["button"] == colors["button"] and after["saucepan"] != colors["saucepan"]
        factors.append(float(model.light_ambient[0, 0] / plain["light_ambient"][0, 0]))
        shares.append(model.light_diffuse / plain["light_diffuse"] / factors[-1])
    for values, (low, high), (widest_low, widest_high) in (
        (factors, domain_randomization.BRIGHTNESS, light_brightness.FACTORS),
        (shares, domain_randomization.SHARES, light_color.SHARES),
    ):
        assert low - 1e-6 <= np.min(values) < np.max(values) <= high + 1e-6
        assert high - low == pytest.approx((widest_high - widest_low) / 2)
    assert TEXTURES and all(texture_width(name) > 64 for name in TEXTURES)


def texture_width(name: str) -> int:
    """Return the width in px of a texture of the tests."""
    return int(cv2.imread(str(asset_folder() / "textures" / f"{name}.png")).shape[1])


@pytest.mark.parametrize("task", ["push_button", "open_drawer"])
def test_distractors_are_apart_and_untouchable(scenes: Environment, task: str) -> None:
    simulation = scenes.simulation
    counts = []
    for seed in range(20):
        simulation.reset(task, seed, perturbations=["distractors"])
        model, data = simulation.model, simulation.data
        ids = [i for i in range(model.ngeom) if model.geom(i).name.startswith("distractor")]
        counts.append(len(ids))
        parts = {model.body(name).id for name in simulation.bodies()}
        others = [i for i in range(model.ngeom) if model.geom_bodyid[i] in parts]
        for i in ids:
            assert not model.geom_contype[i] and not model.geom_conaffinity[i]
            assert data.geom_xpos[i][2] > 0.019
            for j in (*others, *(k for k in ids if k < i)):
                assert mujoco.mj_geomDistance(model, data, i, j, 1.0, None) > 0.02
    assert counts.count(distractors.COUNT) > 15


def test_size_scales_whole_objects(scenes: Environment) -> None:
    simulation, scales = scenes.simulation, []
    for seed in range(8):
        simulation.reset("open_drawer", seed)
        before = fields(simulation.model)
        sites = {name: local_site(simulation, name) for name in ("handle_bottom", "handle_top")}
        simulation.reset("open_drawer", seed, perturbations=["object_size"])
        after = fields(simulation.model)
        cabinet = [i for i in range(simulation.model.nbody) if simulation.model.body(i).name in simulation.bodies()]
        geoms = np.isin(after["geom_bodyid"], cabinet)
        scale = after["geom_size"][geoms].max() / before["geom_size"][geoms].max()
        scales.append(scale)
        np.testing.assert_allclose(after["geom_size"][geoms], scale * before["geom_size"][geoms])
        np.testing.assert_allclose(after["geom_pos"][geoms], scale * before["geom_pos"][geoms], atol=1e-9)
        np.testing.assert_array_equal(after["geom_size"][~geoms], before["geom_size"][~geoms])
        for name, position in sites.items():
            np.testing.assert_allclose(local_site(simulation, name), scale * position, atol=1e-9)
        drawer = simulation.model.joint("drawer_top")
        assert drawer.range[1] == pytest.approx(0.2 * scale)
    low, high = object_size.SCALES
    assert low <= min(scales) < 0.97 and 1.03 < max(scales) <= high


def local_site(simulation: Simulation, name: str) -> np.ndarray:
    """Return a site's position (3,) in the cabinet's frame."""
    frames = SceneFrames(simulation.model, simulation.bodies())
    return (np.linalg.inv(frames.body("cabinet")) @ frames.frame(name))[:3, 3]


@pytest.mark.parametrize("scale", object_size.SCALES)
@pytest.mark.parametrize("task", [
    name if name == "open_drawer" else pytest.param(name, marks=pytest.mark.nightly)
    for name, task in TASKS.items() if task.allows_scaling
])  # fmt: skip
def test_experts_handle_smallest_and_largest_objects(
    scenes: Environment, task: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_size, "SCALES", (scale, scale))
    assert sum(expert_succeeds(scenes.simulation, task, seed, ["object_size"]) for seed in range(100, 103)) >= 2


def expert_succeeds(simulation: Simulation, task: str, seed: int, perturbations: Sequence[str]) -> bool:
    simulation.reset(task, seed, perturbations=perturbations)
    frames = scene_frames(simulation.task, simulation.bodies())  # as experts of commands plan
    plan = Expert(simulation.robot).plan_task(simulation.task, frames, simulation.joints().positions)
    for target, gripper in zip(plan.positions, plan.gripper, strict=True):
        simulation.command(target, float(gripper))
        simulation.step(1 / DEMO_HZ)
    return simulation.success


@pytest.mark.parametrize("task", ["push_button", "take_lid_off_saucepan"])
def test_experts_succeed_under_visual_perturbations(scenes: Environment, task: str) -> None:
    assert all(expert_succeeds(scenes.simulation, task, seed, VISUAL) for seed in (0, 1))


def test_experts_reach_objects_on_a_grid(scenes: Environment) -> None:
    simulation = scenes.simulation
    for task in ("push_button", "take_lid_off_saucepan"):
        for seed in range(4):  # the first cells are in the corners
            assert expert_succeeds(simulation, task, DEMO_SEED + seed, ["grid_placement"]), (task, seed)


def test_seeds_pick_cells_that_cover_the_grid(scenes: Environment) -> None:
    task, simulation = get_task("take_lid_off_saucepan"), scenes.simulation
    places = [grid_placements(task, seed)["saucepan"] for seed in range(CELLS)]
    assert len(set(places)) == CELLS and grid_placements(task, DEMO_SEED + 7)["saucepan"] == places[7]
    simulation.reset(task.name, 7, perturbations=["grid_placement"])
    assert simulation.placements == grid_placements(task, 7)
    assert simulation.data.body("saucepan").xpos[:2] == pytest.approx(places[7].xy)
    region = task.objects[0].grid
    assert region is not None
    for axis in ("x", "y", "yaw"):
        low, high = getattr(region, axis)
        values = [getattr(at, axis) for at in places]
        levels = np.unique(np.round(values, 9))
        assert np.ptp(np.diff(levels)) < 1e-8  # even
        assert low < levels[0] and levels[-1] < high
        assert levels[0] - low == pytest.approx(high - levels[-1])


def grid_placements(task: Task, seed: int) -> Mapping[str, Placement]:
    name = "grid_placement"
    placements = PERTURBATIONS[name].place(task, scene_objects(task), seed, generator(seed, name))
    assert placements is not None
    return placements


@pytest.mark.parametrize("region", [
    Region((0.4, 0.6), (-0.2, 0.2)), Region((0.4, 0.4), (-0.2, 0.2)), Region(yaw=(-1.0, 1.0)),
])  # fmt: skip
def test_first_cells_cover_a_region(region: Region) -> None:
    cells = grid_cells(region)
    assert len(cells) == CELLS == len(np.unique(cells, axis=0))
    for count in (9, 25, 50):
        assert farthest(cells, cells[:count]) < 0.75 * farthest(cells, cells[: count // 3])


def farthest(cells: np.ndarray, chosen: np.ndarray) -> float:
    """Return the largest distance of a cell from the nearest chosen one; yaw counts as 0.2 m/rad."""
    weights = [1.0, 1.0, 0.2]
    distances = np.linalg.norm((cells[:, None] - chosen[None]) * weights, axis=-1)
    return float(distances.min(axis=1).max())


def test_point_is_a_grid_of_one_cell() -> None:
    np.testing.assert_array_equal(grid_cells(Region((0.4, 0.4), (0.1, 0.1))), [[0.4, 0.1, 0.0]])


@pytest.mark.parametrize(("task", "names", "line"), [
    ("push_button", ["object_colour"], "perturbation 'object_colour': unknown; known: .*did you mean object_color"),
    ("push_button", ["distractors", "distractors"], "perturbation distractors: named twice; name it once"),
    ("push_button", ["receiver_color"], "receiver_color: no object to colour in the scene of task push_button; leave"),
    ("push_button", ["object_size"], "object_size: task push_button has sizes as constants .*; leave it out"),
])  # fmt: skip
def test_impossible_perturbations_are_one_line(scenes: Environment, task: str, names: list[str], line: str) -> None:
    simulation = scenes.simulation
    simulation.reset(task, 1)
    before = simulation.model
    with pytest.raises(GenimaError, match=line):
        simulation.reset(task, 2, perturbations=names)
    assert simulation.model is before


def test_simulator_without_perturbations_refuses() -> None:
    with pytest.raises(
        GenimaError,
        match=r"cell sim_rlbench: scenes of rlbench cannot be perturbed \(distractors\); .* simulated by mujoco",
    ):
        require_perturbations(load_cell("sim_rlbench"), ["distractors"])
    require_perturbations(load_cell("sim_rlbench"), [])


COMMANDS = ["eval", "--policy", "expert"], ["demo"], ["record", "--lockstep"], ["record", "--sim"]


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_name_is_rejected_by_commands(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--task", "push_button", "--episodes", "1", "--perturb", "ligth_color"]) == 2
    assert "did you mean light_color?" in capsys.readouterr().err.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_real_robot_has_no_perturbations(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--instruction", "wave", "--perturb", "distractors"]) == 2
    assert "--perturb goes with --sim or --lockstep" in capsys.readouterr().err


def test_result_names_perturbations() -> None:
    cell, names = load_cell("sim_panda"), ["distractors", "light_color"]
    plain = settings(Evaluate("push_button"), cell, {})
    assert settings(Evaluate("push_button", perturb=names), cell, {}) == plain | {"perturbations": names}
    assert "perturbations" not in plain  # results of before can be resumed
    report = Report(["push_button"], 1, perturbations=names)
    assert report.to_dict()["perturbations"] == names


def test_environment_perturbs_each_episode(scenes: Environment) -> None:
    perturb(scenes, ["light_color"])
    try:
        lights = []
        for seed in (0, 1):
            scenes.reset("push_button", seed)
            lights.append(scenes.simulation.model.light_diffuse.tolist())
            assert scenes.observe().images.keys() == scenes.simulation.cameras.keys()
    finally:
        scenes.perturbations = ()
    assert lights[0] != lights[1]


def test_expert_is_evaluated_in_perturbed_scenes(
    scenes: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scenes, "close", lambda: None)
    monkeypatch.setattr("genima_sim.environment.Environment", lambda *_: scenes)
    arguments = ["--task", "push_button", "--policy", "expert", "--episodes", "1", "--out", str(tmp_path / "a.json")]
    try:
        assert main(["eval", *arguments, "--perturb", "distractors", "grid_placement"]) == 0
        assert scenes.perturbations == ("distractors", "grid_placement")
        assert scenes.simulation.placements == grid_placements(get_task("push_button"), 0)
    finally:
        scenes.perturbations = ()
    assert "push_button with distractors, grid_placement: 1 of 1" in capsys.readouterr().out
    assert main(["eval", *arguments]) == 2  # the result is of other scenes
    assert "perturbations" in capsys.readouterr().err


def test_demo_is_recorded_in_perturbed_scene(tmp_path: Path, robot: RobotModel) -> None:
    recorder = DemoRecorder(perturbations=["grid_placement", "background"])
    try:
        assert recorder.record(tmp_path / "demo", "push_button", DEMO_SEED)
        assert recorder.environment.perturbations == ("grid_placement", "background")  # type: ignore[attr-defined]
    finally:
        recorder.close()
    assert Episode.load(tmp_path / "demo", robot).success


def test_stacks_pass_perturbations_to_the_simulator() -> None:
    cell, names = load_cell("sim_panda"), ["distractors", "light_color"]
    for stack in (
        simulation_stack(cell, perturbations=names),
        recording_stack(cell, "expert", 10, "demos", "jpeg", names),
    ):
        assert stack[0].parameters["perturbations"] == names
    assert "perturbations" not in simulation_stack(cell)[0].parameters


def test_launch_argument_is_checked() -> None:
    values = {"policy": "expert", "checkpoint": "", "episode": "", "perturbations": "distractors, light_color"}
    checks.require_simulation(values | {"cell": "sim_panda"})
    with pytest.raises(GenimaError, match="did you mean distractors"):
        checks.perturbations("light_color,distractor")
    with pytest.raises(GenimaError, match="scenes of coppeliasim cannot be perturbed"):
        checks.require_simulation(values | {"cell": "sim_coppeliasim"})


@pytest.mark.any_pace
def test_node_perturbs_each_episode(scenes: Environment) -> None:
    simulation = scenes.simulation
    rclpy.init(args=["--ros-args", "-p", "perturbations:=[object_color]"], domain_id=free_domain())
    node = SimNode(simulation)
    try:
        colors = []
        for seed in (0, 1):
            assert node._on_reset(ResetScene.Request(task="push_button", seed=seed), ResetScene.Response()).success
            colors.append(simulation.model.geom("knob").rgba.tolist())
    finally:
        node.close()
        node.destroy_node()
        rclpy.shutdown()
    assert colors[0] != colors[1]


@pytest.mark.any_pace
def test_node_rejects_unknown_perturbation() -> None:
    rclpy.init(args=["--ros-args", "-p", "perturbations:=[object_colour]"], domain_id=free_domain())
    try:
        with pytest.raises(GenimaError, match="did you mean object_color"):
            SimNode()
    finally:
        rclpy.shutdown()


def test_example_of_the_documentation_is_found_by_module(
    scenes: Environment, write_module: Callable[..., Path]
) -> None:
    blocks = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8").split("```")
    (example,) = (block.removeprefix("python\n") for block in blocks if "class TableFriction" in block)
    write_module("perturbations/table_friction.py", example)
    frictions = set()
    for seed in range(3):
        scenes.simulation.reset("push_button", seed, perturbations=["table_friction"])
        frictions.add(float(scenes.simulation.model.geom("table").friction[0]))
    assert len(frictions) == 3 and 0.3 <= min(frictions) <= max(frictions) <= 1.5
