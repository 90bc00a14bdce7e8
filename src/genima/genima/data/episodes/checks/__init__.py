"""Quality checks of demos.

Thresholds are at the top of the modules that use them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from genima.data.episodes.bag import SUCCESS, raw_topic
from genima.data.episodes.cameras import EpisodeCameras
from genima.data.episodes.checks.finding import Finding, as_finding
from genima.data.episodes.checks.images import check_images
from genima.data.episodes.checks.motion import find_idle_intervals, find_joint_faults, find_limits, find_tracking_errors
from genima.data.episodes.checks.timing import find_missing, find_timing
from genima.data.episodes.episode_index import EpisodeIndex
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.idle import find_idle, find_tracks
from genima.robot.model import RobotModel

__all__ = ["CheckResult", "Finding", "check", "compare"]


@dataclass(frozen=True)
class CheckResult:
    """Findings of a demo's check."""

    folder: Path
    views: tuple[str, ...]
    findings: tuple[Finding, ...]  # errors first, then by time

    @property
    def errors(self) -> int:
        """Return the number of findings that prevent training."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """Return the number of findings to review."""
        return len(self.findings) - self.errors


def check(folder: Path, default: RobotModel | None = None) -> CheckResult:
    """Check all of a demo, one decoded image at a time; an unreadable bag is an error in the result.

    Args:
        folder: the demo's.
        default: robot of a demo that holds no model, as of :meth:`EpisodeIndex.load_robot`.
    """
    try:
        index = EpisodeIndex.of(folder)
        findings = [*find_missing(index), *find_timing(index)]
        try:
            robot = index.load_robot(default)
        except EpisodeError as error:
            findings = findings or [as_finding("error", [error])]
            return CheckResult(folder, tuple(index.views), _sorted(findings))
        findings += find_joint_faults(index, robot)
        tracks = find_tracks(index, robot)
        for track in tracks.values():
            findings += find_limits(track, robot)
        findings += find_tracking_errors(tracks, robot)
        activity = find_idle(tracks) if tracks else None
        if activity is not None:
            findings += find_idle_intervals(activity)
        findings += check_images(index, activity)
        findings += find_camera_faults(folder)
    except EpisodeError as error:
        return CheckResult(folder, (), (as_finding("error", [error]),))
    if index.success is not True:
        judged = "not judged" if index.success is None else "judged a failure"
        findings.append(Finding("warning", judged, SUCCESS))
    return CheckResult(folder, tuple(index.views), _sorted(findings))


def compare(demos: Sequence[CheckResult]) -> list[CheckResult]:
    """Add findings relative to the other demos: views that most of them have and this one lacks."""
    counts = Counter(view for demo in demos for view in demo.views)
    common = [view for view, count in sorted(counts.items()) if 2 * count > sum(bool(demo.views) for demo in demos)]
    compared = []
    for demo in demos:
        missing = [view for view in common if demo.views and view not in demo.views]
        added = [Finding("error", "not recorded, most other demos have it", raw_topic(view)) for view in missing]
        compared.append(replace(demo, findings=_sorted([*demo.findings, *added])))
    return compared


def find_camera_faults(folder: Path) -> list[Finding]:
    """Return implausible calibrations and intrinsics; a demo without them can be rendered with others."""
    try:
        EpisodeCameras.of(folder)
    except EpisodeError as error:
        return [as_finding("warning", [error])]
    return []


def _sorted(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: (finding.severity, finding.time or 0.0)))
