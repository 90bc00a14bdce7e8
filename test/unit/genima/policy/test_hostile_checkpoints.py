"""Tests of hostile checkpoints: nothing is executed or imported, and every fault is reported in one line."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import AutoencoderTiny, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from mutation import mutated_bytes, mutated_data, require_clean
from random_base import random_base
from safetensors.numpy import load_file, save_file
from torch import nn
from transformers import ResNetConfig, ResNetModel

from genima.errors import GenimaError
from genima.inspection.checkpoints import inspect_checkpoint
from genima.io import model_files
from genima.policy import spec as checkpoint
from genima.policy.controller import Controller
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline
from genima.policy.diffusion_agent.execution_config import ExecutionConfig
from genima.policy.diffusion_agent.patch_autoencoder import PatchCodec
from genima.policy.diffusion_agent.pretrained_base import load_base
from genima.policy.diffusion_agent.prompts import PromptEncoder
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.small_text_encoder import small_text_encoder, small_tokenizer
from genima.policy.spec import CONTROLLER, DIFFUSION_AGENT, PolicySpec
from genima.policy.visuomotor.act import Act, ActConfig
from genima.policy.visuomotor.action_space import JointStatistics
from genima.policy.visuomotor.backbone import FilmResNet
from genima.policy.visuomotor.pretrained import load_clip, load_imagenet
from genima.training import loop
from genima.training.options import LoopOptions
from genima.types import DrawnTarget, Joints, Observation

GOAL = "push down the maroon button"
VIEW_SIZE = 16


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, spec: PolicySpec) -> Path:
    """A diffusion agent and a controller of a few thousand weights each."""
    torch.manual_seed(0)
    folder, spec = tmp_path_factory.mktemp("pair"), replace(spec, view_size=VIEW_SIZE)
    tokenizer = small_tokenizer([GOAL])
    unet = UNet2DConditionModel(
        sample_size=4, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    controlnet = ControlNetModel.from_unet(unet, conditioning_channels=4, conditioning_embedding_out_channels=(8,))
    prompts = PromptEncoder([tokenizer], [small_text_encoder(tokenizer, 16)])
    scheduler = DDIMScheduler(prediction_type="sample", clip_sample=False, timestep_spacing="trailing")
    codec = PatchCodec(latent_channels=4)
    codec.fit(torch.rand(4, 3, 32, 32) * 2 - 1)
    DiffusionAgent(spec, unet, controlnet, codec, prompts, scheduler, 1).save_pretrained(folder / "diffusion_agent")
    sizes = replace(
        ActConfig.small(spec.horizon), width=16, heads=2, feedforward=16, encoder_layers=1, decoder_layers=1,
        backbone_widths=(8, 8), backbone_depths=(1, 1),
    )  # fmt: skip
    statistics = JointStatistics(np.zeros(7), np.ones(7))
    act = Act(sizes, small_text_encoder(tokenizer, 16))
    Controller(spec, act, tokenizer, statistics).save_pretrained(folder / "controller")
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pre-trained parts in folders: a Stable Diffusion, a CLIP, a ResNet, a tiny decoder."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    random_base("tiny").save_pretrained(folder / "base")  # type: ignore[arg-type]
    tokenizer = small_tokenizer([GOAL])
    small_text_encoder(tokenizer, 16).save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
    ResNetModel(resnet).save_pretrained(folder / "resnet")
    channels = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    AutoencoderTiny(**channels, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4).save_pretrained(
        folder / "decoder"
    )
    return folder


def load_resnet(folder: Path) -> None:
    sizes = replace(ActConfig.small(20), backbone_widths=(8, 8), backbone_depths=(1, 1))
    load_imagenet(FilmResNet(sizes, 16), str(folder))


def load_decoder(folder: Path) -> None:
    agent = DiffusionAgent.from_pretrained(folder.parent / "diffusion_agent")
    engine = CompiledPipeline(agent, SamplingOptions(tiny_decoder=str(folder)), [ExecutionConfig()])
    engine.generate_tiles(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), [GOAL], torch.Generator())


LOADERS: dict[str, Callable[[Path], Any]] = {
    "diffusion_agent": DiffusionAgent.from_pretrained,
    "controller": Controller.from_pretrained,
    "base": lambda folder: load_base(str(folder)),
    "clip": lambda folder: load_clip(str(folder)),
    "resnet": load_resnet,
    "decoder": load_decoder,
}


@pytest.fixture
def folders(pair: Path, parts: Path, tmp_path: Path) -> Path:
    """Copies of all folders, for modification."""
    for source in (pair, parts):
        shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def marker(folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """File that foreign code would write; an importable module ``planted`` does so."""
    marker = folders / "executed"
    code = f"open({str(marker)!r}, 'w')\nclass Planted: from_config = from_pretrained = print\n"
    for folder in [folders, *(path for path in folders.rglob("*") if path.is_dir())]:
        (folder / "planted.py").write_text(code)
    monkeypatch.syspath_prepend(str(folders))
    monkeypatch.chdir(folders)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks whether to run code"))
    yield marker
    assert not marker.exists()


class Payload:
    """Object whose unpickling writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def assert_rejected(load: Callable[[Path], Any], folder: Path) -> str:
    with pytest.raises(GenimaError) as caught:
        load(folder)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1000, line
    return line


