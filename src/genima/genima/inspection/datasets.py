"""Inspection of datasets: drawn targets, demos, LeRobot datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from genima.cameras.tiling import crop_square
from genima.data.datasets.render import MANIFEST, sha256
from genima.data.datasets.target_dataset import read_manifest
from genima.data.episodes import Episode, EpisodeError, find_episodes
from genima.data.episodes.cameras import EpisodeCameras
from genima.data.lerobot import layout
from genima.data.lerobot.description import EpisodeEntry, Info, read_episodes, read_info, read_tasks
from genima.data.lerobot.reader import decode_table_image
from genima.data.lerobot.video import frames_at
from genima.errors import GenimaError
from genima.inspection.report import Report, Section, format_list, format_range, spec_rows
from genima.inspection.sheet import add_caption, grid
from genima.io.files import shorten
from genima.io.images import decode_rgba
from genima.io.tables import numbers, read_columns, stream_column, stream_rows, texts
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.targets import composite
from genima.types import Image

_DEMOS, _MOMENTS = 3, 5  # shown on a sheet
_SHOWN = 160  # px, side of a view on a sheet


def is_target_dataset(folder: Path) -> bool:
    """Return whether a folder is an output of ``./genima render``, finished or not."""
    return (folder / MANIFEST).is_file() or any(folder.glob("shard-*.parquet"))


def is_lerobot_dataset(folder: Path) -> bool:
    """Return whether a folder is a LeRobotDataset of any version."""
    return (folder / layout.INFO).is_file()


# -------------------------------------------------------------------------------------------------- drawn targets


def inspect_targets(folder: Path, verify: bool) -> Report:
    """Inspect a dataset of drawn targets; ``verify``: compare every shard with its checksum.

    Raises:
        GenimaError: when the manifest or a shard is missing or damaged.
    """
    manifest = read_manifest(folder)
    spec = PolicySpec.from_dict(manifest["spec"])
    files, table = _read_shards(folder, manifest["shards"], verify)
    if not len(table):
        raise GenimaError(f"{folder}: no moments in its shards; render the dataset again")
    episodes, instructions = (np.array(texts(table, name, str(folder))) for name in ("episode", "instruction"))
    names, first, lengths = np.unique(episodes, return_index=True, return_counts=True)
    degrees = np.degrees(numbers(table, "positions", str(folder), len(spec.joint_names)))
    gripper, target_open = (numbers(table, name, str(folder)) for name in ("gripper", "target_open"))
    sizes = [file.stat().st_size / 1e6 for file in files]
    seconds = lengths / spec.action_rate
    rows = {
        "moments": f"{len(episodes)} of {len(names)} demos; {format_range(lengths)} each, "
        f"{format_range(seconds, 1)} s; {seconds.sum() / 60:.1f} min in all",
        "skipped": format_list(f"{name}: {reason}" for name, reason in manifest["skipped"].items()) or "no demo",
        "instructions": _format_counts(dict(zip(names, instructions[first], strict=True)).values()),
        "rendered": ", ".join(manifest["cameras"]),
        **spec_rows(spec),
        "joints": ", ".join(
            f"{low:.0f} to {high:.0f}" for low, high in zip(degrees.min(0), degrees.max(0), strict=True)
        )
        + " deg, measured",
        "gripper": f"{format_range(gripper, 2)} open, measured; "
        f"to be open in {100 * target_open.mean():.0f}% of the targets",
        "shards": f"{len(files)} of {format_range(sizes, 1)} MB, {sum(sizes):.1f} MB in all; "
        + ("checksums agree" if verify else "checksums not compared (--verify)"),
    }
    row_of_shard = np.cumsum([0, *(shard["moments"] for shard in manifest["shards"])])
    strips = []
    for k in _even_indices(len(names), _DEMOS):
        shard = int(np.searchsorted(row_of_shard, first[k], "right")) - 1
        moments = [int(first[k] - row_of_shard[shard]) + i for i in _even_indices(int(lengths[k]), _MOMENTS)]
        cells = _sample_pictures(files[shard], moments, spec, list(manifest["cameras"]))
        strips.append(add_caption(grid(cells, len(cells)), f"{names[k]}: {instructions[first[k]]}"))
    return Report([Section(f"{folder}: a dataset of drawn targets", rows)], grid(strips, 1))


def _read_shards(folder: Path, shards: Sequence[Mapping[str, Any]], verify: bool) -> tuple[list[Path], pa.Table]:
    files, tables = [], []
    for shard in tqdm(shards, desc="read", unit="shard", dynamic_ncols=True, leave=False):
        file = folder / shard["file"]
        table = read_columns(file, ["episode", "instruction", "positions", "gripper", "target_open"], "shard")
        if len(table) != shard["moments"] or (verify and sha256(file) != shard["sha256"]):
            raise GenimaError(f"{file} differs from {MANIFEST}; remove it and run ./genima render again")
        files.append(file)
        tables.append(table)
    try:
        return files, pa.concat_tables(tables, promote_options="default")
    except pa.ArrowException as error:
        raise GenimaError(f"{files[0].parent}: its shards differ in their columns ({shorten(str(error))})") from None


def _sample_pictures(file: Path, moments: Sequence[int], spec: PolicySpec, rendered: Sequence[str]) -> list[Image]:
    """Return samples of a demo by row: observation above drawn target, tiled, other rendered views below."""
    views = [*spec.views, *(view for view in rendered if view not in spec.views)]
    columns = [f"{kind}.{view}" for kind in ("observation", "spheres") for view in views]
    size = (spec.view_size, spec.view_size)
    cells = []
    for row in stream_rows(file, columns, "shard", moments):
        seen = {view: decode_table_image(row[f"observation.{view}"], f"shard {file}, {view}", size) for view in views}
        drawn = {}
        for view in views:
            layer = row[f"spheres.{view}"] or {}
            drawn[view] = composite(seen[view], decode_rgba(layer.get("bytes") or b"", f"shard {file}, {view}", size))
        cells.append(grid([_crop_views(seen), _crop_views(drawn)], 1))
    return cells


# ----------------------------------------------------------------------------------------------------------- demos


def inspect_demos(folder: Path, default: RobotModel | None, verify: bool) -> Report:
    """Inspect demos (rosbag2 folders) below a folder.

    Args:
        folder: theirs.
        default: robot of demos that hold no model, as of :meth:`Episode.load`.
        verify: decode every image.

    Raises:
        GenimaError: when there is none.
    """
    found = find_episodes(folder)
    shown = {found[i] for i in _even_indices(len(found), _DEMOS)}
    good, faults, strips = [], [], []
    lengths, rates, durations, sizes, robots = [], [], [], Counter[str](), Counter[str]()
    unsuccessful, unjudged, uncalibrated = list[str](), list[str](), list[str]()
    for path in tqdm(found, desc="read", unit="demo", dynamic_ncols=True, leave=False):
        try:
            episode = Episode.load(path, default)
            for view in episode.views:
                images = [episode.image(view, t) for t in (range(len(episode)) if verify else (0,))]
                sizes[f"{view} {images[0].shape[1]}x{images[0].shape[0]} px"] += 1
            if missing := sorted(set(episode.views) - set(EpisodeCameras.of(path).calibrated)):
                uncalibrated.append(f"{path.name}: {', '.join(missing)}")
            if path in shown:
                strips.append(_demo_strip(episode))
        except EpisodeError as error:
            faults.append(str(error).removeprefix("episode "))
            continue
        good.append(episode.instruction)
        robots[episode.robot.name] += 1
        lengths.append(len(episode))
        durations.append(episode.stamps[-1] - episode.stamps[0])
        rates.append(1 / episode.period)
        if episode.success is not True:
            (unjudged if episode.success is None else unsuccessful).append(path.name)
    rows = {"demos": f"{len(found)}, of which {len(faults)} faulty"}
    if good:
        rows |= {
            "robot": ", ".join(f"{name} ({n})" if n < len(good) else name for name, n in robots.items()),
            "length": f"{format_range(lengths)} moments, {format_range(durations, 1)} s; "
            f"{sum(durations) / 60:.1f} min in all",
            "rate": f"{format_range(rates, 1)} Hz",
            "success": f"{len(good) - len(unsuccessful) - len(unjudged)} of {len(good)}",
            "not successful": format_list(unsuccessful) or "none",
            "not judged": format_list(unjudged) or "none",
            "calibration": f"unknown (--cameras FOLDER for ./genima render) in {format_list(uncalibrated)}"
            if uncalibrated
            else "of all views, as recorded",
            "instructions": _format_counts(good),
            "views": ", ".join(f"{size} ({count})" if count < len(good) else size for size, count in sizes.items()),
        }
    rows["faults"] = format_list(faults) or ("none" if verify else "none (--verify decodes every image, too)")
    return Report([Section(f"{folder}: demos", rows)], grid(strips, 1) if strips else None)


def _demo_strip(episode: Episode) -> Image:
    """Return the first, the middle and the last sample of all views."""
    cells = []
    for t in _even_indices(len(episode), 3):
        text = f"{episode.stamps[t] - episode.stamps[0]:.1f} s"
        cells.append(add_caption(_crop_views({view: episode.image(view, t) for view in episode.views}), text))
    return add_caption(grid(cells, 3), f"{episode.folder.name}: {episode.instruction}")


# --------------------------------------------------------------------------------------------------------- LeRobot


def inspect_lerobot(folder: Path) -> Report:
    """Inspect a LeRobotDataset v3.0.

    Raises:
        GenimaError: when it is of another version, or something in it is missing or damaged.
    """
    info = read_info(folder)
    features = {key: f for key, f in info.features.items() if key not in _BOOKKEEPING}
    episodes, tasks = read_episodes(folder, info), read_tasks(folder)
    lengths = [episode.length for episode in episodes]
    rows = {
        "episodes": f"{len(episodes)} of {format_range(lengths)} frames, {sum(lengths)} in all, "
        f"{sum(lengths) / info.fps / 60:.1f} min"
        if episodes
        else "none",
        "rate": f"{info.fps:g} Hz",
        "robot": info.robot_type or "unknown",
        "tasks": format_list(tasks.values()) or "none",
        "calibration": "unknown (such datasets hold none)",
        "features": format_list((f"{key}: {f.dtype} {tuple(f.shape)}" for key, f in features.items()), 40),
        "format": f"LeRobotDataset {info.codebase_version}",
    }
    if sum(lengths) != info.total_frames:
        rows["faults"] = f"{layout.INFO} lists {info.total_frames} frames"
    shown = [episodes[i] for i in _even_indices(len(episodes), _DEMOS)] if info.colour_features else []
    strips = [_lerobot_strip(info, tasks, episode) for episode in shown]
    return Report([Section(f"{folder}: a LeRobot dataset", rows)], grid(strips, 1) if strips else None)


_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def _lerobot_strip(info: Info, tasks: Mapping[int, str], episode: EpisodeEntry) -> Image:
    """Return the first, the middle and the last frame of all colour views."""
    only = ("episode_index", episode.index)
    table = read_columns(episode.data, [layout.TIMESTAMP, "task_index"], "data", only)
    stamps, indices = (numbers(table, name, f"data {episode.data}") for name in (layout.TIMESTAMP, "task_index"))
    chosen = _even_indices(len(table), 3)
    images: dict[str, list[Image]] = {}
    for key in info.colour_features:
        size = info.features[key].size
        if key in episode.videos:
            video, start = episode.videos[key]
            images[key] = list(frames_at(video, start + stamps[chosen].astype(float), 0.25 / info.fps, size))
        else:
            stored = enumerate(stream_column(episode.data, key, "data", only))
            images[key] = [
                decode_table_image(each, f"data {episode.data}, {key}", size) for i, each in stored if i in chosen
            ]
    cells = [_crop_views({key: shown[i] for key, shown in images.items()}) for i in range(len(chosen))]
    text = ", ".join(dict.fromkeys(tasks.get(index, "no task") for index in indices.tolist()))
    if not cells:
        raise GenimaError(f"data {episode.data}: no frame of episode {episode.index} is there")
    return add_caption(grid(cells, 3), f"episode {episode.index}: {text}")


# --------------------------------------------------------------------------------------------------------- for all


def _format_counts(instructions: Iterable[str]) -> str:
    counts = Counter(map(str, instructions))
    return format_list(f"{text}: {count} of {counts.total()} demos" for text, count in counts.most_common())


def _even_indices(count: int, most: int) -> list[int]:
    """Return at most so many of ``count`` indices, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _crop_views(views: Mapping[str, Image]) -> Image:
    """Return the central squares of views in two columns."""
    return grid([crop_square(image, _SHOWN) for image in views.values()], gap=1)
