"""Cameras of a demo: calibrations and published intrinsics."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genima.cameras.calibration_file import CameraCalibration
from genima.cameras.camera import Camera
from genima.cameras.intrinsics import CameraIntrinsics
from genima.cameras.plausibility import require_plausible, require_plausible_intrinsics
from genima.data.episodes.bag import BagReader, calibration_topic, camera_info_topic, view_of
from genima.data.episodes.errors import EpisodeError
from genima.errors import GenimaError
from genima.io.files import parse_yaml


@dataclass(frozen=True)
class EpisodeCameras:
    """Cameras of one demo, by view; missing entries are unknown."""

    calibrated: dict[str, Camera]  # those with a calibration
    lenses: dict[str, CameraIntrinsics]  # those whose driver published intrinsics

    @classmethod
    def of(cls, folder: Path, wanted: Collection[str] | None = None) -> EpisodeCameras:
        """Read the first calibration and camera_info of each view that is ``wanted``, or of all.

        Raises:
            EpisodeError: when the bag cannot be read, and for a camera that is malformed or implausible.
        """
        with BagReader(folder) as bag:
            recorded = {view for topic in bag.types if (view := view_of(topic)) is not None}
            views = sorted(recorded if wanted is None else recorded & set(wanted))
            messages: dict[str, Any] = {}
            topics = {topic for view in views for topic in (calibration_topic(view), camera_info_topic(view))}
            topics = {topic for topic in topics if bag.counts.get(topic)}
            for message in bag.messages(topics):
                if message.topic not in messages:
                    messages[message.topic] = bag.deserialize(message)
                if len(messages) == len(topics):
                    break
        calibrated, lenses = dict[str, Camera](), dict[str, CameraIntrinsics]()
        for view in views:
            try:
                if text := messages.get(topic := calibration_topic(view)):
                    camera = CameraCalibration.from_dict(view, parse_yaml(text.data, "calibration")).camera
                    require_plausible(camera, "calibration")
                    calibrated[view] = camera
                if (info := messages.get(topic := camera_info_topic(view))) and np.any(info.k):
                    lens = CameraIntrinsics.from_camera_info(
                        info.width, info.height, info.distortion_model, info.d, info.k
                    )
                    require_plausible_intrinsics(
                        lens.width, lens.height, lens.fx, lens.fy, lens.cx, lens.cy, "camera_info", lens.distortion
                    )
                    lenses[view] = lens
            except GenimaError as error:
                raise EpisodeError(folder, " ".join(str(error).split()), topic) from None
        return cls(calibrated, lenses)
