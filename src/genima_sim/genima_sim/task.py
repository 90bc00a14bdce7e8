"""Interface of simulated tasks: objects of the scene, random placement, success test and expert.

::

    objects ──► random_placements ──► scene ──► succeeded, at each step
                                        └─────► motions, the expert's
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.system.user_code import Check, checked
from genima_sim.motions import Motion, MoveJoint, MoveTo, back_off, first_grasp, shift

if TYPE_CHECKING:  # options name tasks: a help page must not load a simulator
    import mujoco

    from genima_sim.scene_state import SceneFrames, SceneState

Array = NDArray[np.float64]
_PLACEMENT_ATTEMPTS = 10_000
OBJECT_GROUP = 0  # geom group of the table and the objects, drawn together with the robot's meshes
_FAILED_SHARE = 0.15  # of the demos begin with a failed grasp
_FAILED_ATTEMPTS = 10  # at a place where the gripper has room
_EARLY, _ASIDE, _RETREAT = (0.07, 0.10), 0.02, 0.05  # m before the grasp, at most beside that, and back from there
_SHORTEST = 0.05  # s of a motion: one command of a demo


@dataclass(frozen=True)
class Region:
    """Ranges of an object's placements: m in the base frame, and yaw in rad.

    The default is within the arm's easy reach and in every view.
    """

    x: tuple[float, float] = (0.36, 0.62)
    y: tuple[float, float] = (-0.27, 0.27)
    yaw: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name, (low, high) in vars(self).items():
            if not (np.isfinite([low, high]).all() and low <= high):
                raise ValueError(f"region {name}: no range ({low}, {high}); give the lowest value first")


@dataclass(frozen=True)
class Placement:
    """Pose of an object on the table: m in the base frame, and rad about z."""

    x: float
    y: float
    yaw: float = 0.0

    @property
    def xy(self) -> Array:
        """(2,) m."""
        return np.array([self.x, self.y])


class SceneObject(ABC):
    """One or more bodies that are placed together on the table, whose top is z = 0."""

    name: ClassVar[str]
    """The object's name in placements, which is that of its first body."""
    region: ClassVar[Region] = Region()
    radius: ClassVar[float]
    """m: the centres of two objects are further apart than the sum of their radii."""
    receives: ClassVar[bool] = False
    """The object is where another one is put: it keeps its colour when manipulated objects are coloured."""
    color_matters: ClassVar[bool] = False
    """The instruction names the object's colour: perturbations do not change it."""
    grid: ClassVar[Region | None] = None
    """Ranges of placements on a grid; None: the region."""

    def __init_subclass__(cls) -> None:
        if missing := [name for name in ("name", "radius") if not hasattr(cls, name)]:
            raise TypeError(f"class {cls.__name__} lacks {', '.join(missing)}")
        if not 0 <= cls.radius < np.inf:
            raise ValueError(f"{cls.__name__}.radius: out of range ({cls.radius}); give metres")
        _check_methods(cls, {"build": None})

    @abstractmethod
    def build(self, spec: mujoco.MjSpec) -> None:
        """Add bodies to the world at their poses in the object's frame; those with a free joint have its name."""


@dataclass(frozen=True)
class Latch:
    """Joint that is locked until a handle's joint has moved by ``release`` rad or m."""

    joint: str
    handle: str
    release: float


@dataclass(frozen=True)
class RelativePose:
    """Pose of a body with a free joint, relative to a site."""

    site: str
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)  # m, along the base frame's axes
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)  # vector in rad, base frame: turns the start's orientation


@dataclass(frozen=True)
class FailedGrasp:
    """Start of a demo that corrects an error: the gripper has closed without the object."""

    grasp: Array  # (4, 4), grasp frame of the gripper
    retreat: Array  # (4, 4), grasp frame from which the expert tries again


