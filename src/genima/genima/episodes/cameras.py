"""What a demo says of its cameras: the calibrations that were in use, and what the drivers said of the lenses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from genima.episodes.bag import BagReader, calibration_topic, camera_info_topic, view_of
from genima.episodes.errors import EpisodeError
from genima.errors import GenimaError
from genima.handeye.intrinsics import Intrinsics
from genima.handeye.result import Calibration
from genima.views.camera import Camera


@dataclass(frozen=True)
class RecordedCameras:
    """Of one demo, by view."""

    calibrated: dict[str, Camera]  # of those that it holds a calibration of
    lenses: dict[str, Intrinsics]  # of those whose driver knew its lens

    @classmethod
    def of(cls, folder: Path, wanted: Collection[str] | None = None) -> RecordedCameras:
        """Read the first word of each camera that is ``wanted``, or of all, however long the bag is.

        Raises:
            EpisodeError: when the bag or what it says of a camera cannot be read.
        """
        with BagReader(folder) as bag:
            there = {view for topic in bag.types if (view := view_of(topic)) is not None}
            views = sorted(there if wanted is None else there & set(wanted))
            said: dict[str, Any] = {}
            topics = {topic for view in views for topic in (calibration_topic(view), camera_info_topic(view))}
            topics &= set(bag.types)
            for message in bag.messages(topics):
                if message.topic not in said:
                    said[message.topic] = bag.understood(message)
                if len(said) == len(topics):
                    break
        calibrated, lenses = dict[str, Camera](), dict[str, Intrinsics]()
        for view in views:
            try:
                if text := said.get(topic := calibration_topic(view)):
                    calibrated[view] = Calibration.from_dict(view, yaml.safe_load(text.data)).camera
                if (info := said.get(topic := camera_info_topic(view))) and np.any(info.k):
                    lenses[view] = Intrinsics.from_camera_info(
                        info.width, info.height, info.distortion_model, info.d, info.k
                    )
            except (GenimaError, yaml.YAMLError) as error:
                raise EpisodeError(folder, " ".join(str(error).split()), topic) from None
        return cls(calibrated, lenses)
