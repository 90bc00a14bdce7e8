"""Connection to CoppeliaSim by the client of its ZeroMQ remote API, with timeouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import zmq
from coppeliasim_zmqremoteapi_client import RemoteAPIClient

from genima.errors import GenimaError
from genima_sim.coppeliasim import DEFAULT_HOST, DEFAULT_PORT

TIMEOUT, LOCKSTEP_TIMEOUT = 2.0, 30.0  # s for an answer, in real time and in lock-step
_CLIENT_TIMEOUT = 10  # s that a stepped simulation waits for a client that died


class Unreachable(GenimaError):
    """CoppeliaSim does not answer."""


class Connection:
    """Functions and constants of the API that start with ``sim.``, for one thread at a time."""

    def __init__(self, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT, timeout: float = TIMEOUT) -> None:
        """Raises:
        Unreachable: when there is no answer within ``timeout`` s.
        """
        self._address, self._timeout = f"tcp://{host}:{port}", timeout
        try:
            self._client = RemoteAPIClient(host, port)
        except zmq.ZMQError as error:
            raise GenimaError(
                f"CoppeliaSim at {self._address}: cannot connect ({error.strerror}); check host and port"
            ) from None
        self._client.timeout = _CLIENT_TIMEOUT
        self._client.socket.setsockopt(zmq.LINGER, 0)
        self._sim = self._request(lambda: self._client.require("sim"), timeout)

    def __getattr__(self, name: str) -> Any:
        """Return a constant of the API.

        Raises:
            GenimaError: when this CoppeliaSim has none of that name.
        """
        try:
            return getattr(self._sim, name)
        except AttributeError:
            raise GenimaError(f"CoppeliaSim at {self._address}: no sim.{name}; use version 4.7 or newer") from None

    def call(self, function: str, *arguments: object, timeout: float | None = None) -> Any:
        """Call a function of the API; return None, one value or a tuple of values.

        Raises:
            Unreachable: when there is no answer within ``timeout`` s; the connection cannot be used afterwards.
            GenimaError: for an error of CoppeliaSim, with its message.
        """
        call = getattr(self, function)
        return self._request(lambda: call(*arguments), timeout or self._timeout)

    def close(self) -> None:
        """Disconnect."""
        self._client.socket.close(0)

    def _request(self, request: Callable[[], Any], timeout: float) -> Any:
        try:
            for option in (zmq.RCVTIMEO, zmq.SNDTIMEO):
                self._client.socket.setsockopt(option, round(1000 * timeout))
            return request()
        except zmq.ZMQError:
            raise Unreachable(
                f"CoppeliaSim at {self._address}: no answer; start it, with its add-on ZMQ remote API server"
            ) from None
        except KeyError:  # a field is missing
            raise GenimaError(f"CoppeliaSim at {self._address}: malformed answer; use version 4.7 or newer") from None
        except Exception as error:  # the client raises no other class
            raise GenimaError(f"CoppeliaSim: {' '.join(str(error).split())[:300]}") from None
