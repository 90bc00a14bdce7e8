"""In a process's PYTHONPATH, has pyrealsense2 find software devices.

Plugged in are those whose serial number is a file `<serial>.npz` in the folder STANDIN_CAMERAS: an ``image`` that they
see all the time, and ``lens``, fx, fy, ppx and ppy in px.
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
_elsewhere = [path for path in sys.path if Path(path or ".").resolve() != _HERE]
_spec = importlib.machinery.PathFinder.find_spec("pyrealsense2", _elsewhere)
assert _spec is not None and _spec.loader is not None
_real = sys.modules["pyrealsense2"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_real)


class _Bus:
    """What is plugged in now: every opening finds new devices, as after a cable was pulled."""

    def __init__(self) -> None:
        self._folder = Path(os.environ["STANDIN_CAMERAS"])
        self._cameras: dict[str, tuple[object, np.ndarray]] = {}
        threading.Thread(target=self._film, daemon=True).start()

    def query_devices(self) -> list[object]:
        from standins.software_camera import SoftwareCamera  # only here: it imports this module

        there = {file.stem: file for file in sorted(self._folder.glob("*.npz"))}
        self._cameras = {serial: camera for serial, camera in self._cameras.items() if serial in there}
        for serial, file in there.items():
            if serial not in self._cameras:
                data = np.load(file)
                height, width, _ = data["image"].shape
                camera = SoftwareCamera(serial, size=(width, height), lens=tuple(map(float, data["lens"])))
                self._cameras[serial] = camera, data["image"]
        return [camera.device for camera, _ in self._cameras.values()]

    def _film(self) -> None:
        while True:
            stamp = (time.time() // _PERIOD + 1) * _PERIOD  # the same in every process
            time.sleep(max(0.0, stamp - time.time()))
            for serial, (camera, image) in list(self._cameras.items()):
                if (self._folder / f"{serial}.npz").exists():
                    camera.expose(image, stamp)


_real.context = lambda: SimpleNamespace(query_devices=_Bus().query_devices)
