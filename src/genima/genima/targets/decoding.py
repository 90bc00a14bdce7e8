"""Decoding of drawn targets to joint positions, and its errors.

::

    drawn views ──► discs in the spheres' colours ──► fit of the sphere centres ──► fit of the brightness,
                    (sphere_detection)                to the discs' rays            stripes included
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, least_squares
from scipy.special import expit

from genima.cameras.camera import Camera
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.targets.appearance import Appearance, Sphere
from genima.targets.rendering import draw_targets
from genima.targets.sphere_detection import SCENE, Disc, find_discs, label_pixels, palette, rays_through, read_centres
from genima.targets.sphere_geometry import place_spheres
from genima.types import Image

__all__ = ["DecodedTarget", "DecodingErrors", "Disc", "TargetDecoder", "read_centres", "summarise_errors"]

Array = NDArray[np.float64]

_CENTRE_NOISE = 0.012  # of the view's side: noise of the centres in generated targets
_DISTANCE_NOISE = 0.1  # of the distance
_OUTLIER = 5.0  # times the noise: other discs are not spheres of this arm
_MOVE = 0.5  # rad between measured and target joints: a prior where the image is ambiguous, and so is ...
_NEARER = 0.6  # ... the brightness error that weighs as much as 1 rad between them
_PRIOR = 1.5  # rad, standard deviation of a joint that the image does not determine
_SCAN_REACH = 2.5  # standard deviations
_SCAN_STEP, _SCAN_FRACTION = 0.12, 0.24  # rad, and fraction of a stripe period in radii
_RESCANS = 3  # at most, for fine stripes
_GRID_SIZE = 64  # px, side of the grid on which brightness is compared, ...
_GRID_PERIOD = 0.375  # ... for stripes that are not finer than this
_RIM = 0.2  # radii, half chord: a ray's depth changes too fast in the outer 2% of a disc
_CORRELATED = 10.0  # pixels of that grid with correlated errors
_UNKNOWN = np.deg2rad(8)  # standard deviation: joints above are undetermined
_WITHIN_PX, _WITHIN_DEGREES = 3, 3  # limits of the summary's "within"


@dataclass(frozen=True)
class DecodedTarget:
    """Joint positions decoded from a drawn target."""

    positions: Array  # (n,) rad; NaN for undetermined joints
    deviations: Array  # (n,) rad, standard deviations; infinite without spheres
    gripper_open: bool | None  # None without a gripper sphere
    agreement: float  # correlation of the image's brightness with the model's at ``positions``, or NaN
    discs: Mapping[str, Mapping[str, Disc | None]]  # by view and sphere


@dataclass(frozen=True)
class DecodingErrors:
    """Errors of a drawn target."""

    pixels: Mapping[str, Mapping[str, float]]  # px, by view and visible sphere; NaN for missing ones
    degrees: Mapping[str, float]  # by joint; NaN for undetermined ones
    gripper_right: bool | None  # None where no view shows it
    agreement: float  # see DecodedTarget

    @property
    def found(self) -> float:
        """Fraction of the visible spheres that were found, 0..1; NaN without visible ones."""
        return _fraction(np.isfinite(error) for view in self.pixels.values() for error in view.values())


class TargetDecoder:
    """Decoder of drawn targets: joint positions from the spheres of all views at once."""

    def __init__(self, cameras: Mapping[str, Camera], robot: RobotModel, appearance: Appearance) -> None:
        """``cameras`` by view, scaled to the images."""
        self._cameras, self._robot, self._appearance = cameras, robot, appearance

    def decode(
        self,
        images: Mapping[str, Image],
        current: NDArray[np.floating],
        observation: Mapping[str, Image] | None = None,
    ) -> DecodedTarget:
        """Fit the joint positions to the spheres.

        Args:
            images: views (h, w, 3) of the drawn target.
            current: measured joint positions (n,) rad: they place a camera on the flange, and start the search.
            observation: the views without spheres, where known; they suppress scene pixels in the spheres' colours.

        Raises:
            GenimaError: for a view without camera, observation or sphere radius, or sizes that differ.
        """
        robot, appearance, cameras = self._robot, self._appearance, self._cameras
        for what, known in (("camera", cameras), ("observation", images if observation is None else observation)):
            if missing := [view for view in images if view not in known]:
                raise GenimaError(f"drawn target: no {what} of view {', '.join(missing)}; there is {', '.join(known)}")
        labels = {
            view: label_pixels(image, cameras[view], appearance, None if observation is None else observation[view])
            for view, image in images.items()
        }
        discs = {view: find_discs(labels[view], cameras[view], appearance) for view in images}
        sightings = [
            _Sighting(
                view, np.linalg.inv(cameras[view].T_base_camera(robot, current)), cameras[view], sphere,
                appearance.radii[view], disc,
            )
            for view, found in discs.items()
            for sphere in appearance.spheres
            if (disc := found[sphere.name])
        ]  # fmt: skip
        fit = _fit_centres(sightings, robot, current)
        off = np.linalg.norm(fit.fun[: 3 * len(sightings)].reshape(-1, 3), axis=1)
        sightings = [sighting for sighting, error in zip(sightings, off, strict=True) if error < _OUTLIER]
        votes = [
            -s.disc.area if s.disc.closed else s.disc.area for s in sightings if s.sphere.closed_colour is not None
        ]
        gripper_open = bool(sum(votes) > 0) if votes else None
        sightings = [s for s in sightings if s.sphere.closed_colour is None or s.disc.closed != gripper_open]
        if not sightings:
            unknown = np.full(len(robot.joint_names), np.nan)
            return DecodedTarget(unknown, np.full_like(unknown, np.inf), None, np.nan, discs)
        brightness = _Brightness.of(sightings, images, labels, robot, appearance)
        positions, deviations = _fit_brightness(brightness, fit, current)
        agreement = float(np.corrcoef(brightness.drawn, brightness(positions))[0, 1])
        positions = np.where(deviations < _UNKNOWN, positions, np.nan)
        return DecodedTarget(positions, deviations, gripper_open, agreement, discs)

    def errors(
        self,
        images: Mapping[str, Image],
        target: NDArray[np.floating],
        gripper_open: bool,
        current: NDArray[np.floating],
        observation: Mapping[str, Image] | None = None,
    ) -> DecodingErrors:
        """Compare a drawn target with the joint positions ``target`` (n,) rad that it should show.

        A sphere counts where it can be read from the exact rendering. Other arguments and errors as in :meth:`decode`.
        """
        robot, appearance = self._robot, self._appearance
        decoded = self.decode(images, current, observation)
        pixels: dict[str, dict[str, float]] = {}
        gripper_visible = False
        for view, image in images.items():
            camera, scene = self._cameras[view], np.zeros_like(image) if observation is None else observation[view]
            exact = draw_targets(scene, camera, robot, appearance, target, gripper_open, current)
            visible = read_centres(exact, camera, appearance, scene)
            pixels[view] = {}
            for sphere, placed in zip(
                appearance.spheres, place_spheres(camera, robot, appearance, target, gripper_open, current), strict=True
            ):
                if visible[sphere.name] is None:
                    continue
                x, y, z = placed.centre
                disc = decoded.discs[view][sphere.name]
                u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
                pixels[view][sphere.name] = float(np.hypot(disc.u - u, disc.v - v)) if disc else np.nan
                gripper_visible |= sphere.closed_colour is not None
        angles = (decoded.positions - target + np.pi) % (2 * np.pi) - np.pi
        return DecodingErrors(
            pixels,
            dict(zip(robot.joint_names, np.abs(np.rad2deg(angles)).tolist(), strict=True)),
            bool(decoded.gripper_open == gripper_open) if gripper_visible else None,
            decoded.agreement,
        )


@dataclass(frozen=True)
class _Sighting:
    """Disc that may be a sphere."""

    view: str
    T_camera_base: NDArray[np.floating]  # (4, 4)
    camera: Camera
    sphere: Sphere
    radius: float  # m
    disc: Disc


@dataclass(frozen=True)
class _Frames:
    """Frames of m detected spheres, each in its camera's optical frame."""

    robot: RobotModel
    T_camera_base: Array  # (m, 4, 4)
    index: NDArray[np.intp]  # (m,) into the arm's link poses

    @classmethod
    def of(cls, sightings: Sequence[_Sighting], robot: RobotModel) -> _Frames:
        T_camera_base = np.array([s.T_camera_base for s in sightings]).reshape(-1, 4, 4)
        return cls(robot, T_camera_base, np.array([s.sphere.frame for s in sightings], int))

    def __call__(self, positions: Array) -> tuple[Array, Array]:
        """Return centres in m and stripe normals (..., m, 3) at joint positions (..., n)."""
        T_camera_frame = self.T_camera_base @ self.robot.link_poses(positions)[..., self.index, :, :]
        return T_camera_frame[..., :3, 3], T_camera_frame[..., :3, 0]


