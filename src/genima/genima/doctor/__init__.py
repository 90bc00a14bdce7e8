"""Checks of a machine before use, each with a finding and a remedy.

One module for each kind of thing. A check is a function that is told where to look (the root of /sys, of /proc, ...)
and returns findings; it never raises for what it finds. What could not be looked at is never called ok.
"""

from genima.doctor.findings import Finding, Group, Status, fail, ok, skipped, warn

__all__ = ["Finding", "Group", "Status", "fail", "ok", "skipped", "warn"]
