"""Find the spheres of a drawing by their colours and their outline."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit

from genima.cameras.camera import Camera
from genima.errors import GenimaError
from genima.targets.appearance import Appearance
from genima.types import Image

_MAX_ANGLE = np.deg2rad(20)  # of a pixel's rgb from a sphere's; of the paper's colours, the nearest two are 31 apart
_DARKEST = 0.2  # of the colour's brightness; below, hues are noise
_CHANGED = 24  # grey levels of some channel by which a sphere differs from the observation, or ...
_CHANGED_MORE = 3  # ... times what half of the view differs by, where colours have shifted
_SMALLEST = 0.001  # of the view's area
_FILLED = 1 / 3  # of a disc: where the dark stripes are lost on a dark scene, not much more is left
_SEARCH_SIZE = 64  # px, side of the view in which discs are looked for
_SEARCH_RADII = np.geomspace(0.03, 0.25, 7)  # of the view's side
_RING = 1.3  # outer radius of what must not have the sphere's colour, in radii
_EDGE = 0.5  # px, softness of the fitted outline


class Disc(NamedTuple):
    """A sphere on an image, from its outline alone: where the border or another sphere cuts it, the whole one."""

    u: float  # px, where its centre projects to
    v: float  # px
    distance: float  # m, from the camera to its centre
    area: int  # px of it that are seen
    closed: bool  # in the colour of the closed gripper


class Paint(NamedTuple):
    """A colour that a sphere may have."""

    sphere: str
    colour: NDArray[np.float64]  # (3,) rgb, 0..255
    closed: bool  # only while the gripper is to be closed


SCENE, HIDDEN = -1, -2  # labels of pixels that show no sphere, and that cannot tell


def palette(appearance: Appearance) -> list[Paint]:
    """All colours of all spheres."""
    paints = []
    for sphere in appearance.spheres:
        paints.append(Paint(sphere.name, np.array(sphere.colour, float), False))
        if sphere.closed_colour is not None:
            paints.append(Paint(sphere.name, np.array(sphere.closed_colour, float), True))
    return paints


def read_centres(
    image: Image, camera: Camera, appearance: Appearance, observation: Image | None = None
) -> dict[str, Disc | None]:
    """Where a drawn view (h, w, 3) shows each sphere; None for those that it does not show.

    Not the centroid of a sphere's pixels is read, which moves when the border or another sphere hides some of them,
    but the cone of rays whose edge fits their outline: its axis is the ray to the centre, also off the image's
    middle, where a sphere's outline is an ellipse about another point.

    Of two discs in a sphere's colours, the one with more pixels counts.

    Args:
        camera: scaled to the image's size.
        observation: the same view without spheres; only where the drawing differs from it, there are spheres.

    Raises:
        GenimaError: when image, observation and camera differ in size, or the view has no sphere radius.
    """
    return find_discs(label_pixels(image, camera, appearance, observation), camera, appearance)


def label_pixels(image: Image, camera: Camera, appearance: Appearance, observation: Image | None) -> NDArray[np.intp]:
    """For each pixel (h, w) the index of its colour in the :func:`palette`, bright or dark; else SCENE or HIDDEN."""
    for what, pixels in (("drawing", image), ("observation", observation)):
        if pixels is not None and pixels.shape != (camera.height, camera.width, 3):
            raise GenimaError(
                f"the {what} of view {camera.view} has shape {pixels.shape}, its camera images of "
                f"{(camera.height, camera.width, 3)}: resize the image or scale the camera"
            )
    labels = _nearest_colours(image, appearance)
    if appearance.dark <= _DARKEST:
        _fill_dark_stripes(labels, image, appearance)
    if observation is not None:
        change = cv2.absdiff(image, observation).max(axis=-1)
        unchanged = change < max(_CHANGED, _CHANGED_MORE * np.median(change))
        # What had a sphere's colour before may have one on it now: a red thing under the red sphere.
        labels[unchanged] = np.where(labels[unchanged] == SCENE, SCENE, HIDDEN)
    return labels


def _nearest_colours(image: Image, appearance: Appearance) -> NDArray[np.intp]:
    """By hue and saturation, as stripes and the blur between them differ in brightness alone; greys are no colour."""
    colours = np.stack([*(paint.colour for paint in palette(appearance)), np.ones(3)]).astype(np.float32)
    full = np.linalg.norm(colours, axis=1)
    pixels = image.reshape(-1, 3).astype(np.float32).T
    length = np.sqrt(np.square(pixels).sum(axis=0))
    cosines = (colours / full[:, None]) @ pixels  # times the length
    nearest = cosines.argmax(axis=0)
    alike = cosines.max(axis=0) > np.cos(_MAX_ANGLE) * length
    bright = length > _DARKEST * full[nearest]
    sphere = alike & bright & (nearest < len(colours) - 1)
    return np.where(sphere, nearest, SCENE).reshape(image.shape[:2])


def _fill_dark_stripes(labels: NDArray[np.intp], image: Image, appearance: Appearance) -> None:
    """Label stripes that are too dark to have a colour as the sphere's whose coloured stripes they lie between.

    Without them half of a disc is missing, and any smaller disc fits its pixels as well. The widest stripe that can be
    lies on the largest disc that is looked for.
    """
    colours = palette(appearance)
    brightness = np.linalg.norm(image.astype(np.float32), axis=-1)
    widest = appearance.stripe_period / 2 * 2 * _SEARCH_RADII[-1] * max(labels.shape)
    reach = int(np.ceil(widest / 2)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    for k, paint in enumerate(colours):
        member = (labels == k).astype(np.uint8)
        if np.count_nonzero(member) < _SMALLEST * labels.size / 2:
            continue
        around = cv2.copyMakeBorder(member, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=0)
        closed = cv2.morphologyEx(around, cv2.MORPH_CLOSE, kernel)[reach:-reach, reach:-reach]
        dark = brightness <= max(2 * appearance.dark, _DARKEST) * np.linalg.norm(paint.colour)
        labels[(closed > 0) & dark & (labels == SCENE)] = k


def find_discs(labels: NDArray[np.intp], camera: Camera, appearance: Appearance) -> dict[str, Disc | None]:
    """The discs of :func:`read_centres` among labelled pixels (h, w)."""
    if camera.view not in appearance.radii:
        views = ", ".join(appearance.radii)
        raise GenimaError(f"the appearance has no sphere radius for view {camera.view} (only for {views}): add one")
    found: dict[str, Disc | None] = {sphere.name: None for sphere in appearance.spheres}
    for k, paint in enumerate(palette(appearance)):
        disc = _find(labels, k, camera, appearance.radii[camera.view], paint.closed)
        other = found[paint.sphere]
        if disc and (other is None or disc.area > other.area):
            found[paint.sphere] = disc
    return found


def _find(labels: NDArray[np.intp], k: int, camera: Camera, radius: float, closed: bool) -> Disc | None:
    """The disc that holds most pixels of colour k and fewest others; other spheres may lie before it."""
    member, other = labels == k, labels == SCENE
    if np.count_nonzero(member) < _SMALLEST * labels.size:
        return None
    evidence = member - _FILLED * other
    u, v, size = _search(evidence.astype(np.float32))
    # The outline is fitted to the pixels round the disc: inside or outside of a cone about the centre's ray.
    rows, columns = np.nonzero((member | other) & (_distances(labels.shape, u, v) < 1.5 * size + 2))
    if len(rows) < 3:  # too few for three unknowns
        return None
    rays = rays_through(camera, columns + 0.5, rows + 0.5)
    inside = member[rows, columns]

    def depth_inside(cone: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far within the outline each pixel lies, in px at the image's middle."""
        axis = rays_through(camera, cone[0], cone[1])
        return cone[2] - camera.fx * np.arccos(np.clip(rays @ axis, -1, 1))

    fit = least_squares(
        lambda cone: expit(depth_inside(cone) / _EDGE) - inside,
        [u, v, size], method="lm", diff_step=1e-4, xtol=1e-3, ftol=1e-3,
    )  # fmt: skip
    if np.abs(fit.x - [u, v, size]).max() > size:  # no outline: a texture, or what another sphere leaves
        return None
    within = depth_inside(fit.x) > 0
    area = int(np.count_nonzero(within & inside))
    if area < max(_SMALLEST * labels.size, _FILLED * np.count_nonzero(within)):
        return None
    u, v, size = fit.x
    return Disc(float(u), float(v), float(radius / np.sin(size / camera.fx)), area, closed)


