"""Tasks as modules: a file in a folder of the user's is a task; incomplete ones are refused in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from genima.errors import GenimaError
from genima_sim import tasks
from genima_sim.demo_recorder import DemoRecorder
from genima_sim.environment import Environment
from genima_sim.task import Region, SceneObject, random_placements
from genima_sim.tasks import DEMO_HZ, TASKS, get_task, scene_objects

SLIDE_BLOCK = '''
"""Slide a block to the side."""

import mujoco

from genima_sim.task import Region, SceneObject, Task, Waypoint


class Block(SceneObject):
    name = "block_base"
    radius = 0.1
    region = Region(x=(0.45, 0.55), y=(-0.05, 0.05))
    movable = ("block",)

    def build(self, spec):
        spec.worldbody.add_body(name=self.name)
        block = spec.worldbody.add_body(name="block", pos=[0, 0, 0.04])
        block.add_freejoint(name="block")
        block.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.03, 0.03, 0.04], rgba=[0.1, 0.6, 0.2, 1], mass=0.1)

    def place(self, model, data, placement):
        super().place(model, data, placement)
        data.joint("block").qpos[:] = [placement.x, placement.y, 0.0405, 1, 0, 0, 0]


class SlideBlock(Task):
    instructions = ("slide the block to the left",)
    objects = (Block(),)

    def succeeded(self, state):
        return state.position("block")[1] > state.placements["block_base"].y + 0.05

    def waypoints(self, positions):
        x, y, _ = map(float, positions["block"])
        return [
            Waypoint((x, y - 0.12, 0.15), 1.8, 0.0, straight=False),
            Waypoint((x, y - 0.12, 0.05), 1.0, 0.0),
            Waypoint((x, y + 0.08, 0.05), 2.0, 0.0),
        ]
'''


@pytest.fixture
def write_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Write a module of a task into a folder of the user's."""
    path, found, modules = list(tasks.__path__), dict(TASKS._found), set(sys.modules)
    monkeypatch.setenv("GENIMA_TASKS", str(tmp_path))

    def write(name: str, text: str) -> Path:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        return tmp_path / f"{name}.py"

    yield write
    tasks.__path__[:] = path
    TASKS._found.clear()
    TASKS._found.update(found)
    for module in set(sys.modules) - modules:
        if module.startswith("genima_sim.tasks."):
            del sys.modules[module]


def test_a_task_of_the_users_runs_with_its_expert_in_lock_step(
    write_task: Callable[[str, str], Path], environment: Environment, recorder: DemoRecorder
) -> None:
    write_task("slide_block", SLIDE_BLOCK)
    assert list(TASKS) == ["push_button", "slide_block", "take_lid_off"]
    environment.reset("push_button", 0)
    usual = environment.observe()
    for seed in range(2):
        environment.reset("slide_block", seed)
        simulation = environment.simulation
        assert set(simulation.objects()) == {"block_base", "block"}
        seen = environment.observe()
        assert seen.instruction == "slide the block to the left" and not environment.done
        assert any((seen.images[view] != usual.images[view]).any() for view in seen.images)
        plan = recorder.expert.plan(simulation.task.waypoints(simulation.objects()), simulation.joints().positions)
        for positions, gripper in zip(plan.positions, plan.gripper, strict=True):
            simulation.command(positions, float(gripper))
            simulation.step(1 / DEMO_HZ)
        assert environment.done is True  # its success test returns a NumPy bool
    environment.reset("push_button", 0)
    again = environment.observe()
    for view in usual.images:
        np.testing.assert_array_equal(usual.images[view], again.images[view])


def test_a_demo_of_the_users_task_is_recorded(
    write_task: Callable[[str, str], Path], recorder: DemoRecorder, tmp_path: Path
) -> None:
    write_task("slide_block", SLIDE_BLOCK)
    assert any(recorder.record(tmp_path / f"slide_block-{seed}", "slide_block", seed) for seed in range(3))


@pytest.mark.parametrize(("change", "words"), [
    (("    def waypoints", "    def plan"), "class SlideBlock lacks waypoints; add them in .*slide_block.py"),
    (("    def succeeded", "    def done"), "class SlideBlock lacks succeeded"),
    (("    instructions =", "    words ="), "class SlideBlock lacks instructions"),
    (("    objects =", "    things ="), "class SlideBlock lacks objects"),
    (("class SlideBlock(Task)", "class SlideBlock"), "must define one subclass of Task .it has none"),
    (("    radius =", "    size ="), "cannot be imported .TypeError: class Block lacks radius"),
    (("import mujoco", "import nowhere_at_all"), "cannot be imported .ModuleNotFoundError: .*correct .*slide_block.py"),
    (("class SlideBlock", "class"), "cannot be imported .SyntaxError"),
])  # fmt: skip
def test_an_incomplete_task_is_one_clear_line(
    write_task: Callable[[str, str], Path], change: tuple[str, str], words: str
) -> None:
    before, after = change
    assert before in SLIDE_BLOCK
    write_task("slide_block", SLIDE_BLOCK.replace(before, after))
    with pytest.raises(GenimaError, match=f"task slide_block: .*{words}") as caught:
        get_task("slide_block")
    assert "\n" not in str(caught.value)
    assert get_task("push_button").name == "push_button"


def test_a_task_whose_goal_state_holds_at_the_start_is_refused(
    write_task: Callable[[str, str], Path], environment: Environment
) -> None:
    write_task("slide_block", SLIDE_BLOCK.replace(".y + 0.05", ".y - 0.05"))
    with pytest.raises(GenimaError, match="task slide_block, seed 3: the goal state holds at the start"):
        environment.reset("slide_block", 3)


def test_a_scene_with_an_unknown_task_is_refused(write_task: Callable[[str, str], Path]) -> None:
    write_task("slide_block", SLIDE_BLOCK.replace("    objects =", '    scene_tasks = ("push_buton",)\n    objects ='))
    with pytest.raises(GenimaError, match="unknown task 'push_buton'.*did you mean push_button"):
        scene_objects(get_task("slide_block"))


def test_a_folder_of_tasks_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIMA_TASKS", "/nowhere/at/all")
    with pytest.raises(GenimaError, match="GENIMA_TASKS: no such folder ./nowhere/at/all"):
        list(TASKS)


def test_objects_without_room_are_refused() -> None:
    class Crowd(SceneObject):
        radius = 0.1
        region = Region(x=(0.4, 0.5), y=(0.0, 0.05))
        name = "crowd"

        def build(self, spec: object) -> None: ...

    with pytest.raises(GenimaError, match="no room for the objects crowd, crowd"):
        random_placements((Crowd(), Crowd()), np.random.default_rng(0))
