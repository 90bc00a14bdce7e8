"""Join the graph of a running robot, with the same DDS profile as its nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genima.system.command_line import Namespace
from genima.system.ros_names import require_namespace
from genima_nodes.ros.ros_context import create, ros_context

if TYPE_CHECKING:  # ROS takes a while to load: not before the arguments have been understood
    from genima_cli.graph_client import GraphClient


@dataclass(kw_only=True)
class GraphOptions:
    """Options of commands that join a running robot."""

    namespace: Namespace = ""
    """Namespace of the robot's nodes."""
    dds: str = "shared_memory"
    """DDS profile of config/dds, as in the robot's launch: two_machines where they are. A profile that
    FASTRTPS_DEFAULT_PROFILES_FILE names wins."""


@contextmanager
def joined_graph(name: str, namespace: str = "") -> Iterator[GraphClient]:
    """Join the graph of this process's environment with a node ``name``."""
    require_namespace(namespace, "--namespace")
    with ros_context():
        from genima_cli.graph_client import GraphClient

        driver = create(lambda: GraphClient(name, namespace))
        try:
            yield driver
        finally:
            driver.close()
