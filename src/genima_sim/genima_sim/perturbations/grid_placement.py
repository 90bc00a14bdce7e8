"""Placement on an even grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from genima.errors import GenimaError
from genima_sim.perturbation import Perturbation
from genima_sim.task import Placement, Region, SceneObject, Task, are_apart

Array = NDArray[np.float64]
CELLS = 100
_YAW = 0.2  # m that count as much as one rad
_ATTEMPTS = 1000


class GridPlacement(Perturbation):
    """Objects at the centres of 100 cells of an even grid over the object's ``grid``, by default its region.

    The seed picks the cell of the task's first object: cell number seed mod 100, in an order in which the first N
    cells, of the seeds 0 to N - 1 or of the first N demos, cover the region as evenly as N can. Other objects get
    random cells of theirs.

    Source: data-efficiency study of the GENIMA paper (figure 6, appendix A), after Render and Diffuse
    (Vosylius et al. 2024, arXiv:2405.18196).
    """

    visual_only = False

    def place(
        self, task: Task, objects: Sequence[SceneObject], seed: int, rng: np.random.Generator
    ) -> Mapping[str, Placement]:
        """See :class:`Perturbation`."""
        first = task.objects[0].name
        grids = [grid_cells(each.grid or each.region) for each in objects]
        for _ in range(_ATTEMPTS):
            poses = np.array(
                [
                    cells[seed % len(cells) if each.name == first else rng.integers(len(cells))]
                    for each, cells in zip(objects, grids, strict=True)
                ]
            )
            if are_apart(objects, poses[:, :2]):
                return {o.name: Placement(*map(float, pose)) for o, pose in zip(objects, poses, strict=True)}
        names = ", ".join(each.name for each in objects)
        raise GenimaError(f"perturbation {self.name}: no room for objects {names} (seed {seed}); enlarge their grids")


@cache
def grid_cells(region: Region) -> Array:
    """Return the centres (n, 3) of the cells of a grid: x and y in m, and yaw in rad.

    Its cells are as equal in size along all axes as 100 cells can be; one cell for a region that is a point. Each cell
    is the one furthest from those before.
    """
    low, high = np.transpose([region.x, region.y, region.yaw])
    extent = (high - low) * [1.0, 1.0, _YAW]
    counts = _counts(extent)
    cells = np.array(list(product(*((np.arange(count) + 0.5) / count for count in counts))))
    order = [0]
    distance = np.full(len(cells), np.inf)
    while len(order) < len(cells):
        distance = np.minimum(distance, np.linalg.norm((cells - cells[order[-1]]) * extent, axis=1))
        order.append(int(np.argmax(distance)))
    return low + (high - low) * cells[order]


def _counts(extent: Array) -> tuple[int, ...]:
    """Return the number of cells along each axis, 100 in all, for which the largest side of a cell is smallest."""
    if not extent.any():
        return (1, 1, 1)
    divisors = [n for n in range(1, CELLS + 1) if CELLS % n == 0]
    choices = [[1] if side == 0 else divisors for side in extent]
    return min((c for c in product(*choices) if np.prod(c) == CELLS), key=lambda c: float(np.max(extent / c)))