def _search(evidence: NDArray[np.float32]) -> tuple[float, float, float]:
    """Centre and radius in px of the disc with the greatest sum of evidence within, less that in a ring about it."""
    scale = max(evidence.shape) / _SEARCH_SIZE
    small = cv2.resize(evidence, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    best = (-np.inf, 0.0, 0.0, 0.0)
    for radius in _SEARCH_RADII * _SEARCH_SIZE:
        reach = int(np.ceil(_RING * radius))
        d = _distances((2 * reach + 1, 2 * reach + 1), reach + 0.5, reach + 0.5)
        disc, ring = (np.clip(r + 0.5 - d, 0, 1) for r in (radius, _RING * radius))
        score = cv2.filter2D(small, -1, 2 * disc - ring, borderType=cv2.BORDER_CONSTANT)
        v, u = np.unravel_index(score.argmax(), score.shape)
        best = max(best, (float(score[v, u]), u + 0.5, v + 0.5, radius))
    return best[1] * scale, best[2] * scale, best[3] * scale


def rays_through(
    camera: Camera, u: NDArray[np.floating] | float, v: NDArray[np.floating] | float
) -> NDArray[np.float64]:
    """Unit vectors (..., 3) in the optical frame, from the camera through pixels (u, v)."""
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def _distances(shape: tuple[int, ...], u: float, v: float) -> NDArray[np.float64]:
    """Of each pixel (h, w) from (u, v), in px."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(columns + 0.5 - u, rows + 0.5 - v)
