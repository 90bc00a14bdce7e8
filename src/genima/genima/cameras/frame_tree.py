"""Tree of tf frames, and attachment of a calibrated camera to it.

A calibration gives the pose of the optical frame, which already has a parent from the driver. A frame has only one
parent, so the root of the driver's frames, ``<camera>_link``, is attached to the robot's frame::

    parent ──────► <camera>_link ──────► ... ──► <camera>_color_optical_frame
         calibration             driver
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
from genima.robot.rigid_transforms import inverse, pose

Array = NDArray[np.float64]
FrameName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]*$")]
"""Name of a frame in tf; tf2 rejects a leading slash."""

# Rotation of an optical frame (z forward, x right, y down) in a link (x forward, y left, z up), REP 103.
T_LINK_OPTICAL = pose(np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), np.zeros(3))
_ONE_PARENT = "a frame has one parent; stop one of the publishers"


def require_frame(name: str, what: str) -> str:
    """Return a frame's name; ``what`` is the subject of the error: "--base-frame".

    Raises:
        GenimaError: for a name that tf refuses.
    """
    try:
        return validate(FrameName, name, what)
    except GenimaError:
        raise GenimaError(
            f"{what}: invalid frame name ({name!r}); use letters, digits and underscores, without a leading slash"
        ) from None


@dataclass
class FrameTree:
    """Tree of frames: parent and transform of each child."""

    _parents: dict[str, tuple[str, Array]] = field(default_factory=dict)  # by child: parent, T_parent_child

    def add(self, parent: str, child: str, T_parent_child: Array) -> None:
        """Add a transform (4, 4); it replaces an older one of the same two frames.

        Raises:
            GenimaError: when the child has another parent, or would be its own ancestor.
        """
        before = self.parent(child)
        if before is not None and before != parent:
            raise GenimaError(f"frame {child}: two parents ({before}, {parent}); {_ONE_PARENT}")
        if child == parent or child in self.ancestors(parent):
            raise GenimaError(f"frame {child}: cycle (through {parent}); remove one of the transforms")
        self._parents[child] = parent, T_parent_child

    def parent(self, frame: str | None) -> str | None:
        """Return the parent of a frame; None where it has none."""
        return self._parents[frame][0] if frame in self._parents else None

    def ancestors(self, frame: str) -> Iterator[str]:
        """Yield the ancestors of a frame, from its parent to the root."""
        while (ancestor := self.parent(frame)) is not None:
            yield ancestor
            frame = ancestor

    def root(self, frame: str) -> str:
        """Return the root of a frame's tree."""
        return [frame, *self.ancestors(frame)][-1]

    def T(self, ancestor: str, frame: str) -> Array:
        """Return the pose (4, 4) of a frame in an ancestor."""
        T = np.eye(4)
        while frame != ancestor:
            frame, T_parent_child = self._parents[frame]
            T = T_parent_child @ T
        return T


@dataclass(frozen=True)
class FrameAttachment:
    """Transform to publish."""

    parent: str
    child: str
    T_parent_child: Array  # (4, 4)


def attach_camera(tree: FrameTree, parent: str, optical: str, T_parent_optical: Array) -> list[FrameAttachment]:
    """Return the transforms that put ``optical`` at ``T_parent_optical`` (4, 4) in ``parent``.

    The root of the driver's frames is attached to ``parent``. Without driver frames, as in a simulator, the link is
    placed at the optical frame (:data:`T_LINK_OPTICAL`), and both are published.

    Raises:
        GenimaError: when the camera is already attached.
    """
    root, link = tree.root(optical), camera_link(optical)
    if link is not None and link != root and link in tree.ancestors(optical):
        raise GenimaError(f"frame {link}: has a parent already ({tree.parent(link)}); {_ONE_PARENT}")
    if root == tree.root(parent):
        raise GenimaError(f"frame {optical}: in the tree of {parent} already (root {root}); {_ONE_PARENT}")
    if root != optical:
        return [FrameAttachment(parent, root, T_parent_optical @ inverse(tree.T(root, optical)))]
    if link is None:
        return [FrameAttachment(parent, optical, T_parent_optical)]
    if ancestor := tree.parent(link):
        raise GenimaError(f"frame {link}: has a parent already ({ancestor}); {_ONE_PARENT}")
    return [
        FrameAttachment(parent, link, T_parent_optical @ inverse(T_LINK_OPTICAL)),
        FrameAttachment(link, optical, T_LINK_OPTICAL),
    ]


def camera_link(optical: str) -> str | None:
    """Return the link's name for an optical frame: ``front_link`` for ``front_color_optical_frame``, else None."""
    camera = optical.removesuffix("_optical_frame")
    return None if camera == optical else f"{camera.removesuffix('_color')}_link"
