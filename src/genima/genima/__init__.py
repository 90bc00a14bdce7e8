"""GENIMA: a diffusion agent draws joint targets on camera images, a controller follows them."""

import os
import sys

__version__ = "0.1.0"  # of all packages: test_packages.py compares their setup.py and package.xml


def _render_by_egl() -> None:
    """Select EGL, the only backend without a display, for MuJoCo and PyOpenGL; they read this when imported."""
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        chosen = os.environ.get(name, "egl")
        if chosen.strip().lower() not in ("egl", ""):
            print(f"genima: {name}: not supported ({chosen!r}); Genima renders by EGL", file=sys.stderr)
        os.environ[name] = "egl"


_render_by_egl()
