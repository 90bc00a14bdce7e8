"""The policy ``diffuser_actor``: dataset of keyframes, training, loading and use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genima.cameras.calibration_file import load_cameras
from genima.cell import SIMULATED, load_cell
from genima.data.datasets.keyframe_dataset import FILE, KeyframeDataset, KeyframeDemo
from genima.data.datasets.sample_index import SampleIndex
from genima.data.episodes import find_episodes
from genima.data.episodes.scene_states import SceneDemo
from genima.errors import GenimaError
from genima.policy.diffuser_actor import DiffuserActorPolicy
from genima.policy.registry import PolicyOptions, load_policy
from genima.policy.spec import read_policy
from genima.policy.visuomotor.keypose_model import decode_pose, token_points
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import inverse, pose_distance, transform
from genima.types import Observation
from genima_cli.train import main as train_command
from genima_sim.demo_recorder import DemoRecorder
from genima_sim.environment import Environment
from genima_sim.keyframe_images import render_keyframes

SIZE = 32  # px
TASKS = ("push_button", "take_lid_off_saucepan")


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demos of states only."""
    folder, recorder = tmp_path_factory.mktemp("states"), DemoRecorder(images="none")
    for task in TASKS:
        assert recorder.record(folder / f"{task}-100001", task, 100_001)
    recorder.close()
    return folder


