"""Server of a policy, for one robot at a time, by openpi's websocket protocol.

openpi's own client can use it too: it sends observations without ``genima``, and its token as API key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from genima.errors import GenimaError
from genima.io.files import describe_error
from genima.io.msgpack_numpy import pack, unpack
from genima.policy.base import Policy
from genima.policy.server_interface import Request, chunk_message, metadata, observation_from

_OBSERVATION_BYTES = 64 << 20
_PING_PERIOD, _PING_TIMEOUT = 5.0, 10.0  # s, to notice that a robot's machine is gone
_INTERNAL_ERROR, _TRY_AGAIN_LATER = 1011, 1013  # close codes of RFC 6455


class PolicyServer:
    """Server of one policy, whose state belongs to the client that is connected."""

    def __init__(self, policy: Policy, token: str, log: Callable[[str], None]) -> None:
        """Args:
        policy: used by a thread of its own.
        token: that clients must send.
        log: called with one line at the start and at the end of each client.
        """
        self._policy, self._token, self._log = policy, token, log
        self._thread = ThreadPoolExecutor(1, "policy")  # OpenGL contexts and CUDA graphs belong to one thread
        self._client = ""

    async def run(
        self, host: str, port: int, on_ready: Callable[[int], None], stop: Sequence[signal.Signals] = ()
    ) -> None:
        """Serve until cancelled, or until one of the signals ``stop``.

        Args:
            host: address to listen on.
            port: 0: a free one.
            on_ready: called with the port.
            stop: signals.

        Raises:
            GenimaError: where the port cannot be used.
        """
        stopped = asyncio.Event()
        for number in stop:
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        try:
            server = await self._listen(host, port)
        except OSError as error:
            raise GenimaError(f"{host}:{port}: cannot listen ({error.strerror or error}); name another port") from None
        async with server:
            on_ready(next(iter(server.sockets)).getsockname()[1])
            await stopped.wait()

    async def _listen(self, host: str, port: int) -> Server:
        return await serve(
            self._serve_client, host, port, process_request=self._check_request, compression=None,
            max_size=_OBSERVATION_BYTES, max_queue=1, ping_interval=_PING_PERIOD, ping_timeout=_PING_TIMEOUT,
            close_timeout=1.0, server_header=None,
        )  # fmt: skip

    def _check_request(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Refuse a client without the token, before anything is sent to it."""
        if request.path == "/healthz":  # as openpi's server has it
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        expected = f"Api-Key {self._token}".encode()
        sent = "".join(request.headers.get_all("Authorization")).encode(errors="replace")
        if hmac.compare_digest(sent, expected):
            return None
        self._log(f"client {_name(connection)}: refused, wrong token")
        return connection.respond(http.HTTPStatus.UNAUTHORIZED, "wrong token\n")

    async def _serve_client(self, connection: ServerConnection) -> None:
        name = _name(connection)
        if self._client:
            self._log(f"client {name}: refused, {self._client} is connected")
            await connection.close(_TRY_AGAIN_LATER, "serving another client")
            return
        self._client = name
        self._log(f"client {name}: connected")
        chunks, reason = 0, "disconnected"
        try:
            await connection.send(pack(metadata(self._policy.spec)))
            episode: int | None = None
            while True:
                message = await connection.recv()
                try:
                    reply, episode = await self._answer(message, episode)
                    chunks += 1
                except GenimaError as error:
                    await connection.send(str(error))
                    continue
                await connection.send(reply)
        except ConnectionClosed:
            pass
        except asyncio.CancelledError:
            reason = "server ends"
            raise
        except Exception as error:  # of a policy: a bug, whose connection ends as with openpi's server
            reason = describe_error(error)
            await connection.send(reason)
            await connection.close(_INTERNAL_ERROR, "internal error")
        finally:
            self._client = ""
            self._log(f"client {name}: {chunks} action chunks; {reason}")

    async def _answer(self, message: bytes | str, episode: int | None) -> tuple[bytes, int]:
        """Return the reply to an observation, and its episode.

        Args:
            message: from the client.
            episode: of its last observation; None: this is the first one.
        """
        if isinstance(message, str):
            raise GenimaError("observation: a text frame; send MessagePack in a binary one")
        data = unpack(message, "observation")
        request = Request.from_message(data)
        now = request or Request(0, time.monotonic(), 0, 0)
        observation = observation_from(data, self._policy.spec, now.stamp, now.latency)

        def predict() -> dict[str, Any]:
            begin = time.monotonic()
            if now.episode != episode:
                self._policy.reset(now.seed)
            chunk = self._policy.predict_chunk(observation)
            return chunk_message(chunk, time.monotonic() - begin, request)

        reply = await asyncio.get_running_loop().run_in_executor(self._thread, predict)
        return pack(reply), now.episode


@contextlib.contextmanager
def policy_server(policy: Policy, token: str, host: str, port: int) -> Iterator[int]:
    """Serve a policy by threads of this process; yield the port.

    Raises:
        GenimaError: where the port cannot be used.
    """
    ready: Future[int] = Future()
    loop = asyncio.new_event_loop()
    task = loop.create_task(PolicyServer(policy, token, lambda line: None).run(host, port, ready.set_result))

    def serve_forever() -> None:
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass
        except GenimaError as error:
            ready.set_exception(error)
        finally:
            loop.close()

    thread = threading.Thread(target=serve_forever, name="policy server", daemon=True)
    thread.start()
    try:
        yield ready.result()
    finally:
        if thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(task.cancel)
        thread.join()


def _name(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f"{address[0]}:{address[1]}" if address else "unknown"
