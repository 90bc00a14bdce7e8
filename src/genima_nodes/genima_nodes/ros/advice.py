"""Command lines in messages for the user."""

from __future__ import annotations

from rclpy.node import Node


def call(node: Node, what: str) -> str:
    """Return the command line of ``./genima call`` that acts on the robot of a node: "./genima call resume"."""
    namespace = node.get_namespace().strip("/")
    return f"./genima call {what}" + (f" --namespace {namespace}" if namespace else "")
