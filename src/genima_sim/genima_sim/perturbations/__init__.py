"""Perturbations of simulated scenes after The Colosseum (Pumacay et al. 2024, arXiv:2402.08191), one module each.

To add a perturbation, put a module with one subclass of :class:`genima_sim.perturbation.Perturbation` here, or in
``perturbations/`` of a folder in ``GENIMA_PATH`` (:mod:`genima.system.registry`). It has the module's name.

What is drawn depends on the seed of the episode and the name of the perturbation alone: adding one does not change
another. They are applied in the order in which they are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from genima.errors import GenimaError
from genima.system.registry import Registry, subclass_factory
from genima_sim.perturbation import Perturbation

if TYPE_CHECKING:
    from genima_sim.task import SceneObject, Task

PERTURBATIONS = Registry("perturbation", __name__, "perturbations", subclass_factory("perturbation", Perturbation))


def get_perturbations(names: Sequence[str]) -> list[Perturbation]:
    """Return perturbations by name.

    Raises:
        GenimaError: for an unknown name, with the nearest known one, for a repeated one, and for an incomplete class.
    """
    if repeated := sorted({name for name in names if list(names).count(name) > 1}):
        raise GenimaError(f"perturbation {repeated[0]}: named twice; name it once")
    return [PERTURBATIONS.find(name) for name in names]


def task_perturbations(names: Sequence[str], task: Task, objects: Sequence[SceneObject]) -> list[Perturbation]:
    """Return perturbations of a task whose scene has ``objects``.

    Raises:
        GenimaError: as :func:`get_perturbations`, and for one that does not go with the task.
    """
    found = get_perturbations(names)
    for each in found:
        each.require_task(task, objects)
    return found


def generator(seed: int, name: str) -> np.random.Generator:
    """Return the random generator of a perturbation in the episode of a seed."""
    return np.random.default_rng([seed, *name.encode()])
