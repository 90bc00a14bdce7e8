"""Names that become part of ROS topics, services, nodes and frames, checked where they are read.

ROS 2 allows letters, digits and underscores in each part of a name, parts are separated by slashes and start with no
digit, and a whole topic has at most 247 characters (https://design.ros2.org/articles/topic_and_service_names.html).
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from genima.errors import GenimaError
from genima.io.files import shorten
from genima.system.terminal import printable

MAX_LENGTH = 100  # characters of a name or a namespace: with both, a topic stays below the limit of ROS
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*", re.ASCII)
_PART = r"[a-zA-Z_][a-zA-Z0-9_]*"
_NAMESPACE = re.compile(rf"/?|/?{_PART}(/{_PART})*", re.ASCII)
_TOPIC = re.compile(rf"(~/|/)?{_PART}(/{_PART})*", re.ASCII)


def require_ros_name(name: object, what: str) -> str:
    """Return a name if it is valid as one part of a topic: a view, a node, a joint's prefix.

    Args:
        name: value from a file or the user.
        what: subject of the error, such as "view".

    Raises:
        GenimaError: for a name that ROS refuses.
    """
    return _require(name, what, _NAME, "letters, digits and underscores, a letter first")


def require_namespace(namespace: object, what: str = "namespace") -> str:
    """Return a namespace of nodes, such as ``left`` or ``/cell/left``; empty and ``/`` are the root.

    Raises:
        GenimaError: for a namespace that ROS refuses.
    """
    return _require(namespace, what, _NAMESPACE, "names separated by slashes, each of letters, digits and underscores")


def require_topic(topic: object, what: str) -> str:
    """Return a topic's or service's name, relative or absolute.

    Raises:
        GenimaError: for a name that ROS refuses.
    """
    return _require(topic, what, _TOPIC, "names separated by slashes, each of letters, digits and underscores")


def _require(name: object, what: str, pattern: re.Pattern[str], rule: str) -> str:
    if not isinstance(name, str):
        raise GenimaError(f"{what}: {shorten(repr(name))} is not text; write it in quotes")
    shown = printable(shorten(name)) if name else '""'
    if len(name) > MAX_LENGTH:
        raise GenimaError(f"{what}: too long ({len(name)} characters, {shown}; the limit is {MAX_LENGTH})")
    if pattern.fullmatch(name) is None:
        better = re.sub(r"[^a-zA-Z0-9_/]+", "_", name).strip("/_").lstrip("0123456789_/")
        advice = f"; for example {better}" if better and better != name and pattern.fullmatch(better) else ""
        raise GenimaError(f"{what}: ROS does not allow the name ({shown}); use {rule}{advice}")
    return name


def _validator(name: str) -> str:
    try:
        return require_ros_name(name, "name")
    except GenimaError as error:
        raise ValueError(str(error).removeprefix("name: ")) from None


RosName = Annotated[str, AfterValidator(_validator)]
"""A string field of a :class:`genima.io.files.FileSchema` that must be a name of ROS."""
