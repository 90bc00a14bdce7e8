"""Keypose network: relative attention, noise schedules, losses, and samples of a known distribution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from scipy.spatial.transform import Rotation

from genima.cameras.calibration_file import load_cameras
from genima.errors import GenimaError
from genima.policy.small_text_encoder import small_text_encoder, small_tokenizer
from genima.policy.visuomotor.keypose_model import decode_pose, encode_history, encode_pose, token_points
from genima.policy.visuomotor.keypose_network import (
    HISTORY,
    KeyposeConfig,
    KeyposeInput,
    KeyposeNetwork,
    Keyposes,
    position_scheduler,
    rotation_scheduler,
)
from genima.policy.visuomotor.relative_attention import RelativeAttention, rotate
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import inverse, pose, rotation_columns, rotation_from_columns, transform

CONFIG = KeyposeConfig(
    backbone_widths=(8, 8, 16), backbone_depths=(1, 1, 1), frozen_batch_norm=False, film="stage", width=24, heads=2,
    layers=2, diffusion_steps=10,
)  # fmt: skip
VIEWS, SIDE = 2, 32


def random_poses(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return pose(Rotation.random(count, random_state=seed).as_matrix(), rng.uniform(-0.5, 0.5, (count, 3)))


def network(config: KeyposeConfig = CONFIG) -> KeyposeNetwork:
    torch.manual_seed(0)
    return KeyposeNetwork(config, small_text_encoder(small_tokenizer(["push the button"])))


def observed(batch: int = 2) -> KeyposeInput:
    rng = torch.Generator().manual_seed(1)
    tokens = SIDE // 8
    history = np.stack([encode_history(random_poses(HISTORY, i), [1.0] * HISTORY) for i in range(batch)])
    return KeyposeInput(
        torch.randn((batch, VIEWS, 3, SIDE, SIDE), generator=rng),
        torch.rand((batch, VIEWS, tokens, tokens, 3), generator=rng),
        torch.rand((batch, VIEWS, tokens, tokens), generator=rng) > 0.2,
        torch.from_numpy(history).float(),
        torch.randn((batch, network().text_encoder.config.hidden_size), generator=rng),
    )


def test_rotary_embedding_equals_complex_multiplication() -> None:
    """Su et al., equation 16, axis after axis, with exp(i f p) for each pair of channels."""
    x, points = torch.randn(2, 3, 5, 12), torch.randn(2, 5, 3)
    frequencies = 50.0 / 100.0 ** (np.arange(0, 4, 2) / 4)
    angles = (points.numpy()[..., None] * frequencies).reshape(2, 1, 5, 6)
    pairs = x.numpy().reshape(2, 3, 5, 6, 2)
    expected = (pairs[..., 0] + 1j * pairs[..., 1]) * np.exp(1j * angles)
    np.testing.assert_allclose(
        rotate(x, points).numpy().reshape(2, 3, 5, 6, 2), np.stack([expected.real, expected.imag], -1), atol=1e-4
    )


@pytest.mark.parametrize("shift", [(0.1, 0.0, 0.0), (-0.3, 0.2, 0.5)])
def test_attention_is_invariant_to_a_common_translation(shift: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    attention = RelativeAttention(24, 2)
    x, context = torch.randn(2, 3, 24), torch.randn(2, 7, 24)
    at, points = torch.rand(2, 3, 3), torch.rand(2, 7, 3)
    mask = torch.ones(2, 7, dtype=torch.bool)

    def attend(moved: torch.Tensor, moved_context: torch.Tensor) -> torch.Tensor:
        return attention(x, at + moved, attention.project(context, points + moved_context), mask)

    by, nothing = torch.tensor(shift), torch.zeros(3)
    torch.testing.assert_close(attend(by, by), attend(nothing, nothing), atol=1e-5, rtol=1e-4)
    assert (attend(by, nothing) - attend(nothing, nothing)).abs().max() > 1e-3


def test_masked_tokens_do_not_count() -> None:
    attention = RelativeAttention(12, 2)
    x, context, points = torch.randn(1, 1, 12), torch.randn(1, 4, 12), torch.rand(1, 4, 3)
    mask = torch.tensor([[True, True, False, True]])
    kept = attention.project(context[:, mask[0]], points[:, mask[0]])
    torch.testing.assert_close(
        attention(x, points[:, :1], attention.project(context, points), mask),
        attention(x, points[:, :1], kept, torch.ones(1, 3, dtype=torch.bool)),
    )


def test_schedules_are_those_of_the_paper() -> None:
    """Scaled linear: squares of a linear ramp. Squared cosine: Nichol and Dhariwal, 2021, equation 17."""
    linear = np.linspace(1e-3**0.5, 0.2**0.5, 100) ** 2  # those of 1000 steps, ten times as large
    np.testing.assert_allclose(position_scheduler(100).betas.numpy(), linear, rtol=1e-5)
    assert max(scheduler(100).alphas_cumprod[-1] for scheduler in (position_scheduler, rotation_scheduler)) < 1e-3
    level = np.cos((np.arange(101) / 100 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(
        rotation_scheduler(100).betas.numpy(), np.minimum(1 - level[1:] / level[:-1], 0.999), rtol=1e-4
    )


def test_samples_follow_diffusers_steps() -> None:
    """The sampler equals both schedulers, each on its own part of the pose."""
    net, seen = network().eval(), observed()
    with torch.no_grad():
        sampled = net.sample(seen, torch.Generator().manual_seed(5))
        rng = torch.Generator().manual_seed(5)
        noisy, scene = torch.randn((2, 9), generator=rng), net.encode(seen)
        position = DDPMScheduler(10, 0.01, 0.999, beta_schedule="scaled_linear")
        rotation = DDPMScheduler(10, beta_schedule="squaredcos_cap_v2")
        for time in range(9, -1, -1):
            noise, _ = net.denoise(noisy, torch.full((2,), time), scene)
            moved = position.step(noise[:, :3], time, noisy[:, :3], generator=rng).prev_sample
            turned = rotation.step(noise[:, 3:], time, noisy[:, 3:], generator=rng).prev_sample
            noisy = torch.cat([moved, turned], 1)
    torch.testing.assert_close(sampled.pose[:, 3:], noisy[:, 3:])
    low, high = net.workspace
    torch.testing.assert_close(sampled.pose[:, :3], low + (noisy[:, :3] + 1) / 2 * (high - low))
    assert ((sampled.pose[:, :3] >= low) & (sampled.pose[:, :3] <= high)).all()


def test_losses_have_the_papers_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    net, seen = network(), observed()
    target = Keyposes(torch.from_numpy(encode_pose(random_poses(2))).float(), torch.tensor([1.0, 0.0]))
    monkeypatch.setattr(net, "denoise", lambda noisy, times, scene: (torch.zeros(2, 9), torch.zeros(2)))
    torch.manual_seed(3)
    losses = net.losses(seen, target)
    torch.manual_seed(3)
    noise = torch.randn(2, 9)
    torch.testing.assert_close(losses["position"], 30 * noise[:, :3].abs().mean())
    torch.testing.assert_close(losses["rotation"], 10 * noise[:, 3:].abs().mean())
    torch.testing.assert_close(losses["gripper"], torch.tensor(np.log(2.0), dtype=torch.float32))


def test_network_learns_one_keypose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained on one scene, it samples the keypose of that."""
    net, seen = network(replace(CONFIG, diffusion_steps=100)).eval(), observed(1)
    repeated = KeyposeInput(*(part.repeat(16, *[1] * (part.dim() - 1)) for part in seen))
    target = torch.from_numpy(encode_pose(random_poses(1, 4))).float()
    with torch.no_grad():
        scene = net.encode(repeated)
    monkeypatch.setattr(net, "encode", lambda observed: scene)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        losses = net.losses(repeated, Keyposes(target.repeat(16, 1), torch.ones(16)))
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    with torch.no_grad():
        sampled = net.sample(repeated, torch.Generator().manual_seed(0))
    errors = (sampled.pose - target)[:, :3].norm(dim=1)  # m, in a workspace of 2 m
    assert errors.median() < 0.2 and errors.max() < 0.5 and sampled.gripper.min() > 0.9


