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

_PATIENCE = 10.0  # s for an image of an arm that stands, and for a computation
_LOOK = 0.02  # s
_FEWEST = 8  # samples before their stated uncertainty is trusted
_BLIND = 15  # samples to try for a first result
_MISSES = 6  # poses in a row from which the board is not seen
_HOLDS = 5  # holds by the guard on one trajectory, each followed by another attempt
_UNSEEN = "first bring the arm to where the board is seen"


@dataclass(frozen=True)
class AutoCalibrationSettings:
    """Speed, clearance and duration of the automatic mode."""

    speed: float = 0.15  # of the arm's velocity limits
    lowest: float = 0.03  # m above the base's origin: nothing of the arm, nor what it holds, comes below
    workspace: tuple[float, ...] | None = None  # lowest and highest corner in m, as the command guard's
    most: int = 20  # samples
    millimetres: float = 0.5  # standard deviations of the camera's place and direction that are enough
    degrees: float = 0.05


class Calibrator(Protocol):
    """Interface of the calibrator that the automatic mode uses."""

    session: Session

    def stationary_feedback(self) -> tuple[ImageFeedback, Joints] | None:
        """Return the latest feedback of the stationary arm."""

    def take(self) -> str:
        """Take a sample; raises a GenimaError where none can be."""

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
        self._keep_outs: list[ForbiddenRegion] = []
        self._unable = ""  # why the arm cannot be moved automatically
        try:
            self._keep_outs = forbidden_regions(calibrator.session.robot, settings.workspace, settings.lowest)
        except GenimaError as error:  # samples can be taken all the same
            self._unable = str(error)
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Return whether it moves the arm."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> str:
        """Start from the arm's present pose, once it is stationary; return a status text.

        Raises:
            GenimaError: when it runs already, or the board is not seen from there.
        """
        if self.running:
            raise GenimaError("it runs already")
        if self._unable:
            raise GenimaError(self._unable)
        if (seen := self._calibrator.stationary_feedback()) is not None and seen[0].detection is None:
            raise GenimaError(f"{_UNSEEN}: {seen[0].problem}")
        self._ending.clear()
        self.state, self.text = AutoCalibrationState.RUNNING, "begins"
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
            raise GenimaError("it does not run")
        self._ending.set()
        return "the arm comes to rest"

    def close(self) -> None:
        """End, and wait for the thread."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        end = AutoCalibrationState.FAILED
        try:
            self.text, end = self._visit(), AutoCalibrationState.DONE
        except _CancelledError:
            self.text, end = "cancelled by the operator", AutoCalibrationState.CANCELLED
        except GenimaError as error:
            self.text = f"ended, and the arm is held: {error}"
        finally:
            self._arm.release()
            self.state = end

    def _visit(self) -> str:
        arm, session = self._arm, self._calibrator.session
        tour = PosePlanner(session.robot, session.parent, session.board, self._keep_outs, self._settings.lowest)
        arm.acquire(self._require_running)
        home, misses = arm.rest.positions, 0
        seen_from: NDArray[np.float64] | None = None
        outcome: HandEyeResult | None = None
        while True:
            if self._sample():
                seen_from, misses = arm.rest.positions, 0
                outcome = self._computed().outcome or outcome
                if (words := self._enough()) is not None:
                    return words
            else:
                if seen_from is None:
                    raise GenimaError(_UNSEEN)
                misses += 1
                tour.miss(arm.rest.positions)
                if misses == _MISSES:
                    raise GenimaError(
                        f"the board was not seen from {misses} poses in a row: is something in the way, or is it at "
                        "the edge of the image?"
                    )
                self._move(tour, seen_from, outcome)
            present = arm.rest.positions
            self._move(tour, tour.first(home, present) if outcome is None else tour.next(outcome, present), outcome)

    def _move(self, tour: PosePlanner, goal: NDArray[np.float64], outcome: HandEyeResult | None) -> None:
        """Move to a pose; after a hold, start again from the present pose."""
        self.text = f"{len(self._calibrator.session.names)} samples; moves"
        for _ in range(_HOLDS):
            rest = self._arm.rest
            way = tour.plan_trajectory(rest.positions, goal, rest.gripper, self._settings.speed, outcome)
            if self._arm.follow(way, self._require_running):
                return
        raise GenimaError(f"the command guard held it {_HOLDS} times on one way: is the machine too busy?")

    def _sample(self) -> bool:
        """Take a sample once the arm stands still; returns whether the board is seen."""
        self.text = f"{len(self._calibrator.session.names)} samples; looks"
        arrived, problem = self._arm.rest.stamp, "no image of the arm at rest comes"
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if not self._arm.check_following(self._require_running):
                deadline = time.monotonic() + _PATIENCE
            if (seen := self._calibrator.stationary_feedback()) is not None and seen[0].stamp > arrived:
                look, joints = seen
                if look.detection is None:
                    return False
                if self._calibrator.session.same_place(joints):
                    return True
                try:
                    self._calibrator.take()
                except GenimaError as error:
                    problem = str(error)
                else:
                    return True
            time.sleep(_LOOK)
        raise GenimaError(problem)

    def _computed(self) -> Result:
        self.text = f"{len(self._calibrator.session.names)} samples; computes"
        deadline = time.monotonic() + _PATIENCE
        while (result := self._calibrator.result()) is None:
            if not self._arm.check_following(self._require_running):
                deadline = time.monotonic() + _PATIENCE
            if time.monotonic() > deadline:
                raise GenimaError("the computation does not end")
            time.sleep(_LOOK)
        return result

    def _enough(self) -> str | None:
        """Return the closing text once the result is accurate enough; empty before."""
        settings, result = self._settings, self._calibrator.result()
        count = len(self._calibrator.session.names)
        if result is None or result.calibration is None or result.calibration.sigma is None:
            if count >= min(_BLIND, settings.most):
                raise GenimaError(f"{count} samples are not enough: {result.text if result else 'they are computed'}")
            return None
        millimetres, degrees = result.calibration.sigma
        certain = millimetres <= settings.millimetres and degrees <= settings.degrees
        if certain and count >= min(_FEWEST, settings.most):
            return f"done: {result.text}"
        if count >= settings.most:
            return f"done, less accurate than requested: {result.text}"
        return None

    def _require_running(self) -> None:
        if self._ending.is_set():
            raise _CancelledError
