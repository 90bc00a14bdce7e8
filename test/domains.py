"""ROS domains of parallel tests."""

from __future__ import annotations

import os
import random

from genima_nodes.ros.ros_environment import free_domains


def free_domain() -> int:
    """Return an unused domain.

    Each worker of pytest-xdist has its own domains, so that two workers never choose the same one at the same time.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return random.SystemRandom().choice([domain for domain in free_domains() if domain % workers == worker % workers])
