"""Sampling options of diffusion models and policies as parameters of a node."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

from genima.policy.chunk_sampling_options import (
    MAX_SPREAD,
    SAMPLER_STEPS,
    SAMPLERS,
    SAMPLES,
    ChunkSamplingOptions,
)
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


def chunk_sampling_options(node: Node) -> ChunkSamplingOptions:
    """Declare and read the parameters that have the names of the fields of :class:`ChunkSamplingOptions`.

    Raises:
        GenimaError: for a value out of range.
    """
    sampler: Any = parameters.text(node, "sampler", "usual", SAMPLERS)
    return ChunkSamplingOptions(
        sampler=sampler,
        sampler_steps=parameters.integer(node, "sampler_steps", 0, *SAMPLER_STEPS),
        real_time_chunking=parameters.flag(node, "real_time_chunking", False),
        samples=parameters.integer(node, "samples", 1, *SAMPLES),
        max_spread=parameters.number(node, "max_spread", 0.0, *MAX_SPREAD),
    )
