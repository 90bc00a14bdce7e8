"""Automatic mode of the calibrator: move from pose to pose and take samples until the result is accurate."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genima.control.collision import ForbiddenRegion
from genima.errors import GenimaError
from genima.types import Joints
from genima_calibration.hand_eye import HandEyeResult
from genima_calibration.image_feedback import ImageFeedback
from genima_calibration.pose_planner import PosePlanner, forbidden_regions
from genima_calibration.session import Result, Session
from genima_nodes.ros.guarded_arm import GuardedArm
from genima_nodes.ros.paced_thread import starting_in_background

_TIMEOUT = 10.0  # s for an image of the stationary arm, and for a computation
_POLL = 0.02  # s
_MIN_SAMPLES = 8  # before the stated uncertainty is trusted
_MAX_UNCOMPUTED = 15  # samples without a first result
_MAX_MISSES = 6  # poses in a row from which the board is not detected
_MAX_HOLDS = 5  # holds by the guard on one trajectory, each followed by another attempt
_NOT_DETECTED = "board not detected; first move the arm to where the camera sees it"


@dataclass(frozen=True)
class AutoCalibrationSettings:
    """Speed, clearance and duration of the automatic mode."""

    speed: float = 0.15  # of the arm's velocity limits
    lowest: float = 0.03  # m above the base's origin: limit of the arm and of the object that it holds
    workspace: tuple[float, ...] | None = None  # lowest and highest corner in m, as the command guard's
    most: int = 20  # samples
    millimetres: float = 0.5  # target standard deviation of the camera's position
    degrees: float = 0.05  # and of its orientation


class Calibrator(Protocol):
    """Interface of the calibrator that the automatic mode uses."""

    session: Session

    def stationary_feedback(self) -> tuple[ImageFeedback, Joints] | None:
        """Return the latest feedback and joints of the stationary arm."""

    def take(self) -> str:
        """Take a sample; raise a GenimaError if none can be taken."""

    def result(self) -> Result | None:
        """Return the result of the samples; None while it is computed."""


class _CancelledError(Exception):
    """Cancelled by the operator."""


class AutoCalibrationState(IntEnum):
    """State of the automatic mode, with the numbers of CalibratorStatus.msg."""

    NOT_STARTED = 0
    RUNNING = 1
    DONE = 2  # as accurate as requested, or as many samples as allowed
    CANCELLED = 3  # by the operator
    FAILED = 4  # the arm is held


class AutoCalibration:
    """Automatic calibration in a thread of its own, from :meth:`start` to its end."""

    def __init__(self, calibrator: Calibrator, arm: GuardedArm, settings: AutoCalibrationSettings) -> None:
        self.state = AutoCalibrationState.NOT_STARTED
        self.text = ""  # current action, or the reason of its end
        self._calibrator, self._arm, self._settings = calibrator, arm, settings
        self._forbidden_regions: list[ForbiddenRegion] = []
        self._problem = ""  # why the arm cannot be moved automatically
        try:
            self._forbidden_regions = forbidden_regions(calibrator.session.robot, settings.workspace, settings.lowest)
        except GenimaError as error:  # samples can still be taken by hand
            self._problem = str(error)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """True while it moves the arm."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> str:
        """Start from the arm's present pose, once it is stationary; return a status text.

        Raises:
            GenimaError: when it is running, or the board is not detected from there.
        """
        if self.running:
            raise GenimaError("calibrator/auto: already running")
        if self._problem:
            raise GenimaError(self._problem)
        if (seen := self._calibrator.stationary_feedback()) is not None and seen[0].detection is None:
            raise GenimaError(f"{_NOT_DETECTED} ({seen[0].problem})")
        self._ending.clear()
        self.state, self.text = AutoCalibrationState.RUNNING, "starting"
        self._thread = threading.Thread(target=self._run, name="automatic", daemon=True)
        with starting_in_background():
            self._thread.start()
        return "the arm moves automatically; keep clear of it"

    def stop(self) -> str:
        """Stop the arm and end; return a status text.

        Raises:
            GenimaError: when it does not run.
        """
        if not self.running:
            raise GenimaError("calibrator/auto: not running")
        self._ending.set()
        return "stopping the arm"

    def close(self) -> None:
        """End, and wait for the thread."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        end = AutoCalibrationState.FAILED
        try:
            self.text, end = self._calibrate(), AutoCalibrationState.DONE
        except _CancelledError:
            self.text, end = "cancelled by the operator", AutoCalibrationState.CANCELLED
        except GenimaError as error:
            self.text = f"ended, holding: {error}"
        finally:
            self._arm.release()
            self.state = end

    def _calibrate(self) -> str:
        arm, session = self._arm, self._calibrator.session
        planner = PosePlanner(
            session.robot, session.parent, session.board, self._forbidden_regions, self._settings.lowest
        )
        arm.acquire(self._require_running)
        home, misses = arm.start_joints.positions, 0
        detected_from: NDArray[np.float64] | None = None
        outcome: HandEyeResult | None = None
        while True:
            if self._sample():
                detected_from, misses = arm.start_joints.positions, 0
                outcome = self._wait_for_result().outcome or outcome
                if (text := self._closing_text()) is not None:
                    return text
            else:
                if detected_from is None:
                    raise GenimaError(_NOT_DETECTED)
                misses += 1
                planner.add_miss(arm.start_joints.positions)
                if misses == _MAX_MISSES:
                    raise GenimaError(
                        f"board: not detected from {misses} poses in a row; remove what hides it, or start where it is "
                        "in the middle of the image"
                    )
                self._move(planner, detected_from, outcome)
            present = arm.start_joints.positions
            self._move(
                planner,
                planner.first_pose(home, present) if outcome is None else planner.next_pose(outcome, present),
                outcome,
            )

    def _move(self, planner: PosePlanner, goal: NDArray[np.float64], outcome: HandEyeResult | None) -> None:
        """Move to a pose; after a hold, start again from the present pose."""
        self.text = f"{len(self._calibrator.session.names)} samples; moving"
        for _ in range(_MAX_HOLDS):
            start = self._arm.start_joints
            trajectory = planner.plan_trajectory(start.positions, goal, start.gripper, self._settings.speed, outcome)
            if self._arm.follow(trajectory, self._require_running):
                return
        raise GenimaError(f"command_guard: held the arm {_MAX_HOLDS} times on one trajectory; end other programs")

    def _sample(self) -> bool:
        """Take a sample once the arm is stationary; return False if the board is not detected."""
        self.text = f"{len(self._calibrator.session.names)} samples; detecting"
        arrived, problem = self._arm.start_joints.stamp, f"no image of the stationary arm for {_TIMEOUT:.0f} s"
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            if not self._arm.check_following(self._require_running):
                deadline = time.monotonic() + _TIMEOUT
            if (seen := self._calibrator.stationary_feedback()) is not None and seen[0].stamp > arrived:
                feedback, joints = seen
                if feedback.detection is None:
                    return False
                if self._calibrator.session.find_same_pose(joints):
                    return True
                try:
                    self._calibrator.take()
                except GenimaError as error:
                    problem = str(error)
                else:
                    return True
            time.sleep(_POLL)
        raise GenimaError(problem)

    def _wait_for_result(self) -> Result:
        self.text = f"{len(self._calibrator.session.names)} samples; computing"
        deadline = time.monotonic() + _TIMEOUT
        while (result := self._calibrator.result()) is None:
            if not self._arm.check_following(self._require_running):
                deadline = time.monotonic() + _TIMEOUT
            if time.monotonic() > deadline:
                raise GenimaError(f"result: not computed within {_TIMEOUT:.0f} s")
            time.sleep(_POLL)
        return result

    def _closing_text(self) -> str | None:
        """Return the closing text once the result is accurate enough; None before."""
        settings, result = self._settings, self._calibrator.result()
        count = len(self._calibrator.session.names)
        if result is None or result.calibration is None or result.calibration.sigma is None:
            if count >= min(_MAX_UNCOMPUTED, settings.most):
                raise GenimaError(f"no result of {count} samples ({result.text if result else 'computing'})")
            return None
        millimetres, degrees = result.calibration.sigma
        is_accurate = millimetres <= settings.millimetres and degrees <= settings.degrees
        if is_accurate and count >= min(_MIN_SAMPLES, settings.most):
            return f"done: {result.text}"
        if count >= settings.most:
            return f"done, less accurate than requested: {result.text}"
        return None

    def _require_running(self) -> None:
        if self._ending.is_set():
            raise _CancelledError
