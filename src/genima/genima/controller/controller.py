"""The controller as the loop uses it: a drawn target and the measured joints in, a chunk out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model, save_model
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerBase

from genima import checkpoint
from genima.checkpoint import DrawingSpec
from genima.controller.act import Act, ActConfig
from genima.errors import GenimaError
from genima.observation import Chunk, DrawnTarget, Joints
from genima.robot.model import RobotModel
from genima.views.tiling import untile

_WEIGHTS = "act.safetensors"


@dataclass(frozen=True)
class JointStatistics:
    """Mean and standard deviation (n,) in rad that joints are normalised by, in training as in use."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    def normalise(self, positions: NDArray[np.floating]) -> NDArray[np.float64]:
        """(..., n) rad to zero mean and unit variance."""
        return (positions - self.mean) / self.deviation

    def restore(self, normalised: NDArray[np.floating]) -> NDArray[np.float64]:
        """The inverse of :meth:`normalise`."""
        return normalised * self.deviation + self.mean


class Controller:
    """Reads the spheres of a drawn target into a chunk of joint positions."""

    def __init__(
        self, spec: DrawingSpec, act: Act, tokenizer: PreTrainedTokenizerBase, statistics: JointStatistics
    ) -> None:
        self.spec, self.act, self.tokenizer, self.statistics = spec, act, tokenizer, statistics
        self.robot = RobotModel.load(spec.robot)
        spec.require_robot(self.robot, "the controller")
        self._texts: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "cpu") -> Controller:
        """Load a checkpoint folder (safetensors only).

        Raises:
            GenimaError: when it is missing, damaged, or of another schema or robot, or there is no such device.
        """
        folder = Path(folder)
        checkpoint.require_device(device)
        spec, rest = checkpoint.read(folder, checkpoint.CONTROLLER)
        with checkpoint.loading(folder):
            sizes: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in rest["act"].items()}
            act = Act(ActConfig(**sizes), CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder")))
            load_model(act, folder / _WEIGHTS)
            statistics = JointStatistics(np.array(rest["joint_mean"], float), np.array(rest["joint_deviation"], float))
            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
        n, config = len(spec.joint_names), act.config
        if config.horizon != spec.horizon or config.joints != n:
            raise GenimaError(
                f"checkpoint {folder}: the network makes {config.horizon} actions of {config.joints} joints, "
                f"{checkpoint.FILE} says {spec.horizon} of {n}"
            )
        if statistics.mean.shape != (n,) or statistics.deviation.shape != (n,) or not np.all(statistics.deviation > 0):
            raise GenimaError(f"checkpoint {folder}: normalisation statistics do not fit {n} joints")
        act.requires_grad_(False).eval().to(device)
        return cls(spec, act, tokenizer, statistics)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint; ``genima.json`` comes last, so that half a folder is never taken for a whole one."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / checkpoint.FILE).unlink(missing_ok=True)
        save_model(self.act, str(folder / _WEIGHTS))
        self.act.text_encoder.config.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        checkpoint.write(
            folder, checkpoint.CONTROLLER, self.spec,
            act=asdict(self.act.config),
            joint_mean=self.statistics.mean.tolist(), joint_deviation=self.statistics.deviation.tolist(),
        )  # fmt: skip

    def tokens(self, instructions: list[str]) -> Tensor:
        """Token ids (B, L) of instructions."""
        return self.tokenizer(
            instructions, padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        ).input_ids  # fmt: skip

    @torch.inference_mode()
    def read(self, drawn: DrawnTarget, joints: Joints) -> Chunk:
        """The chunk that leads from the measured joints to the drawn target.

        Raises:
            GenimaError: when the drawing is of another layout or size, or the chunk is not finite.
        """
        spec, side = self.spec, 2 * self.spec.view_size
        if tuple(drawn.views) != spec.views:
            raise GenimaError(
                f"the drawn target has views {list(drawn.views)}, the controller reads {list(spec.views)}"
            )
        if drawn.tile.shape != (side, side, 3):
            raise GenimaError(
                f"the drawn target has shape {drawn.tile.shape}, the controller reads ({side}, {side}, 3)"
            )
        device = self.act.query.device
        views = np.stack([np.ascontiguousarray(view) for view in untile(drawn.tile, spec.views).values()])
        if drawn.instruction not in self._texts:
            self._texts[drawn.instruction] = self.act.embed_text(self.tokens([drawn.instruction]).to(device))
        proprioception = np.append(self.statistics.normalise(joints.positions), joints.gripper)
        output = self.act(
            pixels(torch.from_numpy(views)[None]).to(device),
            torch.from_numpy(proprioception).float()[None].to(device),
            self._texts[drawn.instruction],
        )
        positions = self.statistics.restore(output.actions[0].double().cpu().numpy())
        gripper = output.gripper[0].double().sigmoid().cpu().numpy()
        if not (np.all(np.isfinite(positions)) and np.all(np.isfinite(gripper))):
            raise GenimaError("the chunk is not finite: the controller's weights or its inputs are damaged")
        return Chunk(drawn.stamp, 1 / spec.action_rate, positions, gripper)


_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which ResNets expect


def pixels(images: Tensor) -> Tensor:
    """(..., H, W, 3) uint8 rgb to (..., 3, H, W) with ImageNet's normalisation."""
    mean, deviation = torch.tensor(_MEAN), torch.tensor(_DEVIATION)
    scaled = (images.float() / 255 - mean.to(images.device)) / deviation.to(images.device)
    return scaled.movedim(-1, -3)
