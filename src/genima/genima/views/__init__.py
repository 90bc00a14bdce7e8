"""Views: where the cameras are and how their images are tiled into one."""

from genima.views.camera import Camera, load_cameras
from genima.views.tiling import fit, tile, untile

__all__ = ["Camera", "load_cameras", "fit", "tile", "untile"]
