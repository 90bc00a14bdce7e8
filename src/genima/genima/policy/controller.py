"""Controller: action chunks from drawn targets and measured joints."""

from __future__ import annotations

import numpy as np

from genima.cameras.tiling import untile
from genima.errors import GenimaError
from genima.policy import spec as checkpoint
from genima.policy.visuomotor.model import ChunkModel
from genima.types import ActionChunk, DrawnTarget, Joints


class Controller(ChunkModel):
    """Second half of GENIMA: predicts action chunks from drawn targets."""

    KIND = checkpoint.CONTROLLER

    def predict_chunk(self, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
        """Predict the chunk from the measured joints to the drawn target.

        Raises:
            GenimaError: for a drawn target of another layout or size, and a chunk that is not finite.
        """
        spec = self.spec
        if tuple(drawn.views) != spec.views:
            raise GenimaError(
                f"the drawn target has views {list(drawn.views)}, the controller reads {list(spec.views)}"
            )
        if drawn.tile.shape != (*spec.tile_size, 3):
            raise GenimaError(
                f"the drawn target has shape {drawn.tile.shape}, the controller reads {(*spec.tile_size, 3)}"
            )
        views = np.stack([np.ascontiguousarray(view) for view in untile(drawn.tile, spec.views).values()])
        return ActionChunk(drawn.stamp, 1 / spec.action_rate, *self.predict_actions(views, drawn.instruction, joints))
