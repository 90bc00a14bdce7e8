"""Connection to Ray: this machine's cores, or a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from genima.errors import GenimaError
from genima.io.files import describe_error

_OBJECT_STORE_BYTES = 80 << 20  # Ray's least: only names and results of jobs pass through it


@contextlib.contextmanager
def connect(workers: int, address: str | None = None) -> Iterator[int]:
    """Connect to a cluster, or start Ray with ``workers`` CPUs on this machine; yield the number of its CPUs.

    Args:
        workers: CPUs of this machine.
        address: of a cluster; None: this machine.

    Raises:
        GenimaError: when there is no cluster at the address, or it has no CPU.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        if address is None:
            ray.init(
                num_cpus=workers, object_store_memory=_OBJECT_STORE_BYTES, include_dashboard=False,
                log_to_driver=False, logging_level=logging.ERROR,
            )  # fmt: skip
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # a start that takes more than 30 s, on a busy machine, is an error of no class
        where = address or "on this machine"
        raise GenimaError(f"Ray {where}: not started ({describe_error(error)}); start the command again") from None
    try:
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if not cpus:
            raise GenimaError(f"Ray {address}: no CPU in the cluster; start a worker on one of its machines")
        yield cpus
    finally:
        ray.shutdown()
