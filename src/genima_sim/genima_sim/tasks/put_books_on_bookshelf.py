"""Put books on the top shelf of a bookshelf."""

from __future__ import annotations

from collections.abc import Iterator

import mujoco

from genima_sim.motions import GRIP_TIME, Motion, MoveTo, grasp, shift
from genima_sim.parts import GRIP, add_box, add_site
from genima_sim.scene_state import SceneFrames, SceneState
from genima_sim.task import Region, RelativePose, SceneObject, Task

_WOOD, _PAGES = (0.50, 0.34, 0.22), (0.88, 0.86, 0.80)
_COVERS = (0.70, 0.13, 0.13), (0.13, 0.30, 0.62), (0.12, 0.48, 0.28)
_HALF = 0.013, 0.045, 0.065  # m: half thickness, depth and height of a book
_ACROSS = 0.07, -0.0535, -0.0265  # m: the first book stands alone, the other two form a pair that fits in the gripper
_PAIR = -0.04  # m: the middle of the pair
_TOP = 0.12  # m, height of the top shelf
_DEPTH, _WIDTH, _CHEEK = 0.06, 0.1, 0.015  # m: half edges of a shelf, half the height of its sides
_GRASP = _HALF[2] - 0.028  # m above a book's centre
_LIFT = 0.19  # m


class Books(SceneObject):
    """Three books on the table."""

    name = "book_0"
    region = Region((0.38, 0.48), (-0.18, -0.12), (-0.4, 0.4))
    radius = 0.12

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        for i, (y, rgb) in enumerate(zip(_ACROSS, _COVERS, strict=True)):
            book = spec.worldbody.add_body(name=f"book_{i}", pos=[0, y, _HALF[2] + 0.0005])
            book.add_freejoint(name=f"book_{i}")
            thickness, depth, height = _HALF
            add_box(book, [0, 0, 0], [depth, thickness, height], rgb, mass=0.12, friction=GRIP)
            for z in (-1, 1):
                pages = [0.004, 0, z * 0.0005], [depth - 0.003, thickness - 0.003, height]
                add_box(book, *pages, _PAGES, contype=0, conaffinity=0, mass=0)
            add_site(book, f"book_{i}", [0, 0, 0])
            add_site(book, f"book_{i}_top", [0, 0, _GRASP], x=(0, 1, 0))
            if i == 1:
                add_site(book, "pair_top", [0, _PAIR - y, _GRASP], x=(0, 1, 0))


class Bookshelf(SceneObject):
    """Low bookshelf with two shelves, the upper open at the top."""

    name = "bookshelf"
    region = Region((0.50, 0.56), (0.15, 0.20), (-0.4, 0.4))
    radius = 0.13
    receives = True

    def build(self, spec: mujoco.MjSpec) -> None:
        """See :class:`SceneObject`."""
        shelf = spec.worldbody.add_body(name=self.name)
        for z in (0.012, _TOP - 0.005):
            add_box(shelf, [0, 0, z], [_DEPTH, _WIDTH, 0.005], _WOOD)
        half = _TOP / 2 + _CHEEK
        for side in (-1, 1):
            add_box(shelf, [0, side * _WIDTH, half], [_DEPTH, 0.006, half], _WOOD)
        add_box(shelf, [_DEPTH, 0, half], [0.005, _WIDTH, half], _WOOD)
        add_site(shelf, "top_shelf", [0, 0, _TOP + 0.04], half=(_DEPTH, _WIDTH, 0.04))
        add_site(shelf, "books_goal", [-0.005, 0, _TOP + _HALF[2] + _GRASP + 0.002], x=(0, 1, 0))


class PutBooksOnBookshelf(Task):
    """Judged as in the GENIMA paper, appendix A."""

    instructions = (
        "put {books} on the bookshelf",
        "pick up {books} and place {them} on the top shelf",
        "move {books} from the table to the top shelf",
    )
    variations = ({"books": "1 book", "them": "it"}, {"books": "2 books", "them": "them"})
    objects = (Books(), Bookshelf())
    allows_scaling = True
    near_misses = {
        "in front of the bookshelf": {"book_0": RelativePose("top_shelf", (-0.12, 0.0, -0.09))},
        "on the lower shelf": {"book_0": RelativePose("top_shelf", (-0.01, 0.0, -0.129), (1.57, 0.0, 0.0))},
        "above the top shelf": {"book_0": RelativePose("top_shelf", (0.0, 0.0, 0.6))},
        "toppled": {"book_0": RelativePose("book_0", (0.0, 0.06, -0.045), (1.57, 0.0, 0.0))},
    }

    def succeeded(self, state: SceneState) -> bool:
        """See :class:`Task`."""
        names = [f"book_{i}" for i in range(3)]
        inside = [name for name in names if state.is_inside(name, "top_shelf") and state.touch(name, "bookshelf")]
        return len(inside) > self.variation and not any(state.is_touched(name) for name in inside)

    def motions(self, scene: SceneFrames) -> Iterator[Motion]:
        """See :class:`Task`."""
        top, goal = scene.frame("book_0_top" if self.variation == 0 else "pair_top"), scene.frame("books_goal")
        yield from grasp(top)
        yield MoveTo(shift(top, z=_LIFT), 1.0, 0.0)
        yield MoveTo(shift(goal, z=0.05), 1.5, 0.0)
        yield MoveTo(goal, 0.7, 0.0)
        yield MoveTo(goal, GRIP_TIME, 1.0)
