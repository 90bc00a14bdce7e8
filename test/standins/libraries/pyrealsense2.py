"""Replacement of pyrealsense2 in a process's PYTHONPATH, with software devices.

Connected ones have a file `<serial>.npz` in the folder STANDIN_CAMERAS: a constant ``image``, and ``lens``, fx, fy,
ppx and ppy in px.
"""

import importlib.machinery
import importlib.util
import os
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

_PERIOD = 0.1  # s
_HERE = Path(__file__).parent
_other_paths = [path for path in sys.path if Path(path or ".").resolve() != _HERE]
_spec = importlib.machinery.PathFinder.find_spec("pyrealsense2", _other_paths)
assert _spec is not None and _spec.loader is not None
_real = sys.modules["pyrealsense2"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_real)


class _Bus:
    """Connected devices; reconnecting creates new ones, as with a real cable."""

    def __init__(self) -> None:
        self._folder = Path(os.environ["STANDIN_CAMERAS"])
        self._cameras: dict[str, tuple[object, np.ndarray]] = {}
        threading.Thread(target=self._publish_images, daemon=True).start()

    def query_devices(self) -> list[object]:
        from standins.software_camera import SoftwareCamera  # only here: it imports this module

        files = {file.stem: file for file in sorted(self._folder.glob("*.npz"))}
        self._cameras = {serial: camera for serial, camera in self._cameras.items() if serial in files}
        for serial, file in files.items():
            if serial not in self._cameras:
                data = np.load(file)
                height, width, _ = data["image"].shape
                camera = SoftwareCamera(serial, size=(width, height), lens=tuple(map(float, data["lens"])))
                self._cameras[serial] = camera, data["image"]
        return [camera.device for camera, _ in self._cameras.values()]

    def _publish_images(self) -> None:
        while True:
            stamp = (time.time() // _PERIOD + 1) * _PERIOD  # the same in every process
            time.sleep(max(0.0, stamp - time.time()))
            for serial, (camera, image) in list(self._cameras.items()):
                if (self._folder / f"{serial}.npz").exists():
                    camera.expose(image, stamp)


_real.context = lambda: SimpleNamespace(query_devices=_Bus().query_devices)
