"""Specification of a policy: the contents of ``genima.json`` in a checkpoint folder."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from genima.cameras.tiling import MAX_VIEWS, tile_size
from genima.errors import GenimaError
from genima.io import model_files, paths
from genima.io.files import FileSchema, Finite, Pixels, Positive, Text, atomic_write, read_json, shorten, validate
from genima.policy.names import ACT, DIFFUSER_ACTOR, DIFFUSION_POLICY, GENIMA, SUSIE, TRAINED, VIDEO_POLICY
from genima.robot.model import RobotModel
from genima.targets.appearance import Appearance

SCHEMA = 2
FILE = "genima.json"
# Kinds of checkpoints: the halves of GENIMA and SuSIE, with their folders; others are the names of policies.
DIFFUSION_AGENT, CONTROLLER, GOAL_CONTROLLER = "diffusion agent", "controller", "goal controller"
FOLDERS = {
    DIFFUSION_AGENT: "diffusion_agent",
    CONTROLLER: "controller",
    GOAL_CONTROLLER: "goal_controller",
}
# Outputs of a diffusion agent: spheres on the observation, a later observation, or a clip of later ones.
TARGETS, GOALS, VIDEOS = "targets", "goals", "videos"
VIDEO_MODEL = "video_model"  # folder of the video model in a video policy's checkpoint and training
BEST, LAST = "best", "last"  # links in a training folder to its best and last checkpoints
_LAST_NAME = re.compile(rf"{LAST}(-[1-9]\d*)?")


@dataclass(frozen=True)
class PolicySpec:
    """Specification that diffusion agent, controller and robot must agree on."""

    robot: str
    joint_names: tuple[str, ...]
    views: tuple[str, ...] = ("wrist", "front", "right_shoulder", "left_shoulder")  # tile order, row by row
    camera_size: tuple[int, int] = (256, 256)  # px, width and height of the cameras' images
    view_size: int = 256  # px, side of a view in the tile: the image's central square
    horizon: int = 20  # K, steps from the observation to the target
    action_rate: float = 20.0  # Hz, of the demos and the chunk's actions
    appearance: Appearance = field(default_factory=Appearance)
    prompt_template: str = "tiled perspectives of a robot arm executing '{goal}'"  # {view}: for untiled views
    requires_depth: bool = False  # the policy takes the depth images of its views, too
    instructions: tuple[str, ...] = ()  # of the training's demos; empty: not known

    @property
    def tile_size(self) -> tuple[int, int]:
        """Height and width of the tile of all views, px."""
        return tile_size(len(self.views), self.view_size)

    def prompt(self, instruction: str, view: str = "") -> str:
        """Return the diffusion agent's prompt with the goal, in training as in use."""
        return self.prompt_template.format(goal=instruction, view=view.replace("_", " "))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
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
            **({"requires_depth": True} if self.requires_depth else {}),  # files of other policies stay as they are
            **({"instructions": list(self.instructions)} if self.instructions else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], what: str = "specification") -> PolicySpec:
        """Return the inverse of :meth:`to_dict`; ``what`` is the subject of errors.

        Raises:
            GenimaError: for a missing, unknown or malformed field.
        """
        return validate(_Spec, data, what).spec()

    def require_same(self, other: PolicySpec, mine: str, theirs: str) -> None:
        """Raise a GenimaError with the fields in which two specifications differ, except prompt and instructions.

        Only the diffusion agent uses the prompt, and what one half was not trained on the other may know.
        """
        a, b = self.to_dict(), other.to_dict()
        compared = [key for key in a | b if key not in ("prompt_template", "instructions")]
        if different := [key for key in compared if a.get(key) != b.get(key)]:
            details = "; ".join(f"{key}: {a.get(key)} against {b.get(key)}" for key in different)
            raise GenimaError(
                f"{mine} and {theirs}: specifications differ ({details}); use a pair that was trained together"
            )

    def require_robot(self, robot: RobotModel, where: str) -> None:
        """Raise a GenimaError unless the checkpoint was trained for the robot's joints and gripper."""
        if self.joint_names != robot.joint_names:
            theirs, here = ", ".join(self.joint_names), ", ".join(robot.joint_names)
            raise GenimaError(f"{where} was trained for joints {theirs}; robot {robot.name} has {here}; {_OTHER}")
        trained = robot if self.robot == robot.name else RobotModel.load(self.robot)
        if trained.gripper_joint != robot.gripper_joint:
            raise GenimaError(
                f"{where} was trained with a {trained.gripper}, not the {robot.gripper} of {robot.name}; {_OTHER}"
            )
        self.appearance.require_frames(robot)


