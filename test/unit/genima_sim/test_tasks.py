"""Tasks of the user: a module in the user's folder is a task; errors in it are one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from one_thread import OneThread
from ros_graph import Graph

from genima.errors import GenimaError
from genima_cli.__main__ import main
from genima_interfaces.srv import ResetScene
from genima_sim import demo_recorder
from genima_sim.demo_recorder import DemoRecorder
from genima_sim.environment import Environment
from genima_sim.scene import scene_frames
from genima_sim.sim_node import SimNode
from genima_sim.simulation import Simulation
from genima_sim.task import Region, SceneObject, random_placements
from genima_sim.tasks import DEMO_HZ, TASKS, get_task, scene_objects

DOCS = Path(__file__).parents[3] / "docs"
SLIDE_BLOCK = (DOCS / "examples" / "slide_block.py").read_text(encoding="utf-8")


def test_documentation_shows_example() -> None:
    assert SLIDE_BLOCK in (DOCS / "tasks.md").read_text(encoding="utf-8")


def test_user_task_runs_with_expert_in_lock_step(
    write_module: Callable[..., Path], environment: Environment, recorder: DemoRecorder
) -> None:
    write_module("tasks/slide_block.py", SLIDE_BLOCK)
    assert "slide_block" in TASKS and "slide_block@1" not in TASKS
    environment.reset("push_button", 0)
    initial = environment.observe()
    for seed in range(2):
        environment.reset("slide_block", seed)
        simulation = environment.simulation
        assert set(simulation.bodies()) == {"block"}
        observation = environment.observe()
        assert observation.instruction == "slide the block to the left" and not environment.done
        assert any((observation.images[view] != initial.images[view]).any() for view in observation.images)
        scene = scene_frames(simulation.task, simulation.bodies())
        plan = recorder.expert.plan_task(simulation.task, scene, simulation.joints().positions)
        for positions, gripper in zip(plan.positions, plan.gripper, strict=True):
            simulation.command(positions, float(gripper))
            simulation.step(1 / DEMO_HZ)
        assert environment.done is True  # the task's success test returns a NumPy bool
    environment.reset("push_button", 0)
    again = environment.observe()
    for view in initial.images:
        np.testing.assert_array_equal(initial.images[view], again.images[view])


def test_demo_of_user_task_is_recorded(
    write_module: Callable[..., Path], recorder: DemoRecorder, tmp_path: Path
) -> None:
    private = ("    instructions =", "    _notes: str  # private: may be set later\n    instructions =")
    write_module("tasks/slide_block.py", SLIDE_BLOCK, private)
    assert any(recorder.record(tmp_path / f"slide_block-{seed}", "slide_block", seed) for seed in range(3))


@pytest.mark.parametrize(("change", "expected"), [
    (("    def motions", "    def plan"), "class SlideBlock lacks motions; add them in .*slide_block.py"),
    (("    def succeeded", "    def done"), "class SlideBlock lacks succeeded"),
    (("    instructions =", "    words ="), "class SlideBlock lacks instructions"),
    (("    objects =", "    things ="), "class SlideBlock lacks objects"),
    (("class SlideBlock(Task)", "class SlideBlock"), "must define one subclass of Task .it has none"),
    (("    radius =", "    size ="), "cannot be imported .TypeError: class Block lacks radius"),
    (("import add_box", "import add_boxes"), "cannot be imported .ImportError: .*correct .*slide_block.py"),
    (("class SlideBlock", "class"), "cannot be imported .SyntaxError"),
    (('("slide the block to the {side}",)', '"slide the block"'), "instructions: no sequence of str"),
    (('("slide the block to the {side}",)', '(" ",)'), "instructions: no text"),
    (('{side}"', '{where}"'), "SlideBlock.variations: no 'where' for"),
    (("x=(0.45, 0.55)", "x=(0.55, 0.45)"), "region x: no range .0.55, 0.45."),
])  # fmt: skip
def test_incomplete_task_is_reported_in_one_line(
    write_module: Callable[..., Path], change: tuple[str, str], expected: str
) -> None:
    write_module("tasks/slide_block.py", SLIDE_BLOCK, change)
    with pytest.raises(GenimaError, match=f"task slide_block: .*{expected}") as caught:
        get_task("slide_block")
    assert "\n" not in str(caught.value)
    assert get_task("push_button").name == "push_button"


def test_task_that_succeeds_at_start_is_rejected(write_module: Callable[..., Path], environment: Environment) -> None:
    write_module("tasks/slide_block.py", SLIDE_BLOCK, ("> 0.05", "> -0.05"))
    with pytest.raises(GenimaError, match="task slide_block, seed 3: the goal state holds at the start"):
        environment.reset("slide_block", 3)


SUCCEEDED = 'return side * (state.position("block")[1] - state.placements["block"].y) > 0.05'
FIRST = "0.15), 1.8, 0.0"
CODE_FAULTS = [
    ((SUCCEEDED, 'return state.position("blok")[1] > 0'), "SlideBlock.succeeded failed .KeyError: "),
    ((SUCCEEDED, "return None"), "SlideBlock.succeeded returned no bool .None"),
    (("pos=[0, 0, 0.0405]", "pos=[0, 0, float('nan')]"), "the scene cannot be built|not at finite positions"),
    (('add_body(name="block"', 'add_body(name="blok"'), "object block adds no body of its name"),
    (("[0.03, 0.03, 0.04]", "[0, 0, 0]"), "the scene cannot be built .ValueError: "),
    (("[0.03, 0.03, 0.04]", "'large'"), "Block.build failed .TypeError: "),
    (("        yield MoveTo", "        return\n        yield MoveTo"), "SlideBlock.motions returned no motions"),
    (('scene.body("block")', 'scene.body("blok")'), "SlideBlock.motions failed .KeyError: "),
    ((FIRST, "float('nan')), 1.8, 0.0"), "SlideBlock.motions returned motion 0 out of range"),
    (("y + 0.08 * side, 0.05), 2.0", "y + 9.0, 0.05), 2.0"), "tip pose: out of reach .*; correct motions in"),
]


@pytest.mark.parametrize(("change", "expected"), CODE_FAULTS)
def test_error_in_task_code_is_one_line_with_file(
    write_module: Callable[..., Path],
    recorder: DemoRecorder,
    tmp_path: Path,
    change: tuple[str, str],
    expected: str,
) -> None:
    file = write_module("tasks/slide_block.py", SLIDE_BLOCK, change)
    with pytest.raises(GenimaError, match=f"task slide_block: .*{expected}") as caught:
        recorder.record(tmp_path / "slide_block-0", "slide_block", 0)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "slide_block-0").exists()


@pytest.mark.parametrize("command", [
    ["eval", "--task", "slide_block", "--policy", "expert", "--episodes", "1"],
    ["record", "--lockstep", "--task", "slide_block", "--episodes", "1", "--workers", "1"],
])  # fmt: skip
def test_commands_report_file_in_one_line(
    write_module: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    file = write_module("tasks/slide_block.py", SLIDE_BLOCK, (SUCCEEDED, "return 1 / 0"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_recorder, "WorkerPool", OneThread)
    assert main(command) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert f"SlideBlock.succeeded failed (ZeroDivisionError: division by zero); correct {file}" in line


def test_sim_node_reports_error_in_task_code(
    write_module: Callable[..., Path], graph: Graph, simulation: Simulation
) -> None:
    file = write_module("tasks/slide_block.py", SLIDE_BLOCK, (SUCCEEDED, "return state.data.time > 0.2 and 1 / 0"))
    graph.add(SimNode(simulation))
    response = graph.call(ResetScene, "sim/reset", ResetScene.Request(task="slide_block", seed=0))
    assert response.success, response.message
    graph.until(graph.reports_fault("sim_node", f"correct {file}"), "no fault")
    assert graph.call(ResetScene, "sim/reset", ResetScene.Request(task="push_button", seed=0)).success
    graph.until(graph.has_no_fault("sim_node"), "the fault remains")


def test_scene_with_unknown_task_is_rejected(write_module: Callable[..., Path]) -> None:
    write_module(
        "tasks/slide_block.py", SLIDE_BLOCK, ("    objects =", '    scene_tasks = ("push_buton",)\n    objects =')
    )
    with pytest.raises(GenimaError, match="task 'push_buton': unknown.*did you mean push_button"):
        scene_objects(get_task("slide_block"))


def test_missing_task_folder_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIMA_PATH", "/nowhere/at/all")
    with pytest.raises(GenimaError, match="GENIMA_PATH: no such folder ./nowhere/at/all"):
        list(TASKS)


def test_objects_without_room_are_rejected() -> None:
    class Crowd(SceneObject):
        radius = 0.1
        region = Region(x=(0.4, 0.5), y=(0.0, 0.05))
        name = "crowd"

        def build(self, spec: object) -> None: ...

    with pytest.raises(GenimaError, match="objects crowd, crowd: no room"):
        random_placements((Crowd(), Crowd()), np.random.default_rng(0))


def test_placement_out_of_reach_does_not_end_recording(
    write_module: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = write_module("tasks/slide_block.py", SLIDE_BLOCK, ("y + 0.08 * side, 0.05), 2.0", "y + 9.0, 0.05), 2.0"))
    monkeypatch.setattr(demo_recorder, "WorkerPool", OneThread)
    command = ["record", "--lockstep", "--task", "slide_block", "push_button", "--episodes", "1", "--images", "none"]
    assert main([*command, "--out", str(tmp_path / "demos")]) == 2
    output = capsys.readouterr()
    assert "1 demos in" in output.out and "the expert failed 2 times" in output.out
    assert "too few demos, the expert fails too often (slide_block 0 of 1)" in output.err
    assert "slide_block-100000: task slide_block: tip pose: out of reach" in output.err + output.out
    assert f"correct motions in {file}" in output.err + output.out


def test_next_seeds_replace_failed_demos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fail = {"push_button-7", "push_button-9"}
    rounds: list[list[str]] = []

    def record_all(folders: Sequence[Path], total: int) -> int:
        assert total == 6
        rounds.append([folder.name for folder in folders])
        for folder in folders:
            if folder.name not in fail:
                folder.mkdir(parents=True)
        return sum(folder.name in fail for folder in folders)

    tasks = ["push_button", "open_box"]
    assert demo_recorder.record_episodes(tmp_path, tasks, 3, 7, record_all) == 0
    assert rounds[0] == ["push_button-7", "open_box-7", "push_button-8", "open_box-8", "push_button-9", "open_box-9"]
    assert rounds[1:] == [["push_button-10", "push_button-11"]]
    assert "6 demos in" in (out := capsys.readouterr().out) and "the expert failed 2 times" in out
    expected = [tmp_path / f"push_button-{seed}" for seed in (8, 10, 11)]
    assert demo_recorder.demo_folders(tmp_path, ["push_button"], 3, 7) == expected
    assert demo_recorder.record_episodes(tmp_path, tasks, 3, 7, record_all) == 0 and len(rounds) == 2  # all are there
