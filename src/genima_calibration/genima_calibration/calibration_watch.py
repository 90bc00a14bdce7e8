"""Node: detect moved cameras by comparing images of the robot with its model.

::

    image ──► newest of each view ──► one view every few seconds is compared with the robot model ──► /diagnostics
    joint_states ──► at the image's stamp ─────────┘ (in a thread of low priority)

It never commands the robot. A fault names the moved camera, and lasts until three checks in a row pass.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import Image as ImageMessage

from genima.cameras.calibration_file import load_cameras
from genima.errors import GenimaError
from genima.types import Image, Joints
from genima_calibration.pose_check import CalibrationChecker, DriftDetector
from genima_calibration.samples import JOINT_TOLERANCE
from genima_calibration.stationary_detector import is_slow
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.node_process import MONITOR_NICENESS, node_main
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.worker_thread import WorkerThread

_SPEED_INTERVAL = 0.1  # s over which the arm's speed is measured


class CalibrationWatchNode(Node):
    """Check of one view after the other in a thread; callbacks only store messages."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters out of range, and views without a calibration.
        """
        super().__init__("calibration_watch", **options)
        cell = parameters.calibrated_cell(self)
        self._robot = cell.robot
        self._cameras = load_cameras(cell.calibration)
        views = parameters.views(self, cell.views)
        if unknown := [view for view in views if view not in self._cameras]:
            raise GenimaError(f"calibration_watch: no calibration of {', '.join(unknown)} in {cell.calibration}")
        period = parameters.number(self, "period", 5.0, 0.1)  # s between two checks of a view
        self._max_speed = parameters.number(  # rad/s: images of a faster arm lag behind its joints
            self, "max_speed", 0.1, apply=partial(setattr, self, "_max_speed")
        )

        self._diagnostics = DiagnosticUpdater(self)
        self._cost = self._diagnostics.add_latency("check")
        self._joint_states = JointStates(self, self._diagnostics, self._robot)
        self._newest: dict[str, ImageMessage] = {}
        self._drifts = {view: DriftDetector() for view in views}
        self._results = dict.fromkeys(views, "not checked yet")
        for view in views:
            self._diagnostics.add_value(view, partial(self._results.get, view))
            self._subscribe(view)
        self._checkers: dict[tuple[str, int, int], CalibrationChecker] = {}  # of the worker thread
        self._worker: WorkerThread[Callable[[], None]] = WorkerThread(lambda job: job(), 1, "calibration_watch")
        self._turns = itertools.cycle(views)
        self.create_timer(period / len(views), self._check_next_view, clock=STEADY)
        self._diagnostics.add_check(self._publish_status)

    def close(self) -> None:
        """End the thread, which must free its OpenGL contexts itself."""
        self._worker.wait()
        self._worker.put(self._close_checkers)
        self._worker.close()

    def _subscribe(self, view: str) -> None:
        def on_image(message: ImageMessage) -> None:
            self._newest[view] = message

        self.create_subscription(ImageMessage, f"cameras/{view}/color/image_raw", on_image, qos.IMAGE)

    def _check_next_view(self) -> None:
        """Pass the next view's newest image to the thread, unless it was checked or the robot moves fast."""
        view = next(self._turns)
        if (message := self._newest.pop(view, None)) is None:
            return
        stamp = messages.seconds(message.header.stamp)
        joints, before = (self._joint_states.at(stamp - ago, JOINT_TOLERANCE) for ago in (0.0, _SPEED_INTERVAL))
        if joints is None or before is None or not is_slow(before, joints, self._max_speed):
            return
        try:
            self._worker.put(partial(self._check, view, messages.image_from(message), joints))
        except GenimaError as error:
            self._results[view] = str(error)

    def _check(self, view: str, image: Image, joints: Joints) -> None:
        (height, width), begin = image.shape[:2], time.monotonic()
        try:
            if (key := (view, width, height)) not in self._checkers:
                camera = self._cameras[view]
                self._checkers[key] = CalibrationChecker.for_images(camera, self._robot, width, height)
            checked = self._checkers[key].check(image, joints)
        except GenimaError as error:
            self._results[view] = str(error)
            return
        self._drifts[view].update(checked)
        self._results[view] = f"{checked.verdict.value}: {checked.reason}"
        self._cost.add(time.monotonic() - begin)

    def _close_checkers(self) -> None:
        for checker in self._checkers.values():
            checker.close()

    def _publish_status(self) -> None:
        for view, drift in self._drifts.items():
            self._diagnostics.update_fault(f"camera {view}", drift.problem)


main = node_main(CalibrationWatchNode, MONITOR_NICENESS)
