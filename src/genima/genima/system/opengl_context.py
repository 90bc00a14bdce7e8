"""OpenGL contexts: one per process for all threads, or one per thread for MuJoCo."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Generic, TypeVar

from genima.errors import GenimaError
from genima.io.files import describe_error

if TYPE_CHECKING:
    import mujoco

T = TypeVar("T")
_PACKAGES = "libegl1, libgl1, libopengl0, libxrender1 and libgl1-mesa-dri"


def mujoco_renderer(model: mujoco.MjModel, height: int, width: int) -> mujoco.Renderer:
    """Create a MuJoCo renderer, with an OpenGL context for the calling thread.

    Raises:
        GenimaError: where EGL cannot start.
    """
    try:
        return _renderer_class()(model, height, width)
    except Exception as error:  # ImportError, AttributeError, RuntimeError, mujoco.FatalError
        device = os.environ.get("MUJOCO_EGL_DEVICE_ID")
        remedy = f"unset MUJOCO_EGL_DEVICE_ID ({device})" if device else f"install {_PACKAGES}, or NVIDIA's driver"
        raise GenimaError(f"rendering: OpenGL cannot start ({describe_error(error)}); {remedy}") from None


@cache
def _renderer_class() -> type[mujoco.Renderer]:
    import mujoco

    class ThreadRenderer(mujoco.Renderer):
        """Renderer that is freed in the thread that made it, or never.

        Freed in another thread, by the garbage collector for instance, MuJoCo's would delete the textures and
        framebuffers of whichever context is current there: that renderer's images would be noise from then on.
        """

        def __init__(self, model: mujoco.MjModel, height: int, width: int) -> None:
            self._thread = threading.current_thread()
            self._mjr_context: object = None
            self._gl_context: object = None
            super().__init__(model, height, width)

        def close(self) -> None:
            if self._thread is not threading.current_thread() and self._mjr_context is not None:
                _ABANDONED.append((self._mjr_context, self._gl_context))
                self._mjr_context = self._gl_context = None
            super().close()

    return ThreadRenderer


_ABANDONED: list[object] = []  # contexts that no thread may free any more


class ProcessRenderer(Generic[T]):
    """Lazily created renderer of a process."""

    def __init__(self, name: str, start: Callable[[], T]) -> None:
        self._name, self._start = name, start
        self._started: T | None = None
        self._process = 0
        self._lock = threading.Lock()

    @contextmanager
    def acquire(self) -> Iterator[T]:
        """Return the renderer, locked for one thread.

        Raises:
            GenimaError: when it cannot start, or in a process forked from one that has used it.
        """
        if self._started is not None and self._process != os.getpid():
            # Threads of the driver do not survive a fork: the first image would wait for them forever.
            raise GenimaError(
                f"renderer {self._name}: started before this process was forked; start processes by 'spawn', or render "
                "with raycast"
            )
        with self._lock:
            if self._started is None:
                try:
                    self._started, self._process = self._start(), os.getpid()
                except Exception as error:  # the libraries share no exception type
                    raise GenimaError(
                        f"renderer {self._name}: cannot start ({describe_error(error)}); "
                        f"install {_PACKAGES}, or render with raycast"
                    ) from None
            yield self._started