def test_rotation_columns_round_trip() -> None:
    R = Rotation.random(20, random_state=0).as_matrix()
    np.testing.assert_allclose(rotation_from_columns(rotation_columns(R)), R, atol=1e-12)
    noisy = rotation_columns(R) * 1.7 + np.random.default_rng(0).normal(0, 0.2, (20, 6))
    cleaned = rotation_from_columns(noisy)
    np.testing.assert_allclose(cleaned @ cleaned.swapaxes(-1, -2), np.broadcast_to(np.eye(3), (20, 3, 3)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(cleaned), 1.0)
    poses = random_poses(5)
    np.testing.assert_allclose(decode_pose(encode_pose(poses)), poses, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_history_ends_now_and_repeats_the_first(count: int) -> None:
    poses = random_poses(count)
    history = encode_history(list(poses), [float(i) for i in range(count)])
    assert history.shape == (HISTORY, 10)
    indices = [max(0, count - HISTORY + i) if count >= HISTORY else max(0, i - (HISTORY - count)) for i in range(3)]
    np.testing.assert_allclose(history[:, :9], encode_pose(poses[indices]))
    np.testing.assert_array_equal(history[:, 9], indices)


@pytest.mark.parametrize("view", ["front", "wrist"])
def test_token_points_project_onto_their_tokens(view: str, robot: RobotModel) -> None:
    """Points at the centres of the tokens, at the depth of a plane, in the base frame."""
    camera = load_cameras("sim")[view].crop_square(64)
    q = robot.home + 0.1
    depth = np.full((64, 64), 0.8, np.float32)
    depth[:8] = 40.0  # the first row of tokens sees the background
    points, valid = token_points({view: depth}, {view: camera}, robot, q)
    assert points.shape == (1, 8, 8, 3) and not valid[0, 0].any() and valid[0, 1:].all()
    seen = transform(inverse(camera.T_base_camera(robot, q)), points[0, 1:].reshape(-1, 3).astype(float))
    np.testing.assert_allclose(seen[:, 2], 0.8, atol=1e-5)
    pixels = (seen @ camera.K.T)[:, :2] / seen[:, 2:]
    centres = np.stack(np.meshgrid(np.arange(8) * 8 + 4.5, np.arange(1, 8) * 8 + 4.5), -1).reshape(-1, 2)
    np.testing.assert_allclose(pixels, centres, atol=1e-2)


def test_width_that_heads_and_axes_do_not_divide_is_rejected() -> None:
    with pytest.raises(GenimaError, match="width: 100; take a multiple of 6 x heads"):
        KeyposeConfig(width=100)
