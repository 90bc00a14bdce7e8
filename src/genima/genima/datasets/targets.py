"""The rendered dataset of drawn targets, as training reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genima.checkpoint import DrawingSpec
from genima.datasets.moments import Moments
from genima.datasets.render import MANIFEST, SCHEMA, sha256, shard_features
from genima.errors import GenimaError
from genima.observation import Image
from genima.targets import composite
from genima.views.camera import Camera
from genima.views.tiling import tile

_CACHE = ".cache"  # in the dataset's folder: the shards unpacked for access at random


@dataclass(frozen=True)
class TargetDataset:
    """N moments with their observations and the spheres to be drawn on them."""

    folder: Path
    spec: DrawingSpec  # its views are those that a tile is made of
    cameras: Mapping[str, Camera]  # of every rendered view, as calibrated
    moments: Moments
    fingerprint: str  # of what was rendered
    _rows: Mapping[str, datasets.Dataset]  # observation and spheres, of the tile's views in its order

    @classmethod
    def load(cls, folder: Path, views: Sequence[str] | None = None, verify: bool = False) -> TargetDataset:
        """Open a folder that ``./genima render`` has filled.

        Args:
            views: four of the rendered views, in tile order; None: as rendered.
            verify: compare every shard with its checksum (reads everything once).

        Raises:
            GenimaError: when the manifest or a shard is missing or damaged, or a view was not rendered.
        """
        manifest = read_manifest(folder)
        spec = DrawingSpec.from_dict(manifest["spec"])
        cameras = {view: Camera.from_dict(view, data) for view, data in manifest["cameras"].items()}
        if views is not None:
            spec = replace(spec, views=tuple(views))
        if len(spec.views) != 4 or len(set(spec.views)) != 4:
            raise GenimaError(f"a tile takes four different views, not {', '.join(spec.views)}")
        if missing := [view for view in spec.views if view not in cameras]:
            raise GenimaError(f"{folder} has no view {', '.join(missing)}; rendered are {', '.join(cameras)}")
        files = [folder / shard["file"] for shard in manifest["shards"]]
        for file, shard in zip(files, manifest["shards"], strict=True):
            if not file.is_file() or (verify and sha256(file) != shard["sha256"]):
                raise GenimaError(f"{file} is missing or damaged; remove it and run ./genima render again")
        features = shard_features(spec, cameras)
        moments = _moments(files, spec)
        rows = datasets.Dataset.from_parquet(
            [str(file) for file in files], features=features, cache_dir=str(folder / _CACHE)
        ).with_format("arrow")
        columns = {kind: [f"{kind}.{view}" for view in spec.views] for kind in ("observation", "spheres")}
        images = {kind: rows.select_columns(names) for kind, names in columns.items()}
        return cls(folder, spec, cameras, moments, manifest["fingerprint"], images)

    def __len__(self) -> int:
        return len(self.moments)

    def observation(self, i: int) -> Image:
        """The tiled observation (2s, 2s, 3) of moment i, s = spec.view_size."""
        return tile(self._images(i, "observation"), self.spec.views)

    def spheres(self, i: int) -> Image:
        """The tiled layer of spheres (2s, 2s, 4), transparent elsewhere."""
        return tile(self._images(i, "spheres"), self.spec.views)

    def drawn(self, i: int) -> tuple[Image, Image]:
        """Observation and drawn target (2s, 2s, 3) of moment i."""
        observation = self.observation(i)
        return observation, composite(observation, self.spheres(i))

    def _images(self, i: int, kind: str) -> dict[str, Image]:
        row = self._rows[kind][i]
        return {view: self._decoded(row.column(k)[0]["bytes"].as_py(), i) for k, view in enumerate(self.spec.views)}

    def _decoded(self, data: bytes, i: int) -> Image:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise GenimaError(f"{self.folder}: an image of moment {i} is damaged; render the dataset anew")
        swap = cv2.COLOR_BGR2RGB if image.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        return np.asarray(cv2.cvtColor(image, swap), np.uint8)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a rendered dataset; GenimaError when it is missing, damaged or of another version."""
    path = folder / MANIFEST
    if not path.is_file():
        raise GenimaError(f"{folder} holds no finished dataset ({MANIFEST} is missing); ./genima render makes one")
    try:
        manifest = json.loads(path.read_text())
        if manifest["schema"] != SCHEMA:
            raise GenimaError(f"{path} has schema {manifest['schema']}; this version reads schema {SCHEMA}")
        DrawingSpec.from_dict(manifest["spec"])
        for view, camera in manifest["cameras"].items():
            Camera.from_dict(view, camera)
        str(manifest["fingerprint"]), dict(manifest["skipped"])
        [(shard["file"], shard["moments"], shard["sha256"]) for shard in manifest["shards"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenimaError(f"{path} is damaged: {error!r}; remove it and run ./genima render again") from None
    return manifest


def split(moments: Moments, held_out: float = 0.05) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Indices of training and validation moments: every n-th episode is held out, and always one at least.

    Raises:
        GenimaError: for fewer than two episodes.
    """
    episodes = np.unique(moments.episode)
    if len(episodes) < 2:
        raise GenimaError(f"training needs at least two demos, there are {len(episodes)}")
    every = min(len(episodes), max(2, round(1 / held_out)))
    is_held_out = np.isin(moments.episode, episodes[every - 1 :: every])
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _moments(files: Sequence[Path], spec: DrawingSpec) -> Moments:
    n, K = len(spec.joint_names), spec.horizon
    names = [field.name for field in fields(Moments)]
    table = pq.read_table(files, columns=names).combine_chunks()

    def column(name: str, *shape: int) -> NDArray:
        values = table.column(name).combine_chunks()
        flat = values.flatten() if shape else values
        return flat.to_numpy(zero_copy_only=False).reshape(-1, *shape)

    shapes = {"positions": (n,), "target": (n,), "actions": (K, n), "action_gripper": (K,), "padding": (K,)}
    return Moments(**{
        name: column(name, *shapes.get(name, ())) if name not in ("episode", "instruction")
        else np.array(table.column(name).to_pylist()) for name in names
    })
