"""Declare parameters of nodes with type and range, and check their values at the start.

Parameters are read-only, so that `ros2 param set` fails instead of reporting success without effect; ``apply`` makes
one changeable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from genima.cell import SIMULATED, Cell, load_cell
from genima.errors import GenimaError
from genima.io.files import shorten
from genima.system.ros_names import require_namespace, require_ros_name, require_topic
from genima.system.terminal import printable

MIN_RATE, MAX_RATE = 20.0, 200.0  # Hz of commands
_MAX_COUNT = 2**31 - 1
_MAX_TEXT = 4096  # characters: Linux's limit of a path
_Settings = TypeVar("_Settings")


def number(
    node: Node,
    name: str,
    default: float,
    low: float = 0.0,
    high: float = float("inf"),
    apply: Callable[[float], None] | None = None,
) -> float:
    """Declare a number, whole or not, and return its value.

    Args:
        node: node that declares it.
        name: of the parameter.
        default: value if none is given.
        low: minimum.
        high: maximum.
        apply: called with a new value while the node runs; None: the parameter is read-only.

    Raises:
        GenimaError: for a value that is no finite number from ``low`` to ``high``.
    """
    value = _declare(node, name, default)
    if not (_is_number(value) and math.isfinite(value) and low <= value <= high):
        raise _refusal(node, name, value, f"a number{_range(low, high)}")
    span = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    return float(_fix_type(node, name, Parameter.Type.DOUBLE, float(value), apply, floating_point_range=span))


def integer(node: Node, name: str, default: int, low: int = 0, high: int = _MAX_COUNT) -> int:
    """Declare a whole number and return its value.

    Raises:
        GenimaError: for a value that is no whole number from ``low`` to ``high``.
    """
    value = _declare(node, name, default)
    if not (_is_number(value) and math.isfinite(value) and value == int(value) and low <= value <= high):
        raise _refusal(node, name, value, f"a whole number{_range(low, high)}")
    span = [IntegerRange(from_value=low, to_value=high)]
    return int(_fix_type(node, name, Parameter.Type.INTEGER, int(value), integer_range=span))


def optional_number(node: Node, name: str) -> float | None:
    """Declare a number or a boolean without a default; return None if it is not given.

    Raises:
        GenimaError: for a value that is no finite number.
    """
    value = _declare(node, name, None)
    if value is not None and not (isinstance(value, bool | int | float) and math.isfinite(value)):
        raise _refusal(node, name, value, "a number")
    node.set_descriptor(name, ParameterDescriptor(dynamic_typing=True, read_only=True))
    return None if value is None else float(value)


def flag(node: Node, name: str, default: bool) -> bool:
    """Declare a boolean and return its value.

    Raises:
        GenimaError: for a value that is neither true nor false.
    """
    value = _declare(node, name, default)
    if not isinstance(value, bool):
        raise _refusal(node, name, value, "true or false")
    return bool(_fix_type(node, name, Parameter.Type.BOOL, value))


def text(node: Node, name: str, default: str, choices: Sequence[str] | None = None) -> str:
    """Declare a text and return its value.

    Raises:
        GenimaError: for a value that is no text, or none of ``choices``.
    """
    value = _declare(node, name, default)
    if not isinstance(value, str):  # ROS parses an unquoted 7 as a number, and an unquoted no as a boolean
        raise _refusal(node, name, value, f"text: write -p '{name}:=\"...\"'")
    if len(value) > _MAX_TEXT or "\0" in value:
        raise _refusal(node, name, value, f"text of at most {_MAX_TEXT} characters")
    if choices is not None and value not in choices:
        raise _refusal(node, name, value, f"one of {', '.join(choices)}")
    return str(_fix_type(node, name, Parameter.Type.STRING, value))


def digits(node: Node, name: str) -> str:
    """Declare a text of digits, such as a serial number, and return its value; empty if it is not given.

    ROS parses unquoted digits as a number without leading zeros: quote them. A number is accepted, too.

    Raises:
        GenimaError: for a value that is neither text nor a whole number.
    """
    value = _declare(node, name, "")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise _refusal(node, name, value, "digits")
    return str(_fix_type(node, name, Parameter.Type.STRING, str(value)))


def texts(node: Node, name: str, default: Sequence[str]) -> list[str]:
    """Declare a list of texts and return its value.

    Raises:
        GenimaError: for a value that is no list of texts.
    """
    value = _declare(node, name, list(default))
    items = [] if value is None else value
    if not isinstance(items, Sequence) or isinstance(items, str) or not all(isinstance(item, str) for item in items):
        raise _refusal(node, name, value, f"a list of texts: write -p '{name}:=[first, second]'")
    return list(_fix_type(node, name, Parameter.Type.STRING_ARRAY, list(items)))


def numbers(node: Node, name: str, default: Sequence[float]) -> list[float]:
    """Declare a list of numbers and return its value.

    Raises:
        GenimaError: for a value that is no list of finite numbers.
    """
    value = _declare(node, name, list(map(float, default)))
    items = [] if value is None else value
    if isinstance(items, str) or not hasattr(items, "__iter__") or not all(map(_is_finite, items)):
        raise _refusal(node, name, value, f"a list of numbers: write -p '{name}:=[1.0, 2.0]'")
    return list(_fix_type(node, name, Parameter.Type.DOUBLE_ARRAY, [float(item) for item in items]))


def settings(node: Node, defaults: _Settings) -> _Settings:
    """Declare one parameter for each field of a dataclass of numbers and tuples of numbers; return it with the values.

    Raises:
        GenimaError: for a value that is no number from 0 on.
    """
    values: dict[str, Any] = {}
    for field in fields(defaults):  # type: ignore[arg-type]
        default = getattr(defaults, field.name)
        if isinstance(default, tuple):
            values[field.name] = tuple(numbers(node, field.name, default))
        else:
            values[field.name] = number(node, field.name, default)
    return type(defaults)(**values)


# --------------------------------------------------------------------------------------- parameters of several nodes


def cell(node: Node, default: str = SIMULATED) -> Cell:
    """Declare ``cell``, a name in config/cells or a YAML file, and load it.

    Raises:
        GenimaError: for a file that is missing or malformed.
    """
    return load_cell(text(node, "cell", default))


def calibrated_cell(node: Node) -> Cell:
    """Declare ``cell`` and ``calibration``, which overrides the cell's calibration; empty: none."""
    loaded = cell(node)
    return replace(loaded, calibration=text(node, "calibration", loaded.calibration))


