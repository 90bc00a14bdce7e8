"""Read a drawing back: which joint positions it stands for, and how far these are from the true ones.

::

    drawn views ──► discs in the spheres' colours ──► joints whose sphere centres ──► joints whose spheres,
                    (sphere_detection)                lie on the discs' rays          stripes included, look so
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

__all__ = ["Disc", "DecodingErrors", "DecodedTarget", "decoding_errors", "read_centres", "decode_joints", "summarise"]

Array = NDArray[np.float64]

_CENTRE_NOISE = 0.012  # of the view's side, of the centres that a diffusion model draws
_DISTANCE_NOISE = 0.1  # of the distance
_OUTLIER = 5.0  # times the noise, beyond which a disc is no sphere of this arm
_MOVE = 0.5  # rad, between measured and target joints; it decides only what the drawing leaves open, and so does ...
_NEARER = 0.6  # ... the error in brightness that a rad between them counts as
_ANYWHERE = 1.5  # rad, standard deviation of a joint of which the drawing says nothing
_SCAN_REACH = 2.5  # standard deviations
_SCAN_STEP, _SCAN_SHARE = 0.12, 0.24  # rad, and of a stripe period in radii: a fraction of a stripe
_RESCANS = 3  # at most, for fine stripes
_COMPARED_SIZE = 64  # px, side of the grid on which brightness is compared, ...
_COMPARED_PERIOD = 0.375  # ... as long as stripes are not finer than this
_RIM = 0.2  # radii, half chord below which a ray's depth changes too fast to be followed: the outer 2% of a disc
_CORRELATED = 10.0  # pixels of that grid that err together
_UNKNOWN = np.deg2rad(8)  # standard deviation beyond which a joint counts as not shown
_WITHIN_PX, _WITHIN_DEGREES = 3, 3  # what summaries call close


@dataclass(frozen=True)
class DecodedTarget:
    """What a drawing says."""

    positions: Array  # (n,) rad; NaN for joints that the spheres found do not determine
    deviations: Array  # (n,) rad, standard deviations; infinite where nothing was found
    gripper_open: bool | None  # None where no gripper was found
    agreement: float  # correlation of the spheres' brightness as drawn and as it should be at ``positions``, or NaN
    discs: Mapping[str, Mapping[str, Disc | None]]  # by view and sphere


@dataclass(frozen=True)
class DecodingErrors:
    """How far a drawing is from the true one."""

    pixels: Mapping[str, Mapping[str, float]]  # px, by view and sphere, of those to be seen; NaN for missing ones
    degrees: Mapping[str, float]  # by joint; NaN for those that the drawing does not determine
    gripper_right: bool | None  # None where no view can show it
    agreement: float  # see Reading

    @property
    def found(self) -> float:
        """Share of the spheres to be seen that were found, 0..1; NaN where none is to be seen."""
        return _share(np.isfinite(error) for view in self.pixels.values() for error in view.values())


def decode_joints(
    images: Mapping[str, Image],
    current: NDArray[np.floating],
    cameras: Mapping[str, Camera],
    robot: RobotModel,
    appearance: Appearance,
    observation: Mapping[str, Image] | None = None,
) -> DecodedTarget:
    """The joint positions whose spheres explain a drawing in all its views at once.

    Args:
        images: the drawn views (h, w, 3).
        current: measured joint positions (n,) in rad: they place a camera on the hand and begin the search.
        cameras: by view, scaled to the images.
        observation: the same views without spheres, where they are known; scenes in the spheres' colours then
            disturb less.

    Raises:
        GenimaError: when a view has no camera, no observation, no sphere radius, or sizes differ.
    """
    for what, there in (("camera", cameras), ("observation", images if observation is None else observation)):
        if missing := [view for view in images if view not in there]:
            raise GenimaError(f"no {what} of the drawn view {', '.join(missing)}; there is {', '.join(there)}")
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
    votes = [-s.disc.area if s.disc.closed else s.disc.area for s in sightings if s.sphere.closed_colour is not None]
    gripper_open = bool(sum(votes) > 0) if votes else None
    sightings = [s for s in sightings if s.sphere.closed_colour is None or s.disc.closed != gripper_open]
    if not sightings:
        unknown = np.full(len(robot.joint_names), np.nan)
        return DecodedTarget(unknown, np.full_like(unknown, np.inf), None, np.nan, discs)
    brightness = _Brightness.of(sightings, images, labels, robot, appearance)
    positions, deviations = _fit_brightness(brightness, fit, current)
    agreement = float(np.corrcoef(brightness.drawn, brightness(positions))[0, 1])
    return DecodedTarget(np.where(deviations < _UNKNOWN, positions, np.nan), deviations, gripper_open, agreement, discs)


@dataclass(frozen=True)
class _Sighting:
    """A disc that may be a sphere."""

    view: str
    T_camera_base: NDArray[np.floating]  # (4, 4)
    camera: Camera
    sphere: Sphere
    radius: float  # m
    disc: Disc


@dataclass(frozen=True)
class _Frames:
    """The frames that m sighted spheres sit at, each in its camera's optical frame."""

    robot: RobotModel
    T_camera_base: Array  # (m, 4, 4)
    index: NDArray[np.intp]  # (m,) into the arm's link poses

    @classmethod
    def of(cls, sightings: Sequence[_Sighting], robot: RobotModel) -> _Frames:
        T_camera_base = np.array([s.T_camera_base for s in sightings]).reshape(-1, 4, 4)
        return cls(robot, T_camera_base, np.array([s.sphere.frame for s in sightings], int))

    def __call__(self, positions: Array) -> tuple[Array, Array]:
        """Centres in m and stripe normals (..., m, 3) at joint positions (..., n)."""
        T_camera_frame = self.T_camera_base @ self.robot.link_poses(positions)[..., self.index, :, :]
        return T_camera_frame[..., :3, 3], T_camera_frame[..., :3, 0]


