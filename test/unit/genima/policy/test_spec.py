"""Tests of checkpoint folders: consistency, and rejection of missing, damaged or unfinished files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genima.errors import GenimaError
from genima.io import paths
from genima.policy import spec as checkpoint
from genima.policy.controller import Controller
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.genima import load_pair
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.targets import Appearance, Sphere

LOADERS: dict[str, Callable[[Path], Any]] = {
    "diffusion_agent": DiffusionAgent.from_pretrained,
    "controller": Controller.from_pretrained,
}
OLDER = {"draws", "action_space"}  # fields that checkpoints of the first version lack: targets, joint positions
WEIGHTS = [
    ("diffusion_agent", "unet/diffusion_pytorch_model.safetensors"),
    ("diffusion_agent", "controlnet/diffusion_pytorch_model.safetensors"),
    ("diffusion_agent", "vae/diffusion_pytorch_model.safetensors"),
    ("diffusion_agent", "text_encoder/model.safetensors"),
    ("controller", "act.safetensors"),
]
ALL = Appearance()
DIFFERENT: dict[str, dict[str, Any]] = {
    "robot": {"robot": "fr3"},
    "joint_names": {"joint_names": tuple(f"fr3_joint{i}" for i in range(1, 8))},
    "views": {"views": ("front", "wrist", "right_shoulder", "left_shoulder")},
    "camera_size": {"camera_size": (640, 480)},
    "view_size": {"view_size": 128},
    "horizon": {"horizon": 10},
    "action_rate": {"action_rate": 30.0},
    "appearance": {"appearance": replace(ALL, stripe_period=0.25)},
    "appearance (radius)": {"appearance": replace(ALL, radii={**ALL.radii, "wrist": 0.04})},
    "appearance (colour)": {"appearance": replace(ALL, spheres=(Sphere("base", 1, (155, 0, 0)), *ALL.spheres[1:]))},
    "appearance (joints)": {"appearance": replace(ALL, spheres=ALL.spheres[:3])},
}


def assert_rejected(load: Callable[[Path], Any], folder: Path, *named: str) -> None:
    with pytest.raises(GenimaError) as caught:
        load(folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for part in (str(folder), *named):
        assert part in message


def edit(folder: Path, **changes: Any) -> None:
    file = folder / checkpoint.FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_spec_round_trip(spec: PolicySpec, tmp_path: Path) -> None:
    others = [changes for field, changes in DIFFERENT.items() if field != "appearance (joints)"]
    for changes in ({}, {"instructions": ("push", "lift")}, *others):
        original = replace(spec, **changes)
        rest = {"steps": 3, "scheduler": "DDIMScheduler", "tiled": True, "conditioning": "unet", "base": "a/b"}
        checkpoint.write(tmp_path, "diffusion agent", original, **rest, base_fingerprint="0")
        read, more = checkpoint.read(tmp_path, "diffusion agent")
        assert read == original
        assert rest.items() <= more.items()


@pytest.mark.parametrize("field", DIFFERENT)
def test_every_field_that_differs_is_reported_with_both_values(spec: PolicySpec, field: str) -> None:
    other = replace(spec, **DIFFERENT[field])
    with pytest.raises(GenimaError) as caught:
        spec.require_same(other, "the agent", "the controller")
    key, message = field.split()[0], str(caught.value)
    assert f"{key}: {spec.to_dict()[key]} against {other.to_dict()[key]}" in message
    assert "the agent" in message and "the controller" in message and "\n" not in message
    assert not [f for f in spec.to_dict() if f != key and f"{f}:" in message]


def test_specs_may_differ_in_prompt_and_instructions(spec: PolicySpec) -> None:
    spec.require_same(PolicySpec.from_dict(json.loads(json.dumps(spec.to_dict()))), "a", "b")
    spec.require_same(replace(spec, prompt_template="{goal}", instructions=("push",)), "a", "b")


def test_another_arm_is_reported(spec: PolicySpec, robot: RobotModel) -> None:
    with pytest.raises(GenimaError, match="fr3_joint7"):
        spec.require_robot(replace(robot, joint_names=(*robot.joint_names[:6], "fr3_joint7")), "the agent")


def test_prompt_has_goal_with_braces(spec: PolicySpec) -> None:
    assert spec.prompt("open {drawer}") == "tiled perspectives of a robot arm executing 'open {drawer}'"


@pytest.mark.parametrize("changes", [
    {"views": ["front", "wrist", "right_shoulder", "left_shoulder"]},
    {"action_rate": 30.0},
])  # fmt: skip
def test_mismatched_agent_and_controller_are_rejected(
    checkpoint_folder: Path, copy_folder: Callable[[Path], Path], changes: dict[str, Any]
) -> None:
    folder = copy_folder(checkpoint_folder)
    agent, controller = load_pair(folder, "cpu")
    assert agent.spec == controller.spec
    edit(folder / "controller", **changes)
    with pytest.raises(GenimaError, match=f"{next(iter(changes))}: .* against "):
        load_pair(folder, "cpu")


@pytest.mark.parametrize("kind", LOADERS)
def test_missing_checkpoint_is_reported(tmp_path: Path, kind: str) -> None:
    assert_rejected(LOADERS[kind], tmp_path / "nowhere", "genima.json is missing")
    assert_rejected(LOADERS[kind], tmp_path, "genima.json is missing")


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"word"', "\x00\x01", '{"schema": 2}'])
def test_corrupt_description_is_rejected(
    checkpoint_folder: Path, copy_folder: Callable[[Path], Path], kind: str, text: str
) -> None:
    folder = copy_folder(checkpoint_folder / kind)
    (folder / checkpoint.FILE).write_text(text)
    assert_rejected(LOADERS[kind], folder, "damaged")
    (folder / checkpoint.FILE).write_bytes(b"\xff\xfe\x00")
    assert_rejected(LOADERS[kind], folder, "damaged")


@pytest.mark.parametrize("kind", LOADERS)
def test_all_description_fields_are_required(
    checkpoint_folder: Path, copy_folder: Callable[[Path], Path], kind: str
) -> None:
    folder = copy_folder(checkpoint_folder / kind)
    whole = (folder / checkpoint.FILE).read_text()
    for key in json.loads(whole).keys() - OLDER:
        (folder / checkpoint.FILE).write_text(json.dumps({k: v for k, v in json.loads(whole).items() if k != key}))
        assert_rejected(LOADERS[kind], folder, key)


@pytest.mark.parametrize("changes", [
    {"views": ["front", "wrist", "front", "left_shoulder"]},
    {"views": []},
    {"views": ["front", "wrist", *"abcde"]},
    {"views": ["front", "wrist", "ceiling", "left_shoulder"]},
    {"views": 4},
    {"horizon": 0},
    {"horizon": "many"},
    {"view_size": -64},
    {"camera_size": [0, 480]},
    {"camera_size": 256},
    {"action_rate": 0.0},
    {"appearance": {}},
    {"appearance": None},
    {"prompt_template": "{joint}"},
    {"prompt_template": None},
])  # fmt: skip
def test_invalid_fields_are_rejected(
    checkpoint_folder: Path, copy_folder: Callable[[Path], Path], changes: dict[str, Any]
) -> None:
    for kind, load in LOADERS.items():
        folder = copy_folder(checkpoint_folder / kind)
        edit(folder, **changes)
        assert_rejected(load, folder)


@pytest.mark.parametrize("kind", LOADERS)
def test_other_schema_kind_and_robot_are_rejected(
    checkpoint_folder: Path, copy_folder: Callable[[Path], Path], kind: str
) -> None:
    folder = copy_folder(checkpoint_folder / kind)
    other = next(loader for name, loader in LOADERS.items() if name != kind)
    assert_rejected(other, folder, "is a checkpoint of the")
    edit(folder, schema=99)
    assert_rejected(LOADERS[kind], folder, "99")
    edit(folder, schema=checkpoint.SCHEMA, joint_names=[f"fr3_joint{i}" for i in range(1, 8)])
    with pytest.raises(GenimaError, match="fr3_joint1"):
        LOADERS[kind](folder)


def test_controller_that_differs_from_description_is_rejected(
    checkpoint_folder: Path, copy_folder: Callable[[Path], Path]
) -> None:
    folder = copy_folder(checkpoint_folder / "controller")
    edit(folder, horizon=10)
    assert_rejected(Controller.from_pretrained, folder, "20 actions", "10")
    edit(folder, horizon=20, joint_deviation=[0.05] * 6)
    assert_rejected(Controller.from_pretrained, folder, "statistics")
    edit(folder, joint_deviation=[0.05] * 6 + [0.0])
    assert_rejected(Controller.from_pretrained, folder, "joint_deviation.6")


@pytest.mark.parametrize(("kind", "weights"), WEIGHTS)
def test_truncated_missing_or_incomplete_weights_are_rejected(
    checkpoint_folder: Path, copy_folder: Callable[[Path], Path], kind: str, weights: str
) -> None:
    folder = copy_folder(checkpoint_folder / kind)
    file = folder / weights
    whole = file.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:4], b""):
        file.write_bytes(part)
        assert_rejected(LOADERS[kind], folder)
    file.write_bytes(whole)
    tensors = load_file(file)
    lost = max(tensors, key=lambda name: tensors[name].size)
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, file, {"format": "pt"})
    assert_rejected(LOADERS[kind], folder)
    save_file({**tensors, lost: np.zeros(3, np.float32)}, file, {"format": "pt"})
    assert_rejected(LOADERS[kind], folder)
    file.unlink()
    assert_rejected(LOADERS[kind], folder)


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("part", ["tokenizer", "text_encoder"])
def test_missing_parts_are_rejected(
    checkpoint_folder: Path, copy_folder: Callable[[Path], Path], kind: str, part: str
) -> None:
    folder = copy_folder(checkpoint_folder / kind)
    for file in (folder / part).iterdir():
        file.unlink()
    assert_rejected(LOADERS[kind], folder)


@pytest.mark.parametrize("kind", LOADERS)
def test_interrupted_save_leaves_no_loadable_checkpoint(
    checkpoint_folder: Path, copy_folder: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = copy_folder(checkpoint_folder / kind)
    model = LOADERS[kind](folder)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    tokenizer = model.tokenizer if isinstance(model, Controller) else model.prompts.tokenizers[0]
    monkeypatch.setattr(tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        model.save_pretrained(folder)
    assert_rejected(LOADERS[kind], folder, "genima.json is missing")


@pytest.mark.parametrize("kind", LOADERS)
def test_nothing_in_checkpoint_is_pickled(checkpoint_folder: Path, kind: str) -> None:
    suffixes = {file.suffix for file in (checkpoint_folder / kind).rglob("*") if file.is_file()}
    assert suffixes <= {".json", ".safetensors"}


def test_bundled_models_have_no_local_paths() -> None:
    for file in paths.shared("models", "tiny").rglob("*.json"):
        assert "_name_or_path" not in file.read_text(), file
