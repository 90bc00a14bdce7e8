"""Render images of simulated demos from their states, in parallel by Ray.

A demo is rendered by one process. Its images depend on the states, the cameras and the perturbations alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from genima.cameras.tiling import crop_depth, crop_square
from genima.cell import SIMULATED, Cell, load_cell
from genima.data.datasets.keyframe_dataset import KeyframeDemo
from genima.data.episodes import EpisodeWriter
from genima.data.episodes.robot import load_episode_robot
from genima.data.episodes.scene_states import SceneDemo
from genima.errors import GenimaError
from genima.io.files import describe_error
from genima.system.ray_cluster import connect
from genima_sim.motions import GRIP_TIME
from genima_sim.perturbations import get_perturbations
from genima_sim.rendering import SceneRenderer
from genima_sim.simulation import Simulation
from genima_sim.simulators import require_perturbations
from genima_sim.tasks import DEMO_HZ


@dataclass(frozen=True)
class ImageOptions:
    """Images to be rendered."""

    cell: str = SIMULATED  # whose cameras see the scene
    size: int | None = None  # px, side of the images; None: as the cell's calibrations
    format: Literal["jpeg", "png"] = "jpeg"
    perturbations: Sequence[str] = ()  # in addition to those that a demo was recorded with


class DemoImageRenderer:
    """Renderer of the images of demos, one after the other. Its OpenGL context belongs to the thread that made it."""

    def __init__(self, options: ImageOptions) -> None:
        """Raises:
        GenimaError: for an unknown cell, and a perturbation that is unknown or changes more than looks.
        """
        cell, self._options = _load_cell(options), options
        cameras, size = cell.load_cameras(), options.size
        self._cameras = cameras if size is None else {view: each.scale(size, size) for view, each in cameras.items()}
        self._simulation = Simulation(cell.robot, cameras=self._cameras)
        self._renderer = SceneRenderer(self._simulation.model, self._cameras)

    def render_keyframes(self, demo: Path, views: Sequence[str], view_size: int) -> KeyframeDemo:
        """Render what a policy sees before each motion between two keyframes.

        Args:
            demo: folder.
            views: of the cell.
            view_size: px, side of the images' central squares.

        Raises:
            As :meth:`render`.
        """
        states, _ = self._load(demo)
        robot, model = self._simulation.robot, self._simulation.model
        joints = np.array([each.positions for each in states.joints])
        keyframes = states.keyframes()
        seen = np.concatenate([[0], states.settled(keyframes, GRIP_TIME)])[:-1]
        images, depth = [], []
        for i in seen:
            rendered = self._renderer.render(states.states[i], model, views)
            distances = self._renderer.render_depth(states.states[i], model, views)
            images.append([crop_square(rendered[view], view_size) for view in views])
            depth.append([crop_depth(distances[view], view_size) for view in views])
        commands = [states.commands[i] for i in keyframes]
        grippers = [states.joints[0].gripper, *(command.gripper for command in commands)]
        return KeyframeDemo(
            states.instruction,
            np.array(images),
            np.array(depth, np.float16),
            joints[seen],
            np.array(grippers) > 0.5,
            robot.link_poses(np.array([command.positions for command in commands]))[:, -1],
        )

    def render(self, demo: Path, out: Path) -> None:
        """Write a demo with images to the folder ``out``.

        Raises:
            EpisodeError: for a demo without states.
            GenimaError: for a demo of another robot or scene.
        """
        simulation = self._simulation
        states, names = self._load(demo)
        images = self._options.format
        with EpisodeWriter(out, simulation.robot, self._cameras, states.instruction, images) as episode:
            episode.describe_scene(states.scene.model_copy(update={"perturbations": names}))
            for joints, state, command in zip(states.joints, states.states, states.commands, strict=True):
                episode.observe(joints.stamp, self._renderer.render(state, simulation.model), joints)
                episode.state(joints.stamp, state)
                episode.command(command)
            episode.judge(states.joints[-1].stamp + 1 / DEMO_HZ, states.success)

    def _load(self, demo: Path) -> tuple[SceneDemo, list[str]]:
        """Read a demo and build its scene; return it with the names of the scene's perturbations."""
        robot, simulation = self._simulation.robot, self._simulation
        recorded = load_episode_robot(demo)
        if recorded.name != robot.name:
            raise GenimaError(f"episode {demo}: robot {recorded.name}; use a cell with it, not {self._options.cell}")
        states = SceneDemo.load(demo, robot)
        scene = states.scene
        names = [*scene.perturbations, *(n for n in self._options.perturbations if n not in scene.perturbations)]
        simulation.reset(scene.task, scene.seed, perturbations=names)
        if states.states.shape[1] != simulation.model.nq:
            count = states.states.shape[1]
            raise GenimaError(
                f"episode {demo}: states of another scene ({count} values, {simulation.model.nq} expected); "
                "record it again"
            )
        return states, names

    def close(self) -> None:
        """Free the OpenGL contexts."""
        self._renderer.close()


