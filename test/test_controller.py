"""The controller: what its network sees, what it must not see, and how a drawing becomes a chunk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from genima.checkpoint import DrawingSpec
from genima.controller import Controller
from genima.controller.act import Act, ActConfig, FilmResNet, act_loss, sine_position
from genima.controller.controller import JointStatistics, pixels
from genima.errors import GenimaError
from genima.observation import DrawnTarget, Joints
from genima.text import small_text_encoder, small_tokenizer
from genima.views import tile

GOALS = ["push down the maroon button", "take the lid off the saucepan"]
B, K, VIEWS, JOINTS, SIDE = 2, 20, 4, 7, 64


@pytest.fixture(scope="module")
def act() -> Act:
    torch.manual_seed(0)
    tokenizer = small_tokenizer(GOALS)
    return Act(ActConfig.small(K), small_text_encoder(tokenizer)).requires_grad_(False).eval()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(act: Act, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    text = random(B, act.text_encoder.config.hidden_size, seed=seed + 2)
    return random(B, VIEWS, 3, SIDE, SIDE, seed=seed), random(B, JOINTS + 1, seed=seed + 1), text


def test_a_batch_of_chunks_comes_out(act: Act) -> None:
    output = act(*inputs(act))
    assert output.actions.shape == (B, K, JOINTS) and output.gripper.shape == (B, K)
    assert output.mean is None and output.log_variance is None
    actions = random(B, K, JOINTS + 1)
    output = act(*inputs(act), actions, torch.zeros(B, K, dtype=torch.bool))
    assert output.mean is not None and output.mean.shape == (B, act.config.latent)
    assert output.log_variance is not None and output.log_variance.shape == (B, act.config.latent)


def test_the_defaults_are_the_papers_sizes() -> None:
    config = ActConfig()
    assert (config.encoder_layers, config.decoder_layers, config.heads, config.feedforward) == (4, 6, 8, 2048)
    assert (config.width, config.horizon, config.backbone_widths[-1]) == (256, 20, 512)


def test_actions_differ_along_the_chunk(act: Act) -> None:
    actions = act(*inputs(act)).actions
    assert (actions[:, 1:] - actions[:, :-1]).abs().amax(dim=(0, 2)).min() > 1e-4


def test_all_three_inputs_change_the_chunk(act: Act) -> None:
    before = inputs(act)
    expected = act(*before).actions
    for i, other in enumerate(inputs(act, seed=10)):
        changed = act(*(other if j == i else kept for j, kept in enumerate(before))).actions
        assert (changed - expected).abs().max() > 1e-4


def test_members_of_a_batch_do_not_mix(act: Act) -> None:
    images, joints, text = inputs(act)
    both = act(images, joints, text).actions
    for i in range(B):
        alone = act(images[i : i + 1], joints[i : i + 1], text[i : i + 1]).actions
        torch.testing.assert_close(alone[0], both[i], atol=1e-5, rtol=1e-4)


def test_the_network_tells_views_apart_by_their_embeddings_alone(act: Act) -> None:
    images, joints, text = inputs(act)
    swapped = images[:, [1, 0, 2, 3]]
    assert (act(swapped, joints, text).actions - act(images, joints, text).actions).abs().max() > 1e-4
    embedding = act.view_embedding.clone()
    try:
        act.view_embedding.zero_()  # without them nothing else tells one view from another
        torch.testing.assert_close(act(swapped, joints, text).actions, act(images, joints, text).actions)
    finally:
        act.view_embedding.copy_(embedding)


def test_film_starts_as_the_plain_resnet_and_text_changes_it_after() -> None:
    config = replace(ActConfig.small(K), backbone_widths=(8, 16, 24), backbone_depths=(1, 1, 1))
    torch.manual_seed(0)
    film = FilmResNet(config, text_width=5).requires_grad_(False).eval()
    plain = ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24], depths=[1, 1, 1], layer_type="basic")
    ).eval()
    plain.embedder.load_state_dict(film.embedder.state_dict())
    plain.encoder.stages.load_state_dict(film.stages.state_dict())
    images, texts = random(3, 3, SIDE, SIDE), (random(3, 5, seed=1), random(3, 5, seed=2))
    expected = plain(images).last_hidden_state
    for text in texts:
        torch.testing.assert_close(film(images, text), expected)
    for layer in film.film:
        nn.init.normal_(layer.weight, std=0.1)
    a, b = (film(images, text) for text in texts)
    assert (a - b).abs().max() > 1e-2 and a.shape == expected.shape
    # (1 + gamma) x + beta, written out for the last stage
    before = film.stages[0](film.embedder(images))
    gamma, beta = film.film[0](texts[0])[:, :, None, None].chunk(2, dim=1)
    middle = film.stages[1](before) * (1 + gamma) + beta
    gamma, beta = film.film[1](texts[0])[:, :, None, None].chunk(2, dim=1)
    torch.testing.assert_close(a, film.stages[2](middle) * (1 + gamma) + beta)


def test_in_use_the_style_is_zero(act: Act) -> None:
    """Without a true chunk the result is the one of a style of exactly zero, and nothing is drawn at random."""
    images, joints, text = inputs(act)
    first = act(images, joints, text)
    torch.testing.assert_close(act(images, joints, text).actions, first.actions, rtol=0, atol=0)
    seen: list[Tensor] = []
    hook = act.latent_token.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    act(images, joints, text)
    act(images, joints, text, random(B, K, JOINTS + 1), None, torch.Generator().manual_seed(0))
    hook.remove()
    assert not seen[0].any() and seen[1].all()


def test_the_style_follows_its_generator_and_the_true_chunk(act: Act) -> None:
    actions = random(B, K, JOINTS + 1)

    def predicted(actions: Tensor, seed: int) -> Tensor:
        return act(*inputs(act), actions, None, torch.Generator().manual_seed(seed)).actions

    torch.testing.assert_close(predicted(actions, 1), predicted(actions, 1), rtol=0, atol=0)
    assert (predicted(actions, 1) - predicted(actions, 2)).abs().max() > 1e-5
    assert (predicted(actions, 1) - predicted(-actions, 1)).abs().max() > 1e-5


def test_padded_actions_do_not_change_the_loss_and_real_ones_do(act: Act) -> None:
    actions = random(B, K, JOINTS + 1)
    actions[..., -1] = (actions[..., -1] > 0).float()
    padding = torch.zeros(B, K, dtype=torch.bool)
    padding[0, 12:] = True
    padding[1, 5:] = True

    def losses(actions: Tensor) -> dict[str, Tensor]:
        output = act(*inputs(act), actions, padding, torch.Generator().manual_seed(0))
        return act_loss(output, actions, padding)

    expected = losses(actions)
    assert set(expected) == {"joints", "gripper", "kl"}
    padded, real = actions.clone(), actions.clone()
    padded[padding] = 1 - padded[padding] * 3
    real[0, 11] = 1 - real[0, 11]
    for key, value in losses(padded).items():
        torch.testing.assert_close(value, expected[key], msg=key)
    for key, value in losses(real).items():
        assert (value - expected[key]).abs() > 1e-6, key


def test_the_loss_is_what_the_paper_writes(act: Act) -> None:
    actions = random(B, K, JOINTS + 1)
    actions[..., -1] = (actions[..., -1] > 0).float()
    padding = torch.zeros(B, K, dtype=torch.bool)
    padding[0, 3:] = True
    output = act(*inputs(act), actions, padding, torch.Generator().manual_seed(0))
    parts = act_loss(output, actions, padding)
    real = ~padding
    assert output.mean is not None and output.log_variance is not None
    expected = nn.functional.l1_loss(output.actions[real], actions[real][:, :-1])
    torch.testing.assert_close(parts["joints"], expected)
    entropy = nn.functional.binary_cross_entropy(output.gripper[real].sigmoid(), actions[real][:, -1])
    torch.testing.assert_close(parts["gripper"], 0.05 * entropy)
    style = torch.distributions.Normal(output.mean, (output.log_variance / 2).exp())
    divergence = torch.distributions.kl_divergence(style, torch.distributions.Normal(0.0, 1.0)).sum(-1).mean()
    torch.testing.assert_close(parts["kl"], 10 * divergence)


def test_positions_of_image_tokens_are_all_different() -> None:
    positions = sine_position(8, 8, 128)
    assert positions.shape == (64, 128)
    distances = torch.cdist(positions, positions) + torch.eye(64) * 9
    assert distances.min() > 0.1


def test_pixels_are_normalised_as_imagenet_is() -> None:
    images = torch.randint(0, 256, (2, 4, 5, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = (images.numpy() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(pixels(images).numpy(), np.moveaxis(expected, -1, -3), atol=1e-5)


def test_statistics_restore_what_they_normalise() -> None:
    rng = np.random.default_rng(0)
    statistics = JointStatistics(rng.normal(size=7), rng.uniform(0.1, 1, 7))
    positions = rng.normal(statistics.mean, statistics.deviation, (20_000, 7))
    normalised = statistics.normalise(positions)
    np.testing.assert_allclose(normalised.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(normalised.std(0), 1, atol=0.05)
    np.testing.assert_allclose(statistics.restore(normalised), positions)


# The controller as a whole


@pytest.fixture(scope="module")
def controller(spec: DrawingSpec, act: Act) -> Controller:
    tokenizer = small_tokenizer(GOALS)
    return Controller(spec, act, tokenizer, JointStatistics(np.arange(7) / 10, np.linspace(0.1, 0.4, 7)))


def drawn_target(spec: DrawingSpec, seed: int = 0) -> DrawnTarget:
    size = 2 * spec.view_size
    return DrawnTarget(
        2.5, GOALS[0], spec.views, np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    )


JOINTS_NOW = Joints(2.5, np.linspace(-0.3, 0.9, 7), 0.25)


def test_a_chunk_is_the_networks_answer_in_radians_from_the_drawings_stamp(
    controller: Controller, spec: DrawingSpec
) -> None:
    drawn = drawn_target(spec)
    chunk = controller.read(drawn, JOINTS_NOW)
    mean, deviation = np.arange(7) / 10, np.linspace(0.1, 0.4, 7)
    joints = np.append((JOINTS_NOW.positions - mean) / deviation, JOINTS_NOW.gripper)
    quarters = [drawn.tile[y : y + SIDE, x : x + SIDE] for y in (0, SIDE) for x in (0, SIDE)]
    text = controller.act.embed_text(controller.tokens([drawn.instruction]))
    images = pixels(torch.from_numpy(np.stack(quarters)))[None]
    output = controller.act(images, torch.from_numpy(joints).float()[None], text)
    np.testing.assert_allclose(chunk.positions, output.actions[0].numpy() * deviation + mean, atol=1e-5)
    np.testing.assert_allclose(chunk.gripper, output.gripper[0].sigmoid().numpy(), atol=1e-5)
    assert (chunk.stamp, chunk.period) == (2.5, pytest.approx(1 / 20))
    assert chunk.positions.shape == (K, 7) and chunk.gripper.shape == (K,)


def test_drawing_joints_and_instruction_all_matter(controller: Controller, spec: DrawingSpec) -> None:
    expected = controller.read(drawn_target(spec), JOINTS_NOW).positions
    elsewhere = replace(JOINTS_NOW, positions=JOINTS_NOW.positions + 0.2)
    for drawn, joints in (
        (drawn_target(spec, seed=1), JOINTS_NOW),
        (drawn_target(spec), elsewhere),
        (drawn_target(spec), replace(JOINTS_NOW, gripper=1.0)),
        (replace(drawn_target(spec), instruction=GOALS[1]), JOINTS_NOW),
    ):
        assert np.abs(controller.read(drawn, joints).positions - expected).max() > 1e-6
    np.testing.assert_array_equal(controller.read(drawn_target(spec), JOINTS_NOW).positions, expected)


def test_saving_and_loading_changes_nothing(controller: Controller, spec: DrawingSpec, tmp_path: Path) -> None:
    controller.save_pretrained(tmp_path)
    loaded = Controller.from_pretrained(tmp_path)
    assert loaded.spec == controller.spec and loaded.act.config == controller.act.config
    for goal in GOALS:
        drawn = replace(drawn_target(spec), instruction=goal)
        a, b = controller.read(drawn, JOINTS_NOW), loaded.read(drawn, JOINTS_NOW)
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.gripper, b.gripper)


def test_drawings_in_another_order_or_size_are_refused(controller: Controller, spec: DrawingSpec) -> None:
    drawn = drawn_target(spec)
    other = tuple(reversed(spec.views))
    with pytest.raises(GenimaError, match="has views.*left_shoulder.*the controller reads"):
        controller.read(replace(drawn, views=other), JOINTS_NOW)
    half = {view: np.zeros((32, 32, 3), np.uint8) for view in spec.views}
    for tiled in (tile(half, spec.views), drawn.tile[..., 0], drawn.tile[:-1]):
        with pytest.raises(GenimaError, match=r"has shape .* reads \(128, 128, 3\)"):
            controller.read(replace(drawn, tile=tiled), JOINTS_NOW)


@pytest.mark.parametrize("break_it", [
    lambda controller: controller.act.action_head.bias.fill_(torch.nan),
    lambda controller: controller.act.gripper_head.bias.fill_(torch.nan),
    lambda controller: controller.act.image_token.weight.fill_(torch.inf),
])  # fmt: skip
def test_weights_that_are_not_finite_are_noticed(
    checkpoint_folder: Path, spec: DrawingSpec, break_it: Callable[[Controller], object]
) -> None:
    controller = Controller.from_pretrained(checkpoint_folder / "controller")
    controller.read(drawn_target(spec), JOINTS_NOW)
    break_it(controller)
    with pytest.raises(GenimaError, match="not finite"):
        controller.read(drawn_target(spec), JOINTS_NOW)


def test_joints_that_are_not_finite_are_noticed(controller: Controller, spec: DrawingSpec) -> None:
    with pytest.raises(GenimaError, match="not finite"):
        controller.read(drawn_target(spec), replace(JOINTS_NOW, positions=np.full(7, np.nan)))
