"""Detection of a moved camera from repeated pose checks: three agreeing checks are required."""

from __future__ import annotations

from collections import deque

from genima_calibration.pose_check import PoseCheck, PoseVerdict

AGREEING = 3  # checks in a row, of those that find the robot
_LOST = 10  # checks in a row that do not find the robot where it should be


class Drift:
    """State of one camera's checks."""

    def __init__(self) -> None:
        self.problem = ""  # in words; empty: none is known
        self._recent: deque[PoseCheck] = deque(maxlen=_LOST)

    def update(self, checked: PoseCheck) -> None:
        """Add the latest check.

        An undecided check changes nothing, unless the robot stays lost: of a camera that was moved far, some checks
        find the robot at its new place, others do not find it at all.
        """
        if checked.lost or checked.verdict is not PoseVerdict.UNKNOWN:
            self._recent.append(checked)
        last = [each for each in self._recent if not each.lost][-AGREEING:]
        if len(last) == AGREEING and all(each.verdict is PoseVerdict.MOVED for each in last):
            pixels = sorted(each.pixels for each in last)[AGREEING // 2]
            self.problem = f"has moved: the robot is seen {pixels:.0f} px from where it should be, calibrate again"
        elif len(last) == AGREEING and all(each.verdict is PoseVerdict.FINE for each in last):
            self.problem = ""
        elif len(self._recent) == _LOST and all(each.verdict is not PoseVerdict.FINE for each in self._recent):
            self.problem = "does not see the robot where it should be: was it moved far, covered, or is it dark?"