AUTO_MAP = {name: "planted.Planted" for name in ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoImageProcessor")}


@pytest.mark.parametrize("kind", LOADERS)
def test_configuration_cannot_execute_code(kind: str, folders: Path, marker: Path) -> None:
    LOADERS[kind](folders / kind)
    configs = [path for path in (folders / kind).rglob("*config.json") if path.parent.name != "feature_extractor"]
    assert configs
    tokenizer = {"auto_map": {"AutoTokenizer": ["planted.Planted", None]}, "tokenizer_class": "Planted"}
    for config in configs:
        whole = config.read_text()
        changes: list[dict[str, Any]] = [
            {"auto_map": AUTO_MAP}, {"attn_implementation": "planted/kernels"}, {"quantization_config": {"a": 1}},
            tokenizer if "tokenizer" in config.name else {"_class_name": ["planted", "Planted"]},
        ]  # fmt: skip
        if "_class_name" in json.loads(whole):
            changes += [{"_class_name": name} for name in ("Planted", "planted.Planted", "FlaxDDIMScheduler")]
        for change in changes:
            edit(config, **change)
            if change != {"_class_name": ["planted", "Planted"]}:  # transformers' own have no such key
                assert_rejected(LOADERS[kind], folders / kind)
            else:
                require_clean(lambda: LOADERS[kind](folders / kind), change)
            config.write_text(whole)


@pytest.mark.parametrize(
    "name",
    ["planted", "planted.Planted", "os", "StableDiffusionPipeline", "__loader__", "utils", "FlaxDDIMScheduler", 5],
)
def test_unknown_schedulers_are_rejected(folders: Path, marker: Path, name: Any) -> None:
    folder = folders / "diffusion_agent"
    edit(folder / checkpoint.FILE, scheduler=name)
    assert "scheduler" in assert_rejected(DiffusionAgent.from_pretrained, folder)


@pytest.mark.parametrize("change", [
    {"unet": ["planted", "Planted"]}, {"scheduler": ["planted", "Planted"]}, {"more": ["planted", "Planted"]},
    {"_class_name": ["planted", "Planted"]}, {"_class_name": "Planted"}, {"_class_name": "FluxPipeline"},
    {"vae": ["subprocess", "Popen"]}, {"tokenizer": ["transformers", "AutoTokenizer"]}, {"unet": "planted"},
    {"safety_checker": ["planted", "Planted"]}, {"text_encoder": [["transformers"], {}]},
])  # fmt: skip
def test_unknown_classes_in_model_index_are_rejected(folders: Path, marker: Path, change: dict[str, Any]) -> None:
    edit(folders / "base/model_index.json", **change)
    assert_rejected(LOADERS["base"], folders / "base")


def test_index_on_hub_is_checked_before_its_parts_are_loaded(
    folders: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folders / "base/model_index.json", unet=["planted", "Planted"])
    index = folders / "base/model_index.json"
    monkeypatch.setattr("genima.policy.diffusion_agent.pretrained_base.hf_hub_download", lambda *_, **__: str(index))
    monkeypatch.setattr("genima.policy.diffusion_agent.pretrained_base.DiffusionPipeline", None)
    assert "planted" in assert_rejected(lambda _: load_base("some/model"), folders)


def test_configurations_of_released_models_pass(tmp_path: Path) -> None:
    """Additional harmless fields of other checkpoints: no code, no large sizes."""
    configs: dict[str, dict[str, Any]] = {
        "model_index.json": {
            "_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, "image_encoder": [None, None],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "feature_extractor": ["transformers", "CLIPFeatureExtractor"], "scheduler": ["diffusers", "PNDMScheduler"],
        },
        "resnet/config.json": {"label2id": {"record player": 754}, "id2label": {"754": "record player"}},
        "text_encoder/config.json": {"num_hidden_layers": 32, "vocab_size": 49408, "layer_norm_eps": 1e-5},
        "unet/config.json": {
            "_class_name": "UNet2DConditionModel", "attention_head_dim": [5, 10, 20, 20], "sample_size": 128,
            "transformer_layers_per_block": [1, 2, 10], "projection_class_embeddings_input_dim": 2816,
        },
        "tokenizer/tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", "model_max_length": 10**30},
        "scheduler/scheduler_config.json": {"_class_name": "PNDMScheduler", "trained_betas": [0.1] * 1000},
    }  # fmt: skip
    for name, config in configs.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(config))
    model_files.require_safe(tmp_path, "these")


