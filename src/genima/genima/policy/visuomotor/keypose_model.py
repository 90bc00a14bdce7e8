"""Model that predicts keyposes: a network with its text encoder and specification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerBase

from genima.cameras.camera import Camera
from genima.errors import GenimaError
from genima.io import hub, model_files
from genima.policy import spec as checkpoint
from genima.policy.names import DIFFUSER_ACTOR
from genima.policy.small_text_encoder import load_tokenizer
from genima.policy.spec import PolicySpec
from genima.policy.visuomotor.keypose_network import HISTORY, STRIDE, KeyposeConfig, KeyposeInput, KeyposeNetwork
from genima.policy.visuomotor.model import pixels, require_sizes
from genima.policy.visuomotor.pretrained import load_clip
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose, rotation_columns, rotation_from_columns, transform

Array = NDArray[np.float64]
_WEIGHTS = "network.safetensors"
_TEXT_ENCODER = "text_encoder."  # its weights' prefix
_FARTHEST = 3.0  # m: what is farther away is not of the workspace


class KeyposeModel:
    """Network, tokenizer and specification."""

    def __init__(
        self, spec: PolicySpec, network: KeyposeNetwork, tokenizer: PreTrainedTokenizerBase, clip: str | None = None
    ) -> None:
        """``clip`` is the source of a frozen text encoder for ``load_clip``; None: it was trained with the network."""
        self.spec, self.network, self.tokenizer = spec, network, tokenizer
        self.clip = str(Path(clip).resolve()) if clip and Path(clip).is_dir() else clip
        self.robot = RobotModel.load(spec.robot)
        spec.require_robot(self.robot, f"the {DIFFUSER_ACTOR}")

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> KeyposeModel:
        """Load a checkpoint folder (safetensors only), and the text encoder that it may name.

        Raises:
            GenimaError: for a missing or damaged checkpoint, another schema, robot or text encoder, and an
                unavailable device.
        """
        checkpoint.require_device(device)
        folder = checkpoint.resolve(folder)
        spec, rest = checkpoint.read(folder, DIFFUSER_ACTOR)
        with checkpoint.translate_load_errors(folder):
            model_files.require_moderate(rest["network"], folder / checkpoint.FILE)
            config = KeyposeConfig.from_dict(rest["network"])
            require_sizes("network", config)
            weights = load_file(folder / _WEIGHTS)
            if clip := rest["text_encoder"]:
                encoder, tokenizer = load_clip(clip)
                if hub.fingerprint(encoder) != rest["text_encoder_fingerprint"]:
                    raise GenimaError(f"checkpoint {folder} was trained with another version of {clip}")
                model_files.require_fitting(lambda: KeyposeNetwork(config, encoder), folder, _TEXT_ENCODER)
                weights |= {_TEXT_ENCODER + key: value for key, value in encoder.state_dict().items()}
            else:
                text = CLIPTextConfig.from_pretrained(folder / "text_encoder")
                model_files.require_fitting(lambda: KeyposeNetwork(config, CLIPTextModel(text)), folder)
                encoder, tokenizer = CLIPTextModel(text), load_tokenizer(folder / "tokenizer")
            network = KeyposeNetwork(config, encoder)
            network.load_state_dict(weights)
        network.requires_grad_(False).eval().to(device)
        return cls(spec, network, tokenizer, clip)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint; ``genima.json`` is written last, and marks a complete folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / checkpoint.FILE).unlink(missing_ok=True)
        weights = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        if self.clip:
            weights = {name: tensor for name, tensor in weights.items() if not name.startswith(_TEXT_ENCODER)}
        save_file(weights, folder / _WEIGHTS)
        if not self.clip:
            self.network.text_encoder.config.save_pretrained(folder / "text_encoder")
            self.tokenizer.save_pretrained(folder / "tokenizer")
        checkpoint.write(
            folder, DIFFUSER_ACTOR, self.spec, network=asdict(self.network.config),
            text_encoder=self.clip, text_encoder_fingerprint=self.clip and hub.fingerprint(self.network.text_encoder),
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.network.parameters()).device

    def unfreeze(self) -> None:
        """Make all weights trainable, except those of a pre-trained text encoder."""
        self.network.requires_grad_(True)
        if self.clip:
            self.network.text_encoder.requires_grad_(False)

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
        device, length = self.device, self.network.text_encoder.config.max_position_embeddings
        tokens = self.tokenizer(
            list(instructions), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return KeyposeInput(
            pixels(images.to(device)),
            points.float().to(device),
            valid.to(device),
            history.float().to(device),
            self.network.embed_text(tokens.input_ids.to(device)),
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
