"""`./genima call NAME`: call a service of a running robot, as `ros2 service call` does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import tyro

from genima.errors import GenimaError
from genima.system.command_line import Seconds, parse_options
from genima.system.signals import interrupt_on_signals
from genima_cli.join_graph import GraphOptions, joined_graph
from genima_nodes.ros.ros_environment import joining_environment

_DISCOVERY = 0.5  # s until the server has discovered the client: responses to unknown clients are lost


class Call(NamedTuple):
    """Service behind a name."""

    service: str
    help: str
    data: bool | None = None  # of a SetBool; None: a Trigger
    timeout: float = 10.0  # s for the response


CALLS = {
    "stop": Call("command_guard/stop", "stop the arm within its limits, and keep it stopped"),
    "resume": Call("command_guard/resume", "resume after a stop; a robot that stopped by itself recovers first"),
    "home": Call("franka_hand/home", "home a Franka hand, which measures its width; clear its fingers", timeout=40.0),
    "success": Call("run_task/judge", "end the running task as a success", True),
    "failure": Call("run_task/judge", "end the running task as not done", False),
}


@dataclass
class Request(GraphOptions):
    name: tyro.conf.Positional[Literal["stop", "resume", "home", "success", "failure"]]
    """Request, see above."""
    patience: Seconds = 10.0
    """Seconds to wait for the robot's service."""


Request.__doc__ = "Send a request to a running robot and print the response:\n\n" + "\n\n".join(
    f"{name}: {call.help} ({call.service})." for name, call in CALLS.items()
)


def main(argv: Sequence[str]) -> int:
    """Send the request and print the response; return the exit code."""
    options = parse_options(Request, "genima call", argv, example="./genima call stop")
    os.environ.update(joining_environment(options.dds))
    with interrupt_on_signals():
        print(_send(CALLS[options.name], options))
    return 0


def _send(call: Call, options: Request) -> str:
    """Send a request; return the message of its response.

    Raises:
        GenimaError: without a response, and when the request is refused.
    """
    with joined_graph("call", options.namespace) as driver:
        from std_srvs.srv import SetBool, Trigger  # ROS is loaded by joined_graph

        kind = Trigger if call.data is None else SetBool
        request = Trigger.Request() if call.data is None else SetBool.Request(data=call.data)
        name, client = driver.resolve_service_name(call.service), driver.client(kind, call.service)
        if not driver.spin_until(client.service_is_ready, options.patience, lambda: None):
            raise GenimaError(
                f"service {name}: not available in ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']}; start the robot's "
                "nodes, or set their domain, --namespace and --dds"
            )
        if options.name == "stop":
            client.call_async(request)  # at once; the repeated request below has no effect
        driver.spin_until(lambda: False, _DISCOVERY, lambda: None)
        response = driver.wait_for(client.call_async(request), name, call.timeout, lambda: None)
    if not response.success:
        raise GenimaError(f"{name}: {response.message}")
    return str(response.message)
