"""Stand-in for openpi's policy server: its protocol, with scripted replies.

`python -m standins.openpi_server PORT` serves a policy that holds the arm, with DROID's keys.
Independent of genima: written from openpi's websocket_policy_server.py and msgpack_numpy.py.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgpack
import numpy as np
from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

Reply = bytes | str | Mapping[str, Any] | None  # None: closes the connection


def encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return value


def decode(data: dict[Any, Any]) -> Any:
    if b"__ndarray__" in data:
        return np.ndarray(buffer=data[b"data"], dtype=np.dtype(data[b"dtype"]), shape=data[b"shape"])
    if b"__npgeneric__" in data:
        return np.dtype(data[b"dtype"]).type(data[b"data"])
    return data


def message(reply: Reply) -> bytes | str:
    assert reply is not None
    return reply if isinstance(reply, bytes | str) else msgpack.packb(reply, default=encode)


class PolicyServer:
    """Server in a thread."""

    def __init__(
        self,
        answer: Callable[[dict[str, Any]], list[Reply] | Awaitable[list[Reply]]],
        metadata: Reply = b"\x80",  # an empty map
        port: int = 0,
        token: str = "",
    ) -> None:
        """Args:
        answer: returns the messages that answer an observation.
        metadata: sent to a client first.
        port: 0: a free one.
        token: the API key that clients must send; empty: any.
        """
        self._answer, self._metadata, self._token = answer, metadata, token
        self.port, self.address = port, ""
        self.received: list[dict[str, Any]] = []
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._stop, self._ready = asyncio.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()], daemon=True)

    def __enter__(self) -> PolicyServer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def serve_forever(self) -> None:
        self._loop.run_until_complete(self._run())

    async def _run(self) -> None:
        async with serve(
            self._serve_client, "127.0.0.1", self.port, compression=None, max_size=None,
            process_request=self._check_request, close_timeout=0.5,
        ) as server:  # fmt: skip
            self.port = next(iter(server.sockets)).getsockname()[1]
            self.address = f"ws://127.0.0.1:{self.port}"
            self._ready.set()
            await self._stop.wait()

    def _check_request(self, connection: ServerConnection, request: Request) -> Response | None:
        if self._token and request.headers.get("Authorization") != f"Api-Key {self._token}":
            return connection.respond(401, "no\n")
        return None

    async def _serve_client(self, connection: ServerConnection) -> None:
        self.connections += 1
        try:
            await connection.send(message(self._metadata))
            while True:
                observation = msgpack.unpackb(await connection.recv(), object_hook=decode)
                self.received.append(observation)
                replies = self._answer(observation)
                for reply in replies if isinstance(replies, list) else await replies:
                    if reply is None:
                        await connection.close()
                        return
                    await connection.send(message(reply))
        except ConnectionClosed:
            pass


def hold(observation: Mapping[str, Any], horizon: int = 16) -> list[Reply]:
    """Reply with DROID's actions that keep the arm where it is."""
    assert observation["observation/wrist_image_left"].shape == (224, 224, 3)
    assert observation["observation/exterior_image_1_left"].dtype == np.uint8
    state = [*observation["observation/joint_position"], *observation["observation/gripper_position"]]
    assert len(state) == 8 and isinstance(observation["prompt"], str)
    actions = np.tile(np.asarray(state, np.float32), (horizon, 1))
    return [{"actions": actions, "server_timing": {"infer_ms": 1.0}, "policy_timing": {"infer_ms": np.float32(1)}}]


if __name__ == "__main__":
    PolicyServer(hold, {"reset_pose": [0.0] * 7}, int(sys.argv[1])).serve_forever()
