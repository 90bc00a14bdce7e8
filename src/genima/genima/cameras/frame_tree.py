"""Trees of frames, as ROS's tf has them, and where a calibrated camera is hung into one.

A calibration is of the optical frame, but a driver has given that a parent already, and a frame has one parent only:
so the root of the driver's own frames, ``<camera>_link``, is hung under the robot's frame instead::

    parent ──► <camera>_link ──► ... ──► <camera>_color_optical_frame
            ours              the driver's
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from genima.errors import GenimaError
from genima.io.files import validate
from genima.robot.rigid_transforms import difference, inverse, pose

Array = NDArray[np.float64]
FrameName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$")]
"""Name of a frame in tf; tf2 refuses a leading slash, and everything prints and types the rest."""

# Of an optical frame (z forward, x right, y down) in a link (x forward, y left, z up): axes alone, REP 103.
T_LINK_OPTICAL = pose(np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), np.zeros(3))
_ONE_PARENT = "a frame has one parent only, so end one of those who publish them"
_SAME = 1e-6, 1e-6  # m, rad


def require_frame(name: str, what: str) -> str:
    """Return a frame's name; ``what`` is the subject of the error: "--base-frame".

    Raises:
        GenimaError: for a name that tf refuses.
    """
    try:
        return validate(FrameName, name, what)
    except GenimaError:
        raise GenimaError(
            f"{what}: not a frame's name ({name!r}); use letters, digits, underscores, and no slash in front"
        ) from None


@dataclass
class FrameTree:
    """What has been said about who hangs under whom."""

    _above: dict[str, tuple[str, Array]] = field(default_factory=dict)  # by child: parent, T_parent_child

    def add(self, parent: str, child: str, T_parent_child: Array) -> None:
        """Take note of a transform (4, 4); a newer one of the same two frames counts.

        Raises:
            GenimaError: when the child has another parent already, or hangs under itself.
        """
        before = self.parent(child)
        if before is not None and before != parent:
            raise GenimaError(f"{child} hangs under {before} and under {parent}: {_ONE_PARENT}")
        if child == parent or child in self.ancestors(parent):
            raise GenimaError(f"{child} hangs under itself, by way of {parent}")
        self._above[child] = parent, T_parent_child

    def parent(self, frame: str | None) -> str | None:
        """The frame that it hangs under; None where nobody has said."""
        return self._above[frame][0] if frame in self._above else None

    def ancestors(self, frame: str) -> Iterator[str]:
        """Its parent, that one's parent, and so on."""
        while (above := self.parent(frame)) is not None:
            yield above
            frame = above

    def root(self, frame: str) -> str:
        """The last of its ancestors; itself where it has none."""
        return [frame, *self.ancestors(frame)][-1]

    def T(self, ancestor: str, frame: str) -> Array:
        """Pose (4, 4) of a frame in one of its ancestors, or in itself."""
        T = np.eye(4)
        while frame != ancestor:
            frame, T_parent_child = self._above[frame]
            T = T_parent_child @ T
        return T

    def says(self, parent: str, child: str, T_parent_child: Array) -> bool:
        """Whether exactly this has been said."""
        if self.parent(child) != parent:
            return False
        metres, angle = difference(self._above[child][1], T_parent_child)
        return metres < _SAME[0] and angle < _SAME[1]


@dataclass(frozen=True)
class FrameAttachment:
    """A transform to be published."""

    parent: str
    child: str
    T_parent_child: Array  # (4, 4)


def attach_camera(tree: FrameTree, parent: str, optical: str, T_parent_optical: Array) -> list[FrameAttachment]:
    """What is to be published so that ``optical`` is at ``T_parent_optical`` (4, 4) in ``parent``, given all that
    others publish.

    The root of the driver's frames around it is hung there. Where there are none, as of a simulator, the link is taken
    to be where the optical frame is (:data:`T_LINK_OPTICAL`), and both are published.

    Raises:
        GenimaError: when the camera hangs somewhere already.
    """
    root, link = tree.root(optical), camera_link(optical)
    if link is not None and link != root and link in tree.ancestors(optical):
        raise GenimaError(f"{link} hangs under {tree.parent(link)} already: {_ONE_PARENT}")
    if root == tree.root(parent):
        raise GenimaError(f"{optical} hangs under {root} already, as {parent} does: {_ONE_PARENT}")
    if root != optical:
        return [FrameAttachment(parent, root, T_parent_optical @ inverse(tree.T(root, optical)))]
    if link is None:
        return [FrameAttachment(parent, optical, T_parent_optical)]
    if above := tree.parent(link):
        raise GenimaError(f"{link} hangs under {above} already: {_ONE_PARENT}")
    return [
        FrameAttachment(parent, link, T_parent_optical @ inverse(T_LINK_OPTICAL)),
        FrameAttachment(link, optical, T_LINK_OPTICAL),
    ]


def camera_link(optical: str) -> str | None:
    """How the link of a camera is called whose optical frame this is: ``front_link`` of ``front_color_optical_frame``;
    None for a name of another kind."""
    camera = optical.removesuffix("_optical_frame")
    return None if camera == optical else f"{camera.removesuffix('_color')}_link"
