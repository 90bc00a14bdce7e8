"""Callbacks of Trigger services, and the command lines that call services."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from std_srvs.srv import Trigger

from genima.errors import GenimaError


def trigger_callback(act: Callable[[], str]) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
    """Return the callback of a service: ``act`` returns its message, or raises a GenimaError with the reason."""

    def on_request(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message, response.success = act(), True
        except GenimaError as error:
            response.message, response.success = str(error), False
        return response

    return on_request


def call_command(node: Node, what: str) -> str:
    """Return the command line of ``./genima call`` that acts on the robot of a node: "./genima call resume"."""
    namespace = node.get_namespace().strip("/")
    return f"./genima call {what}" + (f" --namespace {namespace}" if namespace else "")
