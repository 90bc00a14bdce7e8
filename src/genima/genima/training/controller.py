"""Training of the controller."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.data.datasets.augmentation import AUGMENTATIONS
from genima.data.datasets.backgrounds import Backgrounds
from genima.data.datasets.controller_samples import ControllerDataset, Perturbation
from genima.data.datasets.sample_index import TargetSamples
from genima.data.datasets.target_dataset import split
from genima.policy.controller import Controller
from genima.system.command_line import check_options
from genima.training import loop
from genima.training.chunk_model import fingerprint, train_chunk_model
from genima.training.options import ControllerOptions, LoopOptions
from genima.types import Image


def train_controller(
    controller: Controller,
    moments: TargetSamples,
    cameras: Mapping[str, Camera],
    options: ControllerOptions,
    loop_options: LoopOptions,
    folder: Path,
    accelerator: Accelerator | None = None,
    origin: str = "",
    scenes: Callable[[int], Mapping[str, Image]] | None = None,
) -> None:
    """Train ``controller`` on ``moments`` of demos or of arbitrary configurations; checkpoints go to ``folder``.

    ``origin`` identifies the initial weights; resuming requires the same. ``scenes`` returns the camera images of a
    moment by view, for a controller with full context.

    Raises:
        GenimaError: as :func:`loop.run`, and for a background that cannot be read.
    """
    check_options(options)
    in_training, in_validation = split(moments)
    shared = (controller.robot, cameras, controller.spec, controller.statistics, Backgrounds(options.backgrounds))
    augmentation = AUGMENTATIONS[options.augmentation]()
    perturbation = Perturbation() if options.perturb else None
    seed, encoding = loop_options.seed, controller.encoding
    training_scenes, validation_scenes = (
        functools.partial(_scenes_of_rows, scenes, rows) if options.full_context and scenes else None
        for rows in (in_training, in_validation)
    )
    chosen = asdict(options)
    if not options.full_context:  # trainings of earlier versions are resumed
        del chosen["full_context"]
    train_chunk_model(
        controller,
        ControllerDataset(moments[in_training], *shared, perturbation, augmentation, seed, encoding, training_scenes),
        # Another seed: other backgrounds than in training.
        ControllerDataset(moments[in_validation], *shared, seed=seed + 1, encoding=encoding, scenes=validation_scenes),
        {
            "data": moments.fingerprint(),
            "cameras": fingerprint({view: camera.to_dict() for view, camera in cameras.items()}),
            "origin": origin,
            **chosen,
        },
        loop_options,
        folder,
        accelerator or loop.make_accelerator(loop_options, folder),
        validation_chunks=options.validation_chunks,
        half=options.half,
    )


def _scenes_of_rows(
    scenes: Callable[[int], Mapping[str, Image]], rows: NDArray[np.integer], i: int
) -> Mapping[str, Image]:
    """Return the camera images of the i-th of some rows."""
    return scenes(int(rows[i]))
