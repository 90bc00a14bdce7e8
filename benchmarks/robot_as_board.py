"""Accuracy of a camera's pose from the robot's outline (genima_calibration.markerless), on images of known truth.

A set-up is a camera near a usual place, the simulator's scene with its objects at random, and random poses of the arm
whose hand is in view; images of 640 x 480 with lens distortion, blur, noise and an exposure of their own; joint
readings with noise. The search starts from a guess off by as much as the options give, in a random direction; or from
none.

The limit: how sure the pose could be if every point of the outlines were off for itself, by as much as points are found
to be off (Cramer and Rao). Neighbouring points are not independent, so this is out of reach; mm/px is what a pixel is
at the robot. The last column is the mean squared error in units of the stated covariance, 6 where that is right.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from numpy.typing import NDArray
from simulated_calibration.robot_images import RobotImageGenerator, RobotImageSet
from tqdm import tqdm

from genima.cameras.robot_depth import RobotDepth
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import apply_twist, inverse, pose_distance, rotation_vector, transform
from genima.types import Joints
from genima_calibration.image_undistortion import ImageUndistorter
from genima_calibration.markerless import MarkerlessResult, RobotImage, locate_camera
from genima_calibration.robot_outline import Outline

Array = NDArray[np.float64]


@dataclass
class Options(ReportOptions):
    """Compare poses from the robot's outline with the truth."""

    setups: int = 20
    """Random set-ups."""
    first: int = 0
    """Number of the first one: many can be gone through in parts."""
    photos: int = 6
    """Photographs of each set-up."""
    joints: float = 0.02
    """Noise of the joint readings, deg, standard deviation."""
    off: tuple[float, float] = (0.1, 10.0)
    """Error of the initial guess, m and deg."""
    guess: bool = True
    """Use an initial guess; else cameras from all directions are tried."""


@dataclass(frozen=True)
class Row:
    """Result of a set-up."""

    seed: int
    refused: str  # why; empty where a pose was found
    millimetres: float = np.nan  # error of the camera's place
    degrees: float = np.nan  # the same of its direction
    limit: tuple[float, float] = (np.nan, np.nan)  # mm, deg
    per_pixel: float = np.nan  # mm at the robot's distance
    points: int = 0  # of the outlines
    pixels: float = np.nan  # that these are off
    squared: float = np.nan  # error in units of the covariance
    seconds: float = np.nan  # CPU time


def main() -> None:
    options = tyro.cli(Options)
    if options.setups < 1 or options.photos < 1 or min(options.first, options.joints, *options.off) < 0:
        raise GenimaError("--setups and --photos must be positive, --first, --joints and --off not negative")
    require_report(options.out, "robot_as_board", options.overwrite)
    robot = RobotModel.load("panda")
    generator = RobotImageGenerator(robot)
    bar = tqdm(range(options.first, options.first + options.setups), unit="setup", disable=not sys.stderr.isatty())
    rows = [measure(generator.random_set(seed, options.photos), generator, robot, options) for seed in bar]
    generator.close()
    found = [row for row in rows if not row.refused]
    start = f"a guess off by {options.off[0]:g} m, {options.off[1]:g} deg" if options.guess else "no guess"
    print(f"{options.setups} set-ups of {options.photos} photos, joints {options.joints:g} deg, {start}")
    for row in rows:
        print(f"  {row.seed:>3} {row.refused or f'{row.millimetres:8.2f} mm {row.degrees:8.3f} deg'}")
    if found:
        for name, pick in (("median", np.median), ("worst", np.max)):
            mm, deg = (pick([getattr(row, what) for row in found]) for what in ("millimetres", "degrees"))
            print(f"{name:<8}{mm:8.2f} mm {deg:8.3f} deg")
        mm, deg = np.median([row.limit for row in found], axis=0)
        scale, points, pixels, seconds = (
            np.median([getattr(row, what) for row in found]) for what in ("per_pixel", "points", "pixels", "seconds")
        )
        print(f"{'limit':<8}{mm:8.2f} mm {deg:8.3f} deg: {points:.0f} points off by {pixels:.2f} px, {scale:.1f} mm/px")
        squared = np.mean([row.squared for row in found])
        print(f"refused {len(rows) - len(found)}; chi^2 {squared:.1f} of 6; {seconds:.1f} s of CPU")
    write_report(options.out, "robot_as_board", {"setups": [asdict(row) for row in rows]})


def measure(image_set: RobotImageSet, generator: RobotImageGenerator, robot: RobotModel, options: Options) -> Row:
    """Measure a set-up."""
    images, readings = generator.images(image_set), image_set.noisy_joints(options.joints)
    photos = [
        RobotImage(f"{i + 1:02d}", image, Joints(0.0, q, float(gripper)))
        for i, (image, q, gripper) in enumerate(zip(images, readings, image_set.gripper, strict=True))
    ]
    guess = off(image_set.T_base_camera, *options.off, image_set.seed) if options.guess else None
    began = time.process_time()
    try:
        found = locate_camera(photos, image_set.intrinsics, robot, guess)
    except GenimaError as error:
        return Row(image_set.seed, str(error), seconds=time.process_time() - began)
    seconds = time.process_time() - began
    metres, angle = pose_distance(found.T_base_camera, image_set.T_base_camera)
    limit, per_pixel = best(image_set, robot, found)
    return Row(
        image_set.seed, "", 1e3 * metres, float(np.degrees(angle)), limit, per_pixel, found.points, found.pixels,
        squared(found, image_set.T_base_camera), seconds,
    )  # fmt: skip


def off(T: Array, metres: float, degrees: float, seed: int) -> Array:
    """A pose (4, 4) so far from another one, in random directions."""
    directions = np.random.default_rng([seed, 0x0FF]).normal(size=(2, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return apply_twist(T, np.concatenate([metres * directions[0], np.radians(degrees) * directions[1]]))


def best(image_set: RobotImageSet, robot: RobotModel, found: MarkerlessResult) -> tuple[tuple[float, float], float]:
    """The limit in mm and deg, in the mean over set-ups of such errors, and mm/px at the robot."""
    straight = ImageUndistorter(image_set.intrinsics.camera("camera", "base", np.eye(4))).camera
    depth = RobotDepth(robot, straight)
    information = np.zeros((6, 6))
    for q, gripper in zip(image_set.positions, image_set.gripper, strict=True):
        outline = Outline.of(depth.render(image_set.T_base_camera, q, float(gripper)), straight)
        information += outline.by_twist.T @ outline.by_twist
    depth.close()
    covariance = found.pixels**2 * np.linalg.inv(information)
    hands = transform(inverse(image_set.T_base_camera), robot.link_poses(image_set.positions)[:, -1, :3, 3])
    metres, angle = (float(np.sqrt(np.trace(covariance[part, part]))) for part in (slice(0, 3), slice(3, 6)))
    return (1e3 * metres, float(np.degrees(angle))), 1e3 * float(np.median(hands[:, 2])) / straight.fx


def squared(found: MarkerlessResult, truth: Array) -> float:
    """The error in units of its stated covariance."""
    T = inverse(found.T_base_camera) @ truth
    twist = np.append(T[:3, 3], rotation_vector(T[:3, :3]))
    return float(twist @ np.linalg.solve(found.covariance, twist))


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
