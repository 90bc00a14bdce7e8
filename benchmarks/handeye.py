"""Accuracy of hand-eye calibration on random set-ups of known truth: OpenCV's five solvers and genima_calibration.

A set-up is a camera on the base or on the flange, a board on the other one, and random joint positions in which the
board is visible. Points are projected through a distorted lens with pixel noise, or are detected in images that the
simulator renders with such a lens, blur and noise; joint positions have their own noise. All methods get the same
samples; OpenCV's solvers get the boards' poses from solvePnP, refined. "Best fit of the five" has the smallest
reprojection error, a criterion that is available to a user. "Best of the five" has the smallest true error, selected
for every set-up and separately for millimetres and degrees, which is not possible in practice.

The limit is the Cramer-Rao bound: the smallest root mean square error of any unbiased estimator, given the samples'
noise. Chi^2 is the mean squared error in units of the stated covariance, 6 if that is correct.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache

import numpy as np
import tyro
from benchmark_report import ReportOptions, require_report, write_report
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from simulated_calibration import CalibrationSetup, CalibrationWorkcell
from tqdm import tqdm

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.camera import Parent
from genima.cameras.intrinsics import CameraIntrinsics
from genima.errors import GenimaError
from genima.io.paths import shared
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import apply_twist, inverse, pose, pose_distance, rotation_vector, transform
from genima_calibration.board_detection import Detection, detect
from genima_calibration.bundle_adjustment import CAMERA, Fit, FreeParameters, Noise, derivatives, marginal_system
from genima_calibration.closed_form import OPENCV, HandEye, misfit, solve_opencv
from genima_calibration.hand_eye import calibrate
from genima_calibration.samples import Sample, stack_samples

Array = NDArray[np.float64]

BOARD = CalibrationBoard("charuco", 7, 5, 0.036, 0.027, "5X5_50")
LENS = CameraIntrinsics(640, 480, 610.0, 612.0, 322.5, 238.0, (0.11, -0.24, 0.0008, -0.0006, 0.09))
PARENTS: tuple[Parent, ...] = ("flange", "base")
OURS, BEST, FIT = "genima_calibration", "best of the five", "best fit of the five"
_DRAWN = 500  # joints at a time
_EXACT = 1e-5  # deg: joints without noise
_BUMP = np.array([0.02, -0.01, 0.005, 0.05, 0.0, 0.08])  # m, rad


@dataclass
class Options(ReportOptions):
    """Compare calibrations with the truth."""

    setups: int = 20
    """Random set-ups of each kind."""
    samples: int = 15
    """Samples of each set-up."""
    pixels: float = 0.25
    """Noise of the points, px, standard deviation."""
    rendered: bool = False
    """Detect the points in rendered images instead (a second of CPU for three of them)."""
    joints: tuple[float, ...] = (0.0, 0.02, 0.1)
    """Noises of the joint readings, deg, standard deviation."""
    spread: float = 0.5
    """Spread of the joints around their means, rad."""


@dataclass(frozen=True)
class Result:
    """Results of all set-ups of one kind."""

    millimetres: Mapping[str, float]  # median error of the camera's place, by method
    degrees: Mapping[str, float]  # the same of its direction
    nearer: Mapping[str, Sequence[int]]  # in how many set-ups we are, or as near, than each: in mm, in deg, in both
    spread: tuple[float, float]  # root mean square of our errors in mm and deg
    limit: tuple[float, float]  # the least that it can be
    with_outliers: tuple[float, float]  # our median errors in mm and deg when a fifth of the samples is wrong
    named: float  # share of these set-ups in which exactly the wrong samples are named
    chi_squared: float  # mean of our error's square in units of our covariance; 6 is right
    seconds: float  # median CPU time of one calibration


@dataclass(frozen=True)
class Setup:
    """The truth, and what was measured of it."""

    truth: HandEye
    joints: Array  # (N, n) rad
    samples: list[Sample]
    lens: CameraIntrinsics = LENS
    board: CalibrationBoard = BOARD


Make = Callable[[int, float], tuple[Setup, list[Sample]]]
"""Function of a seed and the joints' noise in rad that returns a set-up and its samples, a fifth of them wrong."""


