"""Diffusion agent: draw joint targets on the tiled views."""
