"""Rendered dataset of drawn targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import datasets
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, model_validator

from genima.cameras.calibration_file import CalibrationSchema
from genima.cameras.camera import VIRTUAL, Camera
from genima.cameras.plausibility import require_plausible
from genima.cameras.tiling import require_views, tile
from genima.data.datasets.render import MANIFEST, SCHEMA, sha256, shard_features
from genima.data.datasets.sample_index import TargetSamples, hold_out
from genima.errors import GenimaError
from genima.io.files import FileSchema, Text, read_json, shorten, validate
from genima.io.images import decode_colour, decode_rgba
from genima.io.tables import MAX_ROWS, numbers, read_columns, texts
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.targets import composite
from genima.types import Image

_MAX_TEXT = 1000  # characters
_RENDER_AGAIN = "remove it and run ./genima render again"
_CACHE = ".cache"  # in the dataset's folder: the shards unpacked for random access


@dataclass(frozen=True)
class TargetDataset:
    """N samples with their observations and target spheres."""

    folder: Path
    spec: PolicySpec  # with the views of a tile
    cameras: Mapping[str, Camera]  # of every rendered view, as calibrated
    moments: TargetSamples
    fingerprint: str  # of the rendering
    _rows: Mapping[str, datasets.Dataset]  # observation and spheres, of the tile's views in its order
    canonical: TargetDataset | None = None  # the same samples in canonical appearance, which the drawn targets have

    @classmethod
    def load(
        cls, folder: Path, views: Sequence[str] | None = None, verify: bool = False, canonical: Path | None = None
    ) -> TargetDataset:
        """Open an output folder of ``./genima render``.

        Args:
            folder: of the dataset.
            views: one to six of the rendered views, in tile order; None: as rendered.
            verify: compare every shard with its checksum (reads everything once).
            canonical: folder of a dataset of the same demos, on whose images the targets are drawn; None: on the
                observations.

        Raises:
            GenimaError: when the manifest or a shard is missing or damaged, a view was not rendered, or ``canonical``
                has other samples.
        """
        manifest = read_manifest(folder)
        spec = PolicySpec.from_dict(manifest["spec"])
        cameras = {view: Camera.from_dict(view, data) for view, data in manifest["cameras"].items()}
        if views is not None:
            spec = replace(spec, views=tuple(views))
        require_views(spec.views, str(folder))
        if missing := [view for view in spec.views if view not in cameras]:
            raise GenimaError(f"{folder} has no view {', '.join(missing)}; rendered are {', '.join(cameras)}")
        files = [folder / shard["file"] for shard in manifest["shards"]]
        for file, shard in zip(files, manifest["shards"], strict=True):
            if not file.is_file() or (verify and sha256(file) != shard["sha256"]):
                raise GenimaError(f"{file} is missing or damaged; {_RENDER_AGAIN}")
        moments = _read_samples(files, manifest, spec)
        rows = _unpack(files, shard_features(spec, cameras), folder / _CACHE)
        columns = {kind: [f"{kind}.{view}" for view in spec.views] for kind in ("observation", "spheres")}
        images = {kind: rows.select_columns(names) for kind, names in columns.items()}
        spec = replace(spec, instructions=tuple(moments.instructions))
        loaded = cls(folder, spec, cameras, moments, manifest["fingerprint"], images)
        return loaded if canonical is None else loaded._with_canonical(cls.load(canonical, views, verify))

    def _with_canonical(self, other: TargetDataset) -> TargetDataset:
        """Return this dataset with targets on the images of another one.

        Raises:
            GenimaError: for other settings, cameras or samples.
        """
        self.spec.require_same(other.spec, f"dataset {self.folder}", f"the canonical dataset {other.folder}")
        same_cameras = all(camera.is_close(other.cameras[view]) for view, camera in self.cameras.items())
        if not same_cameras or self.moments.fingerprint() != other.moments.fingerprint():
            raise GenimaError(
                f"dataset {self.folder}: other demos or cameras than the canonical dataset {other.folder}; render both "
                "from images of the same demos"
            )
        return replace(self, canonical=other)

    def __len__(self) -> int:
        return len(self.moments)

    def observation(self, i: int) -> Image:
        """Return the tiled observation (rows s, columns s, 3) of sample i, s = spec.view_size."""
        return tile(self.observed_views(i), self.spec.views)

    def observed_views(self, i: int) -> dict[str, Image]:
        """Return the images (s, s, 3) of sample i by view, in tile order."""
        return self._images(i, "observation")

    def later_row(self, i: int, steps: int) -> int:
        """Return the sample of the same episode ``steps`` after sample i, or its last one; rows are in time order."""
        ahead = np.flatnonzero(self.moments.episode[i : i + steps + 1] == self.moments.episode[i])
        return i + int(ahead[-1])

    def goal_row(self, i: int) -> int:
        """Return the sample of the same episode K steps after sample i, or its last one."""
        return self.later_row(i, self.spec.horizon)

    def spheres(self, i: int) -> Image:
        """Return the tiled layer of spheres (rows s, columns s, 4), transparent elsewhere."""
        return tile(self._images(i, "spheres"), self.spec.views)

    def images(self, i: int) -> tuple[Image, Image]:
        """Return the observation and the drawn target (rows s, columns s, 3) of sample i."""
        observation = self.observation(i)
        scene = self.canonical.observation(i) if self.canonical else observation
        return observation, composite(scene, self.spheres(i))

    def _images(self, i: int, kind: str) -> dict[str, Image]:
        row, size = self._rows[kind][i], (self.spec.view_size, self.spec.view_size)
        decode, images = decode_colour if kind == "observation" else decode_rgba, {}
        for k, view in enumerate(self.spec.views):
            stored = row.column(k)[0].as_py() or {}
            images[view] = decode(stored.get("bytes") or b"", f"{self.folder}, moment {i}, {kind} of {view}", size)
        return images


class _ShardSchema(FileSchema):
    file: Annotated[str, Field(pattern=r"^shard-[0-9]{5,9}-of-[0-9]{5,9}\.parquet$")]  # never a path out of the folder
    moments: Annotated[int, Field(ge=0, le=MAX_ROWS)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestSchema(FileSchema):
    """Fields of ``manifest.json``: the rendering's inputs and its shards."""

    version: Annotated[Literal[1], Field(alias="schema")]
    fingerprint: Text
    spec: dict[str, Any]  # of PolicySpec.to_dict
    cameras: Annotated[dict[Text, CalibrationSchema], Field(min_length=1, max_length=64)]
    moments: Annotated[int, Field(ge=1, le=MAX_ROWS)]
    episodes: Annotated[int, Field(ge=1, le=MAX_ROWS)]
    skipped: dict[str, str]
    shards: Annotated[list[_ShardSchema], Field(min_length=1)]

    @model_validator(mode="after")
    def _require_whole(self) -> ManifestSchema:
        files = [shard.file for shard in self.shards]
        if len(set(files)) != len(files):
            raise ValueError("a shard is named twice")
        if sum(shard.moments for shard in self.shards) != self.moments:
            raise ValueError(f"its shards hold {sum(s.moments for s in self.shards)} moments, not {self.moments}")
        return self


