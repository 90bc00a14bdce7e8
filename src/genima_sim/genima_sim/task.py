"""Interface of simulated tasks: objects of the scene, random placement, success test and expert."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima.system.user_code import Check, checked

if TYPE_CHECKING:  # options name tasks: a help page must not load a simulator
    import mujoco

Array = NDArray[np.float64]
Positions = Mapping[str, Array]
"""Positions of objects by name, (3,) m in the base frame each."""

_PLACEMENT_ATTEMPTS = 10_000
_SHORTEST = 0.05  # s of a waypoint: one command of a demo


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
    """Name of the main body, which is fixed to the world."""
    region: ClassVar[Region] = Region()
    radius: ClassVar[float]
    """m: the centres of two objects are further apart than the sum of their radii."""
    movable: ClassVar[tuple[str, ...]] = ()
    """Names of its bodies with a free joint of the same name."""

    def __init_subclass__(cls) -> None:
        if missing := [name for name in ("name", "radius") if not hasattr(cls, name)]:
            raise TypeError(f"class {cls.__name__} lacks {', '.join(missing)}")
        if not 0 <= cls.radius < np.inf:
            raise ValueError(f"{cls.__name__}.radius: out of range ({cls.radius}); give metres")
        _check_methods(cls, {"build": None, "place": None, "positions": _positions_problem})

    @abstractmethod
    def build(self, spec: mujoco.MjSpec) -> None:
        """Add the bodies, with the main body at the origin."""

    def place(self, model: mujoco.MjModel, data: mujoco.MjData, placement: Placement) -> None:
        """Put the main body at a placement; an object with movable bodies extends this."""
        body = model.body(self.name)
        body.pos[:2] = placement.x, placement.y
        body.quat[:] = [np.cos(placement.yaw / 2), 0, 0, np.sin(placement.yaw / 2)]

    def positions(self, model: mujoco.MjModel, data: mujoco.MjData) -> Positions:
        """Return the positions of the main body and of the movable bodies."""
        main = {self.name: model.body(self.name).pos.copy()}
        return main | {name: data.joint(name).qpos[:3].copy() for name in self.movable}


@dataclass(frozen=True)
class SceneState:
    """State of the scene, for success tests."""

    data: mujoco.MjData
    placements: Mapping[str, Placement]
    """Placements of the objects at the start of the episode, by name."""

    def joint(self, name: str) -> float:
        """Return the position of a hinge or slide joint, in rad or m."""
        return float(self.data.joint(name).qpos[0])

    def position(self, body: str) -> Array:
        """Return the position (3,) in m of a body with a free joint of its name."""
        return np.array(self.data.joint(body).qpos[:3])


@dataclass(frozen=True)
class Waypoint:
    """Goal of the tip, with the gripper pointing down."""

    position: tuple[float, float, float]  # m in the base frame
    seconds: float  # duration of the motion
    gripper: float  # open fraction
    straight: bool = True  # the tip moves along a line; otherwise the joints are interpolated


@dataclass(frozen=True)
class FailedGrasp:
    """Start of a demo that corrects an error: the gripper has closed beside the object."""

    position: Array  # (3,) m, of the tip
    lift_to: float  # m, height of the tip from which the expert tries again


class Task(ABC):
    """One task. Its name is that of its module: see :mod:`genima_sim.tasks`."""

    name: ClassVar[str]
    instructions: ClassVar[Sequence[str]]
    """The task in words; episodes use the first."""
    objects: ClassVar[Sequence[SceneObject]]
    scene_tasks: ClassVar[Sequence[str]] = ()
    """Names of the tasks whose objects stand in the scene, this one among them; empty: this task's objects only."""

    def __init_subclass__(cls) -> None:
        cls.name = cls.__module__.rpartition(".")[2]
        for name, kind in {"instructions": str, "objects": SceneObject, "scene_tasks": str}.items():
            values = getattr(cls, name, ())
            if isinstance(values, str) or not all(isinstance(value, kind) for value in values):
                raise TypeError(f"{cls.__name__}.{name}: no sequence of {kind.__name__} ({values!r})")
        if hasattr(cls, "instructions") and not all(text.strip() for text in cls.instructions or [""]):
            raise ValueError(f"{cls.__name__}.instructions: no text; give the task in words")
        _check_methods(
            cls, {"succeeded": _bool_problem, "waypoints": _waypoints_problem, "failed_grasp": _failed_grasp_problem}
        )

    @property
    def instruction(self) -> str:
        """Instruction of the task."""
        return self.instructions[0]

    @abstractmethod
    def succeeded(self, state: SceneState) -> bool:
        """Return whether the goal state holds."""

    @abstractmethod
    def waypoints(self, positions: Positions) -> list[Waypoint]:
        """Return the expert's plan; the first waypoint is the hover point, which demos displace."""

    def failed_grasp(self, positions: Positions, rng: np.random.Generator) -> FailedGrasp | None:
        """Return a failed grasp for a demo to start with, or None for a usual start."""
        return None


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
        if _are_apart(objects, xy):
            yaws = [float(rng.uniform(*o.region.yaw)) if o.region.yaw[0] < o.region.yaw[1] else 0.0 for o in objects]
            return {
                o.name: Placement(float(x), float(y), yaw) for o, (x, y), yaw in zip(objects, xy, yaws, strict=True)
            }
    names = ", ".join(o.name for o in objects)
    raise GenimaError(f"objects {names}: no room; enlarge their regions or reduce their radii")


def _are_apart(objects: Sequence[SceneObject], xy: Array) -> bool:
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
            setattr(cls, name, checked(method, f"task {task}", inspect.getfile(method), check))


def _bool_problem(result: Any) -> str:
    return "" if isinstance(result, bool | np.bool_) else f"no bool ({result!r:.100})"


def _positions_problem(result: Any) -> str:
    good = isinstance(result, Mapping) and all(_is_point(position) for position in result.values())
    return "" if good else f"no positions (3,) by name ({result!r:.100})"


def _waypoints_problem(result: Any) -> str:
    if not isinstance(result, Sequence) or not result or not all(isinstance(each, Waypoint) for each in result):
        return f"no list of waypoints ({result!r:.100})"
    for number, each in enumerate(result):
        if not (_is_point(each.position) and _SHORTEST <= each.seconds < np.inf and 0 <= each.gripper <= 1):
            return f"waypoint {number} out of range ({each!r:.200})"
    return ""


def _failed_grasp_problem(result: Any) -> str:
    good = result is None or isinstance(result, FailedGrasp) and _is_point([*result.position[:2], result.lift_to])
    return "" if good else f"no failed grasp ({result!r:.100})"


def _is_point(position: Any) -> bool:
    return np.shape(position) == (3,) and bool(np.isfinite(position).all())