def main() -> None:
    options = tyro.cli(Options)
    if options.setups < 1 or options.samples < 5 or options.pixels < 0 or min(options.joints) < 0:
        raise GenimaError("--setups must be positive, --samples at least 5, --pixels and --joints not negative")
    require_report(options.out, "handeye", options.overwrite)
    robot = RobotModel.load("panda")
    results = {}
    with tqdm(total=len(PARENTS) * len(options.joints) * options.setups, disable=not sys.stderr.isatty()) as progress:
        for parent in PARENTS:
            make = photographed(parent, options) if options.rendered else projected(robot, parent, options)
            for noise in options.joints:
                name = f"camera on the {parent}, joints {noise:g} deg"
                results[name] = compare(robot, make, noise, options, progress)
    points = "found in rendered images" if options.rendered else f"{options.pixels:g} px"
    print(f"{options.setups} set-ups of {options.samples} samples each, points {points}; medians")
    for name, result in results.items():
        print(f"\n{name:<48}we are nearer in mm, deg, both")
        for method in result.millimetres:
            errors = f"{result.millimetres[method]:>9.3f} mm{result.degrees[method]:>9.4f} deg"
            print(f"  {method:<24}{errors}" + "".join(f"{count:>7}" for count in result.nearer.get(method, ())))
        mm, deg = result.with_outliers
        print(f"  {'... a fifth outliers':<24}{mm:>9.3f} mm{deg:>9.4f} deg, named exactly in {result.named:.0%}")
        for title, (mm, deg) in (("... root mean square", result.spread), ("... its limit", result.limit)):
            print(f"  {title:<24}{mm:>9.3f} mm{deg:>9.4f} deg")
        by_mm, by_deg = (medians[FIT] / medians[OURS] for medians in (result.millimetres, result.degrees))
        print(f"  {'nearer than their best fit':<26}{by_mm:>6.1f} x{by_deg:>10.1f} x")
        print(f"  chi^2 {result.chi_squared:.1f} of 6; {result.seconds:.2f} s")
    if options.out:
        content = {"results": {name: asdict(result) for name, result in results.items()}}
        write_report(options.out, "handeye", content)


def compare(robot: RobotModel, make: Make, noise: float, options: Options, progress: tqdm[None]) -> Result:
    """Compare the solvers on all set-ups of one kind; ``noise`` of the joints in deg."""
    errors: dict[str, list[tuple[float, float]]] = {name: [] for name in (*OPENCV, FIT, BEST, OURS)}
    outlying, limits = list[tuple[float, float]](), list[tuple[float, float]]()
    named, squares, seconds = list[bool](), list[float](), list[float]()
    for seed in range(options.setups):
        made, spoiled = make(seed, float(np.radians(noise)))
        theirs = opencv(robot, made)
        for name in OPENCV:
            errors[name].append(error(theirs[name][0], made.truth) if name in theirs else (np.inf, np.inf))
        errors[FIT].append(error(min(theirs.values(), key=lambda found: found[1])[0], made.truth))
        mm, deg = (min(errors[name][-1][i] for name in theirs) for i in (0, 1))
        errors[BEST].append((mm, deg))
        began = time.process_time()
        outcome = calibrate(made.samples, made.board, made.lens, robot, made.truth.parent)
        seconds.append(time.process_time() - began)
        errors[OURS].append(error(outcome.fit.hand_eye, made.truth))
        squares.append(squared(outcome.fit, made.truth))
        limits.append(limit(robot, made, Noise(outcome.fit.noise.pixels, float(np.radians(max(noise, _EXACT))))))
        outcome = calibrate(spoiled, made.board, made.lens, robot, made.truth.parent)
        outlying.append(error(outcome.fit.hand_eye, made.truth))
        named.append(sorted(outcome.outliers) == [made.samples[i].name for i in wrong(options)])
        progress.update()
    medians = {name: np.median(values, axis=0).tolist() for name, values in errors.items()}
    ours = np.array(errors[OURS])
    at_least = {name: ours <= np.array(errors[name]) for name in (*OPENCV, FIT, BEST)}
    mm, deg = np.median(outlying, axis=0).tolist()
    spread, least = (np.sqrt(np.mean(np.square(values), axis=0)).tolist() for values in (ours, limits))
    return Result(
        {name: median[0] for name, median in medians.items()},
        {name: median[1] for name, median in medians.items()},
        {name: (*map(int, near.sum(0)), int(near.all(1).sum())) for name, near in at_least.items()},
        tuple(spread),
        tuple(least),
        (mm, deg),
        float(np.mean(named)),
        float(np.mean(squares)),
        float(np.median(seconds)),
    )