def _fit_centres(sightings: Sequence[_Sighting], robot: RobotModel, current: NDArray[np.floating]) -> OptimizeResult:
    """Fit the joint positions to the rays of the discs, with a robust loss against outliers.

    The residuals, in standard deviations, start with those of the rays (x, y, z), disc by disc.
    """
    frames = _Frames.of(sightings, robot)
    rays = np.array([rays_through(s.camera, s.disc.u, s.disc.v) for s in sightings]).reshape(-1, 3)
    noise = np.array([_CENTRE_NOISE * s.camera.width / s.camera.fx for s in sightings])
    observed = np.array([s.disc.distance for s in sightings])

    def residuals(positions: Array) -> Array:
        centres, _ = frames(positions)
        distances = np.linalg.norm(centres, axis=-1)
        lateral = (centres / distances[..., None] - rays) / noise[:, None]
        return np.concatenate(
            [
                lateral.reshape(*positions.shape[:-1], -1),
                np.log(distances / observed) / _DISTANCE_NOISE,
                (positions - current) / _MOVE,
            ],
            axis=-1,
        )

    limits = robot.position_min, robot.position_max
    return least_squares(residuals, np.clip(current, *limits), _jacobian(residuals, 1e-5), limits, loss="cauchy")


def _fit_brightness(
    brightness: _Brightness, centres: OptimizeResult, current: NDArray[np.floating]
) -> tuple[Array, Array]:
    """Fit the joint positions (n,) to the brightness of the spheres; return them and their standard deviations."""

    def residuals(positions: Array) -> Array:
        return np.concatenate([brightness(positions) - brightness.drawn, _NEARER * (positions - current)], axis=-1)

    period = brightness.appearance.stripe_period
    step = min(_SCAN_STEP, _SCAN_FRACTION * period)

    def refine(start: Array) -> OptimizeResult:
        return least_squares(residuals, start, _jacobian(residuals, 1e-5), method="lm", xtol=1e-4, ftol=1e-4)

    fit = refine(_scan(residuals, centres.x, centres.jac, step))
    if period < _GRID_PERIOD:  # a scan that starts a degree off may miss a fine stripe
        fit = min(fit, refine(centres.x), key=lambda result: result.cost)
        for _ in range(_RESCANS):
            other = refine(_scan(residuals, fit.x, centres.jac, step))
            if other.cost > 0.99 * fit.cost:
                break
            fit = other
    n = len(current)
    information = fit.jac[:-n].T @ fit.jac[:-n] / (np.mean(fit.fun[:-n] ** 2) * _CORRELATED)
    return fit.x, np.diag(np.linalg.inv(information + np.eye(n) / _PRIOR**2)) ** 0.5


