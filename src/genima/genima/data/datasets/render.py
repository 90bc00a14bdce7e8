"""Rendering of demos to a dataset of drawn targets: parquet shards for streaming and random access."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.distributed import split_dataset_by_node
from pydantic import Field
from tqdm import tqdm

from genima.cameras.camera import VIRTUAL, Camera
from genima.cameras.tiling import crop_square
from genima.cameras.undistortion import Undistorter
from genima.cameras.virtual_view import VirtualView
from genima.data.episodes import Episode, EpisodeError
from genima.data.episodes.bag import calibration_topic, camera_info_topic, raw_topic
from genima.data.episodes.cameras import EpisodeCameras
from genima.errors import GenimaError
from genima.io.files import FileSchema, atomic_write, parse_json, read_bytes, read_json, shorten, validate
from genima.io.outputs import output_lock
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.system.process_pool import WorkerPool
from genima.system.terminal import printable
from genima.targets import place_spheres, render_spheres
from genima.types import Image

MANIFEST = "manifest.json"
SCHEMA = 1
_OURS = re.compile(r"shard-.*|\.shard-.*\.part|\.manifest\.json\..*\.part|manifest\.json|\.cache|\.rank-\d+\.lock")
_KEY = b"genima"  # of the metadata in a shard's footer
# 4:4:4: chroma subsampling would remove the colour of small objects.
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 3]
_RECALIBRATED = "recorded with another calibration than the first demo; render it separately, or give --cameras"
_UNCALIBRATED = "unknown calibration; render it separately, with --cameras FOLDER"
_UNSUCCESSFUL, _UNJUDGED = "not successful", "not judged (it has no /success)"
_NOT_SUCCESSFUL = (_UNSUCCESSFUL, _UNJUDGED)
_RATE_TOLERANCE = 0.1  # by which a demo's rate may differ from the dataset's


@dataclass(frozen=True)
class RenderPlan:
    """Sources and settings of a rendering; the same plan always gives the same shards."""

    episodes: tuple[Path, ...]
    spec: PolicySpec
    cameras: Mapping[str, Camera]  # by view, with the virtual one where it is rendered
    recorded: bool = False  # the cameras are the first demo's recorded ones, which all demos must have
    episodes_per_shard: int = 8
    renderer: str = "raycast"
    on_fault: Literal["skip", "refuse"] = "skip"
    unjudged: Literal["skip", "keep"] = "skip"  # demos without /success
    images: Literal["jpeg", "png"] = "jpeg"  # format of observations: JPEG of quality 95, or lossless PNG

    @property
    def shards(self) -> list[tuple[Path, ...]]:
        """Return the episodes of each shard."""
        step = self.episodes_per_shard
        return [self.episodes[i : i + step] for i in range(0, len(self.episodes), step)]

    def shard_name(self, shard: int) -> str:
        """Return the file name of a shard."""
        return f"shard-{shard:05d}-of-{len(self.shards):05d}.parquet"

    def fingerprint(self) -> str:
        """Return a hash of all inputs of the shards."""
        about = {
            "schema": SCHEMA,
            "spec": self.spec.to_dict(),
            "cameras": {view: camera.to_dict() for view, camera in self.cameras.items()},
            "episodes": [(folder.name, _recording_id(folder)) for folder in self.episodes],
            "recorded": self.recorded,
            "episodes_per_shard": self.episodes_per_shard,
            "unjudged": self.unjudged,
            **({"images": self.images} if self.images != "jpeg" else {}),  # existing datasets keep their fingerprints
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class RenderSummary:
    """Result of a rendering."""

    moments: int
    episodes: int
    skipped: Mapping[str, str]  # reason by episode
    missing: int  # shards left to other machines

    def __str__(self) -> str:
        text = f"{self.moments} moments of {self.episodes} demos"
        if self.skipped:
            failed, unjudged = (list(self.skipped.values()).count(why) for why in _NOT_SUCCESSFUL)
            faulty = len(self.skipped) - failed - unjudged
            text += f"; skipped {failed} unsuccessful, {unjudged} unjudged and {faulty} faulty ones"
        return text


def render(plan: RenderPlan, out: Path, processes: int, rank: int = 0, machines: int = 1) -> RenderSummary:
    """Render the missing shards in ``out``; when all exist, write the manifest with their checksums.

    On several machines, each renders its share (``rank`` of ``machines``; Hugging Face's ``split_dataset_by_node``) of
    the same plan; the last one to finish, or a run over all shards, writes the manifest.

    Raises:
        GenimaError: for other content in ``out``, another process of this ``rank``, a faulty demo where faults are
            refused, and without usable demos.
    """
    _require_own_dataset(out)
    fingerprint = plan.fingerprint()
    if summary := _read_finished(plan, fingerprint, out):  # without the lock: several trainings may start at once
        return summary
    with output_lock(out / f"rank-{rank}", "dataset"):
        return _render(plan, fingerprint, out, processes, rank, machines)


def _require_own_dataset(out: Path) -> None:
    """Check that a folder is new, or contains only a dataset of drawn targets, finished or not.

    Raises:
        GenimaError: for other content.
    """
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise GenimaError(f"dataset {out}: not a folder; name another")
    if others := sorted(path.name for path in out.iterdir() if not _OURS.fullmatch(path.name)):
        raise GenimaError(f"dataset {out}: the folder holds other files ({shorten(', '.join(others))}); name another")
    if (manifest := out / MANIFEST).exists():
        data = read_json(manifest, "manifest")
        if not isinstance(data, dict) or not {"schema", "fingerprint", "shards"} <= set(data):
            raise GenimaError(f"dataset {out}: {MANIFEST} is not of a dataset of drawn targets; name another folder")


def _read_finished(plan: RenderPlan, fingerprint: str, out: Path) -> RenderSummary | None:
    """Return the summary in the manifest of a whole dataset of the same plan; None: there is none."""
    if plan.on_fault == "refuse" or not (out / MANIFEST).exists():
        return None
    manifest = read_json(out / MANIFEST, "manifest")
    whole = all((out / plan.shard_name(i)).exists() for i in range(len(plan.shards)))
    if manifest["fingerprint"] != fingerprint or not whole or not {"moments", "episodes", "skipped"} <= set(manifest):
        return None
    return RenderSummary(manifest["moments"], manifest["episodes"], manifest["skipped"], 0)


def _render(plan: RenderPlan, fingerprint: str, out: Path, processes: int, rank: int, machines: int) -> RenderSummary:
    present = {path.name: _read_shard_metadata(path) for path in sorted(out.glob("shard-*.parquet"))}
    if any(note["fingerprint"] != fingerprint for note in present.values()):
        raise _dataset_error(out)
    if not present and (out / MANIFEST).exists() and _fingerprint(out) != fingerprint:
        raise _dataset_error(out)
    all_shards = datasets.Dataset.from_dict({"shard": list(range(len(plan.shards)))})
    own_shards = [int(shard) for shard in split_dataset_by_node(all_shards, rank, machines)["shard"]]
    missing = [shard for shard in own_shards if plan.shard_name(shard) not in present]
    if missing:
        (out / MANIFEST).unlink(missing_ok=True)
        _render_all(plan, missing, out, processes)
    notes = {
        name: _read_shard_metadata(out / name)
        for name in map(plan.shard_name, range(len(plan.shards)))
        if (out / name).exists()
    }
    if any(note["fingerprint"] != fingerprint for note in notes.values()):  # another machine's, of another plan
        raise _dataset_error(out)
    skipped = {episode: reason for note in notes.values() for episode, reason in note["skipped"].items()}
    summary = RenderSummary(
        sum(note["moments"] for note in notes.values()),
        sum(note["episodes"] for note in notes.values()),
        skipped,
        len(plan.shards) - len(notes),
    )
    if plan.on_fault == "refuse" and (faulty := [e for e, why in skipped.items() if why not in _NOT_SUCCESSFUL]):
        raise GenimaError(
            f"dataset {out}: rendered without faulty demos ({faulty[0]}: {skipped[faulty[0]]}); use --on-fault skip"
        )
    if not summary.missing:
        if not summary.moments:
            reasons = "; ".join(f"{episode}: {reason}" for episode, reason in list(skipped.items())[:3])
            raise GenimaError(f"dataset {out}: no usable demo ({reasons}); record others")
        _write_manifest(plan, out, notes, summary)
    return summary


def _dataset_error(out: Path) -> GenimaError:
    return GenimaError(f"dataset {out}: other demos, cameras or appearance than this run's; choose another folder")


def _fingerprint(out: Path) -> Any:
    return read_json(out / MANIFEST, "manifest")["fingerprint"]  # a dictionary: _require_own_dataset


def _write_manifest(
    plan: RenderPlan, out: Path, notes: Mapping[str, Mapping[str, Any]], summary: RenderSummary
) -> None:
    manifest = {
        "schema": SCHEMA,
        "fingerprint": plan.fingerprint(),
        "spec": plan.spec.to_dict(),
        "cameras": {view: camera.to_dict() for view, camera in plan.cameras.items()},
        "moments": summary.moments,
        "episodes": summary.episodes,
        "skipped": dict(summary.skipped),
        "shards": [
            {"file": name, "moments": note["moments"], "sha256": sha256(out / name)} for name, note in notes.items()
        ],
    }
    atomic_write(out / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())


def _recording_id(folder: Path) -> str:
    """Return an identifier of a recording, from rosbag2's metadata and the file sizes."""
    sizes = sorted((path.name, path.stat().st_size) for path in folder.iterdir() if path.is_file())
    metadata = folder / "metadata.yaml"
    noted = read_bytes(metadata, "file") if metadata.exists() else b""
    return hashlib.sha256(noted + json.dumps(sizes).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _ShardMetadata(FileSchema):
    """Schema of the footer of a shard."""

    fingerprint: str
    moments: Annotated[int, Field(ge=0)]
    episodes: Annotated[int, Field(ge=0)]
    skipped: dict[str, str]


def _read_shard_metadata(shard: Path) -> dict[str, Any]:
    """Return the renderer's metadata in the footer of a shard."""
    try:
        note = parse_json(pq.read_metadata(shard).metadata[_KEY], f"shard {shard}")
        return validate(_ShardMetadata, note, f"shard {shard}").model_dump()
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException, GenimaError):
        raise GenimaError(f"{shard}: damaged or of another dataset; remove it and run the same command again") from None


# ----------------------------------------------------------------------------------------------------- workers


def _render_all(plan: RenderPlan, shards: Sequence[int], out: Path, processes: int) -> None:
    bar = tqdm(total=sum(len(plan.shards[shard]) for shard in shards), desc="render", unit="demo", dynamic_ncols=True)
    with bar, WorkerPool(processes, _start, (plan, out)) as pool:
        jobs = {pool.submit(_render_shard, shard): shard for shard in shards}
        for job in as_completed(jobs):
            for line in job.result():
                bar.write(f"genima: skipped: {printable(line)}")
            bar.update(len(plan.shards[jobs[job]]))


_worker: tuple[RenderPlan, Path, RobotModel, VirtualView | None]


def _start(plan: RenderPlan, out: Path) -> None:
    global _worker
    cv2.setNumThreads(1)
    robot = RobotModel.load(plan.spec.robot)
    _worker = (plan, out, robot, VirtualView(robot) if VIRTUAL in plan.cameras else None)


def _render_shard(shard: int) -> list[str]:
    """Write one shard atomically; return the reasons for skipped demos."""
    plan, out, robot, virtual = _worker
    features = shard_features(plan.spec, plan.cameras)
    file = out / plan.shard_name(shard)
    part, skipped, moments, kept = io.BytesIO(), dict[str, str](), 0, 0
    with pq.ParquetWriter(part, features.arrow_schema) as writer:
        for folder in plan.shards[shard]:
            try:
                episode = Episode.load(folder, robot, set(plan.cameras) - {VIRTUAL})
                episode.require_robot(robot)
                rows = _render_rows(episode, plan, robot, virtual)
            except EpisodeError as error:
                if plan.on_fault == "refuse":
                    raise
                skipped[folder.name] = str(error).removeprefix(f"episode {folder}: ")
                continue
            except _UnsuccessfulError as reason:
                skipped[folder.name] = str(reason)
                continue
            writer.write_table(pa.Table.from_pylist(rows, schema=features.arrow_schema))
            moments, kept = moments + len(rows), kept + 1
        note = {"fingerprint": plan.fingerprint(), "moments": moments, "episodes": kept, "skipped": skipped}
        writer.add_key_value_metadata({_KEY: json.dumps(note)})
    atomic_write(file, part.getvalue())
    return [f"{episode}: {reason}" for episode, reason in skipped.items()]


class _UnsuccessfulError(Exception):
    pass


def _render_rows(
    episode: Episode, plan: RenderPlan, robot: RobotModel, virtual: VirtualView | None
) -> list[dict[str, Any]]:
    if episode.success is None and plan.unjudged == "skip":
        raise _UnsuccessfulError(_UNJUDGED)
    if episode.success is False:
        raise _UnsuccessfulError(_UNSUCCESSFUL)
    spec, K = plan.spec, plan.spec.horizon
    if abs(episode.period * spec.action_rate - 1) > _RATE_TOLERANCE:
        what = f"recorded at {1 / episode.period:.3g} Hz, the dataset has {spec.action_rate:.3g} Hz"
        raise EpisodeError(episode.folder, what)
    undistorters = _undistorters(episode, plan)
    cameras = {view: undistorter.camera.crop_square(spec.view_size) for view, undistorter in undistorters.items()}
    last, rows = len(episode) - 1, []
    for t in range(len(episode)):
        steps, end = np.minimum(np.arange(t, t + K), last), min(t + K, last)
        row: dict[str, Any] = {
            "episode": episode.folder.name,
            "moment": t,
            "time": episode.stamps[t] - episode.stamps[0],
            "instruction": episode.instruction,
            "positions": episode.positions[t],
            "gripper": episode.gripper[t],
            "target": episode.positions[end],
            "target_open": bool(episode.command_gripper[steps[-1]] > 0.5),  # as commanded by the last action
            "actions": episode.command_positions[steps].ravel(),
            "action_gripper": episode.command_gripper[steps],
            "padding": np.arange(t, t + K) > last,
        }
        for view, camera in cameras.items():
            if view == VIRTUAL:
                assert virtual is not None
                image = virtual.render(episode.positions[t], float(episode.gripper[t]))
            else:
                image = undistorters[view](episode.image(view, t))
            placed = place_spheres(
                camera, robot, spec.appearance, row["target"], row["target_open"], episode.positions[t]
            )
            layer = render_spheres(camera, placed, spec.appearance, plan.renderer)
            kind = ".jpg" if plan.images == "jpeg" else ".png"
            row[f"observation.{view}"] = _encode_image(crop_square(image, spec.view_size), kind)
            row[f"spheres.{view}"] = _encode_image(layer, ".png")
        rows.append(row)
    return rows


def _undistorters(episode: Episode, plan: RenderPlan) -> dict[str, Undistorter]:
    """Return the undistorters of a demo's views, for the calibrations of its targets.

    A dataset has one calibration of each view: it defines the targets that the controller learns from, and the
    checkpoint is checked against it.

    Raises:
        EpisodeError: for a recorded calibration that differs from the others', and for images or a camera_info that
            do not fit the calibration.
    """
    recorded = EpisodeCameras.of(episode.folder, plan.cameras)
    undistorters = {view: Undistorter(camera) for view, camera in plan.cameras.items()}
    if plan.recorded:
        for view, camera in plan.cameras.items():
            if view == VIRTUAL:
                continue
            if (own := recorded.calibrated.get(view)) is None:
                raise EpisodeError(episode.folder, _UNCALIBRATED, calibration_topic(view))
            if not camera.is_close(own):
                raise EpisodeError(episode.folder, _RECALIBRATED, calibration_topic(view))
    for view, undistorter in undistorters.items():
        topic = raw_topic(view)
        try:
            if view != VIRTUAL:
                undistorter(episode.image(view, 0))
            if view in recorded.lenses:
                topic = camera_info_topic(view)
                undistorter.require_intrinsics(recorded.lenses[view])
        except EpisodeError:
            raise
        except GenimaError as error:
            raise EpisodeError(episode.folder, str(error), topic) from None
    return undistorters


def _encode_image(image: Image, kind: str) -> dict[str, Any]:
    """Return an rgb or rgba image as Hugging Face's datasets store it."""
    swapped = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)
    return {"bytes": cv2.imencode(kind, swapped, _JPEG if kind == ".jpg" else _PNG)[1].tobytes(), "path": None}


def shard_features(spec: PolicySpec, cameras: Mapping[str, Camera]) -> datasets.Features:
    """Return the columns of a shard; all but the images make up :class:`TargetSamples`."""
    n, K, number = len(spec.joint_names), spec.horizon, datasets.Value("float64")
    columns: dict[str, Any] = {
        "episode": datasets.Value("string"),
        "moment": datasets.Value("int32"),
        "time": number,  # s since the episode's start
        "instruction": datasets.Value("string"),
        "positions": datasets.List(number, length=n),
        "gripper": number,
        "target": datasets.List(number, length=n),
        "target_open": datasets.Value("bool"),
        "actions": datasets.List(number, length=K * n),  # row by row
        "action_gripper": datasets.List(number, length=K),
        "padding": datasets.List(datasets.Value("bool"), length=K),
    }
    for view in cameras:
        columns[f"observation.{view}"] = datasets.Image()
        columns[f"spheres.{view}"] = datasets.Image()
    return datasets.Features(columns)
