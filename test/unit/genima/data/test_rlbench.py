"""Tests of importing RLBench datasets and of its environment (with a stand-in)."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mutation import mutated_bytes, require_clean
from scipy.spatial.transform import Rotation
from standins import rlbench as stand_in
from untrained import save_checkpoints

from genima.cameras.calibration_file import load_cameras
from genima.closed_loop import run_episode
from genima.control.chunk_stream import ChunkStream
from genima.control.command_guard import CommandGuard
from genima.data import pickle_reader as plain_pickle
from genima.data.episodes import Episode
from genima.data.episodes.cameras import EpisodeCameras
from genima.data.episodes.robot import load_episode_robot
from genima.data.rlbench import find_episodes, write_demo
from genima.errors import GenimaError
from genima.policy.genima import GenimaPolicy
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.types import ActionChunk, Command, DrawnTarget, Joints, Observation
from genima_cli import episodes as cli
from genima_cli import evaluate
from genima_sim.rlbench.environment import RLBenchEnvironment
from genima_sim.rlbench.tasks import EPISODES, RATE, ROBOT, STEPS, TASKS

PANDA = RobotModel.load(ROBOT)
CAMERAS = {view: camera.scale(32, 32) for view, camera in load_cameras("sim").items()}
LENGTH = 6
_OPTICAL = np.diag([-1.0, -1.0, 1.0, 1.0])


def positions(i: int) -> np.ndarray:
    return PANDA.home + 0.02 * i


def image(view: str, i: int) -> np.ndarray:
    """Image that is dark on the left and bright below, with a unique colour."""
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 200, 32)[None, :]
    picture[..., 1] = np.linspace(0, 200, 32)[:, None]
    picture[..., 2] = 40 * sorted(CAMERAS).index(view) + 5 * i
    return picture


def observation(i: int, poses: bool = True, actions: bool = True) -> stand_in.Observation:
    T_world_base = np.eye(4)
    T_world_base[:3, :3] = Rotation.from_euler("z", 0.7).as_matrix()
    T_world_base[:3, 3] = -0.3, 0.0, 0.77
    q = positions(i)
    seen = stand_in.Observation()
    seen.joint_positions, seen.gripper_open = q, 1.0 if i < 3 else 0.0  # type: ignore[attr-defined]
    seen.front_rgb = seen.joint_velocities = None  # type: ignore[attr-defined]
    misc: dict[str, object] = {"variation_index": 0}
    for view, camera in CAMERAS.items():
        misc[f"{view}_camera_extrinsics"] = T_world_base @ camera.T_base_camera(PANDA, q) @ _OPTICAL
        misc[f"{view}_camera_intrinsics"] = camera.K * [[-1, 1, 1], [1, -1, 1], [1, 1, 1]]
    if poses:
        spun = Rotation.from_euler("z", 1.1).as_matrix()
        frames = T_world_base @ PANDA.link_poses(q)[:7]
        misc["joint_poses"] = [np.r_[T[:3, 3], Rotation.from_matrix(T[:3, :3] @ spun).as_quat()] for T in frames]
    if actions and i:
        misc["joint_position_action"] = np.append(q + 0.001, 1.0 if i < 3 else 0.0)
    seen.misc = misc  # type: ignore[attr-defined]
    return seen


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Function that writes episodes as RLBench's generator does, and returns the dataset's folder."""
    stand_in.install(monkeypatch)

    def write(episodes: int = 1, protocol: int = 4, **has: bool) -> Path:
        variation = tmp_path / "rlbench" / "open_box" / "variation0"
        for number in range(episodes):
            folder = variation / "episodes" / f"episode{number}"
            for view in CAMERAS:
                (folder / f"{view}_rgb").mkdir(parents=True)
                for i in range(LENGTH):
                    cv2.imwrite(str(folder / f"{view}_rgb" / f"{i}.png"), image(view, i)[..., ::-1])
            demo = stand_in.Demo([observation(i, **has) for i in range(LENGTH)])
            demo.random_seed = np.random.RandomState(0).get_state()  # type: ignore[assignment]
            (folder / "low_dim_obs.pkl").write_bytes(pickle.dumps(demo, protocol))
        (variation / "variation_descriptions.pkl").write_bytes(pickle.dumps(["open box", "lift the lid"], protocol))
        return tmp_path / "rlbench"

    return write


def only(folder: Path) -> Path:
    return find_episodes(folder)[0]


