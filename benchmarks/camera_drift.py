"""Detection of moved cameras in images (genima_calibration.pose_check), on demos of the simulator.

One random moment is taken from each of several demos: arm and objects vary, but the gripper is at rest, the condition
in which genima_calibration.calibration_watch checks. Every view is compared with its true calibration, where a report
is a false alarm, and with calibrations that are wrong in random directions. "Shift" is the resulting displacement of
the robot's outline in the image; below the limit (1.5 px of 256), nothing should be reported.

Single images: the verdict on each. In sequence, as in the node: several successive images have to agree. A camera that
was not moved is checked with all images; one that was moved gets a new displacement after every ten.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from tqdm import tqdm

from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera import Camera
from genima.data.episodes import Episode, find_episodes
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import apply_twist
from genima.types import Image, Joints
from genima_calibration.pose_check import LIMIT, CalibrationChecker, DriftDetector, PoseVerdict
from genima_calibration.stationary_detector import is_slow

Array = NDArray[np.float64]
MOVES = {"not moved": (0.0, 0.0), "1 cm": (0.01, 0.0), "1 deg": (0.0, 1.0), "2 cm, 3 deg": (0.02, 3.0)}  # m, deg
RUN = 10  # images in a row of a camera that was moved


@dataclass
class Options:
    """Count alarms."""

    demos: Path = Path("data/demos")
    """Folder of demos of the simulator."""
    images: int = 100
    """Images of each view, one per demo."""


@dataclass(frozen=True)
class Run:
    """Successive images of a camera at rest."""

    verdicts: Sequence[PoseVerdict]
    shifts: Array  # (N,) px
    reported_after: int  # number of images until a problem is reported; 0: never


def main() -> None:
    options = tyro.cli(Options)
    if options.images < RUN:
        raise GenimaError(f"--images must be at least {RUN}")
    robot, cameras, rng = RobotModel.load("panda"), load_cameras("sim"), np.random.default_rng(0)
    folders = find_episodes(options.demos)
    folders = [folders[i] for i in np.linspace(0, len(folders) - 1, min(options.images, len(folders))).astype(int)]
    seen: dict[str, list[tuple[Image, Joints]]] = {view: [] for view in cameras}
    for folder in tqdm(folders, desc="read", disable=not sys.stderr.isatty()):
        demo = Episode.load(folder, robot)
        joints = [Joints(*of) for of in zip(demo.stamps, demo.positions, demo.gripper.astype(float), strict=True)]
        t = int(rng.choice([t for t in range(1, len(demo)) if is_slow(joints[t - 1], joints[t], np.inf)]))
        for view in cameras:
            seen[view].append((demo.image(view, t), joints[t]))
    print(f"{len(folders)} images a view; moved cameras: {RUN} images in a row")
    titles = f"{'fine':>6}{'moved':>6}{'unknown':>8}{'median shift':>14}{'noticed above limit':>21}{'in a row':>28}"
    print(f"{'view':<16}{'camera':<14}{titles}")
    for view, camera in cameras.items():
        for name, (metres, degrees) in MOVES.items():
            count(camera, robot, seen[view], name, metres, degrees, rng)


def count(
    camera: Camera, robot: RobotModel, seen: Sequence[tuple[Image, Joints]], name: str, metres: float, degrees: float,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Print the reports about moved cameras."""
    checker, length = CalibrationChecker(camera, robot), RUN if metres or degrees else len(seen)
    limit, runs = LIMIT * camera.width, list[Run]()
    with tqdm(total=len(seen), desc=f"{camera.view} {name}", leave=False, disable=not sys.stderr.isatty()) as bar:
        for first in range(0, len(seen) - length + 1, length):
            directions = rng.normal(size=(2, 3))
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            twist = np.concatenate([metres * directions[0], np.radians(degrees) * directions[1]])
            checker.calibrated = replace(camera, T_parent_camera=apply_twist(camera.T_parent_camera, twist))
            drift, verdicts, shifts, reported_after = DriftDetector(), list[PoseVerdict](), list[float](), 0
            for image, joints in seen[first : first + length]:
                shift = checker.outline(joints).shift(-twist)
                shifts.append(float(np.sqrt(2 * np.mean(shift**2))) if len(shift) else 0.0)
                checked = checker.check(image, joints)
                verdicts.append(checked.verdict)
                drift.update(checked)
                if drift.problem and not reported_after:
                    reported_after = len(verdicts)
                bar.update()
            runs.append(Run(verdicts, np.array(shifts), reported_after))
    checker.close()
    counts = Counter(verdict for run in runs for verdict in run.verdicts)
    all_shifts = np.concatenate([run.shifts for run in runs])
    noticed = np.array([verdict is PoseVerdict.MOVED for run in runs for verdict in run.verdicts])[all_shifts > limit]
    columns = "".join(
        f"{counts[v]:>{w}}" for v, w in ((PoseVerdict.FINE, 6), (PoseVerdict.MOVED, 6), (PoseVerdict.UNKNOWN, 8))
    )
    share = f"{noticed.mean():.0%} of {len(noticed)}" if len(noticed) else "-"
    clear = [run for run in runs if not metres + degrees or np.all(run.shifts > limit)]
    reports = [run.call_trigger for run in clear if run.call_trigger]
    row = f"{len(reports)} of {len(clear)}" + (
        f" by {np.median(reports):.0f}, at most {max(reports)}" if reports else ""
    )
    print(f"{camera.view:<16}{name:<14}{columns}{np.median(all_shifts):>11.1f} px{share:>21}{row:>28}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
