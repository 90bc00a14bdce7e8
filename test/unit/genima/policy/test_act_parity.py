"""ACT against a reference that is written out from the papers in plain tensor products, with the same weights.

Sources: Carion et al., End-to-End Object Detection with Transformers, 2020 (DETR); Zhao et al., Learning Fine-Grained
Bimanual Manipulation with Low-Cost Hardware, 2023 (ACT); He et al., Deep Residual Learning, 2016; Perez et al., FiLM,
2018; Bharadhwaj et al., RoboAgent, 2023 (MT-ACT); Shridhar et al., Generative Image as Action Models, 2024 (GENIMA),
appendices E and F.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from genima.policy.visuomotor.act import Act, ActConfig

TEXT_WIDTH = 512  # of CLIP ViT-B/32
REDUCED = replace(
    ActConfig(), horizon=6, width=32, heads=4, feedforward=48, encoder_layers=2, decoder_layers=3, latent=5,
    backbone_widths=(8, 12, 16, 24),
)  # fmt: skip
SMALL = replace(ActConfig.small(20), dropout=0.1)


class Reference:
    """Forward pass from a dictionary of weights."""

    def __init__(self, config: ActConfig, weights: dict[str, Tensor]) -> None:
        self.config, self.weights = config, weights

    def __call__(
        self,
        images: Tensor,
        joints: Tensor,
        text: Tensor,
        actions: Tensor | None = None,
        padding: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> list[Tensor]:
        """Joints, gripper, and with true ``actions`` the style's mean and logarithm of the variance."""
        c, w = self.config, self.weights
        batch, views = images.shape[:2]
        style, distribution = torch.zeros(batch, c.latent).to(joints), []
        if actions is not None:
            mean, log_variance = self.style(joints, actions, padding)
            assert noise is not None
            style = mean + torch.sqrt(torch.exp(log_variance)) * noise
            distribution = [mean, log_variance]
        # Image tokens view by view, row by row; positions are encoded by two sines of y, two of x and the view.
        tokens, places = [], []
        for view in range(views):
            features = self.resnet(images[:, view], text)
            features = F.conv2d(features, w["image_token.weight"], w["image_token.bias"])
            h, wide = features.shape[2:]
            for y in range(h):
                for x in range(wide):
                    tokens.append(features[:, :, y, x])
                    place = [self.sines(2 * math.pi * (k + 1) / n, c.width // 2) for k, n in ((y, h), (x, wide))]
                    places.append(torch.cat(place).to(joints) + w["view_embedding"][view])
        tokens = [self.linear(n, x) for n, x in zip(HEADS, (style, joints, text), strict=True)] + tokens
        memory = torch.stack(tokens, dim=1)
        position = torch.cat([w["token_position"], torch.stack(places)])
        for i in range(c.encoder_layers):
            memory = self.encoder_layer(f"encoder.{i}.", memory, position)
        x, query = torch.zeros(batch, c.horizon, c.width).to(joints), w["query"]
        for i in range(c.decoder_layers):
            n = f"decoder.{i}."
            q = x + query
            x = self.norm(n + "norms.0", x + self.attention(n + "self_attention", q, q, x))
            q = x + query
            x = self.norm(n + "norms.1", x + self.attention(n + "attention", q, memory + position, memory))
            x = self.norm(n + "norms.2", x + self.feedforward(n + "feedforward", x))
        x = self.norm("norm", x)
        return [self.linear("action_head", x), self.linear("gripper_head", x)[:, :, 0], *distribution]

    def style(self, joints: Tensor, actions: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
        """The CVAE's encoder: [class, joints, actions], of which padded actions are not attended to."""
        c = self.config
        parts = [self.weights["style_class"].expand(len(joints), -1), self.linear("style_proprioception", joints)]
        parts += [self.linear("style_action", actions[:, k]) for k in range(c.horizon)]
        x = torch.stack(parts, dim=1)
        position = torch.stack([self.sines(float(k), c.width) for k in range(c.horizon + 2)]).to(joints)
        ignored = None
        if padding is not None:
            ignored = torch.cat([torch.zeros(len(joints), 2, dtype=torch.bool), padding], dim=1)
        for i in range(c.encoder_layers):
            x = self.encoder_layer(f"style_encoder.{i}.", x, position, ignored)
        out = self.linear("style_head", x[:, 0])
        return out[:, : c.latent], out[:, c.latent :]

    def encoder_layer(self, n: str, x: Tensor, position: Tensor, ignored: Tensor | None = None) -> Tensor:
        q = x + position
        x = self.norm(n + "norms.0", x + self.attention(n + "attention", q, q, x, ignored))
        return self.norm(n + "norms.1", x + self.feedforward(n + "feedforward", x))

    def attention(self, n: str, q: Tensor, k: Tensor, v: Tensor, ignored: Tensor | None = None) -> Tensor:
        """softmax(Q K^T / sqrt(d)) V, head by head."""
        size = self.config.width // self.config.heads
        projections = zip(
            self.weights[n + ".in_proj_weight"].chunk(3), self.weights[n + ".in_proj_bias"].chunk(3), strict=True
        )
        Q, K, V = (x @ W.T + b for x, (W, b) in zip((q, k, v), projections, strict=True))
        heads = []
        for h in range(self.config.heads):
            part = slice(h * size, (h + 1) * size)
            scores = Q[:, :, part] @ K[:, :, part].transpose(1, 2) / math.sqrt(size)
            if ignored is not None:
                scores = scores.masked_fill(ignored[:, None, :], -math.inf)
            share = torch.exp(scores - scores.amax(-1, keepdim=True))
            heads.append(share / share.sum(-1, keepdim=True) @ V[:, :, part])
        return self.linear(n + ".out_proj", torch.cat(heads, dim=-1))

    def feedforward(self, n: str, x: Tensor) -> Tensor:
        return self.linear(n + ".3", self.linear(n + ".0", x).clamp(min=0))

    def linear(self, n: str, x: Tensor) -> Tensor:
        return x @ self.weights[n + ".weight"].T + self.weights[n + ".bias"]

    def norm(self, n: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        x = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
        return x * self.weights[n + ".weight"] + self.weights[n + ".bias"]

    @staticmethod
    def sines(x: float, width: int) -> Tensor:
        pairs = [(math.sin(x / 10000 ** (i / width)), math.cos(x / 10000 ** (i / width))) for i in range(0, width, 2)]
        return torch.tensor([value for pair in pairs for value in pair], dtype=torch.float64)

    # ResNet, with (1 + gamma) x + beta on the residual of every block, or after every stage, but not in the first stage

    def resnet(self, images: Tensor, text: Tensor) -> Tensor:
        x = self.convolution("backbone.embedder.embedder", images, 2, 3).clamp(min=0)
        x = F.max_pool2d(x, 3, 2, 1)
        films = iter(range(sum(self.config.backbone_depths)))
        for stage, depth in enumerate(self.config.backbone_depths):
            for block in range(depth):
                n = f"backbone.stages.{stage}.layers.{block}."
                stride = 2 if stage > 0 and block == 0 else 1
                out = self.convolution(n + "layer.0", x, stride, 1).clamp(min=0)
                out = self.convolution(n + "layer.1", out, 1, 1)
                if stage > 0 and self.config.film == "block":
                    out = self.film(next(films), text, out)
                shortcut = n + "shortcut"
                x = self.convolution(shortcut, x, stride, 0) if shortcut + ".convolution.weight" in self.weights else x
                x = (out + x).clamp(min=0)
            if stage > 0 and self.config.film == "stage":
                x = self.film(next(films), text, x)
        return x

    def film(self, i: int, text: Tensor, x: Tensor) -> Tensor:
        gamma, beta = self.linear(f"backbone.film.{i}", text).chunk(2, dim=1)
        return (1 + gamma)[:, :, None, None] * x + beta[:, :, None, None]

    def convolution(self, n: str, x: Tensor, stride: int, padding: int) -> Tensor:
        """Without a bias, then batch normalisation by the stored statistics."""
        x = F.conv2d(x, self.weights[n + ".convolution.weight"], None, stride, padding)
        mean, variance, weight, bias = (
            self.weights[f"{n}.normalization.{name}"][:, None, None]
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


HEADS = ("latent_token", "proprioception_token", "text_token")


def random_act(config: ActConfig) -> Act:
    """An Act with random weights: no zeros or ones of the initialisation remain."""
    text = CLIPTextConfig(hidden_size=TEXT_WIDTH, num_hidden_layers=0, vocab_size=8, num_attention_heads=8)
    torch.manual_seed(0)
    act = Act(config, CLIPTextModel(text)).requires_grad_(False).eval()
    for name, value in act.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point() and value.dim() == 1:
            value.add_(torch.randn_like(value) * 0.2)
        elif name.startswith("backbone.film"):
            value.normal_(std=0.02)
        elif name in ("query", "view_embedding", "token_position", "style_class"):
            value.normal_()
    return act


# Sines of positions are single precision in Act, whatever its weights.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-6}


def worst_difference(act: Act, batch: int, size: int, dtype: torch.dtype, style: bool, padded: bool) -> float:
    """Largest difference between the outputs of Act and the reference."""
    config = act.config
    act.to(dtype)
    torch.manual_seed(1)
    images = torch.randn(batch, config.views, 3, size, size, dtype=dtype)
    joints, text = torch.randn(batch, config.joints + 1, dtype=dtype), torch.randn(batch, TEXT_WIDTH, dtype=dtype)
    actions = torch.randn(batch, config.horizon, config.joints + 1, dtype=dtype) if style else None
    padding = torch.arange(config.horizon) >= torch.tensor([[3], [config.horizon - 2]])[:batch] if padded else None
    torch.manual_seed(2)
    output = act(images, joints, text, actions, padding)
    torch.manual_seed(2)
    noise = torch.randn(batch, config.latent, dtype=dtype)
    expected = Reference(config, act.state_dict())(images, joints, text, actions, padding, noise)
    found = [output.actions, output.gripper]
    if style:
        assert output.mean is not None and output.log_variance is not None
        found += [output.mean, output.log_variance]
    assert all(a.shape == b.shape for a, b in zip(found, expected, strict=True))
    assert min(x.std() for x in found) > 1e-3  # there is something to compare
    return max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True))


CASES = {"in use": (False, False), "in training": (True, False), "in training, padded": (True, True)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "config", [REDUCED, SMALL, replace(REDUCED, frozen_batch_norm=False), replace(REDUCED, film="stage")]
)
def test_forward_pass_equals_papers_at_reduced_size(config: ActConfig, case: str) -> None:
    act = random_act(config)
    for dtype, tolerance in TOLERANCE.items():
        assert worst_difference(act, 2, 64, dtype, *CASES[case]) < tolerance


@pytest.mark.parametrize("case", ["in use", "in training, padded"])
def test_forward_pass_equals_papers_at_full_size(case: str) -> None:
    assert worst_difference(random_act(ActConfig()), 1, 256, torch.float32, *CASES[case]) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("part", [
    "view_embedding", "token_position", "query", "backbone.film.2.bias", "backbone.film.5.bias",
    "style_class", "decoder.1.norms.1.weight",
    "encoder.1.attention.in_proj_bias", "backbone.stages.3.layers.1.layer.0.normalization.running_mean",
])  # fmt: skip
def test_comparison_detects_change_of_any_weight(part: str) -> None:
    act, other = random_act(REDUCED).double(), random_act(REDUCED).double()
    act.state_dict()[part].view(-1)[0].add_(0.1)
    torch.manual_seed(1)
    inputs = torch.randn(1, 4, 3, 64, 64).double(), torch.randn(1, 8).double(), torch.randn(1, TEXT_WIDTH).double()
    actions, noise = torch.randn(1, 6, 8).double(), torch.zeros(1, 5).double()
    changed, before = (Reference(REDUCED, a.state_dict())(*inputs, actions, None, noise) for a in (act, other))
    assert max((a - b).abs().max().item() for a, b in zip(changed, before, strict=True)) > 1e-7