def _unpack(files: Sequence[Path], features: datasets.Features, cache: Path) -> datasets.Dataset:
    """Return the rows of shards for random access, unpacked once into a folder.

    Raises:
        GenimaError: for other columns than a dataset's, damage, and a folder that cannot be written.
    """
    expected = features.arrow_schema
    for file in files:
        try:
            schema = pq.read_schema(file)
        except (OSError, ValueError) as error:  # Arrow's errors are among them
            raise GenimaError(f"shard {file}: damaged ({shorten(str(error), 200)}); {_RENDER_AGAIN}") from None
        if not schema.equals(expected):
            odd = [f.name for f in expected if f.name not in schema.names or schema.field(f.name).type != f.type]
            raise GenimaError(
                f"shard {file}: other columns than {MANIFEST} lists ({shorten(', '.join(odd))}); {_RENDER_AGAIN}"
            )
    try:
        rows = datasets.Dataset.from_parquet([str(file) for file in files], features=features, cache_dir=str(cache))
        return rows.with_format("arrow")
    except Exception as error:  # the library wraps what was wrong in errors of its own
        cause = error.__cause__ or error
        raise GenimaError(
            f"dataset {cache.parent} cannot be unpacked ({shorten(str(cause), 200)}); {_RENDER_AGAIN}"
        ) from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a rendered dataset as plain data that :class:`ManifestSchema` has checked.

    Raises:
        GenimaError: when it is missing, damaged or of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise GenimaError(f"{folder}: no finished dataset ({MANIFEST} is missing); run ./genima render")
    what = f"manifest {path}"
    try:
        data = read_json(path, "manifest")
        version = data.get("schema") if isinstance(data, dict) else None
        if type(version) is not int or version == SCHEMA:
            validate(ManifestSchema, data, what)
            spec = PolicySpec.from_dict(data["spec"])
            _require_plausible(spec)
            for view, camera in data["cameras"].items():
                if view != VIRTUAL:
                    require_plausible(Camera.from_dict(view, camera), f"{what}: camera {view}")
            if unknown := sorted(data["cameras"].keys() - spec.appearance.radii.keys()):
                raise GenimaError(f"the appearance has no sphere radius of view {', '.join(unknown)}")
            return dict(data)
    except GenimaError as error:
        raise GenimaError(f"{path} is damaged: {str(error).removeprefix(what + ': ')}; {_RENDER_AGAIN}") from None
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise GenimaError(f"{path} is damaged: {shorten(repr(error), 200)}; {_RENDER_AGAIN}") from None
    raise GenimaError(f"{path} has schema {version}; this version reads schema {SCHEMA}")


