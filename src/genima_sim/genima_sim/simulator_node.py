"""Node of a simulator in a user's module, which creates the node itself."""

from __future__ import annotations

from rclpy.node import Node

from genima_nodes.ros import parameters
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_sim.scene_node import SceneNode
from genima_sim.simulators import get_simulator


def make_node() -> SceneNode:
    """Return the node of the simulator that the parameter ``cell`` names.

    Raises:
        GenimaError: for a cell or simulator that does not exist, and for one without a node.
    """
    reader = Node("simulator_node")
    try:
        cell = parameters.cell(reader)
    finally:
        reader.destroy_node()
    return get_simulator(cell, real_time=True).create_node()


main = node_main(make_node, CONTROL_NICENESS, role="robot")
