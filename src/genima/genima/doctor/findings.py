"""Findings of checks, as text and as JSON."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple


class Status(StrEnum):
    """Status of a check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "not looked at"


class Finding(NamedTuple):
    """Result of one check, in one line."""

    what: str
    status: Status
    found: str  # for SKIPPED: the reason
    remedy: str = ""


class Group(NamedTuple):
    """Findings of one kind."""

    title: str
    findings: Sequence[Finding]


def ok(what: str, found: str) -> Finding:
    """Return a finding without a problem."""
    return Finding(what, Status.OK, found)


def warn(what: str, found: str, remedy: str) -> Finding:
    """Return a finding that reduces quality, or may fail."""
    return Finding(what, Status.WARN, found, remedy)


def fail(what: str, found: str, remedy: str) -> Finding:
    """Return a finding of a failure."""
    return Finding(what, Status.FAIL, found, remedy)


def skipped(what: str, why: str, remedy: str = "") -> Finding:
    """Return a finding without a result."""
    return Finding(what, Status.SKIPPED, why, remedy)


_MARKS = {Status.OK: "ok", Status.WARN: "warn", Status.FAIL: "FAIL", Status.SKIPPED: "-"}


def format_table(groups: Sequence[Group], width: int) -> str:
    """Return all findings in lines of about ``width`` characters, and the count of each status."""
    label = min(28, max((len(each.what) for group in groups for each in group.findings), default=0))
    indent = 2 + 4 + 2 + label + 2
    lines = []
    for group in groups:
        lines += [group.title, *(line for each in group.findings for line in _lines(each, label, indent, width)), ""]
    counts = Counter(each.status for group in groups for each in group.findings)
    return "\n".join([*lines, ", ".join(f"{counts[status]} {status}" for status in Status)])


def _lines(finding: Finding, label: int, indent: int, width: int) -> list[str]:
    head = f"  {_MARKS[finding.status]:<4}  {finding.what:<{label}}  "
    found = finding.found if finding.status is not Status.SKIPPED else f"{Status.SKIPPED}: {finding.found}"
    return [*_wrapped(found, head, indent, width), *(_wrapped(finding.remedy, " " * indent + "-> ", indent + 3, width))]


def _wrapped(text: str, head: str, indent: int, width: int) -> list[str]:
    return textwrap.wrap(
        text, max(width, indent + 30), initial_indent=head, subsequent_indent=" " * indent, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def as_json(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return all findings as plain JSON types, by group."""
    return [{"group": group.title, "findings": [each._asdict() for each in group.findings]} for group in groups]


def has_failures(groups: Sequence[Group]) -> bool:
    """Return whether any finding is a failure."""
    return any(each.status is Status.FAIL for group in groups for each in group.findings)