def _fit_centres(sightings: Sequence[_Sighting], robot: RobotModel, current: NDArray[np.floating]) -> OptimizeResult:
    """Joint positions that put the spheres on their discs' rays; a disc where no other wants it counts little.

    The residuals, in standard deviations, begin with those of the rays (x, y, z), disc by disc.
    """
    frames = _Frames.of(sightings, robot)
    rays = np.array([rays_through(s.camera, s.disc.u, s.disc.v) for s in sightings]).reshape(-1, 3)
    noise = np.array([_CENTRE_NOISE * s.camera.width / s.camera.fx for s in sightings])
    away = np.array([s.disc.distance for s in sightings])

    def residuals(positions: Array) -> Array:
        centres, _ = frames(positions)
        distances = np.linalg.norm(centres, axis=-1)
        aside = (centres / distances[..., None] - rays) / noise[:, None]
        return np.concatenate(
            [
                aside.reshape(*positions.shape[:-1], -1),
                np.log(distances / away) / _DISTANCE_NOISE,
                (positions - current) / _MOVE,
            ],
            axis=-1,
        )

    limits = robot.position_min, robot.position_max
    return least_squares(residuals, np.clip(current, *limits), _jacobian(residuals, 1e-5), limits, loss="cauchy")


def _fit_brightness(
    brightness: _Brightness, centres: OptimizeResult, current: NDArray[np.floating]
) -> tuple[Array, Array]:
    """Joint positions (n,) whose spheres look most like those drawn, and their standard deviations."""

    def residuals(positions: Array) -> Array:
        return np.concatenate([brightness(positions) - brightness.drawn, _NEARER * (positions - current)], axis=-1)

    period = brightness.appearance.stripe_period
    step = min(_SCAN_STEP, _SCAN_SHARE * period)

    def fitted(start: Array) -> OptimizeResult:
        return least_squares(residuals, start, _jacobian(residuals, 1e-5), method="lm", xtol=1e-4, ftol=1e-4)

    fit = fitted(_scan(residuals, centres.x, centres.jac, step))
    if period < _COMPARED_PERIOD:  # a scan from where joints are a degree off may miss a fine stripe
        fit = min(fit, fitted(centres.x), key=lambda found: found.cost)
        for _ in range(_RESCANS):
            other = fitted(_scan(residuals, fit.x, centres.jac, step))
            if other.cost > 0.99 * fit.cost:
                break
            fit = other
    n = len(current)
    information = fit.jac[:-n].T @ fit.jac[:-n] / (np.mean(fit.fun[:-n] ** 2) * _CORRELATED)
    return fit.x, np.diag(np.linalg.inv(information + np.eye(n) / _ANYWHERE**2)) ** 0.5


