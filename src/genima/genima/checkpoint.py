"""``genima.json``: what a checkpoint was trained for, checked wherever it is used."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from genima import paths
from genima.errors import GenimaError
from genima.files import atomic_write
from genima.robot.model import RobotModel
from genima.targets.appearance import Appearance

SCHEMA = 2
FILE = "genima.json"
DIFFUSION_AGENT, CONTROLLER = "diffusion agent", "controller"  # the kinds, ...
BEST, LAST = "best", "last"  # links in a training's folder to the checkpoints worth keeping
FOLDERS = {DIFFUSION_AGENT: "diffusion_agent", CONTROLLER: "controller"}  # ... and where a pair keeps them


@dataclass(frozen=True)
class DrawingSpec:
    """Everything that the diffusion agent, the controller and the robot must agree on."""

    robot: str
    joint_names: tuple[str, ...]
    views: tuple[str, ...] = ("wrist", "front", "right_shoulder", "left_shoulder")  # tile order, row by row
    camera_size: tuple[int, int] = (256, 256)  # px, width and height of the cameras' images
    view_size: int = 256  # px, side of a view within the tile: the image's middle square
    horizon: int = 20  # K, steps from the observation to the target
    action_rate: float = 20.0  # Hz, of the demos and the chunk's actions
    appearance: Appearance = field(default_factory=Appearance)
    prompt_template: str = "tiled perspectives of a robot arm executing '{goal}'"  # {view}: the one drawn by itself

    def prompt(self, instruction: str, view: str = "") -> str:
        """The diffusion agent's prompt, with the goal in it, in training as in use."""
        return self.prompt_template.format(goal=instruction, view=view.replace("_", " "))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "schema": SCHEMA,
            "robot": self.robot,
            "joint_names": list(self.joint_names),
            "views": list(self.views),
            "camera_size": list(self.camera_size),
            "view_size": self.view_size,
            "horizon": self.horizon,
            "action_rate": self.action_rate,
            "appearance": self.appearance.to_dict(),
            "prompt_template": self.prompt_template,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DrawingSpec:
        """The inverse of :meth:`to_dict`; KeyError, TypeError or ValueError where a field is missing or malformed."""
        return cls(
            robot=data["robot"],
            joint_names=tuple(data["joint_names"]),
            views=tuple(data["views"]),
            camera_size=_size(data["camera_size"]),
            view_size=int(data["view_size"]),
            horizon=int(data["horizon"]),
            action_rate=float(data["action_rate"]),
            appearance=Appearance.from_dict(data["appearance"]),
            prompt_template=data["prompt_template"],
        )

    def require_same(self, other: DrawingSpec, mine: str, theirs: str) -> None:
        """Raise a GenimaError that names the fields in which two specifications differ, but for the prompt.

        That is the diffusion agent's alone: whoever reads its drawings need not know it.
        """
        a, b = self.to_dict(), other.to_dict()
        if different := [key for key in a if a[key] != b[key] and key != "prompt_template"]:
            details = "; ".join(f"{key}: {a[key]} against {b[key]}" for key in different)
            raise GenimaError(f"{mine} and {theirs} do not fit together: {details}")

    def require_robot(self, robot: RobotModel, where: str) -> None:
        """Raise a GenimaError unless the checkpoint was trained for this arm's joints, and its gripper's."""
        if self.joint_names != robot.joint_names:
            raise GenimaError(f"{where} was trained for joints {list(self.joint_names)}, not {list(robot.joint_names)}")
        trained = RobotModel.load(self.robot)
        if trained.gripper_joint != robot.gripper_joint:
            raise GenimaError(f"{where} was trained with a {trained.gripper}, not the {robot.gripper} of {robot.name}")
        self.appearance.require_frames(robot)


def _size(values: Any) -> tuple[int, int]:
    width, height = (int(value) for value in values)
    return width, height