_OTHER = "use a checkpoint of this robot, or in simulation the policy expert"


def _different(views: list[str]) -> list[str]:
    if len(set(views)) != len(views):
        raise ValueError("must be different views")
    return views


def _template(text: str) -> str:
    try:
        filled = text.format(goal="", view="")
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise ValueError(f"not a template of {{goal}} and {{view}}: {error!r}") from None
    if len(filled) > len(text):  # "{goal:>1000000000}"
        raise ValueError("not a template of {goal} and {view}")
    return text


class _Spec(FileSchema):
    """Schema of :meth:`PolicySpec.to_dict`."""

    version: Annotated[Literal[2], Field(alias="schema")]
    robot: Text
    joint_names: Annotated[list[Text], Field(min_length=1, max_length=64)]
    views: Annotated[list[Text], Field(min_length=1, max_length=MAX_VIEWS), AfterValidator(_different)]
    camera_size: Annotated[list[Pixels], Field(min_length=2, max_length=2)]
    view_size: Annotated[int, Field(ge=8, le=4096)]
    horizon: Annotated[int, Field(ge=1, le=10_000)]
    action_rate: Annotated[float, Field(gt=0, le=10_000)]
    appearance: Annotated[dict[str, Any], AfterValidator(Appearance.from_dict)]
    prompt_template: Annotated[Text, AfterValidator(_template)]
    requires_depth: bool = False
    instructions: list[Text] = []

    def spec(self) -> PolicySpec:
        appearance: Any = self.appearance  # as it was validated
        if unknown := set(self.views) - set(appearance.radii):
            raise GenimaError(f"views: the appearance has no sphere radius of {', '.join(sorted(unknown))}")
        width, height = self.camera_size
        return PolicySpec(
            self.robot, tuple(self.joint_names), tuple(self.views), (width, height), self.view_size, self.horizon,
            self.action_rate, appearance, self.prompt_template, self.requires_depth, tuple(self.instructions),
        )  # fmt: skip


class _DiffusionAgent(_Spec):
    """Schema of the ``genima.json`` of a diffusion agent."""

    kind: Literal["diffusion agent"]
    steps: Annotated[int, Field(ge=1, le=1000)]
    scheduler: model_files.SchedulerName
    tiled: bool
    conditioning: Literal["controlnet", "unet"]
    base: Text | None
    base_fingerprint: Text | None
    draws: Literal["targets", "goals", "videos"] = "targets"


class _ChunkModel(_Spec):
    """Schema of the ``genima.json`` of a model that predicts chunks."""

    kind: Text
    act: dict[str, Any] | None = None  # the network's sizes, which it checks
    diffusion: dict[str, Any] | None = None
    video: dict[str, Any] | None = None
    joint_mean: list[Finite]
    joint_deviation: list[Positive]
    action_space: Literal["joints", "delta_joints", "end_effector"] = "joints"
    action_mean: list[Finite] | None = None
    action_deviation: list[Positive] | None = None
    text_encoder: Text | None
    text_encoder_fingerprint: Text | None

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if sum(sizes is not None for sizes in (self.act, self.diffusion, self.video)) != 1:
            raise ValueError("it has no network, or more than one; it needs one of act, diffusion and video")
        return self


class _KeyposeModel(_Spec):
    """Schema of the ``genima.json`` of a model that predicts keyposes."""

    kind: Literal["diffuser_actor"]
    network: dict[str, Any]  # sizes, which it checks
    text_encoder: Text | None
    text_encoder_fingerprint: Text | None


_SCHEMAS: dict[str, type[_Spec]] = {
    DIFFUSION_AGENT: _DiffusionAgent,
    **dict.fromkeys((CONTROLLER, GOAL_CONTROLLER, ACT, DIFFUSION_POLICY, VIDEO_POLICY), _ChunkModel),
    DIFFUSER_ACTOR: _KeyposeModel,
}
_DTYPES = ("F16", "BF16", "F32", "F64", "I64")  # of weights; I64: how many batches a batch normalisation has seen


