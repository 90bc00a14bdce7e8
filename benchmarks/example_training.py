"""The training step of diffusers' ControlNet example, written from its settings: what ours is measured against.

The settings are the defaults of examples/controlnet/train_controlnet.py with ``--mixed_precision bf16``: the ControlNet
in single precision under accelerate's autocast, all else stored in half precision; every step embeds its prompts; AdamW
as PyTorch runs it by default; gradients zeroed in place; the default memory format; nothing compiled. Its images are
not loaded: they already lie on the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from diffusers import ControlNetModel, DDPMScheduler, StableDiffusionPipeline
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class ExampleBatch:
    """Batch of the example's loader, on the device."""

    pixels: Tensor  # (B, 3, H, W) in -1..1, the drawn targets
    condition: Tensor  # (B, 3, H, W) in 0..1, the observations
    ids: Tensor  # (B, 77), of the prompts
    prompts: Tensor | None = None  # (B, 77, channels), where they are embedded already


def example_loss(
    pipeline: StableDiffusionPipeline, controlnet: ControlNetModel, noise: DDPMScheduler, batch: ExampleBatch
) -> Tensor:
    """The loss of a batch, in the precision that the pipeline is stored in.

    Noise is drawn in single precision, so that the same seed gives the same loss as
    :class:`genima.training.diffusion.DiffusionLossModule`.
    """
    dtype = pipeline.unet.dtype
    with torch.no_grad():
        latents = pipeline.vae.encode(batch.pixels.to(dtype)).latent_dist.sample() * pipeline.vae.config.scaling_factor
        added = torch.randn_like(latents, dtype=torch.float32).to(dtype)
        t = torch.randint(0, noise.config.num_train_timesteps, (len(latents),), device=latents.device)
        noisy = noise.add_noise(latents, added, t)
        prompts = pipeline.text_encoder(batch.ids).last_hidden_state if batch.prompts is None else batch.prompts
    down, middle = controlnet(
        noisy, t, encoder_hidden_states=prompts, controlnet_cond=batch.condition.to(dtype), return_dict=False
    )
    prediction = pipeline.unet(
        noisy, t, encoder_hidden_states=prompts, down_block_additional_residuals=[x.to(dtype) for x in down],
        mid_block_additional_residual=middle.to(dtype), return_dict=False,
    )[0]  # fmt: skip
    return F.mse_loss(prediction.float(), added.float())


class Example:
    """The example's training, on the accelerator's device and in its precision."""

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        controlnet: ControlNetModel,
        accelerator: Accelerator,
        channels_last: bool = False,
        fused_optimizer: bool = False,
    ) -> None:
        """Two of its settings can be ours; a fused optimiser also lets gradients go instead of zeroing them."""
        dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
        memory_format = torch.channels_last if channels_last else torch.preserve_format
        for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
            module.to(accelerator.device, dtype, memory_format=memory_format)
        controlnet.to(memory_format=memory_format)
        self._pipeline, self._accelerator, self._release = pipeline, accelerator, fused_optimizer
        self._noise = DDPMScheduler.from_config(pipeline.scheduler.config)
        self._parameters = list(controlnet.parameters())
        optimizer = torch.optim.AdamW(self._parameters, lr=1e-5, weight_decay=1e-2, fused=fused_optimizer or None)
        self._controlnet, self._optimizer = accelerator.prepare(controlnet, optimizer)

    def loss(self, batch: ExampleBatch) -> Tensor:
        """Return the loss of a batch, with its gradient graph."""
        return example_loss(self._pipeline, self._controlnet, self._noise, batch)

    def step(self, batch: ExampleBatch) -> None:
        """Run one optimiser step."""
        self._accelerator.backward(self.loss(batch))
        self._accelerator.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=self._release)