@pytest.mark.parametrize("kind", LOADERS)
def test_pickled_weights_are_rejected(kind: str, folders: Path, marker: Path) -> None:
    weights = list((folders / kind).rglob("*.safetensors"))
    assert weights
    for file in weights:
        whole = file.read_bytes()
        file.unlink()
        pickled = [file.with_suffix(suffix) for suffix in (".bin", ".pt", ".pkl", ".ckpt")]
        pickled.append(file.with_name("pytorch_model.bin"))
        for path in pickled:
            path.write_bytes(pickle.dumps(Payload(marker)))
        assert_rejected(LOADERS[kind], folders / kind)
        file.write_bytes(pickle.dumps(Payload(marker)))  # by the right name
        assert_rejected(LOADERS[kind], folders / kind)
        file.write_bytes(whole)


def test_pickles_in_training_state_are_not_executed(folders: Path, marker: Path) -> None:
    options = LoopOptions(
        steps=2, batch_size=1, learning_rate=1e-3, save_every=1, workers=0, ema=0.9, mixed_precision="no"
    )
    numbers: Any = [torch.ones(2)] * 3

    class Data(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, visit: Any) -> torch.Tensor:
            return numbers[visit.moment]

    class Model(nn.Linear):
        def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"loss": super().forward(batch).square().mean()}

    def train(steps: int) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        saved: Callable[[Path], None] = lambda folder: None  # noqa: E731
        loop.run(
            Model(2, 1), Data(), torch.stack, replace(options, steps=steps), folders / "run", saved,
            lambda *_: {"error": 1.0}, "error",
        )  # fmt: skip

    train(2)
    state = folders / "run/last/training_state"
    train(2)  # as it is, it is resumed
    names = sorted(path.name for path in state.iterdir() if path.suffix != ".json")
    assert {"optimizer.bin", "state_0.bin", "state_1.bin", "random_states_0.pkl"} <= set(names)
    for name in names:
        whole = (state / name).read_bytes()
        for protocol in (0, 2, 5):
            (state / name).write_bytes(pickle.dumps(Payload(marker), protocol))
            require_clean(lambda: train(2), name)
        torch.save(Payload(marker), state / name)
        accepted = require_clean(lambda: train(2), name)
        assert not accepted or name.startswith("random_states"), name  # set again in every step
        (state / name).write_bytes(whole)
    torch.save(Payload(marker), state / "custom_checkpoint_0.pkl")
    assert not require_clean(lambda: train(2), "custom_checkpoint_0.pkl")
    (state / "custom_checkpoint_0.pkl").unlink()
    (state / "model.safetensors").unlink()
    torch.save(Payload(marker), state / "pytorch_model.bin")
    assert not require_clean(lambda: train(2), "pytorch_model.bin")
    AcceleratorState._reset_state(reset_partial_state=True)


# ------------------------------------------------------------------------------------------------------- mutations


@pytest.mark.parametrize("kind", [DIFFUSION_AGENT, CONTROLLER])
def test_mutated_descriptions_are_one_line_or_work(kind: str, folders: Path) -> None:
    folder = folders / checkpoint.FOLDERS[kind]
    file = folder / checkpoint.FILE
    valid, loaded = json.loads(file.read_text()), 0
    for i, data in enumerate(mutated_data(valid, 1000)):
        file.write_text(json.dumps(data))
        if require_clean(lambda: checkpoint.read(folder, kind), data) and loaded < 12:
            loaded += require_clean(lambda: use(folder), data)
        if i % 100 == 0:
            require_clean(lambda: inspect_checkpoint(folder), data)
    assert loaded > 5
    for raw in mutated_bytes(json.dumps(valid).encode(), 500):
        file.write_bytes(raw)
        require_clean(lambda: checkpoint.read(folder, kind), raw)


def use(folder: Path) -> None:
    """Load a checkpoint and run it once."""
    if folder.name == "controller":
        controller = Controller.from_pretrained(folder)
        spec, side = controller.spec, 2 * controller.spec.view_size
        if side > 256:
            return
        joints = Joints(0.0, np.zeros(len(spec.joint_names)), 1.0)
        controller.predict_chunk(DrawnTarget(0.0, GOAL, spec.views, np.zeros((side, side, 3), np.uint8)), joints)
        return
    agent = DiffusionAgent.from_pretrained(folder)
    width, height = agent.camera_size
    if max(width, height, agent.spec.view_size) > 1000 or agent.steps > 10:
        return
    images = {view: np.zeros((height, width, 3), np.uint8) for view in agent.camera_views}
    agent.generate(Observation(0.0, images, Joints(0.0, np.zeros(7), 1.0), GOAL), 0)


