"""Node: calibrate one camera from images, camera_info and joint_states; write samples and a calibration file.

::

    image ──► board detection, a few times a second ──► calibrator/image, calibrator/status
                     │ calibrator/take: arm stationary, board detected, pose different from other samples
                     ▼
                 sample (on disk at once) ──► computation ──► calibrator/save

`calibrator/auto` starts the automatic mode, in which the arm moves from pose to pose and samples are taken; it starts
on request only.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo as CameraInfoMessage
from sensor_msgs.msg import Image as ImageMessage
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.camera import Parent
from genima.errors import GenimaError
from genima.inspection.sheet import add_caption
from genima.io import paths
from genima.types import Image, Joints
from genima_calibration.auto_calibration import AutoCalibration, AutoCalibrationSettings, AutoCalibrationState
from genima_calibration.detection_diagnosis import diagnose
from genima_calibration.image_feedback import ImageFeedback, picture
from genima_calibration.sample_folder import CameraInfo
from genima_calibration.samples import JOINT_TOLERANCE, Sample
from genima_calibration.session import Result, Session
from genima_calibration.stationary_detector import StationaryDetector
from genima_interfaces.msg import CalibratorStatus
from genima_interfaces.srv import DropSample
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.guarded_arm import GuardedArm
from genima_nodes.ros.joint_states import JointStates
from genima_nodes.ros.latest_value import LatestValue
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.paced_thread import STEADY, starting_in_background
from genima_nodes.ros.services import trigger_callback
from genima_nodes.ros.transform_messages import transform_message

SOURCE = "calibrator"
_BOARD = "calibration", "boards", "charuco_7x5_a4.yaml"
_DETECTION_PERIOD = 0.15  # s
_STATUS_PERIOD = 0.2  # s
_TIMEOUT = 1.0  # s without images or joints
_DIAGNOSIS_PERIOD = 4.0  # s between diagnoses of a missing board: each takes up to a second


@dataclass(frozen=True)
class CameraState:
    """Detection in an image, with the joints at its stamp."""

    feedback: ImageFeedback
    joints: Joints | None


class CalibratorNode(Node):
    """Detection in one thread, computation in another; callbacks only store messages and samples."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters out of range, and samples that cannot be continued.
        """
        super().__init__("calibrator", **options)
        view = parameters.view(self)
        parent = parameters.text(self, "parent", "", get_args(Parent))
        board = parameters.text(self, "board", "")
        robot = parameters.cell(self).robot
        samples = parameters.text(self, "samples", "")
        self._out = Path(parameters.text(self, "calibration", "calibration/mine"))
        self.session = Session(
            Path(samples or f"data/calibration/{view}"),
            view,
            cast(Parent, parent),
            CalibrationBoard.load(Path(board) if board else paths.shared(*_BOARD)),
            robot,
            parameters.text(self, "base_frame", ""),
            parameters.text(self, "flange_frame", ""),
        )
        self._stationary = StationaryDetector(
            parameters.number(self, "still", 1e-3, 1e-5, 0.1), parameters.number(self, "settle", 0.3, 0.0, 5.0)
        )
        settings = self._settings()  # before any thread starts: a node that raises must leave none behind
        self._lock = threading.Lock()  # of the session
        self._info: CameraInfo | None = None
        self._seen: CameraState | None = None
        self._result: Result | None = None  # of the last computation
        self._coverage = self.session.coverage
        self._diagnosis, self._next_diagnosis = "", 0.0  # why the board is not detected; monotonic s
        self._images: LatestValue[ImageMessage] = LatestValue()
        self._to_compute: LatestValue[tuple[Sample, ...]] = LatestValue()

        self._diagnostics = DiagnosticUpdater(self)
        self._frames = self._diagnostics.add_topic("image")
        self._cost = self._diagnostics.add_latency("detection")
        self._diagnostics.add_check(self._watch)
        self._joints = JointStates(self, self._diagnostics, robot, self._stationary.update)
        self._status = self.create_publisher(CalibratorStatus, "calibrator/status", qos.STATUS)
        self._image_publisher = self.create_publisher(ImageMessage, "calibrator/image", qos.IMAGE)
        self._transforms = self.create_publisher(TFMessage, "/tf", qos.STATUS)
        self.create_subscription(ImageMessage, f"cameras/{view}/color/image_raw", self._on_image, qos.IMAGE)
        self.create_subscription(CameraInfoMessage, f"cameras/{view}/color/camera_info", self._on_info, qos.IMAGE)
        self._arm = GuardedArm(self, SOURCE, robot, self._joints, self._diagnostics)
        self._automatic = AutoCalibration(self, self._arm, settings)
        services = {"take": self.take, "compute": self._compute_now, "save": self._save, "clear": self._clear}
        for name, act in services.items():
            self.create_service(Trigger, f"calibrator/{name}", trigger_callback(act))
        self.create_service(DropSample, "calibrator/drop", self._on_drop)
        self.create_service(SetBool, "calibrator/auto", self._on_auto)
        self.create_timer(_STATUS_PERIOD, self._publish_status, clock=STEADY)
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in {"detection": self._run_detection, "computation": self._run_computation}.items()
        ]
        with starting_in_background():  # only the arm's commands have deadlines
            for thread in self._threads:
                thread.start()
        self._changed()

    def close(self) -> None:
        """End all threads and bring a moving arm to rest."""
        self._automatic.close()
        self._arm.close()
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _settings(self) -> AutoCalibrationSettings:
        defaults = AutoCalibrationSettings()
        box = parameters.numbers(self, "workspace", [0.0])
        return AutoCalibrationSettings(
            speed=parameters.number(self, "speed", defaults.speed, 0.01, 1.0),
            lowest=parameters.number(self, "lowest", defaults.lowest, -10.0, 10.0),
            workspace=None if box == [0.0] else tuple(box),
            most=parameters.integer(self, "most", defaults.most, 5, 1000),
            millimetres=parameters.number(self, "millimetres", defaults.millimetres),
            degrees=parameters.number(self, "degrees", defaults.degrees),
        )

    # Images

    def _on_image(self, message: ImageMessage) -> None:
        self._frames.tick()
        self._images.put(message)

    def _on_info(self, message: CameraInfoMessage) -> None:
        try:
            info = CameraInfo.of(message)
            _ = info.intrinsics
            self.session.require_camera(info)
        except GenimaError as error:
            self._info = None
            self._diagnostics.set_fault("camera_info", str(error))
            return
        self._info = info
        self._diagnostics.clear_fault("camera_info")

    def _run_detection(self) -> None:
        while not self._ending.is_set():
            message, info = self._images.take(timeout=0.1), self._info
            if message is not None and info is not None:
                begin = time.monotonic()
                self._detect(message, info)
                self._cost.add(time.monotonic() - begin)
                self._ending.wait(begin + _DETECTION_PERIOD - time.monotonic())

    def _detect(self, message: ImageMessage, info: CameraInfo) -> None:
        stamp = messages.seconds(message.header.stamp)
        try:
            image = messages.image_from(message)
            if message.header.frame_id != info.frame_id:
                raise GenimaError(
                    f"image of frame {message.header.frame_id!r}, camera_info of {info.frame_id!r}; remap the topics "
                    "of one camera"
                )
        except GenimaError as error:
            self._diagnostics.set_fault("image", str(error))
            self._seen = None
            return
        self._diagnostics.clear_fault("image")
        feedback = self._diagnose(ImageFeedback.detect(image, stamp, self.session.board, info.intrinsics))
        self._seen = CameraState(feedback, self._joints.at(stamp, JOINT_TOLERANCE))
        if feedback.T_camera_board is not None:
            board = f"{self.session.view}_board"
            transform = transform_message(stamp, info.frame_id, board, feedback.T_camera_board)
            self._transforms.publish(TFMessage(transforms=[transform]))
        if self._image_publisher.get_subscription_count():
            self._image_publisher.publish(messages.image_message(self._picture(feedback, info), stamp, info.frame_id))

    def _diagnose(self, feedback: ImageFeedback) -> ImageFeedback:
        """Return the feedback with the likely reason for a missing board, diagnosed every few seconds.

        No diagnosis in the automatic mode: the arm's commands need the processor.
        """
        if feedback.detection is not None:
            self._diagnosis, self._next_diagnosis = "", time.monotonic() + _DIAGNOSIS_PERIOD
            return feedback
        if time.monotonic() >= self._next_diagnosis and not self._automatic.running:
            self._diagnosis = diagnose(feedback.image, self.session.board)
            self._next_diagnosis = time.monotonic() + _DIAGNOSIS_PERIOD
        return replace(feedback, problem=f"{feedback.problem}; {self._diagnosis}") if self._diagnosis else feedback

    def _picture(self, feedback: ImageFeedback, info: CameraInfo) -> Image:
        session, result = self.session, self._current()
        T_camera_next = None
        if result is not None and result.outcome is not None and result.next_pose is not None:
            T_camera_next = result.outcome.fit.hand_eye.T_camera_board(session.robot, result.next_pose.joints)
        with self._lock:
            detections = [sample.detection for sample in session.samples]
        drawn = picture(feedback, session.board, info.intrinsics, detections, T_camera_next)
        tilt, distance = feedback.board_view(session.board)
        detected = "board not detected"
        if feedback.detection is not None:
            points = f"{len(feedback.detection.ids)} of {len(session.board.points)} points"
            detected = f"{points}, {distance:.2f} m, {np.degrees(tilt):.0f} deg"
        lines = [
            f"{session.view}: {detected}; {self._coverage:.0%} covered",
            self._automatic.text if self._automatic.running else self.problem() or "ready to take",
            f"{len(detections)} samples; {result.text if result else 'no result yet'}",
        ]
        for line in reversed(lines):
            drawn = add_caption(drawn, line)
        return drawn

    def problem(self) -> str:
        """Return the reason why no sample can be taken now; empty if one can."""
        return self._problem_with(self._seen)

    def _problem_with(self, seen: CameraState | None) -> str:
        if self._frames.age > _TIMEOUT:
            return f"no image on {self.resolve_topic_name(f'cameras/{self.session.view}/color/image_raw')}"
        info, joints = self._info, self._joints.newest
        if info is None:
            topic = self.resolve_topic_name(f"cameras/{self.session.view}/color/camera_info")
            return self._diagnostics.fault_text("camera_info") or f"no camera_info on {topic}"
        if joints is None or messages.now(self) - joints.stamp > _TIMEOUT:
            return self._diagnostics.fault_text("joint_states") or "no joint states"
        if seen is None:
            return self._diagnostics.fault_text("image") or "no image processed yet"
        if seen.feedback.problem:
            return seen.feedback.problem
        if seen.joints is None:
            return "no joint states at the image's stamp; check the clocks of camera and robot"
        if not self._stationary.covers(seen.feedback.stamp):
            return "the arm is not stationary"
        if same := self.session.find_same_pose(seen.joints):
            return f"same pose as sample {same}; move and rotate the arm"
        return ""

    def stationary_feedback(self) -> tuple[ImageFeedback, Joints] | None:
        """Return the latest feedback and joints of the stationary arm."""
        seen, timed_out = self._seen, self._frames.age > _TIMEOUT
        if seen is None or seen.joints is None or timed_out or not self._stationary.covers(seen.feedback.stamp):
            return None
        return seen.feedback, seen.joints

    # Samples

    def take(self) -> str:
        """Take a sample now; return a status text.

        Raises:
            GenimaError: when none can be taken.
        """
        with self._lock:
            seen, info = self._seen, self._info  # later messages replace these objects and do not change them
            if problem := self._problem_with(seen):
                raise GenimaError(problem)
            assert seen is not None and info is not None and seen.joints is not None
            assert seen.feedback.detection is not None
            name = self.session.take(seen.feedback.image, info, seen.joints, seen.feedback.detection)
        self._changed()
        return f"sample {name}: taken"

    def _on_drop(self, request: DropSample.Request, response: DropSample.Response) -> DropSample.Response:
        try:
            with self._lock:
                name = self.session.drop(request.name.strip())
        except GenimaError as error:
            response.message = str(error)
        else:
            response.success, response.message = True, f"sample {name}: dropped"
            self._changed()
        return response

    def _clear(self) -> str:
        with self._lock:
            count = len(self.session.names)
            while self.session.names:
                self.session.drop()
        self._changed()
        return f"{count} samples: dropped"

    def _changed(self) -> None:
        with self._lock:
            samples, self._coverage = self.session.samples, self.session.coverage
        if samples:
            self._to_compute.put(samples)

    # Result

    def _run_computation(self) -> None:
        while not self._ending.is_set():
            samples, info = self._to_compute.take(timeout=0.1), self.session.info
            if samples and info is not None:
                self._result = self.session.compute(samples, info)

    def _current(self) -> Result | None:
        """Return the result of the present samples; None while it is computed."""
        result = self._result
        return result if result is not None and result.samples == self.session.names else None

    def result(self) -> Result | None:
        """Return the latest result; None while it is computed, or without samples."""
        with self._lock:
            return self._current()

    def _compute_now(self) -> str:
        if not self.session.names:
            raise GenimaError("calibrator/compute: no samples; take some first")
        if (result := self._current()) is None:
            return f"computing {len(self.session.names)} samples; the result is published on calibrator/status"
        if result.calibration is None:
            raise GenimaError(result.text)
        return result.text

    def _save(self) -> str:
        if (result := self._current()) is None:
            raise GenimaError("calibrator/save: no result of these samples yet; retry in a few seconds")
        if result.calibration is None:
            raise GenimaError(f"calibrator/save: nothing to save ({result.text})")
        return f"saved {result.calibration.save(self._out)}"

    # Automatic mode

    def _on_auto(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        try:
            response.message = self._automatic.start() if request.data else self._automatic.stop()
        except GenimaError as error:
            response.message = str(error)
        else:
            response.success = True
        return response

    # Status

    def _watch(self) -> None:
        if self._frames.age > _TIMEOUT:
            self._diagnostics.set_fault("camera", self.problem())
        else:
            self._diagnostics.clear_fault("camera")
        if self._automatic.state is AutoCalibrationState.FAILED:
            self._diagnostics.set_fault("automatic", self._automatic.text)
        else:
            self._diagnostics.clear_fault("automatic")

    def _publish_status(self) -> None:
        session, seen, result = self.session, self._seen, self._current()
        status = CalibratorStatus(
            view=session.view,
            parent=session.parent,
            problem=self.problem(),
            tilt=np.nan,
            distance=np.nan,
            coverage=self._coverage,
            samples=list(session.names),
            computing=bool(session.names) and result is None,
            automatic=self._automatic.state.value,
            automatic_text=self._automatic.text,
        )
        if seen is not None and self._frames.age < _TIMEOUT:
            tilt, status.distance = seen.feedback.board_view(session.board)
            status.tilt, status.detected = float(np.degrees(tilt)), seen.feedback.detection is not None
            status.header.stamp = messages.time_message(seen.feedback.stamp)
        if result is not None:
            status.result = result.text
            if result.outcome is not None and (found := result.calibration) is not None:
                assert found.sigma is not None and found.residuals is not None
                status.computed = True
                status.outliers = list(result.outcome.outliers)
                status.millimetres, status.degrees = found.sigma
                status.residual_pixels = found.residuals.pixels
                status.residual_millimetres = found.residuals.millimetres
                status.residual_degrees = found.residuals.degrees
                status.advice = result.outcome.quality.advice()
            if result.next_pose is not None:
                status.next_joints = result.next_pose.joints.tolist()
        self._status.publish(status)


main = node_main(CalibratorNode, CONTROL_NICENESS, real_time=True, role="calibrator")