def last_checkpoints(count: int) -> list[str]:
    """Return the names of the links to a training's last checkpoints, the newest first: last, last-1, ..."""
    return [LAST, *(f"{LAST}-{i}" for i in range(1, count))][:count]


def half_folder(root: Path, kind: str) -> Path:
    """Return the folder of one of a checkpoint's two halves; a ``root`` like runs/mine/last-1 names one of both."""
    names_both = _LAST_NAME.fullmatch(root.name) and not root.exists()
    return root.parent / FOLDERS[kind] / root.name if names_both else root / FOLDERS[kind]


def resolve(folder: str | Path) -> Path:
    """Return the checkpoint in a folder: the folder itself, or the best or last one of a training's folder."""
    folder = Path(folder)
    candidates = [folder, folder / BEST, folder / LAST]
    return next((path for path in candidates if (path / FILE).is_file()), folder)


def read(folder: Path, kind: str) -> tuple[PolicySpec, dict[str, Any]]:
    """Read the specification of a checkpoint folder, and the rest of its ``genima.json``.

    Raises:
        GenimaError: when the file is missing, malformed, of another schema or kind, or weights are damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise _missing(folder)
    data = _read(path)
    if data.get("kind") != kind:
        raise GenimaError(f"{folder} is a checkpoint of the {shorten(str(data['kind']))}, not of the {kind}")
    try:
        spec = validate(_SCHEMAS[kind], data, kind).spec()
    except GenimaError as error:
        raise GenimaError(f"{path} is damaged ({error}); fetch or train the checkpoint again") from None
    model_files.require_safe(Path(folder), f"checkpoint {folder}")
    for file in Path(folder).rglob("*.safetensors"):
        try:
            with safe_open(file, framework="numpy") as weights:  # reads the header, and compares it with the length
                if strange := {weights.get_slice(name).get_dtype() for name in weights.keys()} - set(_DTYPES):
                    raise GenimaError(f"{file}: weights of type {min(strange)}; Genima reads {', '.join(_DTYPES)}")
        except (SafetensorError, OSError) as error:
            reason = shorten(str(error), 200)
            raise GenimaError(f"{file} is damaged: {reason}; fetch or train the checkpoint again") from None
    return spec, data


def open_checkpoint(folder: str | Path, kind: str, device: str) -> tuple[Path, PolicySpec, dict[str, Any]]:
    """Return the checkpoint in a folder of it or of its training, its specification, and the rest of its file.

    Raises:
        GenimaError: as :func:`read` and :func:`require_device`.
    """
    require_device(device)
    folder = resolve(folder)
    return folder, *read(folder, kind)


def _missing(folder: Path) -> GenimaError:
    return GenimaError(
        f"no checkpoint at {folder}: {FILE} is missing; train one (./genima train) or name another folder"
    )


def read_kind(folder: Path) -> str:
    """Return the kind of a checkpoint folder.

    Raises:
        GenimaError: when ``genima.json`` is missing, malformed or of another schema.
    """
    return str(_read(Path(folder) / FILE)["kind"])


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a ``genima.json``; its schema and kind are known ones."""
    try:
        data = read_json(path, "checkpoint")
        if not isinstance(data, dict):
            raise GenimaError("not a mapping")
        for key, known in (("schema", int), ("kind", str)):
            if not isinstance(data.get(key), known):
                raise GenimaError(f"{key} is {shorten(repr(data.get(key)))}")
        if data["schema"] == SCHEMA and data["kind"] not in _SCHEMAS:
            raise GenimaError(f"kind {shorten(repr(data['kind']))} is not one of {', '.join(_SCHEMAS)}")
    except GenimaError as error:
        raise GenimaError(f"{path} is damaged ({error}); fetch or train the checkpoint again") from None
    if data["schema"] != SCHEMA:
        raise GenimaError(
            f"{path} has schema {shorten(str(data['schema']))}; this version reads schema {SCHEMA}: train the "
            "checkpoint again, or use the version of Genima that wrote it"
        )
    return data


def name_checkpoint(folder: str | Path | None) -> str:
    """Return how errors name a checkpoint; without a folder, the bundled one."""
    return f"the checkpoint {folder or 'of Genima'}"