def _scan(residuals: Callable[[Array], Array], positions: Array, jacobian: Array, step: float) -> Array:
    """Scan the directions that the centres do not determine, such as the last joint, for the smallest residuals.

    Args:
        positions: (n,) rad, start.
        jacobian: of the centres' residuals.
        step: rad.

    Stripes are periodic: a gradient search would end in a local minimum.
    """
    information, directions = np.linalg.eigh(jacobian.T @ jacobian)
    deviations = np.maximum(information, 1e-6) ** -0.5
    for deviation, direction in zip(deviations, directions.T, strict=True):
        reach = min(_SCAN_REACH * float(deviation), np.pi / 2)
        steps = np.linspace(-reach, reach, 2 * int(reach / step) + 1)
        candidates = positions + steps[:, None] * direction
        positions = candidates[np.square(residuals(candidates)).sum(axis=-1).argmin()]
    return positions


def _jacobian(function: Callable[[Array], Array], step: float) -> Callable[[Array], Array]:
    """Return the jacobian by central differences, of all joints at once."""

    def jacobian(positions: Array) -> Array:
        steps = step * np.eye(len(positions))
        return ((function(positions + steps) - function(positions - steps)) / (2 * step)).T

    return jacobian


@dataclass(frozen=True)
class _Brightness:
    """Brightness of N pixels in and around m discs, 0 outside the spheres: of the image, and of the model.

    The renderers' pixels are binary, which gives no gradient; here, edges are as soft as in the blurred image. One
    value per pixel is enough, as the colour of a disc is known.
    """

    frames: _Frames
    radius: Array  # (m,) m
    focal: Array  # (m,) px
    blur: Array  # (m,) px, of edges
    disc: NDArray[np.intp]  # (N,) index of the disc
    ray: Array  # (N, 3) unit vectors
    drawn: Array  # (N,) of the image: 1 on a bright stripe
    appearance: Appearance

    @classmethod
    def of(
        cls,
        sightings: Sequence[_Sighting],
        images: Mapping[str, Image],
        labels: Mapping[str, NDArray[np.intp]],
        robot: RobotModel,
        appearance: Appearance,
    ) -> _Brightness:
        colours = {(paint.sphere, paint.closed): (k, paint.colour) for k, paint in enumerate(palette(appearance))}
        disc, ray, drawn, blur = [], [], [], []
        grid = _GRID_SIZE * int(np.ceil(_GRID_PERIOD / appearance.stripe_period))
        for i, s in enumerate(sightings):
            k, colour = colours[s.sphere.name, s.disc.closed]
            camera, stride = s.camera, max(1, s.camera.width // grid)
            reach = 1.5 * camera.fx * s.radius / s.disc.distance + 2
            box = _around(s.disc.v, reach, camera.height), _around(s.disc.u, reach, camera.width)
            own = labels[s.view][box] == k
            visible = own | (labels[s.view][box] == SCENE)  # not where another sphere may occlude this one
            shade = np.where(own, np.minimum(images[s.view][box] @ colour / (colour @ colour), 1.2), 0)
            blur.append(stride / 2)
            weight = cv2.GaussianBlur(visible.astype(float), (0, 0), blur[i])
            light = cv2.GaussianBlur(shade, (0, 0), blur[i])
            rows, columns = (stride * index for index in np.nonzero(visible[::stride, ::stride]))
            disc.append(np.full(len(rows), i))
            ray.append(rays_through(camera, columns + box[1].start + 0.5, rows + box[0].start + 0.5))
            drawn.append(light[rows, columns] / weight[rows, columns])
        return cls(
            _Frames.of(sightings, robot), np.array([s.radius for s in sightings]),
            np.array([s.camera.fx for s in sightings]), np.array(blur), np.concatenate(disc), np.concatenate(ray),
            np.concatenate(drawn), appearance,
        )  # fmt: skip

    def __call__(self, positions: Array) -> Array:
        """Return the model's brightness (..., N) at joint positions (..., n)."""
        centre, normal = self.frames(positions)
        softness = 0.6 * self.blur / self.focal  # rad; 0.6 makes the logistic function as soft as a Gaussian
        distance = np.maximum(np.linalg.norm(centre, axis=-1), 1.001 * self.radius)
        size = np.arcsin(self.radius / distance)  # rad, of the cone around the sphere
        middle = np.einsum("...mi,...mi->...m", centre, normal)
        period = self.appearance.stripe_period
        sharpness = period * size / (np.pi * softness)
        # Per pixel: a ray t * (x, y, z) meets |p - centre| = radius where t^2 - 2 b t + distance^2 - radius^2 = 0.
        m, radius = self.disc, self.radius[self.disc]
        b = np.einsum("...i,...i", centre[..., m, :], self.ray)
        t = b - np.sqrt(np.maximum(b**2 - distance[..., m] ** 2 + radius**2, (_RIM * radius) ** 2))
        along = (t * np.einsum("...i,...i", normal[..., m, :], self.ray) - middle[..., m]) / radius  # -1..1
        first = np.sin(np.pi / period * (along + 1))  # positive on the first stripe, negative on the second
        bright = expit(sharpness[..., m] * (-first if self.appearance.first_stripe == "dark" else first))
        off_axis = np.arccos(np.clip(b / distance[..., m], -1, 1))
        inside = expit((size[..., m] - off_axis) / softness[m])
        return inside * (self.appearance.dark + (1 - self.appearance.dark) * bright)


def _around(middle: float, reach: float, size: int) -> slice:
    return slice(max(0, int(middle - reach)), min(size, int(middle + reach) + 1))


def summarise_errors(errors: Sequence[DecodingErrors]) -> dict[str, float]:
    """Summarise the errors of many drawn targets; NaN without values.

    ``px`` and ``px/<sphere>``, ``deg`` and ``deg/<joint>`` are medians of the finite errors, ``px_within_3`` and so on
    their fractions within 3 px or degrees; ``found`` is the fraction of spheres found, ``determined`` that of joints,
    ``gripper`` that of images with the right gripper.
    """
    by_sphere: dict[str, list[float]] = {}
    by_joint: dict[str, list[float]] = {}
    for error in errors:
        for view in error.pixels.values():
            for sphere, px in view.items():
                by_sphere.setdefault(sphere, []).append(px)
        for joint, degrees in error.degrees.items():
            by_joint.setdefault(joint, []).append(degrees)
    summary = {
        "found": _fraction(np.isfinite(px) for values in by_sphere.values() for px in values),
        "determined": _fraction(np.isfinite(degrees) for values in by_joint.values() for degrees in values),
        "gripper": _fraction(error.gripper_right for error in errors if error.gripper_right is not None),
    }
    for name, parts, limit in (("px", by_sphere, _WITHIN_PX), ("deg", by_joint, _WITHIN_DEGREES)):
        all_values = [value for values in parts.values() for value in values]
        for key, values in (("", all_values), *((f"/{part}", values) for part, values in parts.items())):
            finite = [value for value in values if np.isfinite(value)]
            summary[f"{name}{key}"] = float(np.median(finite)) if finite else np.nan
            summary[f"{name}_within_{limit}{key}"] = _fraction(value <= limit for value in finite)
    return summary


def _fraction(truths: Iterable[bool]) -> float:
    values = list(truths)
    return float(np.mean(values)) if values else np.nan