class Task(ABC):
    """One task. Its name is that of its module, with ``@N`` for variation N > 0: see :mod:`genima_sim.tasks`."""

    name: str
    module: str
    """Name without the variation."""
    instructions: ClassVar[Sequence[str]]
    """The task in words, as templates over the values of a variation; episodes use the first."""
    variations: ClassVar[Sequence[Mapping[str, str]]] = ({},)
    """Values of each variation."""
    objects: Sequence[SceneObject]
    """A variation may have its own, set in ``__init__``: the same instances each time, as scenes are kept by them."""
    scene_tasks: Sequence[str] = ()
    """Names of the tasks whose objects stand in the scene, this one among them; empty: this task's objects only."""
    latches: ClassVar[Sequence[Latch]] = ()
    allows_scaling: ClassVar[bool] = False
    """Success test and expert take all sizes from the scene, so that its objects can be scaled."""
    near_misses: ClassVar[Mapping[str, Mapping[str, float | RelativePose]]] = {}
    """States that must not count as success, by description: positions of joints in rad or m, places of free bodies.
    Of variation 0."""

    def __init_subclass__(cls) -> None:
        for name, kind in {"instructions": str, "objects": SceneObject, "scene_tasks": str, "latches": Latch}.items():
            values = getattr(cls, name, ())
            if isinstance(values, str) or not all(isinstance(value, kind) for value in values):
                raise TypeError(f"{cls.__name__}.{name}: no sequence of {kind.__name__} ({values!r})")
        if hasattr(cls, "instructions") and not all(text.strip() for text in cls.instructions or [""]):
            raise ValueError(f"{cls.__name__}.instructions: no text; give the task in words")
        for text in getattr(cls, "instructions", ()):
            for values in cls.variations:
                try:
                    text.format(**values)
                except (KeyError, IndexError, ValueError) as error:
                    raise ValueError(f"{cls.__name__}.variations: no {error} for {text!r}") from None
        if inspect.isgeneratorfunction(motions := vars(cls).get("motions")):
            cls.motions = _list_motions(motions)  # type: ignore[method-assign]
        _check_methods(
            cls, {"succeeded": _bool_problem, "motions": _motions_problem, "failed_grasp": _failed_grasp_problem}
        )

    def __init__(self, variation: int = 0) -> None:
        """Raises:
        GenimaError: for an unknown variation.
        """
        self.module = type(self).__module__.rpartition(".")[2]
        if not 0 <= variation < len(self.variations):
            last = len(self.variations) - 1
            raise GenimaError(f"task {self.module}: unknown variation ({variation}); use 0 to {last}")
        self.name = f"{self.module}@{variation}" if variation else self.module
        self.variation = variation

    @property
    def values(self) -> Mapping[str, str]:
        """Values of the variation."""
        return self.variations[self.variation]

    @property
    def sentences(self) -> list[str]:
        """All instructions of the variation."""
        return [text.format(**self.values) for text in self.instructions]

    @property
    def instruction(self) -> str:
        """Instruction of the task."""
        return self.sentences[0]

    @abstractmethod
    def succeeded(self, state: SceneState) -> bool:
        """Return whether the goal state holds."""

    @abstractmethod
    def motions(self, scene: SceneFrames) -> Iterable[Motion]:
        """Yield the expert's motions, all planned in the scene as it is before the first; callers get a list.

        Demos displace the first, to a point before the grasp.
        """

    def failed_grasp(self, scene: SceneFrames, rng: np.random.Generator) -> FailedGrasp | None:
        """Return a failed grasp for a demo to start with, or None for a usual start.

        By default, some demos of a task with a grasp start with a gripper that has closed too early.
        """
        if rng.random() >= _FAILED_SHARE or (frame := first_grasp(self.motions(scene))) is None:
            return None
        before = back_off(frame, rng.uniform(*_EARLY))
        beside = (shift(before, *rng.uniform(-_ASIDE, _ASIDE, 3).tolist()) for _ in range(_FAILED_ATTEMPTS))
        early = next(filter(scene.has_room, beside), back_off(frame, _EARLY[1]))
        return FailedGrasp(early, back_off(early, _RETREAT))


def random_placements(objects: Sequence[SceneObject], rng: np.random.Generator) -> dict[str, Placement]:
    """Return uniform placements by name, with the objects apart from each other.

    Raises:
        GenimaError: when the regions leave no room.
    """
    if not objects:
        return {}
    low, high = (np.array([(o.region.x[end], o.region.y[end]) for o in objects]) for end in (0, 1))
    for _ in range(_PLACEMENT_ATTEMPTS):
        xy = rng.uniform(low, high)
        if are_apart(objects, xy):
            yaws = [float(rng.uniform(*o.region.yaw)) if o.region.yaw[0] < o.region.yaw[1] else 0.0 for o in objects]
            return {
                o.name: Placement(float(x), float(y), yaw) for o, (x, y), yaw in zip(objects, xy, yaws, strict=True)
            }
    names = ", ".join(o.name for o in objects)
    raise GenimaError(f"objects {names}: no room; enlarge their regions or reduce their radii")


def are_apart(objects: Sequence[SceneObject], xy: Array) -> bool:
    """Return whether objects at positions (n, 2) in m are further apart than their radii."""
    return all(
        np.linalg.norm(xy[i] - xy[j]) > objects[i].radius + objects[j].radius
        for i in range(len(objects))
        for j in range(i)
    )


# ------------------------------------------------------------------------------------------------ code of the user's


def _check_methods(cls: type, checks: Mapping[str, Check | None]) -> None:
    """Let methods that a class defines raise a GenimaError with the task's file for every error."""
    task = cls.__module__.rpartition(".")[2]
    for name, check in checks.items():
        if inspect.isfunction(method := vars(cls).get(name)):
            setattr(cls, name, checked(method, f"task {task}", inspect.getfile(inspect.unwrap(method)), check))


def _list_motions(generator: Callable[..., Iterable[Motion]]) -> Callable[..., list[Motion]]:
    """Return a function that returns all that a generator yields."""

    @functools.wraps(generator)
    def motions(self: Task, scene: SceneFrames) -> list[Motion]:
        return list(generator(self, scene))

    return motions


def _bool_problem(result: Any) -> str:
    return "" if isinstance(result, bool | np.bool_) else f"no bool ({result!r:.100})"


def _motions_problem(motions: Any) -> str:
    if not isinstance(motions, list) or not motions:
        return f"no motions ({motions!r:.100})"
    if not isinstance(motions[0], MoveTo):
        return f"{motions[0]!r:.100} first; start with a MoveTo"
    for number, each in enumerate(motions):
        if isinstance(each, MoveTo):
            good: Any = _is_pose(each.grasp)
        else:
            good = (
                isinstance(each, MoveJoint) and isinstance(each.joint, str) and np.isfinite([each.by, each.turn]).all()
            )
        if not (good and _SHORTEST <= each.seconds < np.inf and each.gripper in (0, 1)):
            return f"motion {number} out of range ({' '.join(repr(each).split()):.200})"
    return ""


def _failed_grasp_problem(result: Any) -> str:
    good = result is None or isinstance(result, FailedGrasp) and _is_pose(result.grasp) and _is_pose(result.retreat)
    return "" if good else f"no failed grasp ({result!r:.100})"


def _is_pose(value: Any) -> bool:
    return np.shape(value) == (4, 4) and bool(np.isfinite(value).all())