CONFIGS = [
    "diffusion_agent/unet/config.json", "diffusion_agent/controlnet/config.json", "diffusion_agent/vae/config.json",
    "diffusion_agent/text_encoder/config.json", "diffusion_agent/scheduler/scheduler_config.json",
    "diffusion_agent/tokenizer/tokenizer_config.json", "controller/text_encoder/config.json",
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
def test_mutated_configurations_are_one_line_or_work(config: str, folders: Path) -> None:
    file, folder = folders / config, folders / config.split("/")[0]
    use(folder)
    for data in mutated_data(json.loads(file.read_text()), 60, seed=100):
        file.write_text(json.dumps(data))
        require_clean(lambda: use(folder), data)


@pytest.mark.parametrize("file", ["tokenizer/tokenizer.json", "unet/diffusion_pytorch_model.safetensors"])
def test_mutated_files_are_one_line_or_work(file: str, folders: Path) -> None:
    folder = folders / "diffusion_agent"
    whole = (folder / file).read_bytes()
    for data in mutated_bytes(whole, 60, seed=100):
        (folder / file).write_bytes(data)
        require_clean(lambda: use(folder), len(data))


def header(weights: bytes) -> tuple[dict[str, Any], bytes]:
    (size,) = struct.unpack("<Q", weights[:8])
    return json.loads(weights[8 : 8 + size]), weights[8 + size :]


def with_header(data: Any, content: bytes) -> bytes:
    text = json.dumps(data).encode()
    return struct.pack("<Q", len(text)) + text + content


def test_strange_headers_of_weights_are_one_line(folders: Path) -> None:
    folder = folders / "controller"
    file = folder / "act.safetensors"
    whole = file.read_bytes()
    data, content = header(whole)
    for changed in mutated_data(data, 150, seed=3):
        file.write_bytes(with_header(changed, content))
        require_clean(lambda: use(folder), changed)
    for raw in (struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 10**9) + b"{", b"[" * 100_000, whole[:8]):
        file.write_bytes(raw)
        assert_rejected(Controller.from_pretrained, folder)


def test_invalid_weights_are_rejected(folders: Path) -> None:
    for kind, weights in (("controller", "act"), ("diffusion_agent", "unet/diffusion_pytorch_model")):
        file = folders / kind / f"{weights}.safetensors"
        tensors = load_file(file)
        save_file({name: x.astype(np.int8) for name, x in tensors.items()}, file, {"format": "pt"})
        assert "weights of type I8" in assert_rejected(LOADERS[kind], folders / kind)
        broken = {name: np.full_like(x, np.nan) if x.dtype == np.float32 else x for name, x in tensors.items()}
        save_file(broken, file, {"format": "pt"})
        assert "not finite" in assert_rejected(use, folders / kind)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        ("diffusion_agent/unet/config.json", {"block_out_channels": [10**6, 10**6]}),
        ("diffusion_agent/unet/config.json", {"layers_per_block": 10**9}),
        ("diffusion_agent/vae/config.json", {"latent_channels": 10**6}),
        ("diffusion_agent/text_encoder/config.json", {"vocab_size": 10**6, "hidden_size": 65536}),
        ("diffusion_agent/scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
        ("controller/text_encoder/config.json", {"vocab_size": 10**6, "hidden_size": 4096}),
        ("controller/text_encoder/config.json", {"num_hidden_layers": 10**6}),
        ("controller/genima.json", {"act": {**vars(ActConfig()), "width": 10**6, "heads": 1}}),
        ("base/unet/config.json", {"block_out_channels": [10**6, 10**6]}),
        ("base/text_encoder/config.json", {"vocab_size": 10**6, "hidden_size": 65536}),
        ("clip/config.json", {"vocab_size": 10**6, "hidden_size": 65536}),
        ("resnet/config.json", {"hidden_sizes": [10**6, 10**6]}),
        ("decoder/config.json", {"decoder_block_out_channels": [10**5] * 4}),
    ],
)
def test_impossible_sizes_allocate_no_memory(folders: Path, config: str, changes: dict[str, Any]) -> None:
    edit(folders / config, **changes)
    limit, kind = 2 << 30, config.split("/")[0]
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_rejected(LOADERS[kind], folders / kind)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < limit
