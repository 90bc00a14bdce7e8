"""Inspection of checkpoints, pairs and trainings; no network is built, no weights are loaded."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import parse_local_safetensors_file_metadata
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera import VIRTUAL
from genima.errors import GenimaError
from genima.inspection.report import Report, Section, spec_rows
from genima.inspection.sheet import add_caption, grid
from genima.io.files import read_bytes, read_json
from genima.io.images import decode_colour
from genima.policy import spec as checkpoint
from genima.policy.spec import BEST, DIFFUSION_AGENT, FILE, FOLDERS, LAST, VIDEO_MODEL, PolicySpec
from genima.robot.model import RobotModel
from genima.targets import draw_targets
from genima.training import PROGRESS, STATE, TARGET_SHEET
from genima.training.log import Progress, read_metrics
from genima.types import Image

_SHOWN = 256  # px, side of a view on a sheet of spheres


def is_pair(folder: Path) -> bool:
    """Return whether a folder holds a diffusion agent and a controller."""
    return any((folder / name).is_dir() for name in FOLDERS.values())


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a checkpoint, or a training with one."""
    return (checkpoint.resolve(folder) / FILE).is_file()


def inspect_checkpoint(folder: Path) -> Report:
    """Inspect a single checkpoint, or a training's best one.

    Raises:
        GenimaError: when something in it is missing or damaged.
    """
    kind = checkpoint.read_kind(checkpoint.resolve(folder))
    spec, section = _checkpoint(folder, kind)
    sections = [Section(section.title, {**spec_rows(spec), **section.rows})]
    if (video_model := checkpoint.resolve(folder) / VIDEO_MODEL).is_dir():
        sections.append(_checkpoint(video_model, DIFFUSION_AGENT)[1])
    return _with_picture(sections, spec, _pictures(folder))


def inspect_pair(root: Path) -> Report:
    """Inspect a diffusion agent and a controller, and whether they match.

    Raises:
        GenimaError: when both are missing, or something in one is damaged.
    """
    folders = {kind: root / name for kind, name in FOLDERS.items()}
    there = [kind for kind, folder in folders.items() if is_checkpoint(folder)]
    if not there:
        raise GenimaError(f"neither {' nor '.join(map(str, folders.values()))} holds a checkpoint yet")
    found = {kind: _checkpoint(folders[kind], kind) for kind in there}
    specs = [spec for spec, _ in found.values()]
    if len(specs) < 2:
        title = f"{root}: a {there[0]}; the other half has no checkpoint yet"
    else:
        title = f"{root}: a diffusion agent and a controller that fit together"
        try:
            specs[0].require_same(specs[1], f"the {there[0]}", f"the {there[1]}")
        except GenimaError as error:
            title = f"{root}: {error}"
    if all(spec == specs[0] for spec in specs):
        sections = [Section(title, spec_rows(specs[0])), *(section for _, section in found.values())]
    else:
        sections = [Section(title, {})]
        sections += [Section(own.title, {**spec_rows(spec), **own.rows}) for spec, own in found.values()]
    return _with_picture(sections, specs[0], [image for kind in there for image in _pictures(folders[kind])])


# ------------------------------------------------------------------------------------------------------------- text


def _checkpoint(folder: Path, kind: str) -> tuple[PolicySpec, Section]:
    chosen = checkpoint.resolve(folder)
    spec, about = checkpoint.read(chosen, kind)
    with checkpoint.translate_load_errors(chosen):
        rows = _diffusion_rows(chosen, about) if kind == DIFFUSION_AGENT else _controller_rows(chosen, about)
        rows["format"] = f"safetensors, schema {about['schema']}"
        if chosen != folder:
            rows |= _training_rows(folder)
    return spec, Section(f"{chosen}: a {kind}", rows)


