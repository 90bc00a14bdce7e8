"""Sampling options of the diffusion model as parameters of a node."""

from __future__ import annotations

from rclpy.node import Node

from genima.policy.diffusion_agent.sampling_options import CONTROLNET_EVERY, STEPS, STRENGTH, SamplingOptions
from genima_nodes.ros import parameters


def sampling_options(node: Node) -> SamplingOptions:
    """Declare and read the parameters ``steps``, ``strength``, ``controlnet_every`` and ``tiny_decoder``.

    Raises:
        GenimaError: for a value out of range.
    """
    return SamplingOptions(
        steps=parameters.integer(node, "steps", 0, 0, STEPS[1]) or None,  # 0: the checkpoint's
        strength=parameters.number(node, "strength", 1.0, *STRENGTH),
        controlnet_every=parameters.integer(node, "controlnet_every", 1, *CONTROLNET_EVERY),
        tiny_decoder=parameters.text(node, "tiny_decoder", "") or None,
    )
