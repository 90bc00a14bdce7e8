"""Policy on a server: observations go out, and action chunks come back, by openpi's websocket protocol.

::

    predict_chunk ──► event loop in a thread ──► server
         ▲   at most ``timeout`` s     │
         └── chunk of this observation ┴── late, malformed or unknown reply: rejected, counted

A server that is silent or gone costs at most ``timeout`` per observation; the connection is opened again by itself.
Messages: :mod:`genima.policy.server_interface`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.protocol import State

from genima.cameras.tiling import MAX_VIEWS
from genima.errors import GenimaError
from genima.io.files import FileSchema, Pixels, Text, describe_error, load_yaml, shorten
from genima.io.msgpack_numpy import pack, unpack
from genima.policy.registry import PolicyOptions
from genima.policy.server_interface import GENIMA, GRIPPER, Request, ServerInterface, poses_and_depth, spec_from
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.system.ros_names import RosName
from genima.types import ActionChunk, Observation

TOKEN = "GENIMA_POLICY_TOKEN"
"""Environment variable with the server's token; not an option, as other users can list the options of processes."""

_JOINTS = "joints"  # in a YAML file: all joints of the arm, in order
_OPEN_TIMEOUT = 10.0  # s for the first connection
_RECONNECT_PERIOD = 1.0  # s between attempts
_MAX_SILENCE = 10.0  # s without the reply to a request, after which the connection is opened again
_REPLY_BYTES = 4 << 20
_T = TypeVar("_T")


@dataclass(frozen=True)
class Server:
    """Server of a policy."""

    address: str
    interface: ServerInterface | None = None  # None: it is Genima's, and its metadata have the specification
    spec: PolicySpec | None = None


class _ServerFile(FileSchema):
    """YAML file of a server that is not Genima's."""

    address: Text
    images: Annotated[dict[RosName, Text], Field(min_length=1, max_length=MAX_VIEWS)]  # keys by view
    camera_size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] = [256, 256]  # px, of the cell's cameras
    image_size: Pixels | None = None  # px, side of the square images that the server takes; None: the cameras'
    state: Annotated[dict[Text, list[Text]], Field(min_length=1)]  # joints by key
    actions: list[Text] = [_JOINTS, GRIPPER]  # columns: absolute joint positions in rad
    gripper_one: Literal["open", "closed"]  # meaning of 1, in state and actions
    prompt: Text = "prompt"
    horizon: Annotated[int, Field(ge=1, le=10_000)]  # K
    action_rate: Annotated[float, Field(gt=0, le=10_000)]  # Hz


def load(options: PolicyOptions) -> RemotePolicy:
    """Connect to the server.

    Raises:
        GenimaError: without an address, where no server answers, and for one that is refused.
    """
    if not options.server:
        raise GenimaError("policy remote: no server; name its address (--policy ws://host:8000) or its YAML file")
    server = load_server(options.server, RobotModel.load(options.robot))
    token = os.environ.get(TOKEN, "")
    if not (token.isascii() and token.isprintable()):
        raise GenimaError(f"{TOKEN}: characters that no token has; copy the server's")
    return RemotePolicy(server, token, options.reply_timeout)


def read_spec(options: PolicyOptions) -> PolicySpec:
    """Return the specification of a server's policy; the server must run.

    Raises:
        GenimaError: as :func:`load`.
    """
    policy = load(options)
    policy.close()
    return policy.spec


def load_server(address_or_file: str, robot: RobotModel) -> Server:
    """Return the server of an address, or of a YAML file.

    Args:
        address_or_file: ``ws://host:port``, ``wss://...``, or the path of a YAML file.
        robot: of the joints that a file names.

    Raises:
        GenimaError: for a malformed address or file.
    """
    if not address_or_file.endswith(".yaml"):
        return Server(_require_address(address_or_file, "policy"))
    path, what = Path(address_or_file), f"policy server {address_or_file}"
    data = load_yaml(_ServerFile, path, "policy server")
    _require_address(data.address, what)
    actions = _layout(data.actions, robot, f"{what}: actions")
    if sorted(actions) != sorted((*robot.joint_names, GRIPPER)):
        raise GenimaError(f"{what}: actions are not each joint of {robot.name} and {GRIPPER} once ({actions})")
    interface = ServerInterface(
        images=data.images,
        state={key: _layout(names, robot, f"{what}: state {key}") for key, names in data.state.items()},
        actions=actions,
        prompt=data.prompt,
        gripper_open=1.0 if data.gripper_one == "open" else 0.0,
        image_size=data.image_size,
    )
    width, height = data.camera_size
    spec = PolicySpec(
        robot.name, robot.joint_names, tuple(data.images), (width, height), horizon=data.horizon,
        action_rate=data.action_rate,
    )  # fmt: skip
    return Server(data.address, interface, spec)


