"""Services that do something and say in words what came of it."""

from __future__ import annotations

from collections.abc import Callable

from std_srvs.srv import Trigger

from genima.errors import GenimaError


def answer_service(act: Callable[[], str]) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
    """The callback of a service: ``act`` returns what is said, or raises a GenimaError that says why not."""

    def on_request(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message, response.success = act(), True
        except GenimaError as error:
            response.message, response.success = str(error), False
        return response

    return on_request