def _diffusion_rows(folder: Path, about: Mapping[str, Any]) -> dict[str, str]:
    base, has_controlnet, steps = about["base"], about["conditioning"] == "controlnet", about["steps"]
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json", "scheduler configuration")
    tiled = "the tile as one picture" if about["tiled"] else "each view by itself"
    parts = ["controlnet"] if has_controlnet else ["unet"]
    if not base:
        parts = list(dict.fromkeys(["unet", *parts, "vae", "text_encoder"]))
    return {
        "base": f"{base} (weights {about['base_fingerprint']}), not stored here" if base else "none, from scratch",
        "conditioned": "by a ControlNet" if has_controlnet else "through the UNet's own input",
        "draws": f"{about.get('draws', 'targets')}, {tiled}, in {steps} diffusion step{'s' if steps > 1 else ''}",
        "scheduler": f"{about['scheduler']}, predicts {scheduler['prediction_type']}, timesteps "
        f"{scheduler['timestep_spacing']}",
        "text encoder": "the base model's" if base else _text_encoder(folder),
        "parameters": _parameters(folder, parts),
    }


def _controller_rows(folder: Path, about: Mapping[str, Any]) -> dict[str, str]:
    act, named = about.get("act"), about["text_encoder"]
    sizes: Mapping[str, Any] = act or about.get("diffusion") or about["video"]
    means, deviations = np.degrees(about["joint_mean"]), np.degrees(about["joint_deviation"])
    joints = zip(means, deviations, strict=True)
    parts = ["transformer" if act else "unet", *([] if named else ["text_encoder"])]
    if act or about.get("diffusion"):
        parts.insert(0, "backbone")
        source = f"ResNet stages of width {', '.join(str(width) for width in sizes['backbone_widths'])}"
    else:
        source = f"features of the video model's block {sizes['block']} at time step {sizes['timestep']}"
    if act:
        network = (
            f"ACT: {source}; {act['encoder_layers']} + {act['decoder_layers']} transformer layers of width "
            f"{act['width']} with {act['heads']} heads; latent of {act['latent']}"
        )
    else:
        widths = ", ".join(str(width) for width in sizes["unet_widths"])
        network = f"diffusion policy trained with {sizes['objective']}: {source}; UNet levels of width {widths}"
    return {
        "network": network,
        "chunk": f"{sizes['horizon']} actions of {sizes['joints']} joints and the gripper, from {sizes['views']} views",
        "normalised": f"joints in deg: {', '.join(f'{mean:.1f}±{deviation:.1f}' for mean, deviation in joints)}",
        "text encoder": f"{named} (weights {about['text_encoder_fingerprint']}), not stored here"
        if named else _text_encoder(folder),
        "parameters": _parameters(folder, parts),
    }  # fmt: skip


def _text_encoder(folder: Path) -> str:
    config = read_json(folder / "text_encoder" / "config.json", "model configuration")
    layers, width, tokens = config["num_hidden_layers"], config["hidden_size"], config["vocab_size"]
    return f"its own: CLIP of {layers} layers of width {width}, {tokens} different tokens"


