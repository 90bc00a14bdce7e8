"""Checks of a machine before use, each with a finding and a remedy.

One module for each subject. A check is a function that takes the places to inspect (the root of /sys, of /proc, ...)
and returns findings, without raising. A check that could not run is never ok.
"""

from genima.doctor.findings import Finding, Group, Status, fail, ok, skipped, warn

__all__ = ["Finding", "Group", "Status", "fail", "ok", "skipped", "warn"]