# -------------------------------------------------------------------------------------------------------- datasets


def test_dataset_is_imported_as_demos(dataset, tmp_path, capsys) -> None:
    out = tmp_path / "demos"
    arguments = ["import-rlbench", str(dataset(2)), "--out", str(out)]
    assert cli.main(arguments) == 0
    assert f"2 demos of 2 in {out}, 2 of them new; 0 skipped" in capsys.readouterr().out
    episode = Episode.load(out / "open_box-variation0-episode1", PANDA)
    assert episode.instruction == "open box" and episode.success and episode.period == pytest.approx(0.05)
    assert episode.views == tuple(sorted(CAMERAS)) and len(episode) >= LENGTH - 1
    assert load_episode_robot(episode.folder).to_dict() == PANDA.to_dict()
    np.testing.assert_allclose(episode.positions[0], positions(0), atol=1e-9)
    np.testing.assert_allclose(episode.command_positions[0], positions(1) + 0.001, atol=1e-9)
    closing = [i + 1 >= 3 for i in range(len(episode))]
    np.testing.assert_array_equal(episode.command_gripper[:-1] < 0.5, closing[:-1])
    for view in CAMERAS:
        np.testing.assert_array_equal(episode.image(view, 2), image(view, 2))  # nothing is lost
    calibrated = EpisodeCameras.of(episode.folder).calibrated
    for view, camera in CAMERAS.items():
        assert calibrated[view].parent == camera.parent
        np.testing.assert_allclose(calibrated[view].T_parent_camera, camera.T_parent_camera, atol=1e-7)
        np.testing.assert_allclose(calibrated[view].K, camera.K, atol=1e-9)
    assert cli.main(arguments) == 0, "what is there is kept"


def test_demo_of_other_dataset_is_not_reused(dataset, tmp_path, capsys) -> None:
    folder, out = dataset(1), tmp_path / "demos"
    arguments = ["import-rlbench", str(folder), "--out", str(out)]
    assert cli.main(arguments) == 0
    before = (next(out.rglob("*.mcap"))).read_bytes()
    descriptions = next(folder.rglob("variation_descriptions.pkl"))
    descriptions.write_bytes(pickle.dumps(["close box"]))
    capsys.readouterr()
    with pytest.raises(GenimaError, match="name another --out"):
        cli.main(arguments)
    assert (next(out.rglob("*.mcap"))).read_bytes() == before


def test_images_are_jpeg_only_on_request(dataset, tmp_path) -> None:
    sizes = {}
    for images in ("png", "jpeg"):
        out = tmp_path / images
        assert cli.main(["import-rlbench", str(dataset(1)), "--out", str(out), "--images", images]) == 0
        demo = out / "open_box-variation0-episode0"
        episode = Episode.load(demo, PANDA)
        seen, true = episode.image("front", 1).astype(int), image("front", 1)
        assert np.array_equal(seen, true) == (images == "png") and np.abs(seen - true).max() <= 12
        sizes[images] = sum(file.stat().st_size for file in demo.iterdir())
        shutil.rmtree(tmp_path / "rlbench")
    assert sizes["png"] != sizes["jpeg"]


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pickles_of_all_ages_are_read(dataset, tmp_path, protocol: int) -> None:
    folder = only(dataset(protocol=protocol))
    file = folder / "low_dim_obs.pkl"
    if protocol == 3:  # names modules in lines: as NumPy 1 does
        file.write_bytes(file.read_bytes().replace(b"numpy._core", b"numpy.core"))
    write_demo(folder, tmp_path / "demo", PANDA)
    np.testing.assert_allclose(Episode.load(tmp_path / "demo", PANDA).positions[1], positions(1), atol=1e-9)


def test_older_datasets_take_calibrations_from_elsewhere(dataset, tmp_path, capsys) -> None:
    folder = only(dataset(poses=False, actions=False))
    with pytest.raises(GenimaError, match="since July 2024.*--cameras"):
        write_demo(folder, tmp_path / "demo", PANDA)
    assert not write_demo(folder, tmp_path / "demo", PANDA, load_cameras("sim"))
    arguments = ["import-rlbench", str(folder), "--out", str(tmp_path / "out"), "--cameras", "sim"]
    assert cli.main(arguments) == 0
    assert "1 episodes have no commands" in capsys.readouterr().out
    episode = Episode.load(tmp_path / "demo", PANDA)
    np.testing.assert_allclose(episode.command_positions[0], positions(1), atol=1e-9)
    with pytest.raises(GenimaError, match="no calibration of front"):
        write_demo(folder, tmp_path / "other", PANDA, {"wrist": CAMERAS["wrist"]})