def projected(robot: RobotModel, parent: Parent, options: Options) -> Make:
    """Set-ups of projected points."""

    def make(seed: int, noise: float) -> tuple[Setup, list[Sample]]:
        made = setup(robot, parent, seed, options.samples, options.pixels, noise, options.spread)
        return made, bumped(robot, made, wrong(options), options.pixels)

    return make


def photographed(parent: Parent, options: Options) -> Make:
    """Set-ups of the simulator's workcell with a board."""
    board = CalibrationBoard.load(shared("calibration", "boards", "charuco_7x5_a4.yaml"))
    workcell = CalibrationWorkcell(board, parent)

    @cache
    def detect_boards(seed: int) -> tuple[CalibrationSetup, list[Detection], list[Detection]]:
        one = workcell.random_setup(seed, options.samples)
        images = [workcell.images(each) for each in (one, one.displace_board(wrong(options)))]
        clean, spoiled = ([detect(image, board, one.intrinsics) for image in each] for each in images)
        return one, clean, spoiled

    def make(seed: int, noise: float) -> tuple[Setup, list[Sample]]:
        one, *detections = detect_boards(seed)
        truth = HandEye(parent, one.T_parent_camera, one.T_carrier_board[0])
        readings = one.noisy_joints(float(np.degrees(noise)))
        clean, spoiled = (
            [Sample(f"{i + 1:02d}", q, found) for i, (q, found) in enumerate(zip(readings, each, strict=True))]
            for each in detections
        )
        return Setup(truth, one.positions, clean, one.intrinsics, board), spoiled

    return make


