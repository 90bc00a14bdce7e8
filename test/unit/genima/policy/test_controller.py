"""Tests of the controller: its inputs, and chunks from drawn targets."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, ResNetConfig, ResNetForImageClassification, ResNetModel

from genima.cameras.tiling import tile
from genima.errors import GenimaError
from genima.io import paths
from genima.policy import precision
from genima.policy.controller import Controller
from genima.policy.small_text_encoder import small_text_encoder, small_tokenizer
from genima.policy.spec import PolicySpec
from genima.policy.visuomotor.act import Act, ActConfig, act_loss, sine_position
from genima.policy.visuomotor.action_space import JointStatistics
from genima.policy.visuomotor.backbone import FilmResNet
from genima.policy.visuomotor.model import pixels
from genima.policy.visuomotor.pretrained import load_clip, load_imagenet
from genima.types import DrawnTarget, Joints

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


def test_output_shapes_of_batch(act: Act) -> None:
    output = act(*inputs(act))
    assert output.actions.shape == (B, K, JOINTS) and output.gripper.shape == (B, K)
    assert output.mean is None and output.log_variance is None
    actions = random(B, K, JOINTS + 1)
    output = act(*inputs(act), actions, torch.zeros(B, K, dtype=torch.bool))
    assert output.mean is not None and output.mean.shape == (B, act.config.latent)
    assert output.log_variance is not None and output.log_variance.shape == (B, act.config.latent)


def test_defaults_equal_table_4_of_paper() -> None:
    config = ActConfig()
    assert (config.encoder_layers, config.decoder_layers, config.heads, config.feedforward) == (4, 6, 8, 2048)
    assert (config.width, config.dropout, config.horizon, config.joints, config.views) == (256, 0.1, 20, 7, 4)
    assert (
        ResNetConfig(  # its ResNet-18, batch normalisation as trained on ImageNet
            hidden_sizes=list(config.backbone_widths), depths=list(config.backbone_depths), layer_type="basic"
        ).to_dict()
        == ResNetConfig(hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic").to_dict()
    )
    assert config.frozen_batch_norm


def test_actions_differ_along_chunk(act: Act) -> None:
    actions = act(*inputs(act)).actions
    assert (actions[:, 1:] - actions[:, :-1]).abs().amax(dim=(0, 2)).min() > 1e-4


def test_all_three_inputs_change_chunk(act: Act) -> None:
    before = inputs(act)
    expected = act(*before).actions
    for i, other in enumerate(inputs(act, seed=10)):
        changed = act(*(other if j == i else kept for j, kept in enumerate(before))).actions
        assert (changed - expected).abs().max() > 1e-4


def test_batch_members_are_independent(act: Act) -> None:
    images, joints, text = inputs(act)
    both = act(images, joints, text).actions
    for i in range(B):
        alone = act(images[i : i + 1], joints[i : i + 1], text[i : i + 1]).actions
        torch.testing.assert_close(alone[0], both[i], atol=1e-5, rtol=1e-4)


def test_view_embeddings_distinguish_views(act: Act) -> None:
    images, joints, text = inputs(act)
    swapped = images[:, [1, 0, 2, 3]]
    assert (act(swapped, joints, text).actions - act(images, joints, text).actions).abs().max() > 1e-4
    embedding = act.view_embedding.clone()
    try:
        act.view_embedding.zero_()  # without them the views are not distinguished
        torch.testing.assert_close(act(swapped, joints, text).actions, act(images, joints, text).actions)
    finally:
        act.view_embedding.copy_(embedding)


@pytest.mark.parametrize(("film", "layers"), [("block", 3), ("stage", 2)])
def test_film_starts_as_identity_and_learns_text(film: Literal["block", "stage"], layers: int) -> None:
    config = replace(ActConfig.small(K), backbone_widths=(8, 16, 24), backbone_depths=(1, 2, 1), film=film)
    torch.manual_seed(0)
    net = FilmResNet(config, text_width=5).requires_grad_(False).eval()
    assert len(net.film) == layers
    plain = ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 24], depths=[1, 2, 1], layer_type="basic")
    ).eval()
    plain.embedder.load_state_dict(net.embedder.state_dict())
    plain.encoder.stages.load_state_dict(net.stages.state_dict())
    images, texts = random(3, 3, SIDE, SIDE), (random(3, 5, seed=1), random(3, 5, seed=2))
    expected = plain(images).last_hidden_state
    for text in texts:
        torch.testing.assert_close(net(images, text), expected)
    for layer in net.film:
        nn.init.normal_(layer.weight, std=0.1)
        before = net(images, texts[0])
        layer.weight.mul_(2)  # each of them matters
        assert (net(images, texts[0]) - before).abs().max() > 1e-3
    a, b = (net(images, text) for text in texts)
    assert (a - b).abs().max() > 1e-2 and a.shape == expected.shape

    def modulated(i: int, x: Tensor) -> Tensor:
        gamma, beta = net.film[i](texts[0])[:, :, None, None].chunk(2, dim=1)
        return (1 + gamma) * x + beta

    x = net.stages[0](net.embedder(images))
    if film == "stage":
        x = modulated(1, net.stages[2](modulated(0, net.stages[1](x))))
    else:  # the residual, before its shortcut is added
        for i, block in enumerate([*net.stages[1].layers, *net.stages[2].layers]):
            x = (modulated(i, block.layer(x)) + block.shortcut(x)).clamp(min=0)
    torch.testing.assert_close(a, x)


def test_old_controller_has_film_once_per_stage() -> None:
    assert ActConfig().film == "block" and ActConfig.small(K).film == "stage"
    old = {key: value for key, value in asdict(ActConfig()).items() if key not in ("film", "released_initialisation")}
    assert ActConfig.from_dict(old) == replace(ActConfig(), film="stage")
    for config in (ActConfig(), ActConfig.small(K)):
        assert ActConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("released", [True, False])
def test_initial_queries_and_embeddings_equal_release(act: Act, released: bool) -> None:
    """Embeddings are N(0, 1) as nn.Embedding; the transformer's matrices follow Xavier's rule as in DETR."""
    torch.manual_seed(0)
    config = replace(ActConfig.small(K), width=256, heads=8, feedforward=512, released_initialisation=released)
    net = Act(config, act.text_encoder)
    for embedding in (net.query, net.token_position, net.view_embedding, net.style_class):
        assert embedding.std().item() == pytest.approx(1.0 if released else 0.02, rel=0.15)
        assert abs(embedding.mean().item()) < 0.2 * embedding.std().item()
    for layers in (net.encoder, net.decoder):
        for name, weights in layers.named_parameters():
            if name.endswith("feedforward.0.weight"):
                bound = (6 / sum(weights.shape)) ** 0.5 if released else weights.shape[1] ** -0.5
                assert 0.97 * bound < weights.abs().max().item() <= bound


def test_style_is_zero_in_inference(act: Act) -> None:
    """Without a true chunk the style is exactly zero and the result deterministic."""
    images, joints, text = inputs(act)
    first = act(images, joints, text)
    torch.testing.assert_close(act(images, joints, text).actions, first.actions, rtol=0, atol=0)
    seen: list[Tensor] = []
    hook = act.latent_token.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    act(images, joints, text)
    act(images, joints, text, random(B, K, JOINTS + 1))
    hook.remove()
    assert not seen[0].any() and seen[1].all()


def test_style_depends_on_random_state_and_true_chunk(act: Act) -> None:
    actions = random(B, K, JOINTS + 1)

    def predicted(actions: Tensor, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return act(*inputs(act), actions).actions

    torch.testing.assert_close(predicted(actions, 1), predicted(actions, 1), rtol=0, atol=0)
    assert (predicted(actions, 1) - predicted(actions, 2)).abs().max() > 1e-5
    assert (predicted(actions, 1) - predicted(-actions, 1)).abs().max() > 1e-5


def test_padded_actions_are_ignored_in_loss(act: Act) -> None:
    actions = random(B, K, JOINTS + 1)
    actions[..., -1] = (actions[..., -1] > 0).float()
    padding = torch.zeros(B, K, dtype=torch.bool)
    padding[0, 12:] = True
    padding[1, 5:] = True

    def losses(actions: Tensor) -> dict[str, Tensor]:
        torch.manual_seed(0)
        output = act(*inputs(act), actions, padding)
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


def test_loss_equals_paper_and_release(act: Act) -> None:
    actions = random(B, K, JOINTS + 1)
    actions[..., -1] = (actions[..., -1] > 0).float()
    padding = torch.zeros(B, K, dtype=torch.bool)
    padding[0, 3:] = True
    output = act(*inputs(act), actions, padding)
    parts = act_loss(output, actions, padding)
    real = ~padding
    assert output.mean is not None and output.log_variance is not None
    released = (nn.functional.l1_loss(output.actions, actions[..., :-1], reduction="none") * real[..., None]).mean()
    torch.testing.assert_close(parts["joints"], released, rtol=0, atol=0)  # as the released ACT masks its mean
    expected = nn.functional.l1_loss(output.actions[real], actions[real][:, :-1]) * real.float().mean()
    torch.testing.assert_close(parts["joints"], expected)
    entropy = nn.functional.binary_cross_entropy(output.gripper[real].sigmoid(), actions[real][:, -1], reduction="sum")
    torch.testing.assert_close(parts["gripper"], 0.05 * entropy / real.numel())
    style = torch.distributions.Normal(output.mean, (output.log_variance / 2).exp())
    divergence = torch.distributions.kl_divergence(style, torch.distributions.Normal(0.0, 1.0)).sum(-1).mean()
    torch.testing.assert_close(parts["kl"], 10 * divergence)


TINY = replace(
    ActConfig(), width=32, heads=4, feedforward=32, encoder_layers=1, decoder_layers=1, latent=4,
    backbone_widths=(8, 12, 16, 24),
)  # fmt: skip
Save = Callable[..., str]


@pytest.fixture
def saved_resnet(tmp_path: Path) -> Save:
    """Function that writes a ResNet classifier in the hub's format, and returns its folder."""

    def save(config: ActConfig, **changes: Any) -> str:
        sizes = ResNetConfig(
            embedding_size=config.backbone_widths[0], hidden_sizes=list(config.backbone_widths),
            depths=list(config.backbone_depths), **{"layer_type": "basic", **changes},
        )  # fmt: skip
        torch.manual_seed(7)
        resnet = ResNetForImageClassification(sizes)
        resnet.train()(torch.randn(4, 3, SIDE, SIDE))  # running statistics of its own
        resnet.save_pretrained(tmp_path / "resnet")
        return str(tmp_path / "resnet")

    return save


