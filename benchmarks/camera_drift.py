"""How well one image tells that a camera has been moved (genima.handeye.check), on recorded demos of the simulator.

Of demos spread over a folder, one moment each is drawn at random: the arm moves, objects stand about. Every view is
held against its true calibration, where a report is a false alarm, and against some that are off in random directions.
"Shift" is how far that puts the robot's outline in the image; below the limit (1.5 px of 256), nothing should be said.
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

from genima.episodes import Episode, find_episodes
from genima.errors import GenimaError
from genima.handeye.check import LIMIT, CalibrationChecker, Verdict
from genima.handeye.poses import moved
from genima.observation import Image, Joints
from genima.robot.model import RobotModel
from genima.views.camera import Camera, load_cameras

Array = NDArray[np.float64]
MOVES = {"not moved": (0.0, 0.0), "1 cm": (0.01, 0.0), "1 deg": (0.0, 1.0), "2 cm, 3 deg": (0.02, 3.0)}  # m, deg


@dataclass
class Options:
    """Count alarms."""

    demos: Path = Path("data/demos")
    """Folder of demos of the simulator."""
    images: int = 100
    """Of each view, one of a demo."""


def main() -> None:
    options = tyro.cli(Options)
    robot, cameras, rng = RobotModel.load("panda"), load_cameras("sim"), np.random.default_rng(0)
    folders = find_episodes(options.demos)
    folders = [folders[i] for i in np.linspace(0, len(folders) - 1, min(options.images, len(folders))).astype(int)]
    seen: dict[str, list[tuple[Image, Joints]]] = {view: [] for view in cameras}
    for folder in tqdm(folders, desc="read", disable=not sys.stderr.isatty()):
        demo = Episode.load(folder, robot)
        t = int(rng.integers(len(demo)))
        joints = Joints(0.0, demo.positions[t], float(demo.gripper[t]))
        for view in cameras:
            seen[view].append((demo.image(view, t), joints))
    print(f"{len(folders)} images a view")
    titles = f"{'fine':>6}{'moved':>6}{'unknown':>8}{'median shift':>14}{'noticed above limit':>26}"
    print(f"{'view':<16}{'camera':<14}{titles}")
    for view, camera in cameras.items():
        for name, (metres, degrees) in MOVES.items():
            count(camera, robot, seen[view], name, metres, degrees, rng)


def count(
    camera: Camera, robot: RobotModel, seen: Sequence[tuple[Image, Joints]], name: str, metres: float, degrees: float,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Print what is said of a camera that was moved."""
    checker = CalibrationChecker(camera, robot)
    verdicts, shifts = list[Verdict](), list[float]()
    for image, joints in tqdm(seen, desc=f"{camera.view} {name}", leave=False, disable=not sys.stderr.isatty()):
        directions = rng.normal(size=(2, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        twist = np.concatenate([metres * directions[0], np.radians(degrees) * directions[1]])
        checker.calibrated = replace(camera, T_parent_camera=moved(camera.T_parent_camera, twist))
        shift = checker.outline(joints).shift(-twist)
        shifts.append(float(np.sqrt(2 * np.mean(shift**2))) if len(shift) else 0.0)
        verdicts.append(checker.check(image, joints).verdict)
    checker.close()
    counts = Counter(verdicts)
    clear = np.array(shifts) > LIMIT * camera.width
    noticed = np.array([verdict is Verdict.MOVED for verdict in verdicts])
    columns = "".join(f"{counts[v]:>{w}}" for v, w in ((Verdict.FINE, 6), (Verdict.MOVED, 6), (Verdict.UNKNOWN, 8)))
    share = f"{noticed[clear].mean():.0%} of {clear.sum()}" if clear.any() else "-"
    print(f"{camera.view:<16}{name:<14}{columns}{np.median(shifts):>11.1f} px{share:>26}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
