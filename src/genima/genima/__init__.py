"""Genima: a diffusion agent draws the joints' targets on the camera images, a controller follows them."""

__version__ = "0.1.0"
