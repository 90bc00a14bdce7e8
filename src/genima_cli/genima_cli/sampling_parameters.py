"""Sampling options of commands, as parameters of the node diffusion_agent."""

from __future__ import annotations

from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima_bringup.node_specs import Value


def sampling_parameters(shortcuts: SamplingOptions) -> dict[str, Value]:
    """Return the parameters of diffusion_agent; 0 and an empty name mean the checkpoint's own."""
    return {
        "steps": shortcuts.steps or 0,
        "strength": shortcuts.strength,
        "controlnet_every": shortcuts.controlnet_every,
        "tiny_decoder": shortcuts.tiny_decoder or "",
    }
