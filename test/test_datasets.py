"""Training samples: what is drawn where, which actions lead there, and randomness that can be repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genima.checkpoint import DrawingSpec
from genima.controller.controller import JointStatistics
from genima.datasets import chunks
from genima.datasets.backgrounds import random_background
from genima.datasets.chunks import ChunkDataset, Perturbation, augment, collate, joint_statistics
from genima.datasets.demos import Demo, load_demos, split
from genima.datasets.drawings import DrawingDataset
from genima.diffusion.agent import resize
from genima.episodes import Episode, EpisodeWriter
from genima.errors import GenimaError
from genima.observation import Command, Joints
from genima.robot.model import RobotModel
from genima.targets import Appearance, draw_targets
from genima.views import Camera, untile
from genima_sim.tasks import TASKS

K = 20


@pytest.fixture(scope="module")
def demos(demos_folder: Path, robot: RobotModel, spec: DrawingSpec) -> list[Demo]:
    return load_demos(demos_folder, robot, spec)


def masks(
    spec: DrawingSpec, cameras: Mapping[str, Camera], robot: RobotModel, target: np.ndarray, now: np.ndarray
) -> dict[str, np.ndarray]:
    """Where the spheres of ``target`` lie in each view."""
    size, plain = spec.view_size, replace(Appearance(), dark=1.0)
    black = np.zeros((size, size, 3), np.uint8)
    scaled = {view: cameras[view].scaled(size, size) for view in spec.views}
    return {v: draw_targets(black, c, robot, plain, target, True, now).any(-1) for v, c in scaled.items()}


def test_demos_hold_what_was_recorded_and_the_cache_changes_nothing(
    demos: list[Demo], demos_folder: Path, robot: RobotModel, spec: DrawingSpec
) -> None:
    assert [demo.instruction for demo in demos] == [task.instruction for task in TASKS.values()]
    again = load_demos(demos_folder, robot, spec)  # now from the cache
    for demo, cached, folder in zip(demos, again, ("push_button-1", "take_lid_off-1"), strict=True):
        episode = Episode.load(demos_folder / folder, robot)
        assert len(demo) == len(episode)
        for one in (demo, cached):
            np.testing.assert_array_equal(one.positions, episode.positions)
            np.testing.assert_array_equal(one.command_gripper, episode.command_gripper)
        for t in range(len(demo)):
            np.testing.assert_array_equal(demo.tile(t), cached.tile(t))
        views = untile(demo.tile(7), spec.views)
        for view in spec.views:
            np.testing.assert_array_equal(views[view], resize(episode.image(view, 7), spec.view_size))


def test_a_cache_of_another_size_or_order_is_not_mistaken(
    demos: list[Demo], demos_folder: Path, robot: RobotModel, spec: DrawingSpec
) -> None:
    other = replace(spec, view_size=32, views=(spec.views[1], spec.views[0], *spec.views[2:]))
    loaded = load_demos(demos_folder, robot, other)
    assert loaded[0].tile(0).shape == (64, 64, 3)
    swapped = untile(loaded[0].tile(0), other.views)["front"]
    expected = untile(demos[0].tile(0), spec.views)["front"]
    assert np.abs(swapped.astype(int) - resize(expected, 32)).mean() < 2


def test_failed_episodes_are_left_out(
    tmp_path: Path, robot: RobotModel, cameras: Mapping[str, Camera], spec: DrawingSpec
) -> None:
    images = {view: np.zeros((64, 64, 3), np.uint8) for view in spec.views}
    for name, success in (("good", True), ("bad", False)):
        with EpisodeWriter(tmp_path / name, robot, cameras, name) as episode:
            for t in range(3):
                episode.observe(0.05 * t, images, Joints(0.05 * t, robot.home, 1.0))
                episode.command(Command(0.05 * t, robot.home))
            episode.judge(0.1, success)
    for _ in range(2):  # read, then from the cache
        assert [demo.instruction for demo in load_demos(tmp_path, robot, spec)] == ["good"]


def test_demos_obey_their_commands_at_the_rate_of_the_specification(demos: list[Demo], spec: DrawingSpec) -> None:
    for demo in demos:
        behind = demo.positions[1:] - demo.command_positions[:-1]  # row t was given right after moment t
        assert np.abs(behind).max() < 0.15 and np.abs(behind[-1]).max() < 5e-3  # rad; the arm lags, then arrives
        speed = np.abs(np.diff(demo.command_positions, axis=0)).max() * spec.action_rate
        assert 0.2 < speed < 2.2  # rad/s


def test_targets_lie_k_steps_ahead_or_at_the_end(demos: list[Demo]) -> None:
    for demo in demos:
        last = len(demo) - 1
        for t in (0, 5, last - K - 1, last - K, last - K + 1, last - 1, last):
            target, gripper_open = demo.target(t, K)
            ahead = min(t + K, last)
            np.testing.assert_array_equal(target, demo.positions[ahead])
            assert gripper_open == (demo.command_gripper[ahead] > 0.5)
    grips = [demos[1].target(t, K)[1] for t in range(len(demos[1]))]
    assert grips == sorted(grips, reverse=True) and True in grips and False in grips  # the lid's knob is grasped once


def test_condition_and_target_differ_only_in_spheres(
    demos: list[Demo], robot: RobotModel, cameras: Mapping[str, Camera], spec: DrawingSpec
) -> None:
    dataset = DrawingDataset(demos, robot, cameras, spec)
    assert len(dataset) == sum(len(demo) for demo in demos)
    first = len(demos[0])
    for i in (0, 30, first - 1, first, len(dataset) - 1):
        sample = dataset[i]
        demo, t = (demos[0], i) if i < first else (demos[1], i - first)
        assert sample.instruction == demo.instruction
        np.testing.assert_array_equal(sample.condition.numpy(), demo.tile(t))
        spheres = masks(spec, cameras, robot, demo.target(t, K)[0], demo.positions[t])
        changed = untile((sample.condition != sample.target).any(-1).numpy()[..., None], spec.views)
        for view, mask in spheres.items():
            assert not (changed[view][..., 0] & ~mask).any(), view
            assert changed[view][..., 0].sum() >= 0.95 * mask.sum(), view
        assert sum(mask.sum() for mask in spheres.values()) > 400  # even at the end: there the arm is to stay


def test_split_keeps_every_demo_once_and_both_parts_filled(demos: list[Demo]) -> None:
    for count in (2, 3, 19, 20, 21, 60):
        many = [replace(demos[0], instruction=str(i)) for i in range(count)]
        training, validation = split(many)
        assert training and validation
        assert sorted(int(d.instruction) for d in training + validation) == list(range(count))
        assert len(validation) <= max(1, count / 10)


def test_too_few_demos_to_split_are_refused(demos: list[Demo]) -> None:
    for few in ([], demos[:1]):
        with pytest.raises(GenimaError, match="demos"):
            split(few)


def test_statistics_are_those_of_the_commands_with_a_floor(demos: list[Demo]) -> None:
    statistics = joint_statistics(demos)
    commands = np.concatenate([demo.command_positions for demo in demos])
    np.testing.assert_allclose(statistics.mean, [np.mean(column) for column in commands.T])
    np.testing.assert_allclose(statistics.deviation, np.maximum(np.sqrt(np.var(commands, axis=0)), 0.05))
    still = replace(demos[0], command_positions=np.ones((5, 7)))
    np.testing.assert_array_equal(joint_statistics([still]).deviation, 0.05)


# Samples for the controller

STATISTICS = JointStatistics(np.zeros(7), np.ones(7))  # joints stay in rad
SMALL = Perturbation(start=0.02, target=0.02, far=0.1, far_share=0.5, drawing=0.0, opacity=(1.0, 1.0))
WILD = Perturbation(far=2.0, far_share=1.0)
Make = Callable[..., ChunkDataset]


@pytest.fixture
def make(demos: list[Demo], robot: RobotModel, cameras: Mapping[str, Camera], spec: DrawingSpec) -> Make:
    def make(perturbation: Perturbation | None, seed: int = 0, of: list[Demo] = demos) -> ChunkDataset:
        return ChunkDataset(of, robot, cameras, spec, STATISTICS, perturbation, seed)

    return make


def test_without_perturbation_a_chunk_holds_the_next_k_commands(make: Make, demos: list[Demo]) -> None:
    dataset, demo = make(None), demos[0]
    assert len(dataset) == sum(len(demo) for demo in demos)
    for t in (0, 10, len(demo) - K, len(demo) - 3):
        sample = dataset[t]
        rows = [min(t + k, len(demo) - 1) for k in range(K)]
        np.testing.assert_allclose(sample.actions[:, :7], demo.command_positions[rows], atol=1e-6)
        assert sample.actions[:, 7].tolist() == [float(demo.command_gripper[row] > 0.5) for row in rows]
        np.testing.assert_allclose(sample.proprioception[:7], demo.positions[t], atol=1e-6)
        assert sample.proprioception[7] == pytest.approx(demo.gripper[t])
        assert sample.instruction == demo.instruction
        assert sample.images.shape == (4, 64, 64, 3) and sample.images.dtype == torch.uint8


def test_the_last_action_leads_to_what_is_drawn(make: Make, demos: list[Demo]) -> None:
    """Action k is due at t + k + 1 and the target at t + K: a chunk ends where its drawing shows the joints."""
    dataset = make(None)
    apart = [np.abs(dataset[t].actions[-1, :7].numpy() - demos[0].target(t, K)[0]) for t in range(len(demos[0]))]
    assert np.max(apart) < 0.15 and np.mean(apart) < 0.015  # rad; as far as the arm lags behind its commands


def test_joints_are_normalised_by_the_statistics(
    demos: list[Demo], robot: RobotModel, cameras: Mapping[str, Camera], spec: DrawingSpec
) -> None:
    statistics = joint_statistics(demos)
    sample = ChunkDataset(demos, robot, cameras, spec, statistics, None)[12]
    actions, joints = sample.actions[:, :7].double().numpy(), sample.proprioception[:7].double().numpy()
    np.testing.assert_allclose(statistics.restore(actions), demos[0].command_positions[12:32], atol=1e-6)
    np.testing.assert_allclose(statistics.restore(joints), demos[0].positions[12], atol=1e-6)


def test_a_perturbed_chunk_leads_smoothly_from_the_displaced_start_to_the_displaced_target(make: Make) -> None:
    plain, perturbed = make(None), make(SMALL)
    for t in range(0, 60, 6):
        before, after = plain[t], perturbed[t]
        start = (after.proprioception - before.proprioception)[:7].numpy()
        shift = (after.actions - before.actions)[:, :7].numpy()
        end = shift[-1]
        assert np.abs(start).max() > 1e-4 and np.abs(end).max() > 1e-4
        np.testing.assert_allclose(shift[K // 2 - 1], (start + end) / 2, atol=1e-5)
        np.testing.assert_allclose(shift[0], start, atol=0.002 * np.abs(end - start).max())
        assert np.all(np.diff((shift - start) @ (end - start)) >= -1e-6)


def test_the_drawing_shows_the_displaced_target_seen_from_the_displaced_arm(
    make: Make, demos: list[Demo], robot: RobotModel, cameras: Mapping[str, Camera], spec: DrawingSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    grey = np.full((64, 64, 3), 90, np.uint8)
    monkeypatch.setattr(chunks, "random_background", lambda rng, size: grey)
    monkeypatch.setattr(chunks, "augment", lambda rng, image: image)
    plain, perturbed = make(None), make(SMALL)
    for t in range(0, 60, 10):
        after = perturbed[t]
        target, gripper_open = demos[0].target(t, K)
        target = target + (after.actions - plain[t].actions)[-1, :7].double().numpy()
        start = after.proprioception[:7].double().numpy()
        for image, view in zip(after.images.numpy(), spec.views, strict=True):
            camera = cameras[view].scaled(64, 64)
            expected = draw_targets(grey, camera, robot, spec.appearance, target, gripper_open, start)
            assert (image != expected).any(-1).sum() <= 4, view  # float32 moves an edge now and then
            assert (expected != grey).any(), view


def test_wildly_displaced_joints_stay_within_the_limits(make: Make, robot: RobotModel) -> None:
    dataset = make(WILD)
    met = 0
    for i in range(40):
        sample = dataset[i]
        joints = np.vstack([sample.actions[:, :7], sample.proprioception[None, :7]])
        assert np.all(joints >= robot.position_min - 1e-6) and np.all(joints <= robot.position_max + 1e-6)
        met += np.any(joints <= robot.position_min + 1e-6) or np.any(joints >= robot.position_max - 1e-6)
    assert met > 5  # the limits were really in the way


def test_the_controller_never_sees_the_scene(make: Make, demos: list[Demo]) -> None:
    blind = [replace(demo, tiles_file=Path("there is none")) for demo in demos]
    for perturbation in (None, Perturbation()):
        a, b = make(perturbation), make(perturbation, of=blind)
        for i in range(0, 100, 20):
            np.testing.assert_array_equal(a[i].images, b[i].images)


def test_backgrounds_are_new_on_every_visit_and_in_every_view(make: Make) -> None:
    dataset = make(None)
    first, second = dataset[10], dataset[10]
    np.testing.assert_array_equal(first.actions, second.actions)
    changed = (first.images != second.images).any(-1).float().mean(dim=(1, 2))
    assert changed.min() > 0.3  # all but the spheres
    assert (first.images[1] != first.images[2]).any(-1).float().mean() > 0.3


def test_samples_follow_seed_index_and_visit(make: Make) -> None:
    order = [3, 50, 3, 7]
    datasets = [make(Perturbation(), seed) for seed in (1, 1, 2)]
    a, b, c = ([dataset[i] for i in order] for dataset in datasets)
    for one, same, other in zip(a, b, c, strict=True):
        for x, y, z in zip(one[:4], same[:4], other[:4], strict=True):
            np.testing.assert_array_equal(x, y)
            assert z.shape == x.shape
        assert (one.images != other.images).any() and (one.actions != other.actions).any()
    assert (a[0].actions != a[2].actions).any()  # the second visit of the same moment


def test_only_what_lies_past_the_end_of_an_unfinished_demo_is_padding(make: Make, demos: list[Demo]) -> None:
    demo, length = demos[0], 40
    cut = Demo(
        demo.instruction, demo.positions[:length], demo.gripper[:length], demo.command_positions[:length],
        demo.command_gripper[:length], demo.tiles_file,
    )  # fmt: skip
    moving, resting = make(None, of=[cut]), make(None)
    for t in (0, 19, 20, 21, 25, 39):
        assert moving[t].padding.tolist() == [t + k >= length for k in range(K)]
    for t in (0, len(demo) - 1):  # a demo that ends at rest shows how to rest: nothing of that is padding
        assert not resting[t].padding.any()


def test_samples_stack_to_batches(make: Make) -> None:
    dataset = make(Perturbation())
    samples = [dataset[i] for i in (0, 100, 5)]
    batch = collate(samples)
    assert batch.images.shape == (3, 4, 64, 64, 3) and batch.actions.shape == (3, K, 8)
    assert batch.instructions == [sample.instruction for sample in samples]
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(batch.proprioception[i], sample.proprioception)
        np.testing.assert_array_equal(batch.padding[i], sample.padding)


def test_backgrounds_are_of_all_kinds() -> None:
    pictures = [random_background(np.random.default_rng(seed), 64) for seed in range(60)]
    assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in pictures)
    contrast = np.array([picture.std(axis=(0, 1)).mean() for picture in pictures])
    assert (contrast < 1).any() and (contrast > 40).any()
    means = np.array([picture.mean(axis=(0, 1)) for picture in pictures])
    assert np.all(means.std(axis=0) > 20) and np.all(np.ptp(means, axis=0) > 100)
    np.testing.assert_array_equal(random_background(np.random.default_rng(3), 64), pictures[3])


def test_augmentation_keeps_the_picture_recognisable() -> None:
    image = random_background(np.random.default_rng(2), 64)
    image[20:44, 20:44] = (255, 255, 0)
    changed = 0
    for seed in range(20):
        result = augment(np.random.default_rng(seed), image)
        assert result.shape == image.shape and result.dtype == np.uint8
        difference = np.abs(result.astype(float) - image).mean()
        assert difference < 45
        changed += difference > 0
    assert changed > 10
