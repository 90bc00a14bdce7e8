"""`./genima call NAME`: call a service of a running robot, as `ros2 service call` would."""

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

_SEEN = 0.5  # s in which a server sees who has just seen it: answers to others are lost


class Call(NamedTuple):
    """Service behind a name."""

    service: str
    help: str
    data: bool | None = None  # of a SetBool; None: a Trigger
    patience: float = 10.0  # s for the answer


CALLS = {
    "stop": Call("command_guard/stop", "stop the arm within its limits, and keep it stopped"),
    "resume": Call("command_guard/resume", "go on after a stop; a robot that stopped by itself recovers first"),
    "home": Call("franka_hand/home", "have a Franka hand find out its width; its fingers must be free", patience=40.0),
    "success": Call("run_task/judge", "end the task that runs: it is done", True),
    "failure": Call("run_task/judge", "end the task that runs: it is not done", False),
}


@dataclass
class Request(GraphOptions):
    name: tyro.conf.Positional[Literal["stop", "resume", "home", "success", "failure"]]
    """Request, see above."""
    patience: Seconds = 10.0
    """Seconds to find the robot."""


Request.__doc__ = "Send a request to a running robot and print the answer:\n\n" + "\n\n".join(
    f"{name}: {call.help} ({call.service})." for name, call in CALLS.items()
)


def main(argv: Sequence[str]) -> int:
    """Send the request, and print the answer; return the exit code."""
    options = parse_options(Request, "genima call", argv, example="./genima call stop")
    os.environ.update(joining_environment(options.dds))
    with interrupt_on_signals():
        print(_ask(CALLS[options.name], options))
    return 0


def _ask(call: Call, options: Request) -> str:
    """Return the response.

    Raises:
        GenimaError: when nobody answers, or the answer is no.
    """
    with joined_graph("call", options.namespace) as driver:
        from std_srvs.srv import SetBool, Trigger  # ROS has been loaded by now

        kind = Trigger if call.data is None else SetBool
        request = Trigger.Request() if call.data is None else SetBool.Request(data=call.data)
        name, client = driver.resolve_service_name(call.service), driver.callee(kind, call.service)
        if not driver.spin_until(client.service_is_ready, options.patience, lambda: None):
            raise GenimaError(
                f"nobody serves {name} in ROS_DOMAIN_ID {os.environ['ROS_DOMAIN_ID']}: does the robot run, "
                "in this domain, namespace and DDS profile?"
            )
        if options.name == "stop":
            client.call_async(request)  # at once; that it is said again below does no harm
        driver.spin_until(lambda: False, _SEEN, lambda: None)
        answer = driver.answer(client.call_async(request), name, call.patience, lambda: None)
    if not answer.success:
        raise GenimaError(f"{name}: {answer.message}")
    return str(answer.message)
