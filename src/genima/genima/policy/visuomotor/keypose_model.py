"""Model that predicts keyposes: a network with its text encoder and specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genima.cameras.camera import Camera
from genima.errors import GenimaError
from genima.policy import spec as checkpoint
from genima.policy.names import DIFFUSER_ACTOR
from genima.policy.visuomotor.keypose_network import HISTORY, STRIDE, KeyposeConfig, KeyposeInput, KeyposeNetwork
from genima.policy.visuomotor.model import pixels
from genima.policy.visuomotor.text_model import TextConditionedModel, load_network
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose, rotation_columns, rotation_from_columns, transform

Array = NDArray[np.float64]
_NETWORK = "network"  # in ``genima.json`` and of the weights' file
_FARTHEST = 3.0  # m: what is farther away is not of the workspace


class KeyposeModel(TextConditionedModel):
    """Network, tokenizer and specification."""

    KIND = DIFFUSER_ACTOR
    network: KeyposeNetwork

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> KeyposeModel:
        """Load a checkpoint folder (safetensors only), and the text encoder that it may name.

        Raises:
            GenimaError: for a missing or damaged checkpoint, another schema, robot or text encoder, and an
                unavailable device.
        """
        folder, spec, rest = checkpoint.open_checkpoint(folder, cls.KIND, device)
        with checkpoint.translate_load_errors(folder):
            _, network, tokenizer = load_network(folder, _NETWORK, KeyposeNetwork, KeyposeConfig, rest)
        network.requires_grad_(False).eval().to(device)
        return cls(spec, network, tokenizer, rest["text_encoder"])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint; ``genima.json`` is written last, and marks a complete folder."""
        self._save(Path(folder), _NETWORK)

    def inputs(
        self, images: Tensor, points: Tensor, valid: Tensor, history: Tensor, instructions: Sequence[str]
    ) -> KeyposeInput:
        """Return a batch on the network's device.

        Args:
            images: (B, V, s, s, 3) uint8.
            points: (B, V, h, w, 3) m, of :func:`token_points`.
            valid: (B, V, h, w), of :func:`token_points`.
            history: (B, HISTORY, 10), of :func:`encode_history`.
            instructions: B texts.
        """
        device = self.device
        return KeyposeInput(
            pixels(images.to(device)),
            points.float().to(device),
            valid.to(device),
            history.float().to(device),
            self.network.embed_text(self.tokens(instructions)),
        )

    @torch.inference_mode()
    def predict(
        self,
        views: Sequence[NDArray[np.uint8]],
        points: NDArray[np.float32],
        valid: NDArray[np.bool_],
        history: Array,
        instruction: str,
        generator: torch.Generator | None = None,
    ) -> tuple[Array, bool]:
        """Sample the next keypose: the tip's pose (4, 4) in the base frame, and whether the gripper is open then.

        Arguments as those of :meth:`inputs`, without the batch.

        Raises:
            GenimaError: for a keypose that is not finite.
        """
        batch = self.inputs(
            torch.from_numpy(np.stack(views))[None],
            torch.from_numpy(points)[None],
            torch.from_numpy(valid)[None],
            torch.from_numpy(history)[None],
            [instruction],
        )
        sampled = self.network.sample(batch, generator)
        keypose, gripper = sampled.pose[0].double().cpu().numpy(), float(sampled.gripper[0])
        if not (np.isfinite(keypose).all() and np.isfinite(gripper)):
            raise GenimaError(f"keypose: not finite; the weights of the {DIFFUSER_ACTOR} or its inputs are damaged")
        return decode_pose(keypose), gripper > 0.5


def encode_pose(T_base_tip: Array) -> Array:
    """Return poses (..., 4, 4) as numbers (..., 9): position, and two columns of the rotation."""
    return np.concatenate([T_base_tip[..., :3, 3], rotation_columns(T_base_tip[..., :3, :3])], -1)


def decode_pose(numbers: Array) -> Array:
    """Return the inverse of :func:`encode_pose`, for any two independent columns."""
    return pose(rotation_from_columns(numbers[..., 3:]), numbers[..., :3])


def encode_history(poses: Sequence[Array], grippers: Sequence[float]) -> Array:
    """Return the last poses (4, 4) with the gripper's states as the network takes them, (HISTORY, 10), now last.

    Where there are fewer, the first is repeated.
    """
    rows = np.column_stack([encode_pose(np.array(poses)), np.array(grippers)])[-HISTORY:]
    return np.concatenate([np.repeat(rows[:1], HISTORY - len(rows), 0), rows])


def token_points(
    depth: Mapping[str, NDArray[np.floating]], cameras: Mapping[str, Camera], robot: RobotModel, positions: Array
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the points (V, h, w, 3) m in the base frame that the centres of the tokens show, and which are valid.

    Args:
        depth: square images (s, s) by view, m along the optical axis.
        cameras: of these images, by view.
        robot: carries cameras.
        positions: (n,) rad.
    """
    points, valid = [], []
    for view, image in depth.items():
        size = len(image)
        count = -(-size // STRIDE)
        nearest = ((np.arange(count) + 0.5) * size / count).astype(int)
        z = image[np.ix_(nearest, nearest)].astype(np.float64)
        u, v = np.meshgrid(nearest + 0.5, nearest + 0.5)  # of these pixels, at which the depth was measured
        rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(cameras[view].K).T
        known = np.isfinite(z) & (z > 0) & (z < _FARTHEST)
        z = np.where(known, z, 0.0)
        points.append(transform(cameras[view].T_base_camera(robot, positions), rays * z[..., None]))
        valid.append(known)
    return np.array(points, np.float32), np.array(valid)
