"""Tests of the controller's samples: rendered targets, actions and reproducible randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from genima.cameras.camera import Camera
from genima.control.jerk_limited_motion import minimum_jerk
from genima.data.datasets.augmentation import Augmentation
from genima.data.datasets.backgrounds import Backgrounds, random_background
from genima.data.datasets.chunk_samples import collate, joint_statistics
from genima.data.datasets.controller_samples import ControllerDataset, Perturbation
from genima.data.datasets.sample_index import SampleIndex, TargetSamples
from genima.errors import GenimaError
from genima.policy.spec import PolicySpec
from genima.policy.visuomotor.action_space import JointStatistics
from genima.robot.model import RobotModel
from genima.targets import draw_targets
from genima.types import Image

K, T, REST = 20, 70, 12  # horizon, moments of an episode, moments at its end in which it rests
LAG = 0.01  # rad: how far the measured joints stay behind


def moments_of(name: str, instruction: str, start: np.ndarray, end: np.ndarray, length: int = T) -> TargetSamples:
    """An episode from start to end with the gripper closed half-way, then at rest; or its first part."""
    progress = minimum_jerk(np.minimum(np.arange(1, T + 1) / (T - REST), 1))
    commands = (start + progress[:, None] * (end - start))[:length]
    positions, closes = commands - LAG, (np.arange(T) < T // 2).astype(float)[:length]
    t = np.arange(length)
    steps = np.minimum(t[:, None] + np.arange(K), length - 1)
    last = np.minimum(t + K, length - 1)
    return TargetSamples(
        np.full(length, name), np.full(length, instruction), positions, np.linspace(1, 0.3, length),
        positions[last], closes[last] > 0.5, commands[steps], closes[steps], t[:, None] + np.arange(K) >= length,
    )  # fmt: skip


def joined(*parts: TargetSamples) -> TargetSamples:
    return TargetSamples(
        **{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(TargetSamples)}
    )


def demos_of(robot: RobotModel) -> list[TargetSamples]:
    offset = np.array([0.5, 0.4, -0.3, 0.6, 0.2, -0.4, 0.7])
    first = moments_of("b", "push down the maroon button", robot.home, robot.home + offset)
    return [first, moments_of("a", "take the lid off", robot.home + 0.1, robot.home - offset / 2)]


STATISTICS = JointStatistics(np.zeros(7), np.ones(7))  # joints stay in rad
SMALL = Perturbation(start=0.02, target=0.02, far=0.1, far_share=0.5, view=0.0)
WILD = Perturbation(far=2.0, far_share=1.0)
Make = Callable[..., ControllerDataset]


def grey(rng: np.random.Generator, size: int) -> Image:
    return np.full((size, size, 3), 90, np.uint8)


@pytest.fixture
def moments(robot: RobotModel) -> TargetSamples:
    return joined(*demos_of(robot))


@pytest.fixture
def make(moments: TargetSamples, robot: RobotModel, cameras: Mapping[str, Camera], spec: PolicySpec) -> Make:
    def make(
        perturbation: Perturbation | None = None, augmentation: Augmentation | None = None, seed: int = 0,
        backgrounds: Callable[..., Image] | None = None, of: TargetSamples = moments,
        statistics: JointStatistics = STATISTICS,
    ) -> ControllerDataset:  # fmt: skip
        return ControllerDataset(
            of, robot, cameras, spec, statistics, backgrounds or Backgrounds(), perturbation, augmentation, seed
        )

    return make


def test_chunk_has_actions_of_its_sample(make: Make, moments: TargetSamples) -> None:
    dataset = make()
    assert len(dataset) == 2 * T
    for i in (0, 10, T - K, T - 3, T, 2 * T - 1):
        sample = dataset[SampleIndex(i, 5)]
        np.testing.assert_allclose(sample.actions[:, :7], moments.actions[i], atol=1e-6)
        assert sample.actions[:, 7].tolist() == (moments.action_gripper[i] > 0.5).tolist()
        np.testing.assert_allclose(sample.proprioception[:7], moments.positions[i], atol=1e-6)
        assert sample.proprioception[7] == pytest.approx(moments.gripper[i])
        assert sample.instruction == moments.instruction[i]
        assert sample.images.shape == (4, 64, 64, 3) and sample.images.dtype == torch.uint8


def test_full_context_has_the_scene_of_its_sample_behind_the_spheres(
    moments: TargetSamples, robot: RobotModel, cameras: Mapping[str, Camera], spec: PolicySpec
) -> None:
    def scenes(i: int) -> dict[str, Image]:
        return {view: np.full((64, 64, 3), 10 * i + k, np.uint8) for k, view in enumerate(spec.views)}

    dataset = ControllerDataset(moments, robot, cameras, spec, STATISTICS, Backgrounds(), scenes=scenes)
    for i in (0, 7):
        for k, image in enumerate(dataset[SampleIndex(i, 3)].images):
            values, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
            assert (values[counts.argmax()] == 10 * i + k).all() and len(values) > 2  # the scene, and spheres


def test_joints_are_normalised_by_statistics(make: Make, moments: TargetSamples) -> None:
    statistics = joint_statistics(moments)
    sample = make(statistics=statistics)[SampleIndex(12, 0)]
    actions, joints = sample.actions[:, :7].double().numpy(), sample.proprioception[:7].double().numpy()
    np.testing.assert_allclose(statistics.denormalise(actions), moments.actions[12], atol=1e-6)
    np.testing.assert_allclose(statistics.denormalise(joints), moments.positions[12], atol=1e-6)


def test_statistics_count_commands_once_with_minimum_deviation(moments: TargetSamples) -> None:
    commands = np.array([chunk[0] for chunk in moments.actions])
    corrupted = replace(moments, actions=np.concatenate([commands[:, None], 1e6 + moments.actions[:, 1:]], axis=1))
    statistics = joint_statistics(corrupted)
    np.testing.assert_allclose(statistics.mean, commands.mean(axis=0))
    np.testing.assert_allclose(statistics.deviation, np.maximum(commands.std(axis=0), 0.05))
    still = replace(moments, actions=np.ones_like(moments.actions))
    np.testing.assert_array_equal(joint_statistics(still).deviation, 0.05)


def test_perturbed_chunk_is_smooth_between_displaced_ends(make: Make) -> None:
    plain, perturbed = make(), make(SMALL)
    for i in range(0, 60, 6):
        before, after = plain[SampleIndex(i, i)], perturbed[SampleIndex(i, i)]
        start = (after.proprioception - before.proprioception)[:7].numpy()
        shift = (after.actions - before.actions)[:, :7].numpy()
        end = shift[-1]
        assert np.abs(start).max() > 1e-4 and np.abs(end).max() > 1e-4
        np.testing.assert_allclose(shift[K // 2 - 1], (start + end) / 2, atol=1e-5)
        np.testing.assert_allclose(shift[0], start, atol=0.002 * np.abs(end - start).max())
        assert np.all(np.diff((shift - start) @ (end - start)) >= -1e-6)


def test_perturbed_sample_renders_displaced_target(
    make: Make, moments: TargetSamples, robot: RobotModel, cameras: Mapping[str, Camera], spec: PolicySpec
) -> None:
    plain, perturbed = make(), make(SMALL, backgrounds=grey)
    for i in range(0, 2 * T, 14):
        after = perturbed[SampleIndex(i, i)]
        shift = (after.actions - plain[SampleIndex(i, i)].actions)[-1, :7].double().numpy()
        start, target = after.proprioception[:7].double().numpy(), moments.target[i] + shift
        for image, view in zip(after.images.numpy(), spec.views, strict=True):
            expected = draw_targets(
                grey(np.random.default_rng(0), 64), cameras[view].crop_square(64), robot, spec.appearance, target,
                bool(moments.target_open[i]), start,
            )  # fmt: skip
            assert (image != expected).any(-1).sum() <= 4, view  # float32 moves an edge now and then
            assert (expected != 90).any(), view


def test_views_are_perturbed_separately(make: Make) -> None:
    """Spheres are displaced separately in each view: the images differ, joints and actions do not."""
    exact, apart = (make(replace(SMALL, view=view), backgrounds=grey) for view in (0.0, 0.1))
    one, other = exact[SampleIndex(30, 4)], apart[SampleIndex(30, 4)]
    np.testing.assert_array_equal(one.actions, other.actions)
    assert (one.images != other.images).flatten(1).any(1).all()


def test_sphere_opacity_follows_augmentation(make: Make) -> None:
    solid = make(backgrounds=grey)[SampleIndex(30, 0)].images.numpy().astype(float)
    observed = []
    for sample in range(40):
        through = make(augmentation=Augmentation((), (0.7, 1.0)), backgrounds=grey)[
            SampleIndex(30, sample)
        ].images.numpy()
        for image, full in zip(through, solid, strict=True):
            inside = np.abs(full - 90) > 60
            share = (image[inside] - 90.0) / (full[inside] - 90.0)
            assert np.ptp(share) < 0.05
            observed.append(share.mean())
    assert (
        min(observed) > 0.68 and max(observed) < 1.01 and np.std(observed) == pytest.approx(0.3 / np.sqrt(12), abs=0.02)
    )


def test_displaced_joints_are_within_limits(make: Make, robot: RobotModel) -> None:
    dataset = make(WILD)
    met = 0
    for i in range(40):
        sample = dataset[SampleIndex(i, i)]
        joints = np.vstack([sample.actions[:, :7], sample.proprioception[None, :7]])
        assert np.all(joints >= robot.position_min - 1e-6) and np.all(joints <= robot.position_max + 1e-6)
        met += np.any(joints <= robot.position_min + 1e-6) or np.any(joints >= robot.position_max - 1e-6)
    assert met > 5  # the limits were really in the way


def test_backgrounds_are_new_for_every_sample_and_in_every_view(make: Make) -> None:
    dataset = make()
    first, second = dataset[SampleIndex(10, 1)], dataset[SampleIndex(10, 2)]
    np.testing.assert_array_equal(first.actions, second.actions)
    changed = (first.images != second.images).any(-1).float().mean(dim=(1, 2))
    assert changed.min() > 0.3  # all but the spheres
    assert (first.images[1] != first.images[2]).any(-1).float().mean() > 0.3


AUGMENTATIONS = [Augmentation.small(), Augmentation.paper()]


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_sample_depends_on_seed_and_number_only(make: Make, augmentation: Augmentation) -> None:
    visits = [SampleIndex(3, 0), SampleIndex(50, 1), SampleIndex(3, 2), SampleIndex(7, 3)]
    a, b, c = (make(Perturbation(), augmentation, seed) for seed in (1, 1, 2))
    first = [a[visit] for visit in visits]
    again = [b[visit] for visit in reversed(visits)][::-1]
    for one, same, visit in zip(first, again, visits, strict=True):
        for x, y in zip(one[:4], same[:4], strict=True):
            np.testing.assert_array_equal(x, y)
        other = c[visit]
        assert (one.images != other.images).any() and (one.actions != other.actions).any()
    assert (first[0].actions != first[2].actions).any()  # another sample of the same moment


def test_workers_make_same_samples_as_one_process(make: Make) -> None:
    dataset = make(Perturbation(), Augmentation.paper())
    batches = [[SampleIndex(3, 0), SampleIndex(50, 1)], [SampleIndex(3, 2), SampleIndex(7, 3)]]
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=2,  # type: ignore[arg-type]
    )
    for batch, visits in zip(loader, batches, strict=True):
        expected = collate([dataset[visit] for visit in visits])
        for x, y in zip(batch[:4], expected[:4], strict=True):
            np.testing.assert_array_equal(x, y)


def test_only_actions_after_end_of_unfinished_demo_are_padding(make: Make, robot: RobotModel) -> None:
    finished, other = demos_of(robot)
    cut = moments_of("cut", "push", robot.home, robot.home + 0.5, length=40)
    dataset = make(of=joined(cut, finished, other))
    for t in (0, 19, 20, 21, 25, 39):
        assert dataset[SampleIndex(t, 0)].padding.tolist() == [t + k >= 40 for k in range(K)]
    assert finished.padding.any()
    for t in (40, 40 + T - 1, 40 + T, 40 + 2 * T - 1):  # that shows how to rest: nothing of it is padding
        assert not dataset[SampleIndex(t, 0)].padding.any()


def test_samples_stack_to_batches(make: Make) -> None:
    dataset = make(Perturbation())
    samples = [dataset[SampleIndex(i, i)] for i in (0, 100, 5)]
    batch = collate(samples)
    assert batch.images.shape == (3, 4, 64, 64, 3) and batch.actions.shape == (3, K, 8)
    assert batch.instructions == [sample.instruction for sample in samples]
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(batch.proprioception[i], sample.proprioception)
        np.testing.assert_array_equal(batch.padding[i], sample.padding)


# Backgrounds


def test_procedural_backgrounds_are_of_all_kinds() -> None:
    pictures = [Backgrounds()(np.random.default_rng(seed), 64) for seed in range(60)]
    assert all(picture.shape == (64, 64, 3) and picture.dtype == np.uint8 for picture in pictures)
    contrast = np.array([picture.std(axis=(0, 1)).mean() for picture in pictures])
    assert (contrast < 1).any() and (contrast > 40).any()
    means = np.array([picture.mean(axis=(0, 1)) for picture in pictures])
    assert np.all(means.std(axis=0) > 20) and np.all(np.ptp(means, axis=0) > 100)
    np.testing.assert_array_equal(random_background(np.random.default_rng(3), 64), pictures[3])


def test_backgrounds_are_cut_from_all_images_below_folder(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("not an image, and not named like one")
    ramp = np.linspace(0, 255, 90).astype(np.uint8)
    reds = {"a.PNG": 10, "deep/b.bmp": 90, "deep/er/c.webp": 170, "deep/er/d.jpg": 250}
    for name, red in reds.items():  # red identifies the file, green grows to the right and blue downwards
        rgb = np.stack([np.full((60, 90), red), np.tile(ramp, (60, 1)), np.tile(ramp[:60, None], (1, 90))], axis=-1)
        cv2.imwrite(str(tmp_path / name), rgb[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])
    backgrounds, observed, corners = Backgrounds(tmp_path), set(), set()
    for seed in range(60):
        image = backgrounds(np.random.default_rng(seed), 32).astype(int)
        assert image.shape == (32, 32, 3)
        assert np.all(np.diff(image[..., 1].mean(0)) > 0) and np.all(np.diff(image[..., 2].mean(1)) > 0)
        observed.add(min(reds.values(), key=lambda red: abs(red - image[..., 0].mean())))
        corners.add((image[0, 0, 1], image[0, 0, 2], image[-1, -1, 1]))
    assert observed == set(reds.values()) and len(corners) > 40
    np.testing.assert_array_equal(backgrounds(np.random.default_rng(7), 32), backgrounds(np.random.default_rng(7), 32))


def test_folders_without_images_and_unreadable_images_are_reported(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(GenimaError, match=f"no images .* in {folder}"):
            Backgrounds(folder)
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(GenimaError, match="text.png: not readable as an image"):
        Backgrounds(tmp_path)
    cut = tmp_path / "text.png"
    cut.write_bytes(cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()[:40])
    with pytest.raises(GenimaError, match="text.png: not readable as an image"):
        Backgrounds(tmp_path)(np.random.default_rng(0), 32)