def render_demos(
    demos: Sequence[Path], out: Path, options: ImageOptions, workers: int = 2, address: str | None = None
) -> int:
    """Render the images of demos into folders of the same names in ``out``; those that exist are kept, as they are.

    Args:
        demos: folders.
        out: folder; on a cluster, one that all machines share, as those of the demos.
        options: what to render.
        workers: processes; at most the cluster's CPUs.
        address: of a Ray cluster; None: this machine's cores.

    Returns:
        the number of demos that were rendered.

    Raises:
        GenimaError: for options that :class:`DemoImageRenderer` rejects, for demos of one name, for the first demo that
            cannot be rendered, without a cluster at the address or CPUs in it, and when a process of Ray ends.
    """
    _load_cell(options)  # here, too: Ray reports an error in the making of a renderer by its traceback
    names = [demo.name for demo in demos]
    if twice := {name for name in names if names.count(name) > 1}:
        raise GenimaError(f"demos of one name ({', '.join(sorted(twice))}); render their folders one by one")
    todo = [(demo, out / demo.name) for demo in demos if not (out / demo.name).exists()]
    bar = tqdm(total=len(demos), initial=len(demos) - len(todo), unit="demo", dynamic_ncols=True)
    with bar:
        if todo:
            for _ in _render_in_parallel(todo, options, min(workers, len(todo)), address):
                bar.update()
    return len(todo)


def _load_cell(options: ImageOptions) -> Cell:
    """Load the cell.

    Raises:
        GenimaError: for an unknown cell, and a perturbation that is unknown or changes more than looks.
    """
    cell = load_cell(options.cell)
    require_perturbations(cell, options.perturbations)
    if moving := [each.name for each in get_perturbations(options.perturbations) if not each.visual_only]:
        raise GenimaError(
            f"perturbation {moving[0]}: states that were recorded without it do not fit; record with --perturb"
        )
    return cell


def _render_in_parallel(
    jobs: Sequence[tuple[Path, Path]], options: ImageOptions, workers: int, address: str | None
) -> Iterator[None]:
    """Yield once for each demo that has been rendered."""
    import ray
    from ray.util import ActorPool

    with connect(workers, address) as cpus:
        if workers > cpus:  # Ray would wait for machines that join
            tqdm.write(f"genima: workers: the cluster has {cpus} CPUs ({workers} workers requested); using {cpus}")
            workers = cpus
        renderer = ray.remote(num_cpus=1)(DemoImageRenderer)
        pool = ActorPool([renderer.remote(options) for _ in range(workers)])
        results = pool.map_unordered(
            lambda actor, job: actor.render.remote(job[0].absolute(), job[1].absolute()), list(jobs)
        )
        while pool.has_next():
            try:
                next(results)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, GenimaError) else error from None
            except ray.exceptions.RayActorError as error:
                raise GenimaError(f"Ray: a process ended ({describe_error(error)}); start the command again") from None
            yield