def wrong(options: Options) -> range:
    """Return the indices of the wrong samples."""
    return range(options.samples - options.samples // 5, options.samples)


def limit(robot: RobotModel, made: Setup, noise: Noise) -> tuple[float, float]:
    """The least mean error in mm and deg, root mean square."""
    samples = replace(stack_samples(made.samples, made.lens, robot), joints=made.joints)
    at = Fit(made.truth, made.lens, 1.0, made.joints, noise, samples.seen.astype(float), np.eye(12), FreeParameters())
    normal, _, _ = marginal_system(derivatives(samples, at), at.weights, noise.joints / noise.pixels)
    C = noise.pixels**2 * np.linalg.inv(normal.sum(0))[CAMERA, CAMERA]
    return 1e3 * float(np.sqrt(np.trace(C[:3, :3]))), float(np.degrees(np.sqrt(np.trace(C[3:, 3:]))))


def opencv(robot: RobotModel, made: Setup) -> dict[str, tuple[HandEye, float]]:
    """Return the results of OpenCV's solvers, and their median residuals in px."""
    samples = stack_samples(made.samples, made.lens, robot)
    found = {}
    for method in OPENCV:
        if hand_eye := solve_opencv(samples, made.truth.parent, method):
            X, Y = hand_eye.T_parent_camera, hand_eye.T_carrier_board
            found[method] = hand_eye, float(np.median(misfit(X, Y, np.array(1.0), samples, hand_eye.parent)))
    return found


def error(found: HandEye, truth: HandEye) -> tuple[float, float]:
    """Return the error of the camera's pose, in mm and deg."""
    metres, angle = pose_distance(found.T_parent_camera, truth.T_parent_camera)
    return 1e3 * metres, float(np.degrees(angle))


def squared(fit: Fit, truth: HandEye) -> float:
    """The camera pose's error in units of its stated covariance."""
    off = inverse(fit.hand_eye.T_parent_camera) @ truth.T_parent_camera
    twist = np.append(off[:3, 3], rotation_vector(off[:3, :3]))
    return float(twist @ np.linalg.solve(fit.covariance[CAMERA, CAMERA], twist))


def setup(
    robot: RobotModel,
    parent: Parent,
    seed: int,
    count: int = 15,
    pixels: float = 0.25,
    joints: float = 0.0,
    spread: float = Options.spread,
) -> Setup:
    """A random set-up with ``count`` samples.

    Args:
        robot: the arm.
        parent: what carries the camera.
        seed: of everything.
        count: how many samples.
        pixels: noise of a coordinate in px, standard deviation.
        joints: noise of a reading in rad, standard deviation.
        spread: how far joints go from the middle ones, rad.
    """
    rng = np.random.default_rng(seed)
    middle = robot.home + rng.uniform(-0.2, 0.2, len(robot.home))
    truth = around(robot, parent, middle, rng)
    q = np.empty((0, len(middle)))
    while len(q) < count:
        drawn = middle + rng.uniform(-spread, spread, (_DRAWN, len(middle)))
        drawn = np.clip(drawn, robot.position_min, robot.position_max)
        q = np.concatenate([q, drawn[in_view(truth.T_camera_board(robot, drawn))]])[:count]
    return Setup(truth, q, measured(robot, truth, q, rng, pixels, joints))


def around(robot: RobotModel, parent: Parent, middle: Array, rng: np.random.Generator) -> HandEye:
    """Camera and board at random, so that the board is in the middle of the image at joints ``middle`` (n,)."""
    T_base_flange = robot.link_poses(middle)[-2]
    turn = Rotation.from_euler("zxy", rng.uniform([-3, -0.4, -0.4], [3, 0.4, 0.4]))
    distance = 0.5 if parent == "flange" else 0.9
    T_camera_board = pose(turn.as_matrix(), np.array([0, 0, distance]) - turn.apply([*np.array(BOARD.size) / 2, 0.0]))
    if parent == "flange":  # next to the flange, looking along it
        tilt = Rotation.from_rotvec(rng.normal(size=3) * 0.2) * Rotation.from_rotvec([0, 0, rng.uniform(-3, 3)])
        T_flange_camera = pose(tilt.as_matrix(), rng.uniform([-0.1, -0.1, 0.0], [0.1, 0.1, 0.1]))
        return HandEye(parent, T_flange_camera, T_base_flange @ T_flange_camera @ T_camera_board)
    tilt = Rotation.from_rotvec(rng.normal(size=3) * 0.5)
    T_flange_board = pose(tilt.as_matrix(), rng.uniform([-0.1, -0.1, 0.02], [0.1, 0.1, 0.1]))
    return HandEye(parent, T_base_flange @ T_flange_board @ inverse(T_camera_board), T_flange_board)


def measured(
    robot: RobotModel, truth: HandEye, q: Array, rng: np.random.Generator, pixels: float, joints: float
) -> list[Sample]:
    """Samples at the true joints ``q`` (N, n), with noise in px and rad."""
    points = BOARD.points
    seen = LENS.project(transform(truth.T_camera_board(robot, q), points))
    seen += rng.normal(0, pixels, seen.shape)
    readings = q + rng.normal(0, 1, q.shape) * joints
    ids = np.arange(len(points))
    return [Sample(f"{i + 1:02d}", readings[i], Detection(ids, seen[i], points)) for i in range(len(q))]


def bumped(robot: RobotModel, made: Setup, which: range, pixels: float) -> list[Sample]:
    """The same samples, but of those in ``which`` the board lay elsewhere."""
    truth = replace(made.truth, T_carrier_board=apply_twist(made.truth.T_carrier_board, _BUMP))
    rng = np.random.default_rng(0)
    elsewhere = measured(robot, truth, made.joints, rng, pixels, 0.0)
    return [
        replace(sample, detection=elsewhere[i].detection) if i in which else sample
        for i, sample in enumerate(made.samples)
    ]


def in_view(T_camera_board: Array) -> NDArray[np.bool_]:
    """Return whether poses (N, 4, 4) see the whole board from its front at a sufficient angle."""
    width, height = BOARD.size
    outline = np.array([[0, 0, 0], [width, 0, 0], [width, height, 0], [0, height, 0], [width / 2, height / 2, 0]])
    points = transform(T_camera_board, outline)
    pixels = LENS.project(points)
    inside = np.all((pixels > 5) & (pixels < np.array([LENS.width, LENS.height]) - 5), axis=(1, 2))
    ray = points[:, 4] / np.linalg.norm(points[:, 4], axis=-1, keepdims=True)
    facing = np.sum(ray * T_camera_board[:, :3, 2], -1)
    near = (points[:, 4, 2] > 0.25) & (points[:, 4, 2] < 1.5)
    return inside & near & (facing > np.cos(np.radians(60)))


if __name__ == "__main__":
    try:
        main()
    except GenimaError as refused:
        sys.exit(f"error: {refused}")