class MaliciousPickle:
    """Object that runs a command when it is unpickled as usual."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def test_pickle_code_is_not_executed(tmp_path) -> None:
    trace, file = tmp_path / "trace", tmp_path / "low_dim_obs.pkl"
    acts = [
        MaliciousPickle(os.system, f"touch {trace}"),
        MaliciousPickle(subprocess.check_call, ["touch", str(trace)]),
        MaliciousPickle(eval, f"open({str(trace)!r}, 'w')"),
        MaliciousPickle(np.load, str(trace)),
        MaliciousPickle(getattr, dict, "get"),
    ]
    pickles = [pickle.dumps([act], protocol) for act in acts for protocol in (0, 2, 4, 5)]
    pickles.append(b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.")  # a known name leads to no other
    for content in pickles:
        file.write_bytes(content)
        with pytest.raises(GenimaError, match=r"reference not allowed \(.*export the data"):
            plain_pickle.load(file, ())
        assert not trace.exists()


def test_arrays_of_objects_and_unknown_classes_are_rejected(tmp_path) -> None:
    file = tmp_path / "low_dim_obs.pkl"
    file.write_bytes(pickle.dumps(np.array([{"a": 1}], dtype=object)))
    with pytest.raises(GenimaError, match="damaged: an array of O8"):
        plain_pickle.load(file, ())
    file.write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(GenimaError, match=r"reference not allowed \(pathlib"):
        plain_pickle.load(file, ())


@pytest.mark.parametrize(
    "damage, expected",
    [
        (lambda f: (f / "low_dim_obs.pkl").write_bytes(b"no pickle"), "is damaged"),
        (lambda f: (f / "low_dim_obs.pkl").write_bytes((f / "low_dim_obs.pkl").read_bytes()[:200]), "is damaged"),
        (lambda f: (f / "low_dim_obs.pkl").write_bytes(pickle.dumps({"a": 1})), "holds no observations"),
        (lambda f: (f / "low_dim_obs.pkl").write_bytes(pickle.dumps([1, 2])), "joint_positions is not 7 finite"),
        (lambda f: (f / "front_rgb" / "3.png").unlink(), "front_rgb/3.png is missing"),
        (lambda f: (f / "wrist_rgb" / "0.png").write_bytes(b"?"), "wrist_rgb/0.png: neither a PNG nor a JPEG"),
        (lambda f: (f.parent.parent / "variation_descriptions.pkl").unlink(), "with the task is missing"),
    ],
)
def test_malformed_episodes_leave_no_demo(dataset, tmp_path, damage: Callable[[Path], object], expected: str) -> None:
    folder = only(dataset())
    damage(folder)
    with pytest.raises(GenimaError, match=expected):
        write_demo(folder, tmp_path / "demos" / "demo", PANDA)
    assert not (tmp_path / "demos" / "demo").exists()


def test_another_robots_joints_are_rejected(dataset, tmp_path) -> None:
    folder = only(dataset())
    observations = [observation(i) for i in range(LENGTH)]
    observations[2].joint_positions = PANDA.home + [0, 0, 0, 3, 0, 0, 0]  # type: ignore[attr-defined]
    (folder / "low_dim_obs.pkl").write_bytes(pickle.dumps(observations))
    with pytest.raises(GenimaError, match="observation 2: joint_positions: panda_joint4 exceeds its limits"):
        write_demo(folder, tmp_path / "demo", PANDA)
    observations = [observation(i) for i in range(LENGTH)]
    observations[0].joint_positions = PANDA.home + [0, 0, 0.3, 0, 0, 0, 0]  # type: ignore[attr-defined]
    (folder / "low_dim_obs.pkl").write_bytes(pickle.dumps(observations))
    with pytest.raises(GenimaError, match="robot panda: joint axes differ"):
        write_demo(folder, tmp_path / "demo", PANDA)


def record(*state: bytes) -> bytes:
    """Pickle (protocol 4) of the given instructions."""
    return b"\x80\x04" + b"".join(state) + b"."


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (record(b"Nr\xff\xff\xff\x7f"), None),  # the memory's place 2**31 - 1: no table of that length
        (record(b"\x95" + (2**62).to_bytes(8, "little")), "damaged"),  # a frame
        (record(b"\x96" + (2**62).to_bytes(8, "little")), "damaged"),  # a bytearray
        (record(b"\x8e" + (2**40).to_bytes(8, "little")), "damaged"),  # bytes
        (record(b"B" + (2**31).to_bytes(4, "little")), "damaged"),
        (record(b"(" * 200_000), "damaged"),
        (record(b"(" * 200_000 + b"l" * 200_000), None),  # lists in lists
        (record(b"]" + b"\x85" * 500_000), None),  # tuples in tuples
        (record(b"]\x94h\x00a"), None),  # a list that holds itself
        (record(b"]" * 20 + b"22222222aaaaaaaa" * 10), None),
        (record(b"K\x01K\x02R"), "damaged"),
        (record(b"N}b"), "damaged"),
        (record(b"\x82\x01"), "instruction not allowed .EXT1"),
        (record(b"P1\n"), "instruction not allowed .PERSID"),
        (record(b"\x8c\x07numpy.x\x8c\x04load\x93"), "reference not allowed .numpy.x.load."),
        (record(b"}(K\x01K\x02NKXu"), "damaged"),
        (record(b"}(\x8a\x09" + b"\xff" * 8 + b"\x7fNu"), "damaged"),  # keys that may collide
        (b"", "damaged"),
        (b"\x80\x04", "damaged"),
        (b"\xff" * 1000, "damaged"),
        (b"L" + b"9" * 6000 + b"L\n.", "damaged"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_hostile_pickles_take_neither_memory_nor_time(tmp_path, content: bytes, expected: str | None) -> None:
    file = tmp_path / "low_dim_obs.pkl"
    file.write_bytes(content)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if expected is None:
        assert plain_pickle.as_array(plain_pickle.load(file, ()), (7,)) is None
    else:
        with pytest.raises(GenimaError, match=expected) as error:
            plain_pickle.load(file, ())
        assert "\n" not in str(error.value)
    assert time.process_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 << 10


def test_huge_pickled_list_is_not_expanded() -> None:
    values: list = [0.0] * 10
    for _ in range(30):
        values = [values] * 10
    assert plain_pickle.as_array(values, (7,)) is None and plain_pickle.as_array(values, (10,)) is None
    assert plain_pickle.as_array([1, 2.5, np.float64(3)], (3,)).tolist() == [1, 2.5, 3]
    for odd in ([10**400], [None], ["1"], [True, "x"], {}, np.zeros(2), np.array(["x"]), [float("nan")]):
        assert plain_pickle.as_array(odd, (1,)) is None


def test_pickles_are_read_independently(tmp_path) -> None:
    """Attributes are set on unpickled objects, never on the modules or classes of that name."""
    file = tmp_path / "low_dim_obs.pkl"
    for state in (b"}\x8c\x01xK\x01s", b"N}\x8c\x05valueK\x01s\x86"):
        file.write_bytes(record(b"\x8c\x05numpy\x8c\x05dtype\x93" + state + b"b"))
        with pytest.raises(GenimaError, match="damaged"):
            plain_pickle.load(file, ())
    file.write_bytes(pickle.dumps({"a": np.arange(3)}))
    np.testing.assert_array_equal(plain_pickle.load(file, ())["a"], [0, 1, 2])


def test_mutated_pickles_are_read_or_rejected_in_one_line(dataset, tmp_path) -> None:
    folder = only(dataset())
    file = folder / "low_dim_obs.pkl"
    whole = file.read_bytes()
    wordings = folder.parent.parent / "variation_descriptions.pkl"
    for number, data in enumerate(mutated_bytes(whole, 120)):
        file.write_bytes(data)
        require_clean(lambda: write_demo(folder, tmp_path / f"a{number}", PANDA), number)  # noqa: B023
    file.write_bytes(whole)
    for number, data in enumerate(mutated_bytes(wordings.read_bytes(), 60)):
        wordings.write_bytes(data)
        require_clean(lambda: write_demo(folder, tmp_path / f"b{number}", PANDA), number)  # noqa: B023


def changed(name: str, value: object) -> Callable[[stand_in.Observation], object]:
    return lambda seen: seen.misc.update({name: value})  # type: ignore[attr-defined]


_FAR = np.eye(4)
_FAR[:3, 3] = 900.0


@pytest.mark.parametrize(
    "act, expected",
    [
        (changed("front_camera_extrinsics", _FAR), "front's camera: .* more than 5 m"),
        (changed("front_camera_extrinsics", 2 * np.eye(4)), "front's camera: .*not orthonormal"),
        (changed("front_camera_extrinsics", np.diag([1.0, 1, -1, 1])), "front's camera: .*mirrored"),
        (changed("wrist_camera_extrinsics", np.zeros((3, 3))), "wrist's extrinsics is not 4 x 4 finite numbers"),
        (changed("front_camera_intrinsics", CAMERAS["front"].K), "front's camera: its intrinsics are not as RLBench"),
        (changed("front_camera_intrinsics", np.diag([-4.0, -4.0, 1.0])), "intrinsics are not as RLBench"),
        (changed("front_camera_intrinsics", np.array([[-1.0, 0, 16], [0, -1, 16], [0, 0, 1]])), "front's camera: fx"),
        (changed("front_camera_intrinsics", np.array([[-1.0, 0, 1e9], [0, -1, 16], [0, 0, 1]])), "principal point"),
        (changed("joint_position_action", np.append(np.degrees(PANDA.home), 1.0)), None),
        (lambda seen: setattr(seen, "gripper_open", 0.08e2), "gripper_open is 8"),
        (lambda seen: setattr(seen, "joint_positions", np.degrees(PANDA.home)), "in degrees"),
        (lambda seen: setattr(seen, "joint_positions", PANDA.home[:6]), "joint_positions is not 7 finite numbers"),
    ],
)
def test_impossible_values_are_rejected_with_cause(dataset, tmp_path, act, expected: str | None) -> None:
    folder = only(dataset())
    observations = [observation(i) for i in range(LENGTH)]
    act(observations[0])
    (folder / "low_dim_obs.pkl").write_bytes(pickle.dumps(observations))
    if expected is None:  # the action of the first observation is from before the episode
        write_demo(folder, tmp_path / "demo", PANDA)
        assert (tmp_path / "demo").exists()
        return
    with pytest.raises(GenimaError, match=expected):
        write_demo(folder, tmp_path / "demo", PANDA)
    assert not (tmp_path / "demo").exists()


def test_commands_are_not_clipped_into_plausible_ones(dataset, tmp_path) -> None:
    folder = only(dataset())
    for action, expected in (
        (np.append(PANDA.home + [9, 0, 0, 0, 0, 0, 0], 1.0), "joint_position_action: panda_joint1 exceeds"),
        (np.append(PANDA.home, 255.0), "opens the gripper by 255"),
        (PANDA.home, "joint_position_action is not 8 finite numbers"),
    ):
        observations = [observation(i) for i in range(LENGTH)]
        observations[2].misc["joint_position_action"] = action  # type: ignore[attr-defined]
        (folder / "low_dim_obs.pkl").write_bytes(pickle.dumps(observations))
        with pytest.raises(GenimaError, match=expected):
            write_demo(folder, tmp_path / "demo", PANDA)


def test_episodes_of_equal_name_are_distinct(dataset, tmp_path) -> None:
    folder = dataset()
    shutil.copytree(folder / "open_box", folder / "validation" / "open_box")
    with pytest.raises(GenimaError, match="two episodes would be called open_box-variation0-episode0; import"):
        cli.main(["import-rlbench", str(folder), "--out", str(tmp_path / "out")])


def test_other_folder_at_demo_path_is_rejected(dataset, tmp_path) -> None:
    mine = tmp_path / "out" / "open_box-variation0-episode0" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(GenimaError, match="something else is there"):
        cli.main(["import-rlbench", str(dataset()), "--out", str(tmp_path / "out")])
    with pytest.raises(GenimaError, match="not a folder"):
        cli.main(["import-rlbench", str(tmp_path / "rlbench"), "--out", str(mine)])
    assert mine.read_text() == "mine"


def test_images_of_another_size_or_of_depth_are_rejected(dataset, tmp_path) -> None:
    folder = only(dataset())
    for picture, expected in (
        (np.zeros((16, 32, 3), np.uint8), "32x16 px, 32x32 are expected"),
        (np.zeros((32, 32), np.uint16), "type I;16"),
        (np.zeros((32, 32), np.uint8), "type L"),
    ):
        cv2.imwrite(str(folder / "front_rgb" / "2.png"), picture)
        with pytest.raises(GenimaError, match=f"front_rgb/2.png: .*{expected}"):
            write_demo(folder, tmp_path / "demo", PANDA)


def test_folder_without_episodes_is_rejected(tmp_path) -> None:
    with pytest.raises(GenimaError, match="no episodes of RLBench"):
        cli.main(["import-rlbench", str(tmp_path), "--out", str(tmp_path / "out")])


# ------------------------------------------------------------------------------------------------------------ tasks


class FakeAgent:
    spec = PolicySpec("panda", PANDA.joint_names)

    def generate(self, observation: Observation, seed: int, previous: DrawnTarget | None = None) -> DrawnTarget:
        assert {image.shape for image in observation.images.values()} == {(16, 16, 3)}
        return DrawnTarget(observation.stamp, observation.instruction, (), np.zeros((32, 32, 3), np.uint8))


class TurningController:
    """Controller that turns one joint by 0.3 rad in each chunk, the gripper closed."""

    def __init__(self, joint: int) -> None:
        self._joint = joint

    def predict_chunk(self, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
        ahead = np.tile(joints.positions, (20, 1))
        ahead[:, self._joint] += np.linspace(0, 0.3, 20)
        return ActionChunk(drawn.stamp, 0.05, ahead, np.zeros(20))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> RLBenchEnvironment:
    stand_in.install(monkeypatch)
    return RLBenchEnvironment((16, 16))


def run(environment: RLBenchEnvironment, joint: int) -> bool:
    environment.reset("push_button", 3)
    stream, guard = ChunkStream(PANDA, RATE, 20, "serial"), CommandGuard(PANDA, RATE)
    run_episode(environment, GenimaPolicy(FakeAgent(), TurningController(joint)), stream, guard,
                command_rate=RATE, latency=0.0, time_limit=STEPS / RATE, seed=0)  # fmt: skip
    return environment.done


def test_closed_loop_steps_task(environment) -> None:
    assert run(environment, joint=0)
    assert environment.time < STEPS / RATE and environment.joints().gripper == 0.0
    assert environment._task.variation == 0


def test_failure_is_final(environment) -> None:
    assert not run(environment, joint=6)
    assert environment.time == STEPS / RATE, "200 steps"
    q = environment.joints().positions + [0.5, 0, 0, 0, 0, 0, 0]
    environment.apply(Command(environment.time, q), 1 / RATE)
    assert not environment.done


def test_equal_seeds_are_equal_episodes(environment) -> None:
    places = []
    for seed in (1, 2, 1):
        environment.reset("push_button", seed)
        places.append(tuple(environment._task.place))
    assert places[0] == places[2] != places[1]
    environment.reset("open_box", 0)
    assert environment._environment.tasks == ["push_button", "open_box"]
    with pytest.raises(GenimaError, match="did you mean open_box"):
        environment.reset("open_boxes", 0)
    environment.close()
    assert not environment._environment.running


def test_tasks_and_success_rule_of_paper() -> None:
    assert len(TASKS) == len(set(TASKS)) == 25 and EPISODES == evaluate.Evaluate("open_box").episodes == 50


def test_missing_rlbench_error_has_installation() -> None:
    with pytest.raises(GenimaError, match="RLBench: cannot be imported .*pip install git") as caught:
        RLBenchEnvironment((16, 16))
    assert "\n" not in str(caught.value)


def test_evaluation_scores_0_or_100(monkeypatch, checkpoint_folder, tmp_path) -> None:
    stand_in.install(monkeypatch)
    out, trained = tmp_path / "result.json", save_checkpoints(tmp_path / "trained", of=ROBOT)
    arguments = ["--task", "open_box", "--cell", "sim_rlbench", "--checkpoint", str(trained)]
    brief = ["--episodes", "2", "--time-limit", "0.5", "--blank-targets", "--out", str(out)]
    assert evaluate.main([*arguments, *brief]) == 0
    result = json.loads(out.read_text())
    assert (result["cell"], result["score"], result["episodes"]) == ("sim_rlbench", 100 * result["successes"] / 2, 2)
    with pytest.raises(GenimaError, match="was trained with a robotiq_2f140, not the franka_hand"):
        evaluate.main([*arguments[:-1], str(checkpoint_folder)])
    with pytest.raises(GenimaError, match="take one of the paper's tasks"):
        evaluate.main(["--task", "take_lid_off", "--cell", "sim_rlbench"])
