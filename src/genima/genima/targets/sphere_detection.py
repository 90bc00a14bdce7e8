"""Detection of spheres in a drawn target by colour and outline."""

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

_MAX_ANGLE = np.deg2rad(20)  # between the rgb of a pixel and a sphere; the paper's colours are at least 31 deg apart
_DARKEST = 0.2  # of the colour's brightness: hues below are noise
_CHANGED = 24  # grey levels of any channel between a sphere and the observation, or ...
_CHANGED_MORE = 3  # ... times the view's median difference, where colours have shifted
_SMALLEST = 0.001  # of the view's area
_FILLED = 1 / 3  # of a disc: dark stripes on a dark scene are lost
_SEARCH_SIZE = 64  # px, side of the view for the disc search
_SEARCH_RADII = np.geomspace(0.03, 0.25, 7)  # of the view's side
_RING = 1.3  # outer radius of the ring without the sphere's colour, in radii
_EDGE = 0.5  # px, softness of the fitted outline


class Disc(NamedTuple):
    """Sphere in an image, from its outline; occluded and cropped spheres are completed."""

    u: float  # px, projection of the centre
    v: float  # px
    distance: float  # m, from the camera to its centre
    area: int  # px, visible
    closed: bool  # in the colour of the closed gripper


class Paint(NamedTuple):
    """Possible colour of a sphere."""

    sphere: str
    colour: NDArray[np.float64]  # (3,) rgb, 0..255
    closed: bool  # only while the gripper is to be closed


SCENE, HIDDEN = -1, -2  # labels of pixels without a sphere, and of undecidable pixels


def palette(appearance: Appearance) -> list[Paint]:
    """Return all colours of all spheres."""
    paints = []
    for sphere in appearance.spheres:
        paints.append(Paint(sphere.name, np.array(sphere.colour, float), False))
        if sphere.closed_colour is not None:
            paints.append(Paint(sphere.name, np.array(sphere.closed_colour, float), True))
    return paints


def read_centres(
    image: Image, camera: Camera, appearance: Appearance, observation: Image | None = None
) -> dict[str, Disc | None]:
    """Find the spheres in a drawn view (h, w, 3); None for those that are not visible.

    A cone of rays is fitted to the outline of a sphere's pixels; its axis is the ray to the centre. The centroid would
    be biased by occlusion, by the image border, and off the image's centre, where outlines are ellipses.

    Of two discs in a sphere's colours, the one with more pixels counts.

    Args:
        camera: scaled to the image's size.
        observation: the view without spheres; spheres are only where the images differ.

    Raises:
        GenimaError: for image, observation and camera of different sizes, or a view without sphere radius.
    """
    return find_discs(label_pixels(image, camera, appearance, observation), camera, appearance)


def label_pixels(image: Image, camera: Camera, appearance: Appearance, observation: Image | None) -> NDArray[np.intp]:
    """Label each pixel (h, w) with the index of its colour in the :func:`palette`, or SCENE or HIDDEN."""
    for what, pixels in (("drawn target", image), ("observation", observation)):
        if pixels is not None and pixels.shape != (camera.height, camera.width, 3):
            raise GenimaError(
                f"{what} of view {camera.view}: size differs from its camera's ({pixels.shape}, "
                f"{(camera.height, camera.width, 3)}); resize the image or scale the camera"
            )
    labels = _nearest_colours(image, appearance)
    if appearance.dark <= _DARKEST:
        _fill_dark_stripes(labels, image, appearance)
    if observation is not None:
        change = cv2.absdiff(image, observation).max(axis=-1)
        unchanged = change < max(_CHANGED, _CHANGED_MORE * np.median(change))
        # A scene pixel in a sphere's colour may be covered by the sphere: undecidable.
        labels[unchanged] = np.where(labels[unchanged] == SCENE, SCENE, HIDDEN)
    return labels


def _nearest_colours(image: Image, appearance: Appearance) -> NDArray[np.intp]:
    """Label pixels by hue and saturation: stripes differ only in brightness; greys are no colour."""
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
    """Label dark stripes between coloured stripes of a sphere with that sphere.

    Without them half of a disc is missing, and smaller discs fit as well. The widest stripe is that of the largest
    disc of the search.
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
    """Return the discs of :func:`read_centres` in labels (h, w)."""
    if camera.view not in appearance.radii:
        views = ", ".join(appearance.radii)
        raise GenimaError(f"appearance: no sphere radius for view {camera.view} (only for {views}); add it")
    found: dict[str, Disc | None] = {sphere.name: None for sphere in appearance.spheres}
    for k, paint in enumerate(palette(appearance)):
        disc = _find(labels, k, camera, appearance.radii[camera.view], paint.closed)
        other = found[paint.sphere]
        if disc and (other is None or disc.area > other.area):
            found[paint.sphere] = disc
    return found


def _find(labels: NDArray[np.intp], k: int, camera: Camera, radius: float, closed: bool) -> Disc | None:
    """Find the disc with most pixels of colour k and fewest of the scene; other spheres may occlude it."""
    member, other = labels == k, labels == SCENE
    if np.count_nonzero(member) < _SMALLEST * labels.size:
        return None
    evidence = member - _FILLED * other
    u, v, size = _search(evidence.astype(np.float32))
    # Fit of the outline to the pixels around the disc: inside or outside a cone about the centre's ray.
    rows, columns = np.nonzero((member | other) & (_distances(labels.shape, u, v) < 1.5 * size + 2))
    if len(rows) < 3:  # fewer than the three unknowns
        return None
    rays = rays_through(camera, columns + 0.5, rows + 0.5)
    inside = member[rows, columns]

    def depth_inside(cone: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the depth of each pixel inside the outline, px at the image's centre."""
        axis = rays_through(camera, cone[0], cone[1])
        return cone[2] - camera.fx * np.arccos(np.clip(rays @ axis, -1, 1))

    fit = least_squares(
        lambda cone: expit(depth_inside(cone) / _EDGE) - inside,
        [u, v, size], method="lm", diff_step=1e-4, xtol=1e-3, ftol=1e-3,
    )  # fmt: skip
    if np.abs(fit.x - [u, v, size]).max() > size:  # no outline: texture, or the rest of an occluded sphere
        return None
    within = depth_inside(fit.x) > 0
    area = int(np.count_nonzero(within & inside))
    if area < max(_SMALLEST * labels.size, _FILLED * np.count_nonzero(within)):
        return None
    u, v, size = fit.x
    return Disc(float(u), float(v), float(radius / np.sin(size / camera.fx)), area, closed)


def _search(evidence: NDArray[np.float32]) -> tuple[float, float, float]:
    """Find centre and radius in px of the disc with most evidence inside, less that in a ring around it."""
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
    """Return unit vectors (..., 3) in the optical frame through pixels (u, v)."""
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def _distances(shape: tuple[int, ...], u: float, v: float) -> NDArray[np.float64]:
    """Return the distance of each pixel (h, w) from (u, v), px."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(columns + 0.5 - u, rows + 0.5 - v)
