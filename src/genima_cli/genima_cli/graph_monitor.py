"""Monitor of the demo's graph: observations, drawn targets, rates."""

from __future__ import annotations

import contextlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from genima.cameras.tiling import tile
from genima.errors import GenimaError
from genima.types import DrawnTarget, Image
from genima_cli.demo_report import Measurements
from genima_cli.graph_client import GraphClient
from genima_interfaces.action import RunTask
from genima_interfaces.msg import DrawnTarget as DrawnTargetMessage
from genima_interfaces.msg import SceneStatus
from genima_nodes.ros import messages, qos
from genima_nodes.ros.diagnostics import measurements

_WINDOW = 40  # sets of images that are kept, to find that of a drawn target


@dataclass
class Rate:
    """Mean rate within periods; gaps between periods do not count."""

    _count: int = 0
    _span: float = 0.0
    _last: float | None = None

    def begin(self) -> None:
        """Start a new period."""
        self._last = None

    def tick(self) -> None:
        """Count a sample."""
        now = time.monotonic()
        if self._last is not None:
            self._count += 1
            self._span += now - self._last
        self._last = now

    @property
    def hz(self) -> float:
        """Rate in Hz; NaN before the second sample."""
        return self._count / self._span if self._span else math.nan


@dataclass
class GraphStatistics:
    """Statistics over all episodes so far."""

    predictions: Rate = field(default_factory=Rate)
    commands: Rate = field(default_factory=Rate)
    real_time_factors: list[float] = field(default_factory=list)
    drawn: int = 0
    first_drawn: float | None = None  # epoch s


class GraphMonitor(GraphClient):
    """Monitoring client of the demo."""

    def __init__(
        self, views: Sequence[str], on_pair: Callable[[Image, Image | None, bool], None], drawn_targets: bool = True
    ) -> None:
        """Args:
        views: of the cameras, in tile order.
        on_pair: called with a tiled observation, the newest drawn tile (None without drawn targets), and True if the
            tile was generated from that observation.
        drawn_targets: the policy publishes drawn targets; else its action chunks are counted.
        """
        super().__init__("monitor")
        self.statistics = GraphStatistics()
        self.recording = False  # True during an episode
        self._views, self._on_pair = tuple(views), on_pair
        self._images: OrderedDict[float, dict[str, Image]] = OrderedDict()
        self._drawn: DrawnTarget | None = None
        self._drawn_targets = drawn_targets
        if drawn_targets:
            self.create_subscription(DrawnTargetMessage, "drawn_target", self._on_drawn, qos.DRAWN_TARGET)
        else:
            self.create_subscription(JointTrajectory, "action_chunk", self._on_chunk, qos.DRAWN_TARGET)
        self.create_subscription(JointState, "controller/command", self._on_command, qos.COMMAND_LOG)
        self.create_subscription(SceneStatus, "sim/status", self._on_scene, qos.STATUS)
        for view in views:
            self.create_subscription(
                ImageMessage, f"cameras/{view}/color/image_raw", self._image_callback(view), qos.IMAGE
            )

    def run_task(self, instruction: str, time_limit: float, alive: Callable[[], None]) -> RunTask.Result:
        """Run a task to its end; return its result."""
        running = self.begin_task(instruction, time_limit, alive)
        self.statistics.predictions.begin()
        self.statistics.commands.begin()
        self.recording = True
        try:
            return self.wait_for(running, "run_task", time_limit + 10.0, alive).result
        finally:
            self.recording = False

    # Measurements

    def measurements(self, program_start: float) -> Measurements:
        """Return the measurements over all episodes so far."""
        control = measurements(self.statuses["controller"]) if "controller" in self.statuses else {}
        due = control.get("due commands", 0.0)
        factors = self.statistics.real_time_factors
        return Measurements(
            drawing_hz=self.statistics.predictions.hz,
            command_hz=self.statistics.commands.hz,
            late_fraction=control["late commands"] / due if due else math.nan,
            latency_ms={p: control.get(f"image to command {p} [ms]", math.nan) for p in ("p50", "p99")},
            real_time_factor=float(np.mean(factors)) if factors else math.nan,
            first_drawn_target_s=(self.statistics.first_drawn or math.nan) - program_start,
        )

    # Callbacks

    def _on_command(self, message: JointState) -> None:
        if self.recording:
            self.statistics.commands.tick()

    def _on_scene(self, message: SceneStatus) -> None:
        if self.recording:
            self.statistics.real_time_factors.append(message.real_time_factor)

    def _image_callback(self, view: str) -> Callable[[ImageMessage], None]:
        def on_image(message: ImageMessage) -> None:
            stamp = messages.seconds(message.header.stamp)
            images = self._images.setdefault(stamp, {})
            with contextlib.suppress(GenimaError):  # the diffusion agent reports it
                images[view] = messages.image_from(message)
            while len(self._images) > _WINDOW:
                self._images.popitem(last=False)
            complete = self.recording and len(images) == len(self._views)
            if complete and self._drawn is not None:
                self._on_pair(tile(images, self._views), self._drawn.tile, False)
            elif complete and not self._drawn_targets:
                self._on_pair(tile(images, self._views), None, False)

        return on_image

    def _on_chunk(self, message: JointTrajectory) -> None:
        self._count()

    def _count(self) -> None:
        self.statistics.first_drawn = self.statistics.first_drawn or time.time()
        if self.recording:
            self.statistics.drawn += 1
            self.statistics.predictions.tick()

    def _on_drawn(self, message: DrawnTargetMessage) -> None:
        try:
            drawn = messages.drawn_target_from(message)
        except GenimaError:
            return  # the controller reports it
        self._drawn = drawn
        self._count()
        if not self.recording:
            return
        images = self._images.get(drawn.stamp, {})
        if len(images) == len(self._views):
            self._on_pair(tile(images, self._views), drawn.tile, True)
