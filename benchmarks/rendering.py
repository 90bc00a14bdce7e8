"""Speed of the sphere renderers: four views an observation, on one core.

All renderers render the same spheres alternately, pose by pose, so that other load on the machine affects all equally.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
import tyro
from benchmark_report import ReportOptions, require_report, write_report

from genima.cameras.calibration_file import load_cameras
from genima.cameras.camera import Camera
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel
from genima.targets import RENDERERS, Appearance, PlacedSphere, place_spheres, render_spheres
from genima.targets.appearance import DEFAULT
from genima.types import Image

FLOOR = "(copying the layers)"  # no renderer that hands out an image can be faster
BASELINE = "pyrender"
WARM_UP = 10  # poses

View = tuple[Camera, list[PlacedSphere]]


@dataclass
class Options(ReportOptions):
    """Compare the renderers of target spheres."""

    size: int = 256
    """Side of a view in pixels."""
    poses: int = 200
    """Random poses of the arm."""
    appearance: str = DEFAULT
    """The spheres' look: a name in config/appearances or a YAML file."""


@dataclass(frozen=True)
class Result:
    rate: float  # observations/s
    ratio: float  # to the baseline's rate
    p50: float  # ms an observation
    p99: float  # ms
    iou: float  # of all its masks with those of raycast
    off: float  # share of the pixels that both draw which differ by more than 2 grey levels
    worst: int  # grey levels, of those


def main() -> None:
    options = tyro.cli(Options)
    if options.size < 1 or options.poses < 1:
        raise GenimaError("--size and --poses must be positive")
    require_report(options.out, "rendering", options.overwrite)
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    os.environ["LP_NUM_THREADS"] = "0"  # Mesa's software renderer then draws in our thread

    appearance = Appearance.load(options.appearance)
    observations = random_observations(options.size, WARM_UP + options.poses, appearance)
    times: dict[str, list[float]] = {name: [] for name in (*RENDERERS, FLOOR)}
    common, either = dict.fromkeys(times, 0), dict.fromkeys(times, 0)
    off, worst = dict.fromkeys(times, 0), dict.fromkeys(times, 0)
    covered = 0
    for i, views in enumerate(observations):
        layers: dict[str, list[Image]] = {}
        for name in times:
            start = time.perf_counter()
            if name == FLOOR:
                layers[name] = [layer.copy() for layer in layers["raycast"]]
            else:
                layers[name] = [render_spheres(camera, spheres, appearance, name) for camera, spheres in views]
            times[name].append(time.perf_counter() - start)
        masks = {name: np.stack(drawn)[..., 3] > 0 for name, drawn in layers.items()}
        for name, mask in masks.items():
            common[name] += int(np.count_nonzero(mask & masks["raycast"]))
            either[name] += int(np.count_nonzero(mask | masks["raycast"]))
            both = mask & masks["raycast"]
            ours, exact = (np.stack(layers[other])[both].astype(int) for other in (name, "raycast"))
            differences = np.abs(ours - exact).max(axis=-1)
            off[name] += int(np.count_nonzero(differences > 2))
            worst[name] = max(worst[name], int(differences.max(initial=0)))
        covered += int(np.count_nonzero(masks["raycast"])) if i >= WARM_UP else 0

    measured = {name: np.array(seconds[WARM_UP:]) for name, seconds in times.items()}
    results = {
        name: Result(
            rate=float(1 / seconds.mean()),
            ratio=float(measured[BASELINE].mean() / seconds.mean()),
            p50=float(np.percentile(seconds, 50) * 1e3),
            p99=float(np.percentile(seconds, 99) * 1e3),
            iou=common[name] / either[name] if either[name] else 1.0,
            off=off[name] / common[name] if common[name] else 0.0,
            worst=worst[name],
        )
        for name, seconds in measured.items()
    }
    pixels, views_drawn = covered / options.poses, len(observations[0])
    layer_bytes = views_drawn * options.size**2 * 4

    print(f"{options.poses} poses, {views_drawn} views of {options.size} px an observation, core {core}")
    headings = f"{'p50 ms':>10}{'p99 ms':>10}{'IoU':>10}{'off by > 2':>12}{'worst':>8}"
    print(f"{'':<22}{'observations/s':>15}{'x ' + BASELINE:>12}{headings}")
    for name, r in results.items():
        numbers = f"{r.p50:>10.2f}{r.p99:>10.2f}{r.iou:>10.4f}{r.off:>12.3%}{r.worst:>8}"
        print(f"{name:<22}{r.rate:>15.0f}{r.ratio:>12.1f}{numbers}")
    print(f"an observation: {pixels:.0f} pixels covered, {layer_bytes / 1e6:.2f} MB of layers")
    if options.out:
        result = {
            "size": options.size,
            "poses": options.poses,
            "pixels_covered": pixels,
            "layer_bytes": layer_bytes,
            "renderers": {name: asdict(r) for name, r in results.items()},
        }
        write_report(options.out, "rendering", result)


def random_observations(size: int, count: int, appearance: Appearance) -> list[list[View]]:
    """The views of random poses of the arm, of which each is the target of another one nearby."""
    robot = RobotModel.load("panda")
    cameras = [camera.scale(size, size) for camera in load_cameras(paths.shared("calibration", "sim")).values()]
    rng = np.random.default_rng(0)
    observations = []
    for _ in range(count):
        now = np.clip(robot.home + rng.uniform(-0.8, 0.8, len(robot.home)), robot.position_min, robot.position_max)
        target = np.clip(now + rng.uniform(-0.3, 0.3, len(now)), robot.position_min, robot.position_max)
        views = [(camera, place_spheres(camera, robot, appearance, target, True, now)) for camera in cameras]
        observations.append(views)
    return observations


if __name__ == "__main__":
    try:
        main()
    except GenimaError as error:
        sys.exit(f"error: {error}")
