"""Confidence of a policy that samples action chunks: how far its samples for one observation differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genima.robot.model import RobotModel


def chunk_spread(robot: RobotModel, positions: NDArray[np.float64]) -> float:
    """Return the spread in mm of N sampled chunks, positions (N, K, n) rad.

    It is the root mean square distance of the samples' tips from their mean, at the action of the chunk where that is
    largest. Distances of the tip, unlike angles, compare between robots and say how far the hand may miss. Samples for
    a clear observation agree; those of a policy that hesitates between two ways, or sees what it was not trained on, do
    not.
    """
    tips = robot.link_poses(positions)[..., -1, :3, 3]
    distances = np.linalg.norm(tips - tips.mean(0), axis=-1)
    return 1000 * float(np.sqrt((distances**2).mean(0)).max())
