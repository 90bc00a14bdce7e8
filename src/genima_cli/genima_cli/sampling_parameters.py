"""Sampling options of commands, as parameters of the node diffusion_agent."""

from __future__ import annotations

from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima_bringup.node_specs import Value


def sampling_parameters(sampling: SamplingOptions) -> dict[str, Value]:
    """Return the parameters of diffusion_agent; 0 and an empty name mean the checkpoint's own."""
    return {
        "steps": sampling.steps or 0,
        "strength": sampling.strength,
        "controlnet_every": sampling.controlnet_every,
        "tiny_decoder": sampling.tiny_decoder or "",
    }