def resolve(folder: str | Path) -> Path:
    """The checkpoint in a folder: the folder itself, or where it is a training's, its best or last one."""
    folder = Path(folder)
    candidates = [folder, folder / BEST, folder / LAST]
    return next((path for path in candidates if (path / FILE).is_file()), folder)


def read(folder: Path, kind: str) -> tuple[DrawingSpec, dict[str, Any]]:
    """The specification in a checkpoint folder, and the rest of its ``genima.json``.

    Raises:
        GenimaError: when the file is missing, malformed, of another schema or kind, or weights are damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise GenimaError(
            f"no checkpoint at {folder}: {FILE} is missing; train one (./genima train) or name another folder"
        )
    try:
        data = json.loads(path.read_text())
        if data["schema"] != SCHEMA:
            raise GenimaError(f"{path} has schema {data['schema']}; this version reads schema {SCHEMA}")
        if data["kind"] != kind:
            raise GenimaError(f"{folder} is a checkpoint of a {data['kind']}, not of a {kind}")
        spec = DrawingSpec.from_dict(data)
        spec.prompt("")  # fails where the template is none
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise GenimaError(f"{path} is damaged: {error!r}; fetch or train the checkpoint again") from None
    if len(spec.views) != 4 or len(set(spec.views)) != 4 or set(spec.views) - set(spec.appearance.radii):
        raise GenimaError(f"{path}: views {list(spec.views)} are not four different views with a sphere radius each")
    if not min(*spec.camera_size, spec.view_size, spec.horizon, spec.action_rate) > 0:
        raise GenimaError(f"{path}: camera_size, view_size, horizon and action_rate must be positive")
    for file in Path(folder).rglob("*.safetensors"):
        try:
            with safe_open(file, framework="numpy"):  # reads the header and checks it against the file's length
                pass
        except (SafetensorError, OSError) as error:
            raise GenimaError(f"{file} is damaged: {error}; fetch or train the checkpoint again") from None
    return spec, data


def read_pair(folder: str | Path | None) -> tuple[DrawingSpec, dict[str, Path]]:
    """What the diffusion agent and the controller of a folder agree on, and where they are by kind; None: bundled.

    Takes a moment: the weights' headers are read, not the weights.

    Raises:
        GenimaError: when either is missing or damaged, or they do not fit together.
    """
    root = Path(folder) if folder else paths.shared("models", "tiny")
    folders = {kind: resolve(root / name) for kind, name in FOLDERS.items()}
    drawing, reading = (read(path, kind)[0] for kind, path in folders.items())
    drawing.require_same(reading, "the diffusion agent", "the controller")
    return drawing, folders


def halve(folder: Path) -> None:
    """Store all weights below ``folder`` in half precision: half the size, and they are loaded as single precision."""
    for file in Path(folder).rglob("*.safetensors"):
        with safe_open(file, framework="np") as stored:
            metadata = stored.metadata()
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}
        halved = {name: t.astype(np.float16) if t.dtype == np.float32 else t for name, t in tensors.items()}
        atomic_write(file, save(halved, metadata))


def require_device(device: str) -> None:
    """Raise a GenimaError unless PyTorch can compute on ``device``."""
    import torch  # only here: reading a specification takes no second

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise GenimaError(f"device {device!r} cannot be used here; cpu always can") from None


@contextlib.contextmanager
def loading(folder: Path) -> Iterator[None]:
    """Turn whatever the libraries raise for a damaged or incomplete folder, which is of many kinds, into one line."""
    try:
        yield
    except GenimaError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise GenimaError(f"checkpoint {folder} cannot be loaded, it is damaged or incomplete: {reason}") from None


def write(folder: Path, kind: str, spec: DrawingSpec, **rest: Any) -> None:
    """Write ``genima.json`` last of all files, in one step: a folder with it is a whole checkpoint."""
    atomic_write(Path(folder) / FILE, (json.dumps({"kind": kind, **spec.to_dict(), **rest}, indent=2) + "\n").encode())
