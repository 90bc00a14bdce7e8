"""Trigger services from functions."""

from __future__ import annotations

from collections.abc import Callable

from std_srvs.srv import Trigger

from genima.errors import GenimaError


def answer_service(act: Callable[[], str]) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
    """Return the callback of a service: ``act`` returns its message, or raises a GenimaError with the reason."""

    def on_request(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            response.message, response.success = act(), True
        except GenimaError as error:
            response.message, response.success = str(error), False
        return response

    return on_request