def _require_address(address: str, what: str) -> str:
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
        valid = valid and parts.username is None and not parts.fragment and address.isprintable() and " " not in address
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port out of range, or a part of the host's name that is too long
        valid = False
    if not valid:
        raise GenimaError(f"{what}: not an address of a server ({shorten(address)}); write ws://host:8000")
    return address


def _layout(names: Sequence[str], robot: RobotModel, what: str) -> tuple[str, ...]:
    """Return the names of a vector, with ``joints`` replaced by the robot's."""
    layout = tuple(name for entry in names for name in (robot.joint_names if entry == _JOINTS else (entry,)))
    if unknown := [name for name in layout if name not in (*robot.joint_names, GRIPPER)]:
        known = f"{_JOINTS}, {GRIPPER}, {', '.join(robot.joint_names)}"
        raise GenimaError(f"{what}: no such joint of {robot.name} ({', '.join(unknown)}); known: {known}")
    return layout


class RemotePolicy:
    """Policy on a server. :meth:`predict_chunk` takes no longer than its timeout."""

    def __init__(self, server: Server, token: str = "", timeout: float | None = None) -> None:
        """Args:
        server: to connect to.
        token: sent as openpi's API key; empty: none.
        timeout: s from an observation to its chunk; None: the duration of a chunk, after which all its actions
            are past.

        Raises:
            GenimaError: where no server answers, and for one that is refused.
        """
        self.rejected = 0  # replies that were late, malformed, or of another observation
        self._server, self._subject = server, f"policy server {server.address}"
        self._headers = {"Authorization": f"Api-Key {token}"} if token else {}
        self._connection: ClientConnection | None = None
        self._reconnect_at = 0.0  # monotonic s of the next attempt
        self._problem = ""  # of the last attempt
        self._unanswered: list[float] = []  # monotonic s of the requests without a reply, on this connection
        self._sequence, self._episode, self._seed = 0, 0, 0
        self._spec = server.spec
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="policy server", daemon=True)
        self._thread.start()
        try:
            self._run(self._connect(), _OPEN_TIMEOUT)
            assert self._spec is not None
            self._interface = server.interface or ServerInterface.of_genima(self._spec)
        except BaseException:
            self.close()
            raise
        self.timeout = self._spec.horizon / self._spec.action_rate if timeout is None else timeout

    @property
    def spec(self) -> PolicySpec:
        """See :class:`genima.policy.base.Policy`."""
        assert self._spec is not None
        return self._spec

    def reset(self, seed: int = 0) -> None:
        """See :class:`genima.policy.base.Policy`; Genima's servers reset their policy."""
        self._episode, self._seed = self._episode + 1, seed

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """See :class:`genima.policy.base.Policy`.

        Raises:
            GenimaError: also where no valid chunk comes in time.
        """
        self._sequence += 1
        request = Request(
            self._sequence, float(observation.stamp), self._episode, self._seed, float(observation.latency)
        )
        message = self._interface.observation_message(observation, self.spec)
        if self._server.interface is None:
            message |= {**poses_and_depth(observation, self.spec), GENIMA: request.to_dict()}
        reply = self._run(self._exchange(pack(message), request), self.timeout)
        try:
            return self._interface.action_chunk(reply, self.spec, observation.stamp)
        except GenimaError as error:
            self.rejected += 1
            raise GenimaError(f"{self._subject}: {error}; rejected") from None

    def require_ready(self) -> None:
        """Connect again where the connection was lost.

        Raises:
            GenimaError: while there is no connection, or the server does not reply.
        """
        self._run(self._ready(), self.timeout)

    def close(self) -> None:
        """Disconnect, and end the thread."""
        connection, self._connection = self._connection, None
        if connection is not None:
            asyncio.run_coroutine_threadsafe(connection.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, _T], timeout: float) -> _T:
        """Return the result of ``work``, done in the event loop within ``timeout`` s."""

        async def limited() -> _T:
            async with asyncio.timeout(timeout):
                return await work

        try:
            return asyncio.run_coroutine_threadsafe(limited(), self._loop).result()
        except TimeoutError:
            if not self._unanswered or time.monotonic() - self._unanswered[0] > _MAX_SILENCE:
                self._drop()
            raise GenimaError(f"{self._subject}: no reply within {timeout:g} s") from None
        except (OSError, WebSocketException) as error:
            self._drop()
            self._problem = f"{self._subject}: {_connection_problem(error)}"
            raise GenimaError(self._problem) from None

    # The thread of the event loop.

    async def _exchange(self, message: bytes, request: Request) -> dict[str, Any]:
        """Send an observation and return its reply; replies to earlier ones are rejected."""
        connection = await self._ready()
        await self._require_quiet(connection)
        self._unanswered.append(time.monotonic())
        await connection.send(message)
        while True:
            reply = await self._receive(connection)
            if isinstance(reply, str):
                raise GenimaError(f"{self._subject}: error ({_last_line(reply)})")
            try:
                data = unpack(reply, "reply")
            except GenimaError as error:
                self.rejected += 1
                raise GenimaError(f"{self._subject}: {error}; rejected") from None
            if self._server.interface is not None:  # the only reply since the request
                return data
            if request.is_answered_by(data):
                return data
            self.rejected += 1
            self._unanswered.append(time.monotonic())

    async def _ready(self) -> ClientConnection:
        """Return the connection when no reply is due on it: nothing queues at the server."""
        connection = await self._connected()
        while self._unanswered:
            await self._receive(connection)
            self.rejected += 1
        return connection

    async def _receive(self, connection: ClientConnection) -> bytes | str:
        message = await connection.recv()
        del self._unanswered[:1]
        return message

    async def _require_quiet(self, connection: ClientConnection) -> None:
        """Reject replies that wait without a request; GenimaError where they could be taken for the next one."""
        waiting = self.rejected
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0):
                while True:
                    await connection.recv()
                    self.rejected += 1
        if self.rejected > waiting and self._server.interface is not None:  # Genima's have a sequence number
            self._drop()
            raise GenimaError(f"{self._subject}: reply without a request; rejected, connecting again")

    async def _connected(self) -> ClientConnection:
        """Return the connection, opened again where it was lost."""
        if self._connection is not None and self._connection.state is State.OPEN:
            return self._connection
        self._connection = None
        if time.monotonic() < self._reconnect_at:
            raise GenimaError(self._problem or f"{self._subject}: not connected; connecting again")
        return await self._connect()

    async def _connect(self) -> ClientConnection:
        """Open the connection and check the server's metadata."""
        self._reconnect_at = time.monotonic() + _RECONNECT_PERIOD
        connection = await connect(
            self._server.address, additional_headers=self._headers, compression=None, max_size=_REPLY_BYTES,
            open_timeout=None, close_timeout=1.0, proxy=None,
            ping_interval=None,  # openpi's server answers no ping while it computes
        )  # fmt: skip
        try:
            message = await connection.recv()
            if isinstance(message, str):
                raise GenimaError(f"error ({_last_line(message)})")
            self._require_metadata(unpack(message, "metadata"))
        except BaseException as error:
            connection.transport.abort()
            if isinstance(error, GenimaError):
                self._problem = f"{self._subject}: {error}"
                raise GenimaError(self._problem) from None
            raise
        self._problem, self._connection, self._unanswered = "", connection, []
        return connection

    def _require_metadata(self, metadata: dict[str, Any]) -> None:
        if self._server.interface is not None:
            if GENIMA in metadata:
                raise GenimaError(f"one of Genima's; give its address alone, {self._server.address}")
            return
        spec = spec_from(metadata)
        if self._spec is not None and spec.to_dict() != self._spec.to_dict():
            raise GenimaError("serves another policy than before; start again")
        self._spec = spec

    def _drop(self) -> None:
        """Abort the connection; replies that are on their way are lost."""
        connection, self._connection, self._unanswered = self._connection, None, []
        if connection is not None:
            self._loop.call_soon_threadsafe(connection.transport.abort)


def _connection_problem(error: Exception) -> str:
    if isinstance(error, ConnectionClosed):
        received = error.rcvd
        return f"connection closed ({shorten(received.reason or f'code {received.code}') if received else 'lost'})"
    if isinstance(error, InvalidStatus):
        if error.response.status_code == 401:
            return f"token refused; set {TOKEN} to the server's"
        return f"no policy server (HTTP status {error.response.status_code}); correct the address"
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number and number > 0 else describe_error(error)  # negative: of getaddrinfo
    return f"no connection ({reason}); start the server, or correct the address"


def _last_line(text: str) -> str:
    """Return the last line of an error, which may be a traceback."""
    lines = text.strip().splitlines() or ["no text"]
    return shorten(lines[-1], 200)
