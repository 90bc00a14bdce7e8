"""Genima: a diffusion agent draws the joints' targets on the camera images, a controller follows them."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")  # draws without a display; MuJoCo reads it when it is imported

__version__ = "0.1.0"
