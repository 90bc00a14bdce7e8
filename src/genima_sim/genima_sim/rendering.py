"""Camera images of the simulated scene."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from genima.cameras.camera import Camera
from genima.system.opengl_context import mujoco_renderer
from genima.types import Image


class SceneRenderer:
    """Renderer of all cameras of the scene. Its OpenGL context belongs to the thread that made it."""

    def __init__(self, model: mujoco.MjModel, cameras: Mapping[str, Camera]) -> None:
        self._cameras = cameras
        self._options = mujoco.MjvOption()
        self._options.geomgroup[:] = [1, 1, 0, 0, 0, 0]  # objects and visual meshes; never the collision shapes too
        self._load(model)

    def _load(self, model: mujoco.MjModel) -> None:
        sizes = {(camera.height, camera.width) for camera in self._cameras.values()}
        self._model, self._data = model, mujoco.MjData(model)
        self._renderers = {size: mujoco_renderer(model, *size) for size in sizes}
        for renderer in self._renderers.values():
            for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
                renderer.scene.flags[flag] = False

    def render(
        self, qpos: NDArray[np.float64], model: mujoco.MjModel, views: Iterable[str] | None = None
    ) -> dict[str, Image]:
        """Render the scene in configuration ``qpos``; return images by view.

        Args:
            qpos: see ``Simulation.qpos``.
            model: the scene; another one than before takes about a second.
            views: None: all.
        """
        self._place(qpos, model)
        return {view: self._render(view) for view in (self._cameras if views is None else views)}

    def render_depth(
        self, qpos: NDArray[np.float64], model: mujoco.MjModel, views: Iterable[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Render the depth images (h, w) of the cameras, m along the optical axis; arguments as :meth:`render`."""
        self._place(qpos, model)
        for renderer in self._renderers.values():
            renderer.enable_depth_rendering()
        try:
            return {view: self._render(view) for view in (self._cameras if views is None else views)}
        finally:
            for renderer in self._renderers.values():
                renderer.disable_depth_rendering()

    def _place(self, qpos: NDArray[np.float64], model: mujoco.MjModel) -> None:
        """Put a scene, loaded where it is another one than before, into a configuration."""
        if model is not self._model:
            self.close()
            self._load(model)
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)

    def _render(self, view: str) -> NDArray[Any]:
        camera = self._cameras[view]
        renderer = self._renderers[camera.height, camera.width]
        renderer.update_scene(self._data, view, self._options)
        return renderer.render()

    def close(self) -> None:
        """Free the OpenGL contexts; call it in the thread that made them."""
        for renderer in self._renderers.values():
            renderer.close()
