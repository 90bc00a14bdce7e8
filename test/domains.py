"""ROS domains of tests that run at the same time."""

from __future__ import annotations

import os
import random

from genima_nodes.ros.ros_environment import free_domains


def free_domain() -> int:
    """Return a domain that no process is in.

    Each worker of pytest-xdist chooses among its own share: two that choose at the same moment, before either listens,
    never choose the same one.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return random.SystemRandom().choice([domain for domain in free_domains() if domain % workers == worker % workers])