@pytest.fixture(scope="module")
def data(demos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset of their keyframes."""
    folder = tmp_path_factory.mktemp("data") / "keyframes"
    assert render_keyframes(find_episodes(demos), folder, SIMULATED, None, SIZE) == sorted(
        demo.name for demo in find_episodes(demos)
    )
    return folder


@pytest.fixture(scope="module")
def trained(demos: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training of two steps, by the command."""
    folder = tmp_path_factory.mktemp("trained") / "actor"
    options = ["steps=2", "batch-size=2", "workers=0", "save-every=2", "warmup-steps=0", "validation-keyposes=2"]
    options += ["clip=small", f"view-size={SIZE}", f"demos={demos}", f"data={data}", f"out={folder}"]
    arguments = [part for option in options for part in f"--{option}".split("=")]
    assert train_command(["diffuser_actor", *arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    environment = Environment(load_cell(SIMULATED), depth=True)
    yield environment
    environment.close()


@pytest.fixture
def policy(trained: Path) -> DiffuserActorPolicy:
    loaded = load_policy(str(trained))
    assert isinstance(loaded, DiffuserActorPolicy)
    return loaded


@pytest.fixture(scope="module")
def seen(environment: Environment) -> Observation:
    environment.reset(TASKS[0], 1)
    return environment.observe()


@pytest.mark.parametrize("task", TASKS)
def test_samples_are_the_motions_between_keyframes(task: str, demos: Path, data: Path, robot: RobotModel) -> None:
    name = f"{task}-100001"
    demo, dataset = SceneDemo.load(demos / name, robot), KeyframeDataset(data, [name])
    keyframes = demo.keyframes()
    assert len(dataset) == len(keyframes) and dataset.instructions == [demo.instruction]
    tip = robot.link_poses(demo.joints[0].positions)[-1]
    for i, keyframe in enumerate(keyframes):
        sample = dataset[SampleIndex(i, i)]
        command = demo.commands[keyframe]
        keypose = decode_pose(sample.pose.double().numpy())
        np.testing.assert_allclose(keypose, robot.link_poses(command.positions)[-1], atol=1e-6)
        assert sample.gripper == command.gripper and sample.instruction == demo.instruction
        now = decode_pose(sample.history[-1, :9].double().numpy())
        metres, angle = pose_distance(now, tip)  # at the keyframe before, up to how far the arm trails
        assert metres < 0.02 and angle < 0.05
        tip = keypose


def test_points_of_all_views_show_the_same_table(data: Path) -> None:
    """Medians of the heights that static cameras see agree: depth, intrinsics and extrinsics fit together."""
    name = f"{TASKS[0]}-100001"
    dataset = KeyframeDataset(data, [name])
    sample = dataset[SampleIndex(0, 0)]
    heights = []
    for i, view in enumerate(dataset.spec.views):
        near = sample.valid[i].numpy()
        points = sample.points[i].numpy()[near]
        seen = transform(
            inverse(dataset.cameras[view].T_base_camera(dataset.robot, dataset._demos(name).positions[0])),
            points.astype(float),
        )
        assert (seen[:, 2] > 0).all()
        heights.append(np.median(points[np.abs(points[:, 2]) < 0.05, 2]))
    assert np.ptp(heights) < 0.01  # m


def test_training_takes_what_is_rendered_and_refuses_another_dataset(demos: Path, data: Path) -> None:
    before = {file.name: file.stat().st_mtime_ns for file in data.iterdir()}
    render_keyframes(find_episodes(demos), data, SIMULATED, None, SIZE)
    assert before == {file.name: file.stat().st_mtime_ns for file in data.iterdir()}
    with pytest.raises(GenimaError, match="rendered with other views or cameras; name another folder"):
        render_keyframes(find_episodes(demos), data, SIMULATED, ("front",), SIZE)
    with pytest.raises(GenimaError, match="views: top not in cell sim_panda"):
        render_keyframes(find_episodes(demos), data / "other", SIMULATED, ("top",), SIZE)
    with pytest.raises(GenimaError, match="no demos; record some"):
        render_keyframes([], data, SIMULATED, None, SIZE)


def test_damaged_datasets_are_one_line_errors(data: Path, tmp_path: Path) -> None:
    name = f"{TASKS[0]}-100001"
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    demo = KeyframeDemo.load(copy / f"{name}.npz", KeyframeDataset(data, [name]).spec)
    replace(demo, images=demo.images[:, :, :8]).save(copy / f"{name}.npz")
    with pytest.raises(GenimaError, match="arrays of other shapes"):
        KeyframeDataset(copy, [name])
    (copy / f"{name}.npz").write_bytes(b"PK" + bytes(50))
    with pytest.raises(GenimaError, match="cannot be read"):
        KeyframeDataset(copy, [name])
    (copy / FILE).write_text(json.dumps({"spec": {}}), encoding="utf-8")
    with pytest.raises(GenimaError):
        KeyframeDataset(copy, [name])


def test_policy_returns_chunks_of_one_motion_and_then_the_next(policy: DiffuserActorPolicy, seen: Observation) -> None:
    policy.reset(3)
    first = policy.predict_chunk(seen)
    motion = policy._motion
    assert motion is not None
    assert first.stamp == seen.stamp and first.positions.shape == (policy.spec.horizon, 7)
    later = replace(seen, stamp=seen.stamp + 0.2)
    second = policy.predict_chunk(later)
    assert policy._motion is motion
    np.testing.assert_allclose(second.positions[:-4], first.positions[4:], atol=1e-9)
    for elapsed in np.append(np.arange(0.5, motion.trajectory.seconds, 0.5), motion.trajectory.seconds + 0.01):
        assert policy._motion is motion
        joints = replace(seen.joints, positions=motion.trajectory.at(elapsed)[0])
        policy.predict_chunk(replace(seen, stamp=seen.stamp + elapsed, joints=joints))
    assert policy._motion is not motion and len(policy._poses) == 2


def test_equal_seeds_give_equal_chunks(policy: DiffuserActorPolicy, seen: Observation) -> None:
    chunks = []
    for seed in (1, 1, 2):
        policy.reset(seed)
        chunks.append(policy.predict_chunk(seen).positions)
    np.testing.assert_array_equal(chunks[0], chunks[1])
    assert (chunks[0] != chunks[2]).any()


def test_poses_out_of_reach_are_held(
    policy: DiffuserActorPolicy, seen: Observation, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = np.eye(4)
    far[:3, 3] = [3.0, 0.0, 0.5]
    monkeypatch.setattr(policy._model, "predict", lambda *_: (far, False))
    policy.reset()
    chunk = policy.predict_chunk(seen)
    np.testing.assert_allclose(chunk.positions, np.broadcast_to(seen.joints.positions, chunk.positions.shape))
    assert (chunk.gripper == 1).all()


@pytest.mark.parametrize("unknown", [0.0, np.nan, np.inf, -1.0, 5.0])
def test_unknown_depth_gives_invalid_tokens(unknown: float, seen: Observation, robot: RobotModel) -> None:
    cameras = {view: camera.crop_square(SIZE) for view, camera in load_cameras("sim").items()}
    depth = {view: np.full((SIZE, SIZE), 0.7, np.float32) for view in cameras}
    depth["front"][:, : SIZE // 2] = unknown
    points, valid = token_points(depth, cameras, robot, seen.joints.positions)
    front = list(cameras).index("front")
    half = valid.shape[2] // 2
    assert not valid[front, :, :half].any() and valid[front, :, half:].all() and valid.sum() == 3.5 * valid[0].size
    assert np.isfinite(points).all()


def test_observation_without_any_known_depth_is_survived(policy: DiffuserActorPolicy, seen: Observation) -> None:
    chunks = []
    for value in (0.0, np.nan):
        policy.reset(1)
        unknown = {view: np.full_like(depth, value) for view, depth in seen.depth.items()}
        chunks.append(policy.predict_chunk(replace(seen, depth=unknown)).positions)
    assert np.isfinite(chunks[0]).all()
    np.testing.assert_array_equal(chunks[0], chunks[1])


def test_observations_and_cameras_that_do_not_fit_are_one_line_errors(
    policy: DiffuserActorPolicy, seen: Observation, trained: Path
) -> None:
    without = {view: depth for view, depth in seen.depth.items() if view != "front"}
    small = {**seen.depth, "front": seen.depth["front"][:10]}
    for change, line in (
        ({"depth": {}}, "the observation has no depth image of view wrist"),
        ({"depth": without}, "the observation has no depth image of view front"),
        ({"depth": small}, "the depth image of view front has shape"),
        ({"instruction": " "}, "instruction: empty"),
    ):
        policy.reset()
        with pytest.raises(GenimaError, match=line) as caught:
            policy.predict_chunk(replace(seen, **change))
        assert "\n" not in str(caught.value)
    cameras = load_cameras("sim")
    with pytest.raises(GenimaError, match="policy diffuser_actor: no calibration of view front"):
        DiffuserActorPolicy(policy._model, {view: cameras[view] for view in cameras if view != "front"})


def test_checkpoints_of_other_policies_are_one_line_errors(
    trained: Path, checkpoint_folder: Path, tmp_path: Path
) -> None:
    assert read_policy(str(trained)).policy == "diffuser_actor" and read_policy(str(trained)).spec.requires_depth
    damaged = tmp_path / "damaged"
    shutil.copytree(trained / "best", damaged)
    about = json.loads((damaged / "genima.json").read_text(encoding="utf-8"))
    for name, folder, line in (
        ("diffuser_actor", "", "policy diffuser_actor: no checkpoint; name the folder of one that ./genima train"),
        ("diffuser_actor", checkpoint_folder, "genima.json is missing"),
        ("act", trained, "is one of the policy diffuser_actor, not of act; name that policy"),
    ):
        with pytest.raises(GenimaError, match=line):
            load_policy(name, PolicyOptions(checkpoint=str(folder)))
    for change in ({"width": 100}, {"width": 0}, {"layers": "many"}, {"heads": 10**9}, {"unknown": 1}):
        network = {**about["network"], **change}
        (damaged / "genima.json").write_text(json.dumps({**about, "network": network}), encoding="utf-8")
        with pytest.raises(GenimaError) as caught:
            load_policy(str(damaged))
        assert "\n" not in str(caught.value)