def read_pair(folder: str | Path | None, second: str = CONTROLLER) -> tuple[PolicySpec, dict[str, Path]]:
    """Read the common specification of a folder's diffusion agent and controller, and their folders; None: bundled.

    Takes a moment: the weights' headers are read, not the weights.

    Args:
        folder: of the two folders.
        second: kind of the controller, which follows what the agent draws: targets, or goals with a goal controller.

    Raises:
        GenimaError: when either is missing or damaged, or they do not fit together.
    """
    root = Path(folder) if folder else paths.shared("models", "tiny")
    folders = {kind: resolve(half_folder(root, kind)) for kind in (DIFFUSION_AGENT, second)}
    (drawing, about), (reading, _) = (read(path, kind) for kind, path in folders.items())
    drawing.require_same(reading, "the diffusion agent", f"the {second}")
    draws, followed = about.get("draws", TARGETS), GOALS if second == GOAL_CONTROLLER else TARGETS
    if draws != followed:
        raise GenimaError(
            f"{root}: the diffusion agent draws {draws}, the {second} follows {followed}; train them anew"
        )
    return drawing, folders


def is_checkpoint(folder: str | Path) -> bool:
    """Return whether a folder looks like a checkpoint of a policy; nothing is read."""
    try:
        return any(half_folder(Path(folder), kind).is_dir() for kind in FOLDERS) or (resolve(folder) / FILE).is_file()
    except OSError:  # a name that is too long
        return False


def is_trained(policy: str) -> bool:
    """Return whether a policy, by its name in the registry or its folder, has a checkpoint."""
    return policy in TRAINED or is_checkpoint(policy)


class Checkpoint(NamedTuple):
    """Description of a trained policy, read before its weights are loaded."""

    policy: str  # name in the registry
    spec: PolicySpec
    folders: Mapping[str, Path]  # by kind
    title: str  # in errors


def read_policy(policy: str = GENIMA, checkpoint: str | Path | None = None) -> Checkpoint:
    """Read the specification of a trained policy.

    Args:
        policy: name in the registry, or a checkpoint folder.
        checkpoint: folder, with a name; None or empty: the bundled one.

    Raises:
        GenimaError: for a checkpoint that is missing, damaged, of another policy, or one half of GENIMA only.
    """
    if policy not in TRAINED:
        policy, checkpoint = "", policy
    if policy not in ("", GENIMA) and not checkpoint:
        raise GenimaError(f"policy {policy}: no checkpoint; name the folder of one that ./genima train {policy} made")
    folder, title = resolve(checkpoint or ""), name_checkpoint(checkpoint)
    if not checkpoint or not (folder / FILE).is_file():
        found = SUSIE if checkpoint and half_folder(folder, GOAL_CONTROLLER).is_dir() else GENIMA
        if policy not in ("", GENIMA, SUSIE):
            raise _missing(folder)
        if policy not in ("", found):
            raise _other_policy(title, found, policy)
        return Checkpoint(found, *read_pair(checkpoint, GOAL_CONTROLLER if found == SUSIE else CONTROLLER), title)
    kind = read_kind(folder)
    if kind in FOLDERS:
        raise GenimaError(f"{title} is the {kind} alone; name the folder of both, diffusion agent and controller")
    if policy not in ("", kind):
        raise _other_policy(title, kind, policy)
    return Checkpoint(kind, read(folder, kind)[0], {kind: folder}, title)


def _other_policy(title: str, found: str, named: str) -> GenimaError:
    return GenimaError(f"{title} is one of the policy {found}, not of {named}; name that policy")


def convert_to_half(folder: Path) -> None:
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
def translate_load_errors(folder: Path) -> Iterator[None]:
    """Turn the errors that libraries raise for a damaged or incomplete folder into one line."""
    try:
        yield
    except GenimaError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        reason = shorten(reason, 300)
        raise GenimaError(f"checkpoint {folder} cannot be loaded, it is damaged or incomplete: {reason}") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the tokenizers' library, for a damaged file
            raise
        raise GenimaError(f"checkpoint {folder} cannot be loaded, its tokenizer is damaged") from None


def write(folder: Path, kind: str, spec: PolicySpec, **rest: Any) -> None:
    """Write ``genima.json`` last of all files, in one step: a folder with it is a whole checkpoint."""
    atomic_write(Path(folder) / FILE, (json.dumps({"kind": kind, **spec.to_dict(), **rest}, indent=2) + "\n").encode())
