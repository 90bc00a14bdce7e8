"""Where the cameras are on the robot: hand-eye calibration with a board."""

from genima.handeye.board import Board
from genima.handeye.detection import Detection, detect
from genima.handeye.intrinsics import Intrinsics
from genima.handeye.next_pose import NextPose, candidates_near, next_pose
from genima.handeye.outcome import Outcome, calibrate, calibration, compare
from genima.handeye.quality import Quality
from genima.handeye.result import Calibration, Frames, Residuals
from genima.handeye.samples import Sample

__all__ = [
    "Board",
    "Calibration",
    "Detection",
    "Frames",
    "Intrinsics",
    "NextPose",
    "Outcome",
    "Quality",
    "Residuals",
    "Sample",
    "calibrate",
    "calibration",
    "candidates_near",
    "compare",
    "detect",
    "next_pose",
]
