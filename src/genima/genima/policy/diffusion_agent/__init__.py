"""Diffusion agent: drawn targets from tiled views."""