def rate(node: Node, default: float = 50.0) -> float:
    """Declare ``rate``: commands per second."""
    return number(node, "rate", default, MIN_RATE, MAX_RATE)


def view(node: Node, default: str = "front") -> str:
    """Declare ``view``, the name of a camera; empty only if ``default`` is.

    Raises:
        GenimaError: for a name that cannot be part of a topic.
    """
    name = text(node, "view", default)
    return name if name == default else require_ros_name(name, f"{node.get_name()}: parameter view")


def views(node: Node, default: Sequence[str]) -> list[str]:
    """Declare ``views``, the names of cameras; by default those of the node's cell.

    Raises:
        GenimaError: for a name that cannot be part of a topic, a repeated name, and an empty list.
    """
    names = texts(node, "views", default)
    if not names:
        raise GenimaError(f"{node.get_name()}: parameter views is empty; name at least one camera")
    for name in names:
        require_ros_name(name, f"{node.get_name()}: parameter views")
    if len(set(names)) < len(names):
        raise GenimaError(f"{node.get_name()}: parameter views has a repeated name ({', '.join(names)})")
    return names


def service(node: Node, name: str) -> str:
    """Declare the name of a service; empty: none.

    Raises:
        GenimaError: for a name that ROS refuses.
    """
    value = text(node, name, "")
    return require_topic(value, f"{node.get_name()}: parameter {name}") if value else ""


def frame_prefix(node: Node, name: str) -> str:
    """Declare the prefix of the robot's frames, such as ``left_`` or ``left/``; empty: none.

    Raises:
        GenimaError: for a prefix with characters that no name may have.
    """
    value = text(node, name, "")
    require_namespace(value.rstrip("/"), f"{node.get_name()}: parameter {name}")
    return value


def unknown(node: Node) -> list[str]:
    """Return the names of parameters on the command line or in a file that the node does not declare."""
    return sorted(name for name in node._parameter_overrides if not node.has_parameter(name))


# ---------------------------------------------------------------------------------------------------------- declaring


def _declare(node: Node, name: str, default: Any) -> Any:
    """Declare with any type, as ROS's own exceptions are not one line; ``_fix_type`` sets the type."""
    return node.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=True)).value


def _fix_type(
    node: Node,
    name: str,
    kind: Parameter.Type,
    value: Any,
    apply: Callable[[Any], None] | None = None,
    **limits: Any,
) -> Any:
    """Set the type and limits of a declared parameter; it is read-only without ``apply``."""
    node.set_parameters([Parameter(name, kind, value)])
    node.set_descriptor(name, ParameterDescriptor(type=kind.value, read_only=apply is None, **limits))
    if apply is not None:
        on_change = apply

        def on_set(parameters: list[Parameter]) -> None:
            for parameter in parameters:
                if parameter.name == name:
                    on_change(parameter.value)

        node.add_post_set_parameters_callback(on_set)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)


def _range(low: float, high: float) -> str:
    if math.isinf(low) and (math.isinf(high) or high == _MAX_COUNT):
        return ""
    if math.isinf(high) or high == _MAX_COUNT:
        return f" of at least {low:g}"
    return f" from {low:g} to {high:g}"


def _refusal(node: Node, name: str, value: Any, allowed: str) -> GenimaError:
    shown = repr(value) if isinstance(value, str) and not value else printable(shorten(str(value)))
    return GenimaError(f"{node.get_name()}: parameter {name} is {shown}; it must be {allowed}")