def _scan(residuals: Callable[[Array], Array], positions: Array, jacobian: Array, step: float) -> Array:
    """Go through what the centres leave open, such as the last joint's turn, and take what looks most alike.

    Args:
        positions: (n,) rad, to begin at.
        jacobian: of the centres' residuals.
        step: rad.

    Stripes repeat, so that a search along the slope would end wherever some stripe meets some other.
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
    """By central differences, all joints at once."""

    def jacobian(positions: Array) -> Array:
        steps = step * np.eye(len(positions))
        return ((function(positions + steps) - function(positions - steps)) / (2 * step)).T

    return jacobian


@dataclass(frozen=True)
class _Brightness:
    """Brightness of N pixels in and round m discs, 0 outside of the spheres, as drawn and as it should be.

    The renderers' pixels are all or nothing, which makes a bumpy slope to search along; here, edges are as soft as in
    the blurred drawing. One number a pixel serves, as a disc's own colour is known.
    """

    frames: _Frames
    radius: Array  # (m,) m
    focal: Array  # (m,) px
    blur: Array  # (m,) px, of edges
    disc: NDArray[np.intp]  # (N,) which of the m
    ray: Array  # (N, 3) unit vectors
    drawn: Array  # (N,) of the sphere's colour: 1 on a bright stripe
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
        grid = _COMPARED_SIZE * int(np.ceil(_COMPARED_PERIOD / appearance.stripe_period))
        for i, s in enumerate(sightings):
            k, colour = colours[s.sphere.name, s.disc.closed]
            camera, stride = s.camera, max(1, s.camera.width // grid)
            reach = 1.5 * camera.fx * s.radius / s.disc.distance + 2
            box = _around(s.disc.v, reach, camera.height), _around(s.disc.u, reach, camera.width)
            own = labels[s.view][box] == k
            told = own | (labels[s.view][box] == SCENE)  # not where another sphere may lie before this one
            shade = np.where(own, np.minimum(images[s.view][box] @ colour / (colour @ colour), 1.2), 0)
            blur.append(stride / 2)
            weight = cv2.GaussianBlur(told.astype(float), (0, 0), blur[i])
            light = cv2.GaussianBlur(shade, (0, 0), blur[i])
            rows, columns = (stride * index for index in np.nonzero(told[::stride, ::stride]))
            disc.append(np.full(len(rows), i))
            ray.append(rays_through(camera, columns + box[1].start + 0.5, rows + box[0].start + 0.5))
            drawn.append(light[rows, columns] / weight[rows, columns])
        return cls(
            _Frames.of(sightings, robot), np.array([s.radius for s in sightings]),
            np.array([s.camera.fx for s in sightings]), np.array(blur), np.concatenate(disc), np.concatenate(ray),
            np.concatenate(drawn), appearance,
        )  # fmt: skip

    def __call__(self, positions: Array) -> Array:
        """What it should be, (..., N), at joint positions (..., n)."""
        centre, normal = self.frames(positions)
        softness = 0.6 * self.blur / self.focal  # rad; 0.6 makes the logistic function as soft as a Gaussian
        distance = np.maximum(np.linalg.norm(centre, axis=-1), 1.001 * self.radius)
        size = np.arcsin(self.radius / distance)  # rad, of the cone round the sphere
        middle = np.einsum("...mi,...mi->...m", centre, normal)
        period = self.appearance.stripe_period
        sharpness = period * size / (np.pi * softness)
        # Now by pixel. A ray t * (x, y, z) meets |p - centre| = radius where t^2 - 2 b t + distance^2 - radius^2 = 0.
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


def decoding_errors(
    images: Mapping[str, Image],
    target: NDArray[np.floating],
    gripper_open: bool,
    current: NDArray[np.floating],
    cameras: Mapping[str, Camera],
    robot: RobotModel,
    appearance: Appearance,
    observation: Mapping[str, Image] | None = None,
) -> DecodingErrors:
    """Compare a drawing with the joint positions ``target`` (n,) in rad that it should show.

    A sphere is to be seen where it can be read from the true drawing. Other arguments and errors as in
    :func:`decode_joints`.
    """
    reading = decode_joints(images, current, cameras, robot, appearance, observation)
    pixels: dict[str, dict[str, float]] = {}
    gripper_shown = False
    for view, drawn in images.items():
        camera, scene = cameras[view], np.zeros_like(drawn) if observation is None else observation[view]
        true = draw_targets(scene, camera, robot, appearance, target, gripper_open, current)
        shown = read_centres(true, camera, appearance, scene)
        pixels[view] = {}
        for sphere, placed in zip(
            appearance.spheres, place_spheres(camera, robot, appearance, target, gripper_open, current), strict=True
        ):
            if shown[sphere.name] is None:
                continue
            x, y, z = placed.centre
            disc = reading.discs[view][sphere.name]
            u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
            pixels[view][sphere.name] = float(np.hypot(disc.u - u, disc.v - v)) if disc else np.nan
            gripper_shown |= sphere.closed_colour is not None
    turns = (reading.positions - target + np.pi) % (2 * np.pi) - np.pi
    return DecodingErrors(
        pixels,
        dict(zip(robot.joint_names, np.abs(np.rad2deg(turns)).tolist(), strict=True)),
        bool(reading.gripper_open == gripper_open) if gripper_shown else None,
        reading.agreement,
    )


def summarise(errors: Sequence[DecodingErrors]) -> dict[str, float]:
    """Many drawings in a few numbers; NaN where there is nothing to count.

    ``px`` and ``px/<sphere>``, ``deg`` and ``deg/<joint>`` are medians over what was found, ``px_within_3`` and so on
    its share within 3 px or degrees; ``found`` is the share of spheres found, ``determined`` that of joints, and
    ``gripper`` that of drawings with the right gripper.
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
        "found": _share(np.isfinite(px) for values in by_sphere.values() for px in values),
        "determined": _share(np.isfinite(degrees) for values in by_joint.values() for degrees in values),
        "gripper": _share(error.gripper_right for error in errors if error.gripper_right is not None),
    }
    for name, parts, limit in (("px", by_sphere, _WITHIN_PX), ("deg", by_joint, _WITHIN_DEGREES)):
        every = [value for values in parts.values() for value in values]
        for key, values in (("", every), *((f"/{part}", values) for part, values in parts.items())):
            there = [value for value in values if np.isfinite(value)]
            summary[f"{name}{key}"] = float(np.median(there)) if there else np.nan
            summary[f"{name}_within_{limit}{key}"] = _share(value <= limit for value in there)
    return summary


def _share(truths: Iterable[bool]) -> float:
    values = list(truths)
    return float(np.mean(values)) if values else np.nan
