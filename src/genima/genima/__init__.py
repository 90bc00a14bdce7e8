"""Genima: a diffusion agent draws the joints' targets on the camera images, a controller follows them."""

import os
import sys

__version__ = "0.1.0"  # of all packages: test_packages.py compares their setup.py and package.xml


def _render_by_egl() -> None:
    """Have MuJoCo and PyOpenGL render by EGL, the only backend that needs no display; they read this when imported."""
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        chosen = os.environ.get(name, "egl")
        if chosen.strip().lower() not in ("egl", ""):
            print(f"genima: {name}={chosen!r} is ignored: Genima renders without a display, by EGL", file=sys.stderr)
        os.environ[name] = "egl"


_render_by_egl()