def _parameters(folder: Path, parts: list[str]) -> str:
    """Return numbers and bytes by part, from the files' headers; statistics of batch norms count as parameters."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    sizes: dict[str, int] = defaultdict(int)
    for file in folder.rglob("*.safetensors"):
        if {STATE, VIDEO_MODEL} & set(file.relative_to(folder).parts):
            continue
        for name, tensor in parse_local_safetensors_file_metadata(file).tensors.items():
            part = file.parent.name if file.parent != folder else _network_part(file, name)
            if "F" in tensor.dtype:  # not how many batches a batch norm has seen
                counts[part][tensor.dtype] += tensor.parameter_count
                sizes[part] += tensor.data_offsets[1] - tensor.data_offsets[0]
    if missing := [part for part in parts if part not in counts]:
        raise GenimaError(f"checkpoint {folder} is incomplete: it has no weights of {', '.join(missing)}")
    totals = {part: sum(by_type.values()) for part, by_type in counts.items()}
    lines = [_format_amount(part, totals[part], sizes[part], counts[part]) for part in parts]
    return "\n".join([*lines, _format_amount("all", sum(totals.values()), sum(sizes.values()), {})])


def _network_part(file: Path, name: str) -> str:
    """Return the part of a chunk network that a weight belongs to."""
    first = name.split(".")[0]
    if first in ("backbone", "text_encoder"):
        return first
    return "transformer" if file.stem == "act" else "unet"


def _format_amount(name: str, count: int, size: int, types: Mapping[str, int]) -> str:
    return f"{name:<13}{count / 1e6:8.2f} M {size / 1e6:9.2f} MB  {', '.join(types)}".rstrip()


def _training_rows(folder: Path) -> dict[str, str]:
    metrics, rows = read_metrics(folder), {}
    for name in (BEST, LAST):
        step = re.fullmatch(r"step-(\d+)", (folder / name).resolve().name)  # none where links were copied as folders
        errors = metrics.get(int(step[1]), {}) if step else {}
        text = ", ".join(f"{key} {value:.3g}" for key, value in errors.items()) or "no validation errors are noted"
        rows[f"{name} step"] = f"{int(step[1]) if step else 'unknown'}: {text}"
    if rows["last step"] == rows["best step"]:
        rows["last step"] = "the best one"
    if not (folder / LAST / STATE / PROGRESS).is_file():
        rows["training"] = "its state is not here: it cannot be resumed"
        return rows
    now = Progress.load(folder / LAST)
    rows["training"] = (
        f"{now.step} of {now.about['steps']} steps done, in batches of {now.about['batch_size']} from "
        f"{now.about['moments']} moments; learning rate {now.about['learning_rate']:g}; can be resumed"
    )
    return rows


# ---------------------------------------------------------------------------------------------------------- pictures


def _with_picture(sections: list[Section], spec: PolicySpec, pictures: list[Image]) -> Report:
    if pictures:
        return Report(sections, grid(pictures, 1))
    try:
        return Report(sections, sphere_sheet(spec))
    except GenimaError as error:  # e.g. an unknown robot: only the picture is missing
        return Report([*sections, Section(f"no picture: {error}", {})], None)


def _pictures(folder: Path) -> list[Image]:
    """Return the target sheet of a checkpoint and the validation curves of a training, where they exist."""
    pictures = []
    sheet = checkpoint.resolve(folder) / TARGET_SHEET
    if sheet.is_file():
        image = decode_colour(read_bytes(sheet, "target sheet"), f"target sheet {sheet}")
        text = f"{sheet}: held-out observations, as drawn, as they should be"
        pictures.append(add_caption(image, text))
    if metrics := read_metrics(folder):
        pictures.append(add_caption(_curves(metrics), f"{folder}: validation"))
    return pictures


def _curves(metrics: Mapping[int, Mapping[str, float]]) -> Image:
    """Plot errors over steps, one diagram per unit (``deg``, ``deg/joint``)."""
    names = dict.fromkeys(name for errors in metrics.values() for name in errors)
    units = dict.fromkeys(name.split("/")[0] for name in names)
    figure = Figure(figsize=(4 * len(units), 3.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, unit in zip(figure.subplots(1, len(units), squeeze=False)[0], units, strict=True):
        for name in (name for name in names if name.split("/")[0] == unit):
            values = [errors.get(name, np.nan) for errors in metrics.values()]
            axes.plot(list(metrics), values, marker=".", label=name)
        axes.set(xlabel="step", title=unit)
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def sphere_sheet(spec: PolicySpec) -> Image:
    """Return the spheres of the home pose in every view on grey, with an open and a closed gripper.

    Raises:
        GenimaError: for a robot that is not known here, and for views that are not the simulator's.
    """
    robot = RobotModel.load(spec.robot)
    cameras = dict(load_cameras("sim"))
    if VIRTUAL in spec.views:
        from genima.cameras.virtual_view import virtual_camera  # imported here: loads the simulator

        cameras[VIRTUAL] = virtual_camera()
    if unknown := [view for view in spec.views if view not in cameras]:
        raise GenimaError(f"the simulator has no view {', '.join(unknown)} to draw spheres in")
    grey, tiles = np.full((_SHOWN, _SHOWN, 3), 127, np.uint8), []
    for is_open, text in ((True, "home, gripper to be open"), (False, "home, gripper to be closed")):
        views = []
        for view in spec.views:
            camera = cameras[view].crop_square(_SHOWN)
            drawn = draw_targets(grey, camera, robot, spec.appearance, robot.home, is_open, robot.home)
            views.append(add_caption(drawn, view))
        tiles.append(add_caption(grid(views), text))
    return grid(tiles)