def _require_plausible(spec: PolicySpec) -> None:
    """Raise a ValueError for numbers that no dataset has: memory is taken by them."""
    limits = {"view_size": 4096, "horizon": 1000, "action_rate": 1000}
    for name, most in limits.items():
        if not 0 < getattr(spec, name) <= most:
            raise ValueError(f"{name} is {getattr(spec, name)}, not in 1..{most}")
    RobotModel.load(spec.robot)
    names = [*spec.joint_names, *spec.views, spec.robot, spec.prompt_template]
    if not all(isinstance(name, str) for name in names) or not 1 <= len(spec.joint_names) <= 64:
        raise ValueError("joint_names, views, robot and prompt_template are texts")


def split(moments: TargetSamples, held_out: float = 0.05) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Return the indices of training and validation samples: every n-th episode is held out, one at least.

    Raises:
        GenimaError: for fewer than two episodes.
    """
    is_held_out = np.isin(moments.episode, hold_out(np.unique(moments.episode).tolist(), held_out))
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _read_samples(files: Sequence[Path], manifest: Mapping[str, Any], spec: PolicySpec) -> TargetSamples:
    """Read all but the images.

    Raises:
        GenimaError: where a shard has other columns, other numbers of moments than the manifest lists, or values that
            no moment has.
    """
    n, K = len(spec.joint_names), spec.horizon
    names = [field.name for field in fields(TargetSamples)]
    widths = {"positions": n, "target": n, "actions": K * n, "action_gripper": K, "padding": K}
    shards = []
    for file, shard in zip(files, manifest["shards"], strict=True):
        what = f"shard {file}"
        table = read_columns(file, names, "shard")
        if len(table) != shard["moments"]:
            raise GenimaError(
                f"{what}: holds {len(table)} moments, {MANIFEST} lists {shard['moments']}; {_RENDER_AGAIN}"
            )
        columns: dict[str, Any] = {name: np.array(texts(table, name, what), str) for name in names[:2]}
        if max(columns[name].dtype.itemsize for name in names[:2]) > _MAX_TEXT * 4:
            raise GenimaError(f"{what}: a name or an instruction of more than {_MAX_TEXT} characters; {_RENDER_AGAIN}")
        for name in names[2:]:
            columns[name] = numbers(table, name, what, widths.get(name))
            if not np.isfinite(columns[name]).all():
                raise GenimaError(f"{what}: column {name} has values that are not finite; {_RENDER_AGAIN}")
        for name in ("padding", "target_open"):
            columns[name] = columns[name].astype(bool)
        columns["actions"] = columns["actions"].reshape(-1, K, n)
        shards.append(columns)
    return TargetSamples(**{name: np.concatenate([shard[name] for shard in shards]) for name in names})
