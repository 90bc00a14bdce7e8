"""Simulated demos as states, and the images that are rendered from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import ray
from recorded_messages import record

from genima.data.episodes import Episode, EpisodeError, find_episodes
from genima.data.episodes.bag import SCENE, SCENE_STATE, read_messages
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima_cli.__main__ import main
from genima_sim.demo_images import DemoImageRenderer, ImageOptions, render_demos
from genima_sim.demo_recorder import DemoRecorder
from genima_sim.tasks import BUNDLED_TASKS


@pytest.fixture(scope="module")
def state_demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demos of states only."""
    folder, recorder = tmp_path_factory.mktemp("states"), DemoRecorder(images="none")
    for task in BUNDLED_TASKS:
        assert recorder.record(folder / f"{task}-1", task, 100_001)
    recorder.close()
    return folder


def test_images_equal_those_recorded_directly(state_demos: Path, demos_folder: Path, tmp_path: Path) -> None:
    direct = demos_folder / "push_button-1"
    renderer = DemoImageRenderer(ImageOptions())
    renderer.render(state_demos / direct.name, tmp_path / direct.name)
    renderer.close()
    files = [folder / f"{direct.name}.mcap" for folder in (direct, tmp_path / direct.name)]
    assert files[0].read_bytes() == files[1].read_bytes()
    size = sum(file.stat().st_size for file in (state_demos / direct.name).iterdir())
    assert size < 200e3  # bytes


def test_demos_are_rendered_by_ray_and_kept(
    state_demos: Path,
    tmp_path: Path,
    robot: RobotModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    demos, out = find_episodes(state_demos), tmp_path / "out"
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})  # three workers would wait for more
    recorded = read_messages(demos[0])
    damaged = record(tmp_path / "damaged", {topic: recorded[topic] for topic in recorded if topic != SCENE})
    with pytest.raises(GenimaError, match="damaged: /scene: no messages"):
        render_demos([*demos, damaged], out, ImageOptions(size=32), workers=3)
    assert "the cluster has 1 CPUs (3 workers requested); using 1" in capsys.readouterr().out
    assert find_episodes(out) == [out / demo.name for demo in demos]
    episode = Episode.load(out / demos[0].name, robot)
    assert episode.success and episode.image("front", 0).shape == (32, 32, 3)
    assert render_demos(demos, out, ImageOptions(size=32)) == 0


def test_images_are_perturbed_without_changing_the_motion(state_demos: Path, tmp_path: Path, robot: RobotModel) -> None:
    demos = []
    for name, perturbations in (("plain", ()), ("bright", ("light_brightness", "background"))):
        renderer = DemoImageRenderer(ImageOptions(size=32, perturbations=perturbations))
        renderer.render(state_demos / "push_button-1", tmp_path / name)
        renderer.close()
        demos.append(Episode.load(tmp_path / name, robot))
    plain, bright = demos
    np.testing.assert_array_equal(plain.positions, bright.positions)
    assert (plain.image("front", 0) != bright.image("front", 0)).any()
    with pytest.raises(GenimaError, match="perturbation grid_placement: states .* do not fit; record with --perturb"):
        DemoImageRenderer(ImageOptions(perturbations=("grid_placement",)))


def test_state_demo_without_images_names_the_remedy(state_demos: Path, robot: RobotModel) -> None:
    with pytest.raises(EpisodeError, match="no camera was recorded; render images from its states by ./genima"):
        Episode.load(state_demos / "push_button-1", robot)


def test_damaged_states_are_rejected(state_demos: Path, tmp_path: Path) -> None:
    recorded = read_messages(state_demos / "push_button-1")
    no_scene = {topic: messages for topic, messages in recorded.items() if topic != SCENE}
    other_scene = [type(recorded[SCENE][0])(data="task: push_button\nseed: -1\nperturbations: []\n")]
    renderer = DemoImageRenderer(ImageOptions())
    for i, (changed, expected) in enumerate((
        (no_scene, "only demos of ./genima record --lockstep have states"),
        ({**recorded, SCENE_STATE: recorded[SCENE_STATE][1:]}, "samples are missing"),
        ({**recorded, SCENE: [type(recorded[SCENE][0])(data="seed: 3")]}, "scene: "),
        ({**recorded, SCENE: other_scene}, "seed: negative"),
    )):  # fmt: skip
        demo = record(tmp_path / f"demo{i}", changed)
        with pytest.raises(GenimaError, match=expected):
            renderer.render(demo, tmp_path / "out" / demo.name)
    renderer.close()
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(("arguments", "expected"), [
    (["record", "--lockstep", "--images", "raw"], "--images raw: not with --lockstep"),
    (["record", "--sim", "--images", "none"], "--images none: only with --lockstep"),
    (["record", "--lockstep", "--task", "all", "push_button"], "task 'all': unknown"),
])  # fmt: skip
def test_invalid_options_are_rejected(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert expected in capsys.readouterr().err
