"""Render the dataset of keyframes of simulated demos, with depth, from the states of the demos."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from genima.cell import load_cell
from genima.data.datasets.keyframe_dataset import write_description
from genima.errors import GenimaError
from genima.policy.spec import PolicySpec
from genima_sim.demo_images import DemoImageRenderer, ImageOptions
from genima_sim.tasks import DEMO_HZ


def render_keyframes(
    demos: Sequence[Path], out: Path, cell_name: str, views: Sequence[str] | None, view_size: int
) -> list[str]:
    """Render the keyframes of demos into ``out``; those of demos that are there are kept. Return the demos' names.

    Args:
        demos: folders.
        out: folder of the dataset.
        cell_name: the simulated cell whose cameras see the scene.
        views: of the cell, in tile order; None: all.
        view_size: px.

    Raises:
        GenimaError: for no demos, unknown views, a cell without states, and a demo without.
    """
    if not demos:
        raise GenimaError("keyframes: no demos; record some by ./genima record --lockstep --images none")
    cell = load_cell(cell_name)
    cameras = cell.load_cameras()
    views = tuple(views or cell.views)
    if unknown := [view for view in views if view not in cameras]:
        raise GenimaError(f"views: {', '.join(unknown)} not in cell {cell.name}, which has {', '.join(cameras)}")
    sizes = {(cameras[view].width, cameras[view].height) for view in views}
    if len(sizes) != 1:
        raise GenimaError(f"cell {cell.name}: images of different sizes ({sizes}); name views of one size")
    spec = PolicySpec(
        cell.robot.name, cell.robot.joint_names, views, sizes.pop(), view_size,
        action_rate=float(DEMO_HZ), requires_depth=True,
    )  # fmt: skip
    write_description(out, spec, {view: cameras[view] for view in views})
    todo = [demo for demo in demos if not (out / f"{demo.name}.npz").exists()]
    if todo:
        with closing(DemoImageRenderer(ImageOptions(cell_name))) as renderer:
            for demo in tqdm(todo, unit="demo", desc="keyframes", dynamic_ncols=True):
                renderer.render_keyframes(demo, views, view_size).save(out / f"{demo.name}.npz")
    return sorted(demo.name for demo in demos)
