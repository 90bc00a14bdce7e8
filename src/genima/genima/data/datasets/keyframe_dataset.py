"""Dataset of keyframes: what a policy saw before each motion of a demo, and the keypose at its end.

A folder of one ``<demo>.npz`` for each demo and ``keyframes.json`` with the specification and the cameras.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genima.cameras.camera import Camera
from genima.data.datasets.sample_index import SampleIndex
from genima.errors import GenimaError
from genima.io.files import atomic_write, describe_error, read_json
from genima.policy.spec import PolicySpec
from genima.policy.visuomotor.keypose_model import encode_history, encode_pose, token_points
from genima.robot.model import RobotModel
from genima.types import Image

Array = NDArray[np.float64]
FILE = "keyframes.json"
_OPEN_DEMOS = 64  # kept in memory, 0.5 MB each at 128 px
_RENDER_AGAIN = "remove it and start the same training again"


@dataclass(frozen=True)
class KeyframeDemo:
    """M motions of a demo between keyframes."""

    instruction: str
    images: Image  # (M, V, s, s, 3), seen before each motion
    depth: NDArray[np.float16]  # (M, V, s, s) m along the optical axis
    positions: Array  # (M, n) rad, measured then
    grippers: NDArray[np.bool_]  # (M + 1,) open: at the start, and as commanded at each keyframe
    keyposes: Array  # (M, 4, 4) of the tip in the base frame, as commanded at the end of each motion

    def save(self, file: Path) -> None:
        """Write a file."""
        data = io.BytesIO()
        np.savez_compressed(data, **vars(self))
        atomic_write(file, data.getvalue())

    @classmethod
    def load(cls, file: Path, spec: PolicySpec) -> KeyframeDemo:
        """Read a file.

        Raises:
            GenimaError: for a file that is damaged, or does not fit the specification.
        """
        try:
            with np.load(file, allow_pickle=False) as data:
                demo = cls(str(data["instruction"]), *(data[field.name] for field in fields(cls)[1:]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise GenimaError(f"dataset {file}: cannot be read ({describe_error(error)}); {_RENDER_AGAIN}") from None
        M, V, s = len(demo.images), len(spec.views), spec.view_size
        shapes = [(M, V, s, s, 3), (M, V, s, s), (M, len(spec.joint_names)), (M + 1,), (M, 4, 4)]
        found = [np.shape(getattr(demo, field.name)) for field in fields(cls)[1:]]
        if found != shapes:
            raise GenimaError(f"dataset {file}: arrays of other shapes ({found}, not {shapes}); {_RENDER_AGAIN}")
        return demo


class KeyposeSample(NamedTuple):
    """Sample of one motion."""

    images: Tensor  # (V, s, s, 3) uint8
    points: Tensor  # (V, h, w, 3) m
    valid: Tensor  # (V, h, w)
    history: Tensor  # (HISTORY, 10)
    pose: Tensor  # (9,)
    gripper: Tensor  # () 1 open
    instruction: str


class KeyposeBatch(NamedTuple):
    """Samples stacked along a first axis."""

    images: Tensor
    points: Tensor
    valid: Tensor
    history: Tensor
    pose: Tensor
    gripper: Tensor
    instructions: list[str]


class KeyframeDataset(torch.utils.data.Dataset[KeyposeSample]):
    """Samples of all motions of some demos, indexed by :class:`SampleIndex`."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """Args:
        folder: with a file for each demo.
        names: of the demos.

        Raises:
            GenimaError: for a dataset that is missing or damaged, and one without motions.
        """
        data = read_json(folder / FILE, "dataset of keyframes")
        try:
            self.spec = PolicySpec.from_dict(data["spec"])
            self.cameras: Mapping[str, Camera] = {
                view: Camera.from_dict(view, camera) for view, camera in data["cameras"].items()
            }
            self._squares = {view: self.cameras[view].crop_square(self.spec.view_size) for view in self.spec.views}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GenimaError(f"{folder / FILE}: damaged ({describe_error(error)}); {_RENDER_AGAIN}") from None
        self.folder, self.names = folder, list(names)
        self.robot = RobotModel.load(self.spec.robot)
        self._motions, keyposes, instructions = [], [], set()
        digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode())
        for name in names:
            demo = KeyframeDemo.load(folder / f"{name}.npz", self.spec)
            self._motions += [(name, i) for i in range(len(demo.images))]
            keyposes.append(demo.keyposes)
            instructions.add(demo.instruction)
            digest.update(name.encode() + demo.keyposes.tobytes())
        if not self._motions:
            raise GenimaError(f"dataset {folder}: no motions between keyframes; record other demos")
        self.positions = np.concatenate(keyposes)[:, :3, 3]  # (N, 3) m, of all keyposes
        self.instructions, self.fingerprint = sorted(instructions), digest.hexdigest()[:16]
        self.spec = replace(self.spec, instructions=tuple(self.instructions))
        self._demos = lru_cache(_OPEN_DEMOS)(self._load)

    def _load(self, name: str) -> KeyframeDemo:
        return KeyframeDemo.load(self.folder / f"{name}.npz", self.spec)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the cache out for the processes that prepare samples."""
        return {name: value for name, value in vars(self).items() if name != "_demos"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._demos = lru_cache(_OPEN_DEMOS)(self._load)

    def __len__(self) -> int:
        return len(self._motions)

    def __getitem__(self, index: SampleIndex) -> KeyposeSample:
        name, i = self._motions[index.moment]
        demo = self._demos(name)
        depth = dict(zip(self.spec.views, demo.depth[i], strict=True))
        points, valid = token_points(depth, self._squares, self.robot, demo.positions[i])
        tips = self.robot.link_poses(demo.positions[: i + 1])[:, -1]
        return KeyposeSample(
            torch.from_numpy(demo.images[i]),
            torch.from_numpy(points),
            torch.from_numpy(valid),
            torch.from_numpy(encode_history(list(tips), list(demo.grippers[: i + 1]))).float(),
            torch.from_numpy(encode_pose(demo.keyposes[i])).float(),
            torch.tensor(float(demo.grippers[i + 1])),
            demo.instruction,
        )


def collate(samples: Sequence[KeyposeSample]) -> KeyposeBatch:
    """Stack samples."""
    images, points, valid, history, pose, gripper, instructions = zip(*samples, strict=True)
    stacked = torch.stack(images), torch.stack(points), torch.stack(valid), torch.stack(history)
    return KeyposeBatch(*stacked, torch.stack(pose), torch.stack(gripper), list(instructions))


def write_description(folder: Path, spec: PolicySpec, cameras: Mapping[str, Camera]) -> None:
    """Write the specification and the cameras of a dataset, or check that they are those of the one there.

    Raises:
        GenimaError: for a dataset with others.
    """
    data = {"spec": spec.to_dict(), "cameras": {view: camera.to_dict() for view, camera in cameras.items()}}
    if (folder / FILE).exists():
        there = read_json(folder / FILE, "dataset of keyframes")
        if there != json.loads(json.dumps(data)):
            raise GenimaError(f"dataset {folder}: rendered with other views or cameras; name another folder")
        return
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / FILE, (json.dumps(data, indent=2) + "\n").encode())
