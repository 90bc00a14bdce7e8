"""What is inside datasets: drawn targets, demos, LeRobot datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from genima.checkpoint import DrawingSpec
from genima.datasets.render import MANIFEST, sha256
from genima.datasets.targets import read_manifest
from genima.episodes import Episode, EpisodeError, find_episodes
from genima.episodes.lerobot import layout
from genima.episodes.lerobot.reader import read_info
from genima.episodes.lerobot.video import frames_at
from genima.errors import GenimaError
from genima.inspection.report import Report, Section, listed, spec_rows, spread
from genima.inspection.sheet import captioned, grid
from genima.observation import Image
from genima.robot.model import RobotModel
from genima.targets import composite
from genima.views.tiling import fit

_DEMOS, _MOMENTS = 3, 5  # shown on a sheet
_SHOWN = 160  # px, side of a view on a sheet


def is_targets(folder: Path) -> bool:
    """Whether ``./genima render`` has begun to fill a folder."""
    return (folder / MANIFEST).is_file() or any(folder.glob("shard-*.parquet"))


def is_lerobot(folder: Path) -> bool:
    """Whether a folder is a LeRobotDataset of any version."""
    return (folder / layout.INFO).is_file()


# -------------------------------------------------------------------------------------------------- drawn targets


def inspect_targets(folder: Path, verify: bool) -> Report:
    """A dataset that ``./genima render`` made; ``verify``: compare every shard with its checksum.

    Raises:
        GenimaError: when the manifest or a shard is missing or damaged.
    """
    manifest = read_manifest(folder)
    spec = DrawingSpec.from_dict(manifest["spec"])
    files, table = _read_shards(folder, manifest["shards"], verify)
    episodes, instructions = (np.array(table[name].to_pylist()) for name in ("episode", "instruction"))
    names, first, lengths = np.unique(episodes, return_index=True, return_counts=True)
    degrees = np.degrees(np.stack(table["positions"].to_numpy()))
    gripper, target_open = (table[name].to_numpy() for name in ("gripper", "target_open"))
    sizes = [file.stat().st_size / 1e6 for file in files]
    seconds = lengths / spec.action_rate
    rows = {
        "moments": f"{len(episodes)} of {len(names)} demos; {spread(lengths)} each, {spread(seconds, 1)} s; "
        f"{seconds.sum() / 60:.1f} min in all",
        "skipped": listed(f"{name}: {reason}" for name, reason in manifest["skipped"].items()) or "no demo",
        "instructions": _counted(dict(zip(names, instructions[first], strict=True)).values()),
        "rendered": ", ".join(manifest["cameras"]),
        **spec_rows(spec),
        "joints": ", ".join(
            f"{low:.0f} to {high:.0f}" for low, high in zip(degrees.min(0), degrees.max(0), strict=True)
        )
        + " deg, measured",
        "gripper": f"{spread(gripper, 2)} open, measured; to be open in {100 * target_open.mean():.0f}% of the targets",
        "shards": f"{len(files)} of {spread(sizes, 1)} MB, {sum(sizes):.1f} MB in all; "
        + ("checksums agree" if verify else "checksums not compared (--verify)"),
    }
    row_of_shard = np.cumsum([0, *(shard["moments"] for shard in manifest["shards"])])
    strips = []
    for k in _evenly(len(names), _DEMOS):
        file = files[np.searchsorted(row_of_shard, first[k], "right") - 1]
        cells = _drawn_moments(file, str(names[k]), spec, list(manifest["cameras"]))
        strips.append(captioned(grid(cells, len(cells)), f"{names[k]}: {instructions[first[k]]}"))
    return Report([Section(f"{folder}: a dataset of drawn targets", rows)], grid(strips, 1))


def _read_shards(folder: Path, shards: Sequence[Mapping[str, Any]], verify: bool) -> tuple[list[Path], pa.Table]:
    files, tables = [], []
    for shard in tqdm(shards, desc="read", unit="shard", dynamic_ncols=True, leave=False):
        file = folder / shard["file"]
        table = _read(file, ["episode", "instruction", "positions", "gripper", "target_open"])
        if len(table) != shard["moments"] or (verify and sha256(file) != shard["sha256"]):
            raise GenimaError(f"{file} is not what {MANIFEST} says; remove it and run ./genima render again")
        files.append(file)
        tables.append(table)
    return files, pa.concat_tables(tables)


def _read(file: Path, columns: list[str], only: Sequence[tuple[str, str, Any]] | None = None) -> pa.Table:
    try:
        return pq.read_table(file, columns=columns, filters=only)
    except (OSError, KeyError, ValueError) as error:  # Arrow's errors are among them
        reason = " ".join(str(error).split())
        raise GenimaError(f"{file} is missing or damaged ({reason}); make it anew as it was made") from None


def _drawn_moments(file: Path, episode: str, spec: DrawingSpec, rendered: Sequence[str]) -> list[Image]:
    """Some moments of a demo: observation above drawn target, tiled, other rendered views below."""
    views = [*spec.views, *(view for view in rendered if view not in spec.views)]
    columns = [f"{kind}.{view}" for kind in ("observation", "spheres") for view in views]
    table = _read(file, columns, [("episode", "==", episode)])
    cells = []
    for row in table.take(_evenly(len(table), _MOMENTS)).to_pylist():
        seen = {view: _decoded(row[f"observation.{view}"], file) for view in views}
        layers = {view: _decoded(row[f"spheres.{view}"], file, cv2.IMREAD_UNCHANGED) for view in views}
        drawn = {v: composite(seen[v], np.asarray(cv2.cvtColor(layers[v], cv2.COLOR_BGRA2RGBA))) for v in views}
        cells.append(grid([_small(seen), _small(drawn)], 1))
    return cells


def _decoded(stored: Mapping[str, Any], file: Path, flags: int = cv2.IMREAD_COLOR_RGB) -> Image:
    """An image as the datasets library keeps it in a table."""
    image = cv2.imdecode(np.frombuffer(stored["bytes"] or b"\0", np.uint8), flags)
    if image is None:
        raise GenimaError(f"{file}: an image is damaged; make the dataset anew")
    return np.asarray(image, np.uint8)


# ----------------------------------------------------------------------------------------------------------- demos


def inspect_demos(folder: Path, robot: RobotModel, verify: bool) -> Report:
    """Demos (rosbag2 folders) of a robot below a folder; ``verify``: decode every image.

    Raises:
        GenimaError: when there is none.
    """
    found = find_episodes(folder)
    shown = {found[i] for i in _evenly(len(found), _DEMOS)}
    good, faults, strips = [], [], []
    lengths, rates, durations, sizes = [], [], [], Counter[str]()
    unsuccessful, unjudged = list[str](), list[str]()
    for path in tqdm(found, desc="read", unit="demo", dynamic_ncols=True, leave=False):
        try:
            episode = Episode.load(path, robot)
            for view in episode.views:
                images = [episode.image(view, t) for t in (range(len(episode)) if verify else (0,))]
                sizes[f"{view} {images[0].shape[1]}x{images[0].shape[0]} px"] += 1
            if path in shown:
                strips.append(_demo_strip(episode))
        except EpisodeError as error:
            faults.append(str(error).removeprefix("episode "))
            continue
        good.append(episode.instruction)
        lengths.append(len(episode))
        durations.append(episode.stamps[-1] - episode.stamps[0])
        rates.append(1 / episode.period)
        if episode.success is not True:
            (unjudged if episode.success is None else unsuccessful).append(path.name)
    rows = {"demos": f"{len(found)}, of which {len(faults)} faulty"}
    if good:
        rows |= {
            "length": f"{spread(lengths)} moments, {spread(durations, 1)} s; {sum(durations) / 60:.1f} min in all",
            "rate": f"{spread(rates, 1)} Hz",
            "success": f"{len(good) - len(unsuccessful) - len(unjudged)} of {len(good)}",
            "not successful": listed(unsuccessful) or "none",
            "not judged": listed(unjudged) or "none",
            "instructions": _counted(good),
            "views": ", ".join(f"{size} ({count})" if count < len(good) else size for size, count in sizes.items()),
        }
    rows["faults"] = listed(faults) or ("none" if verify else "none (--verify decodes every image, too)")
    return Report([Section(f"{folder}: demos", rows)], grid(strips, 1) if strips else None)


def _demo_strip(episode: Episode) -> Image:
    """The first, the middle and the last moment of all views."""
    cells = []
    for t in _evenly(len(episode), 3):
        text = f"{episode.stamps[t] - episode.stamps[0]:.1f} s"
        cells.append(captioned(_small({view: episode.image(view, t) for view in episode.views}), text))
    return captioned(grid(cells, 3), f"{episode.folder.name}: {episode.instruction}")


# --------------------------------------------------------------------------------------------------------- LeRobot


def inspect_lerobot(folder: Path) -> Report:
    """A LeRobotDataset v3.0, ours or another's.

    Raises:
        GenimaError: when it is of another version, or something in it is missing or damaged.
    """
    info = read_info(folder)
    features = {key: f for key, f in info["features"].items() if key not in _BOOKKEEPING}
    try:
        tasks = [str(task) for task in pd.read_parquet(folder / layout.TASKS).index]
        table = pq.read_table(folder / "meta" / "episodes").sort_by("episode_index")
        lengths = table["length"].to_numpy()
        rows = {
            "episodes": f"{info['total_episodes']} of {spread(lengths)} frames, {info['total_frames']} in all, "
            f"{info['total_frames'] / info['fps'] / 60:.1f} min",
            "rate": f"{info['fps']} Hz",
            "robot": str(info.get("robot_type")),
            "tasks": listed(tasks),
            "features": "\n".join(f"{key}: {f['dtype']} {tuple(f['shape'])}" for key, f in features.items()),
            "format": f"LeRobotDataset {info['codebase_version']}",
        }
        has_images = any(feature["dtype"] in ("image", "video") for feature in features.values())
        shown = table.take(_evenly(len(table), _DEMOS)).to_pylist() if has_images else []
        strips = [_lerobot_strip(folder, info, row) for row in shown]
    except (OSError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split()) if isinstance(error, OSError) else repr(error)
        raise GenimaError(f"dataset {folder} is damaged or incomplete: {reason}") from None
    return Report([Section(f"{folder}: a LeRobot dataset", rows)], grid(strips, 1) if strips else None)


_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def _lerobot_strip(folder: Path, info: Mapping[str, Any], row: Mapping[str, Any]) -> Image:
    """The first, the middle and the last frame of all views."""
    keys = {kind: [key for key, f in info["features"].items() if f["dtype"] == kind] for kind in ("video", "image")}
    file = folder / info["data_path"].format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
    table = _read(file, [layout.TIMESTAMP, *keys["image"]], [("episode_index", "==", row["episode_index"])])
    frames = table.take(_evenly(len(table), 3)).to_pylist()
    images = {key: [_decoded(frame[key], file) for frame in frames] for key in keys["image"]}
    for key in keys["video"]:
        place = {part: row[f"videos/{key}/{part}"] for part in ("chunk_index", "file_index", "from_timestamp")}
        times = [place["from_timestamp"] + frame[layout.TIMESTAMP] for frame in frames]
        video = folder / info["video_path"].format(video_key=key, **place)
        images[key] = list(frames_at(video, times, tolerance=0.25 / info["fps"]))
    cells = [_small({key: shown[i] for key, shown in images.items()}) for i in range(len(frames))]
    return captioned(grid(cells, 3), f"episode {row['episode_index']}: {', '.join(row['tasks'])}")


# --------------------------------------------------------------------------------------------------------- for all


def _counted(instructions: Iterable[str]) -> str:
    counts = Counter(map(str, instructions))
    return listed(f"{text}: {count} of {counts.total()} demos" for text, count in counts.most_common())


def _evenly(count: int, most: int) -> list[int]:
    """At most so many of ``count`` indices, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _small(views: Mapping[str, Image]) -> Image:
    """The middle squares of views in two columns."""
    return grid([fit(image, _SHOWN) for image in views.values()], gap=1)
