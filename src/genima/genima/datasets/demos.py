"""Episodes in memory as training needs them: joints as arrays, images tiled and kept in an on-disk cache."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from genima.checkpoint import DrawingSpec
from genima.diffusion.agent import resize
from genima.episodes import Episode, find_episodes
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.views.tiling import tile


@dataclass(frozen=True)
class Demo:
    """One episode; arrays have T rows, one a moment."""

    instruction: str
    positions: NDArray[np.float64]  # (T, n) rad, measured
    gripper: NDArray[np.float64]  # (T,) measured open fraction
    command_positions: NDArray[np.float64]  # (T, n) rad
    command_gripper: NDArray[np.float64]  # (T,) commanded open fraction
    tiles_file: Path  # .npy of (T, H, W, 3) uint8 rgb; a path, as a memory map sent to a worker becomes a whole copy

    def __len__(self) -> int:
        return len(self.positions)

    def tile(self, t: int) -> NDArray[np.uint8]:
        """The tiled observation (H, W, 3) of moment t."""
        return np.array(np.load(self.tiles_file, mmap_mode="r")[t])

    def target(self, t: int, horizon: int) -> tuple[NDArray[np.float64], bool]:
        """Measured joints (n,) and whether the gripper is to be open, ``horizon`` steps after t or at the end."""
        k = min(t + horizon, len(self) - 1)
        return self.positions[k], bool(self.command_gripper[k] > 0.5)


def load_demos(folder: Path, robot: RobotModel, spec: DrawingSpec, names: Container[str] | None = None) -> list[Demo]:
    """All successful episodes below ``folder``; their tiles are decoded once and cached beside them.

    ``names`` restricts them to the folders of these names.
    """
    episodes = [path for path in find_episodes(folder) if names is None or path.name in names]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        demos = tqdm(
            pool.map(lambda path: _load(path, robot, spec), episodes), total=len(episodes), desc="load", unit="demo"
        )
        return [demo for demo in demos if demo is not None]


def _load(folder: Path, robot: RobotModel, spec: DrawingSpec) -> Demo | None:
    cache = folder.parent / ".cache" / f"{folder.name}-{spec.view_size}-{'-'.join(spec.views)}.npz"
    tiles_file = cache.with_suffix(".npy")
    if not cache.exists() or cache.stat().st_mtime < folder.stat().st_mtime:  # recorded anew since
        episode = Episode.load(folder, robot)
        tiles = np.stack([_tile(episode, t, spec) for t in range(len(episode))])
        cache.parent.mkdir(exist_ok=True)
        # In another folder first, so that a killed or a second training leaves only whole files; the joints come
        # last: with them the cache is complete.
        with tempfile.TemporaryDirectory(dir=cache.parent) as part:
            np.save(Path(part) / "tiles.npy", tiles)
            np.savez(
                Path(part) / "joints.npz",
                instruction=episode.instruction, success=episode.success, positions=episode.positions,
                gripper=episode.gripper, command_positions=episode.command_positions,
                command_gripper=episode.command_gripper,
            )  # fmt: skip
            os.replace(Path(part) / "tiles.npy", tiles_file)
            os.replace(Path(part) / "joints.npz", cache)
    with np.load(cache) as data:
        if not data["success"]:
            return None
        return Demo(
            str(data["instruction"]), data["positions"], data["gripper"], data["command_positions"],
            data["command_gripper"], tiles_file,
        )  # fmt: skip


def _tile(episode: Episode, t: int, spec: DrawingSpec) -> NDArray[np.uint8]:
    return tile({view: resize(episode.image(view, t), spec.view_size) for view in spec.views}, spec.views)


def split(demos: Sequence[Demo], held_out: float = 0.05) -> tuple[list[Demo], list[Demo]]:
    """Training and validation demos: every n-th is held out, and always one at least.

    Raises:
        GenimaError: for fewer than two demos.
    """
    if len(demos) < 2:
        raise GenimaError(f"training needs at least two successful demos, there are {len(demos)}")
    every = min(len(demos), max(2, round(1 / held_out)))
    validation = [demo for i, demo in enumerate(demos) if i % every == every - 1]
    return [demo for i, demo in enumerate(demos) if i % every != every - 1], validation
