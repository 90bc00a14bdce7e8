"""Numbers that a node can be given, checked when it starts."""

from __future__ import annotations

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from genima.errors import GenimaError

SLOWEST, FASTEST = 20.0, 200.0  # Hz of commands


def number(node: Node, name: str, default: float, low: float = 0.0, high: float = float("inf")) -> float:
    """The parameter ``name``, whole or not.

    Raises:
        GenimaError: when it is no number, or not from ``low`` to ``high``.
    """
    value = node.declare_parameter(name, default, ParameterDescriptor(dynamic_typing=True)).value
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        allowed = f"from {low:g} to {high:g}" if high < float("inf") else f"of at least {low:g}"
        raise GenimaError(f"{node.get_name()}: the parameter {name} is {value}; it must be a number {allowed}")
    return float(value)


def rate(node: Node) -> float:
    """How often commands are sent, in Hz; 50 if not set."""
    return number(node, "rate", 50.0, SLOWEST, FASTEST)
