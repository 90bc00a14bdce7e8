"""A connection to CoppeliaSim: its ZeroMQ remote API by the client of its makers, with an end to waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq
from coppeliasim_zmqremoteapi_client import RemoteAPIClient

from genima.errors import GenimaError
from genima_sim.coppeliasim import DEFAULT_HOST, DEFAULT_PORT

TIMEOUT, PATIENT = 2.0, 30.0  # s for an answer, where a robot waits for it and where nobody does
_FORGOTTEN_AFTER = 10  # s: a simulation that is stepped waits so long for a client that died


class Unreachable(GenimaError):
    """CoppeliaSim does not answer."""


class Connection:
    """To the API's functions and constants that begin with ``sim.``. One thread at a time may use it."""

    def __init__(self, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, timeout: float = TIMEOUT) -> None:
        """Raises:
        Unreachable: when nobody answers within ``timeout`` s.
        """
        self._place, self._timeout = f"tcp://{host}:{port}", timeout
        try:
            self._client = RemoteAPIClient(host, port)
        except zmq.ZMQError as error:
            raise GenimaError(f"cannot connect to {self._place}: {error.strerror}") from None
        self._client.timeout = _FORGOTTEN_AFTER
        self._client.socket.setsockopt(zmq.LINGER, 0)
        self._sim = self._answered(lambda: self._client.require("sim"), timeout)

    def __getattr__(self, name: str) -> Any:
        """A constant of the API.

        Raises:
            GenimaError: when this CoppeliaSim has none of that name.
        """
        try:
            return getattr(self._sim, name)
        except AttributeError:
            raise GenimaError(f"the CoppeliaSim at {self._place} has no sim.{name}; 4.7 or newer is needed") from None

    def call(self, function: str, *arguments: object, timeout: float | None = None) -> Any:
        """What a function of the API returns: None, one value or a tuple of values.

        Raises:
            Unreachable: when it does not within ``timeout`` s; the connection is of no use afterwards.
            GenimaError: when CoppeliaSim refuses, with its words.
        """
        act = getattr(self, function)
        return self._answered(lambda: act(*arguments), timeout or self._timeout)

    def close(self) -> None:
        """End it."""
        self._client.socket.close(0)

    def _answered(self, ask: Callable[[], Any], timeout: float) -> Any:
        try:
            for option in (zmq.RCVTIMEO, zmq.SNDTIMEO):
                self._client.socket.setsockopt(option, round(1000 * timeout))
            return ask()
        except zmq.ZMQError:
            raise Unreachable(
                f"no CoppeliaSim answers at {self._place}: start it, with its add-on ZMQ remote API server"
            ) from None
        except KeyError:  # an answer without what it must have
            raise GenimaError(f"what answers at {self._place} is no CoppeliaSim, or one older than 4.6") from None
        except Exception as error:  # the client knows no other kind
            raise GenimaError(f"CoppeliaSim: {' '.join(str(error).split())[:300]}") from None
