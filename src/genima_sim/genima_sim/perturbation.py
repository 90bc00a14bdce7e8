"""Interface of perturbations: changes of a scene that are drawn from the seed of its episode.

A perturbed episode has a compiled model of its own. The models of unperturbed episodes never change, and a renderer in
another thread can still draw the scene before.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from genima_sim.task import OBJECT_GROUP

if TYPE_CHECKING:  # options name perturbations: a help page must not load a simulator
    import mujoco

    from genima_sim.task import Placement, SceneObject, Task


@dataclass(frozen=True)
class SceneSpec:
    """Scene before it is compiled."""

    spec: mujoco.MjSpec
    objects: Sequence[SceneObject]
    bodies: Mapping[str, Sequence[str]]
    """Names of the top-level bodies of each object, by its name. They have their poses in the object's frame."""
    placements: Mapping[str, Placement]

    def object_bodies(self, each: SceneObject) -> Iterator[mujoco.MjsBody]:
        """Yield all bodies of an object."""
        for name in self.bodies[each.name]:
            body = self.spec.body(name)
            yield body
            yield from body.find_all("body")

    def visible_geoms(self, each: SceneObject) -> list[mujoco.MjsGeom]:
        """Return the rendered geoms of an object."""
        geoms = [geom for body in self.object_bodies(each) for geom in body.geoms]
        return [geom for geom in geoms if geom.group == OBJECT_GROUP and geom.rgba[3] > 0]


class Perturbation(ABC):
    """One perturbation. Its name is that of its module: see :mod:`genima_sim.perturbations`."""

    name: ClassVar[str]
    visual_only: ClassVar[bool] = True
    """The motion of arm and objects stays as it is: images can be rendered with it from recorded states."""

    def __init_subclass__(cls) -> None:
        cls.name = cls.__module__.rpartition(".")[2]

    def require_task(self, task: Task, objects: Sequence[SceneObject]) -> None:  # noqa: B027
        """Raise a GenimaError for a task whose scene it does not change.

        Args:
            task: the task.
            objects: all of its scene.
        """

    def place(
        self, task: Task, objects: Sequence[SceneObject], seed: int, rng: np.random.Generator
    ) -> Mapping[str, Placement] | None:
        """Return the placements of all objects by name; None: as they are."""
        return None

    def change(self, scene: SceneSpec, rng: np.random.Generator) -> None:  # noqa: B027
        """Change the scene. All random numbers come from ``rng``."""


class PerturbedEnvironment(Protocol):
    """Environment of a simulator that has perturbations."""

    perturbations: Sequence[str]
    """Names of those that each reset applies."""
