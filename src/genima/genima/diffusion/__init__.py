"""The diffusion agent: redraws the tiled views with the joints' target spheres in them."""

from genima.diffusion.agent import DiffusionAgent

__all__ = ["DiffusionAgent"]