@pytest.mark.parametrize("frozen", [True, False])
def test_imagenet_weights_reproduce_resnet_features(
    saved_resnet: Save, act: Act, frozen: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    config = replace(TINY, frozen_batch_norm=frozen)
    loaded, folder = Act(config, act.text_encoder).eval(), saved_resnet(config)
    capfd.readouterr()
    load_imagenet(loaded.backbone, folder)
    assert capfd.readouterr() == ("", "")  # that the classifier on top of it is not needed is no news
    images, text = random(3, 3, SIDE, SIDE), random(3, act.text_encoder.config.hidden_size)
    expected = ResNetModel.from_pretrained(folder).eval()(images).last_hidden_state
    torch.testing.assert_close(loaded.backbone(images, text), expected)


def test_frozen_batch_normalisation_is_constant(saved_resnet: Save, act: Act) -> None:
    net = Act(TINY, act.text_encoder)
    load_imagenet(net.backbone, saved_resnet(TINY))
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    images, text = random(3, 3, SIDE, SIDE), random(3, act.text_encoder.config.hidden_size)
    torch.testing.assert_close(net.train().backbone(images, text), net.eval().backbone(images, text), rtol=0, atol=0)
    optimizer = torch.optim.AdamW(net.train().backbone.requires_grad_(True).parameters(), 0.1, weight_decay=0.5)
    net.backbone(images, text).square().mean().backward()
    optimizer.step()
    after = net.backbone.state_dict()
    for name, value in before.items():
        assert torch.equal(after[name], value) == (".normalization." in name), name


def test_unfrozen_batch_normalisation_is_trained(act: Act) -> None:
    net = Act(replace(TINY, frozen_batch_norm=False), act.text_encoder).train()
    normalisations = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    net.backbone(random(3, 3, SIDE, SIDE), random(3, act.text_encoder.config.hidden_size))
    assert normalisations and all(m.running_mean.any() for m in normalisations if m.running_mean is not None)


@pytest.mark.parametrize(("changes", "named"), [
    ({"backbone_widths": (8, 12, 16, 32)}, r"\(8, 12, 16, 32\).*\(8, 12, 16, 24\)"),
    ({"backbone_depths": (1, 1, 1, 1)}, r"\(1, 1, 1, 1\).*\(2, 2, 2, 2\)"),
    ({"layer_type": "bottleneck"}, "bottleneck"),
])  # fmt: skip
def test_resnet_of_other_size_is_rejected(saved_resnet: Save, act: Act, changes: dict[str, Any], named: str) -> None:
    sizes = {key: value for key, value in changes.items() if key.startswith("backbone")}
    other = {key: value for key, value in changes.items() if key not in sizes}
    folder = saved_resnet(replace(TINY, **sizes), **other)
    with pytest.raises(GenimaError, match=f"{folder}.*{named}.*random weights") as caught:
        load_imagenet(FilmResNet(TINY, 16), folder)
    assert "\n" not in str(caught.value)


def test_missing_or_wrong_pretrained_parts_are_one_line_errors(
    tmp_path: Path, act: Act, saved_resnet: Save, saved_clip: str
) -> None:
    empty, nowhere = tmp_path / "empty", str(tmp_path / "nowhere")
    empty.mkdir()
    net = Act(TINY, act.text_encoder)
    for load, names, otherwise in (
        (lambda name: load_imagenet(net.backbone, name), (nowhere, str(empty), saved_clip), "random weights|no ResNet"),
        (load_clip, (nowhere, str(empty), saved_resnet(TINY)), "small text encoder|no CLIP"),
    ):
        for name in names:
            with pytest.raises(GenimaError, match=f"{name}.*({otherwise})") as caught:
                load(name)
            assert "\n" not in str(caught.value)


def test_positions_of_image_tokens_are_all_different() -> None:
    positions = sine_position(8, 8, 128)
    assert positions.shape == (64, 128)
    distances = torch.cdist(positions, positions) + torch.eye(64) * 9
    assert distances.min() > 0.1


def test_pixels_are_normalised_as_imagenet_is() -> None:
    images = torch.randint(0, 256, (2, 4, 5, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = (images.numpy() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(pixels(images).numpy(), np.moveaxis(expected, -1, -3), atol=1e-5)


def test_statistics_denormalise_inverts_normalise() -> None:
    rng = np.random.default_rng(0)
    statistics = JointStatistics(rng.normal(size=7), rng.uniform(0.1, 1, 7))
    positions = rng.normal(statistics.mean, statistics.deviation, (20_000, 7))
    normalised = statistics.normalise(positions)
    np.testing.assert_allclose(normalised.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(normalised.std(0), 1, atol=0.05)
    np.testing.assert_allclose(statistics.denormalise(normalised), positions)


# The controller as a whole


@pytest.fixture
def saved_clip(tmp_path: Path) -> str:
    """Folder of a small CLIP text encoder and tokenizer in the hub's format."""
    torch.manual_seed(8)
    tokenizer = small_tokenizer(["pick up the cup", "open the drawer"])
    small_text_encoder(tokenizer, 48).save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    return str(tmp_path / "clip")


@pytest.fixture(scope="module")
def controller(spec: PolicySpec, act: Act) -> Controller:
    tokenizer = small_tokenizer(GOALS)
    return Controller(spec, act, tokenizer, JointStatistics(np.arange(7) / 10, np.linspace(0.1, 0.4, 7)))


def drawn_target(spec: PolicySpec, seed: int = 0) -> DrawnTarget:
    size = 2 * spec.view_size
    return DrawnTarget(
        2.5, GOALS[0], spec.views, np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    )


PRECISIONS = {"single": 1e-5, "half": 3e-3}  # rad, and of a probability: what is read differs by less


@pytest.fixture(params=PRECISIONS)
def precise(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """Accuracy of inference in both precisions."""
    monkeypatch.setattr(precision, "is_half_fast", lambda device: request.param == "half")
    return PRECISIONS[request.param]


JOINTS_NOW = Joints(2.5, np.linspace(-0.3, 0.9, 7), 0.25)


def test_chunk_is_network_output_in_radians(controller: Controller, spec: PolicySpec, precise: float) -> None:
    drawn = drawn_target(spec)
    chunk = controller.predict_chunk(drawn, JOINTS_NOW)
    mean, deviation = np.arange(7) / 10, np.linspace(0.1, 0.4, 7)
    joints = np.append((JOINTS_NOW.positions - mean) / deviation, JOINTS_NOW.gripper)
    quarters = [drawn.tile[y : y + SIDE, x : x + SIDE] for y in (0, SIDE) for x in (0, SIDE)]
    text = controller.embed_instructions([drawn.instruction])
    images = pixels(torch.from_numpy(np.stack(quarters)))[None]
    output = controller.network(images, torch.from_numpy(joints).float()[None], text)
    expected = output.actions[0].numpy() * deviation + mean
    np.testing.assert_allclose(chunk.positions, expected, atol=precise)
    np.testing.assert_allclose(chunk.gripper, output.gripper[0].sigmoid().numpy(), atol=precise)
    assert (chunk.stamp, chunk.period) == (2.5, pytest.approx(1 / 20))
    assert chunk.positions.shape == (K, 7) and chunk.gripper.shape == (K,)


def test_target_joints_and_instruction_change_chunk(controller: Controller, spec: PolicySpec) -> None:
    expected = controller.predict_chunk(drawn_target(spec), JOINTS_NOW).positions
    elsewhere = replace(JOINTS_NOW, positions=JOINTS_NOW.positions + 0.2)
    for drawn, joints in (
        (drawn_target(spec, seed=1), JOINTS_NOW),
        (drawn_target(spec), elsewhere),
        (drawn_target(spec), replace(JOINTS_NOW, gripper=1.0)),
        (replace(drawn_target(spec), instruction=GOALS[1]), JOINTS_NOW),
    ):
        assert np.abs(controller.predict_chunk(drawn, joints).positions - expected).max() > 1e-6
    np.testing.assert_array_equal(controller.predict_chunk(drawn_target(spec), JOINTS_NOW).positions, expected)


def test_saving_and_loading_changes_nothing(controller: Controller, spec: PolicySpec, tmp_path: Path) -> None:
    controller.save_pretrained(tmp_path)
    loaded = Controller.from_pretrained(tmp_path)
    assert loaded.spec == controller.spec and loaded.network.config == controller.network.config
    for goal in GOALS:
        drawn = replace(drawn_target(spec), instruction=goal)
        a, b = controller.predict_chunk(drawn, JOINTS_NOW), loaded.predict_chunk(drawn, JOINTS_NOW)
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(a.gripper, b.gripper)


def frozen(spec: PolicySpec, clip: str) -> Controller:
    encoder, tokenizer = load_clip(clip)
    torch.manual_seed(9)
    act = Act(TINY, encoder)
    for film in act.backbone.film:
        nn.init.normal_(film.weight, std=0.1)
    return Controller(spec, act.eval(), tokenizer, JointStatistics(np.zeros(7), np.ones(7)), clip)


def test_checkpoint_references_frozen_text_encoder(
    spec: PolicySpec, saved_clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    controller = frozen(spec, "clip")  # relative to where it was trained
    controller.save_pretrained(tmp_path / "checkpoint")
    monkeypatch.chdir("/")
    names = {str(file.relative_to(tmp_path / "checkpoint")) for file in (tmp_path / "checkpoint").rglob("*")}
    assert names == {"act.safetensors", "genima.json"}
    assert not [name for name in load_file(tmp_path / "checkpoint" / "act.safetensors") if "text_encoder" in name]
    assert json.loads((tmp_path / "checkpoint" / "genima.json").read_text())["text_encoder"] == saved_clip
    loaded = Controller.from_pretrained(tmp_path / "checkpoint")
    expected = CLIPTextModel.from_pretrained(saved_clip)(loaded.tokens(GOALS)).pooler_output
    torch.testing.assert_close(loaded.embed_instructions(GOALS), expected)
    chunks = [loaded.predict_chunk(replace(drawn_target(spec), instruction=goal), JOINTS_NOW) for goal in GOALS]
    for chunk, goal in zip(chunks, GOALS, strict=True):
        expected_chunk = controller.predict_chunk(replace(drawn_target(spec), instruction=goal), JOINTS_NOW)
        np.testing.assert_array_equal(chunk.positions, expected_chunk.positions)
    assert np.abs(chunks[0].positions - chunks[1].positions).max() > 1e-5


def test_missing_or_other_text_encoder_is_rejected(spec: PolicySpec, saved_clip: str, tmp_path: Path) -> None:
    frozen(spec, saved_clip).save_pretrained(tmp_path / "checkpoint")
    tokenizer = small_tokenizer(["another"])
    small_text_encoder(tokenizer, 48).save_pretrained(saved_clip)
    with pytest.raises(GenimaError, match=f"checkpoint.*another version of {saved_clip}"):
        Controller.from_pretrained(tmp_path / "checkpoint")
    Path(saved_clip).rename(tmp_path / "moved")
    with pytest.raises(GenimaError, match=f"{saved_clip} cannot be loaded"):
        Controller.from_pretrained(tmp_path / "checkpoint")


def test_frozen_text_embeddings_are_cached_for_training_and_validation(spec: PolicySpec, saved_clip: str) -> None:
    controller = frozen(spec, saved_clip)
    calls: list[int] = []
    controller.network.text_encoder.register_forward_hook(lambda module, arguments, output: calls.append(1))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        first = controller.embed_instructions([*GOALS, GOALS[0]])
    again = controller.embed_instructions([GOALS[1], GOALS[0]])
    assert len(calls) == 2 and first.dtype == torch.float32
    torch.testing.assert_close(again, torch.stack([first[1], first[2]]), rtol=0, atol=0)
    images, joints = random(2, VIEWS, 3, SIDE, SIDE), random(2, JOINTS + 1)
    controller.network.train()(images, joints, again).actions.sum().backward()
    assert controller.network.text_token.weight.grad is not None
    assert all(parameter.grad is None for parameter in controller.network.text_encoder.parameters())


def test_trainable_text_encoder_is_not_cached(spec: PolicySpec) -> None:
    tokenizer = small_tokenizer(GOALS)
    act = Act(replace(TINY, frozen_batch_norm=False), small_text_encoder(tokenizer))
    controller = Controller(spec, act, tokenizer, JointStatistics(np.zeros(7), np.ones(7)))
    before = controller.embed_instructions(GOALS)
    before.square().sum().backward()
    with torch.no_grad():
        for parameter in act.text_encoder.parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all()
            parameter.add_(0.01 * torch.randn_like(parameter))
    assert (controller.embed_instructions(GOALS) - before).abs().max() > 1e-4


def test_loaded_controller_trains_all_but_frozen_text_encoder(
    spec: PolicySpec, controller: Controller, saved_clip: str, tmp_path: Path
) -> None:
    for original in (controller, frozen(spec, saved_clip)):
        original.save_pretrained(tmp_path / "checkpoint")
        loaded = Controller.from_pretrained(tmp_path / "checkpoint")
        assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
        loaded.unfreeze()
        still = {name for name, parameter in loaded.network.named_parameters() if not parameter.requires_grad}
        encoder = {f"text_encoder.{name}" for name, _ in loaded.network.text_encoder.named_parameters()}
        assert still == (encoder if loaded.clip else set())


def test_network_computes_in_half_precision(spec: PolicySpec, saved_clip: str) -> None:
    act = frozen(spec, saved_clip).network
    arguments = random(2, VIEWS, 3, SIDE, SIDE), random(2, JOINTS + 1), random(2, 48)
    with torch.no_grad():
        expected = act(*arguments).actions
        with torch.autocast("cpu", torch.bfloat16):
            features = act.backbone(arguments[0][0], arguments[2].repeat(2, 1))
            found = act(*arguments).actions
    assert features.dtype == torch.bfloat16  # frozen batch normalisation does not widen what flows through it
    assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_bundled_controller_is_unchanged(precise: float) -> None:
    """Outputs of the bundled weights must not change: expected values are from the time of training."""
    controller = Controller.from_pretrained(paths.shared("models", "tiny", "controller"))
    side = 2 * controller.spec.view_size
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    drawn = DrawnTarget(0.0, "push down the maroon button", controller.spec.views, noise)
    chunk = controller.predict_chunk(drawn, Joints(0.0, controller.robot.home, 1.0))
    middle = [-0.05676347, -0.14042135, 0.04396331, -2.17556945, -0.01203596, 2.04762048, 0.43912941]
    np.testing.assert_allclose(chunk.positions[10], middle, atol=precise)
    np.testing.assert_allclose(chunk.gripper[[0, 10, 19]], [0.36188206, 0.27688578, 0.9485542], atol=precise)


def test_targets_of_other_views_or_size_are_rejected(controller: Controller, spec: PolicySpec) -> None:
    drawn = drawn_target(spec)
    other = tuple(reversed(spec.views))
    with pytest.raises(GenimaError, match="has views.*left_shoulder.*the controller reads"):
        controller.predict_chunk(replace(drawn, views=other), JOINTS_NOW)
    half = {view: np.zeros((32, 32, 3), np.uint8) for view in spec.views}
    for tiled in (tile(half, spec.views), drawn.tile[..., 0], drawn.tile[:-1]):
        with pytest.raises(GenimaError, match=r"has shape .* reads \(128, 128, 3\)"):
            controller.predict_chunk(replace(drawn, tile=tiled), JOINTS_NOW)


@pytest.mark.parametrize("break_it", [
    lambda controller: controller.network.action_head.bias.fill_(torch.nan),
    lambda controller: controller.network.gripper_head.bias.fill_(torch.nan),
    lambda controller: controller.network.image_token.weight.fill_(torch.inf),
])  # fmt: skip
def test_non_finite_weights_are_rejected(
    checkpoint_folder: Path, spec: PolicySpec, break_it: Callable[[Controller], object]
) -> None:
    controller = Controller.from_pretrained(checkpoint_folder / "controller")
    controller.predict_chunk(drawn_target(spec), JOINTS_NOW)
    break_it(controller)
    with pytest.raises(GenimaError, match="not finite"):
        controller.predict_chunk(drawn_target(spec), JOINTS_NOW)


def test_non_finite_joints_are_rejected(controller: Controller, spec: PolicySpec) -> None:
    with pytest.raises(GenimaError, match="not finite"):
        controller.predict_chunk(drawn_target(spec), replace(JOINTS_NOW, positions=np.full(7, np.nan)))
