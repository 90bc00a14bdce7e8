"""Remote policies: against a stand-in of openpi's server, and against Genima's own server."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mutation import mutated_bytes, mutated_data, require_clean
from standins import openpi_server
from standins.openpi_server import PolicyServer as OpenpiServer
from standins.openpi_server import Reply
from websockets.asyncio.client import connect

from genima.cell import load_cell
from genima.errors import GenimaError
from genima.io import paths
from genima.io.msgpack_numpy import unpack
from genima.policy import remote, server_interface
from genima.policy.policy_server import PolicyServer
from genima.policy.registry import PolicyOptions, load_policy
from genima.policy.remote import RemotePolicy, Server, load_server
from genima.policy.server_interface import resize_with_padding
from genima.policy.spec import PolicySpec
from genima.robot.model import RobotModel
from genima.types import ActionChunk, Joints, Observation

PANDA = RobotModel.load("panda")
SPEC = PolicySpec("panda", PANDA.joint_names, ("wrist", "front"), (16, 12), horizon=20)
DROID = paths.shared("config", "policies", "openpi_droid.yaml")
POSITIONS = np.linspace(-0.5, 0.5, 7)


def observation(stamp: float = 5.0, size: tuple[int, int] = SPEC.camera_size, gripper: float = 0.25) -> Observation:
    width, height = size
    images = {
        view: np.random.default_rng(k).integers(0, 256, (height, width, 3)).astype(np.uint8)
        for k, view in enumerate(("wrist", "front", "unused"))
    }
    bodies = {"button": np.diag([1.0, 2.0, 3.0, 1.0])}
    return Observation(stamp, images, Joints(stamp, POSITIONS, gripper), "push the button", bodies)


class Follower:
    """Policy that moves towards the instruction's length, from the observed joints."""

    spec = SPEC

    def __init__(self) -> None:
        self.resets: list[int] = []
        self.seen: list[Observation] = []

    def reset(self, seed: int = 0) -> None:
        self.resets.append(seed)

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation)
        if observation.instruction == "refuse":
            raise GenimaError("policy follower: unknown task; give another")
        if observation.instruction == "crash":
            raise KeyError("two\nlines")
        ramp = np.linspace(0, 0.1, SPEC.horizon)[:, None]
        return ActionChunk(observation.stamp, 0.05, observation.joints.positions + ramp, np.full(20, 0.75))


@contextmanager
def served(policy: Any, token: str = "secret") -> Iterator[tuple[str, list[str]]]:
    """Serve a policy in a thread; yield its address and its log."""
    log: list[str] = []
    address: list[str] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()
    task: list[asyncio.Task[None]] = []

    async def run() -> None:
        def on_ready(port: int) -> None:
            address.append(f"ws://127.0.0.1:{port}")
            started.set()

        task.append(asyncio.ensure_future(PolicyServer(policy, token, log.append).run("127.0.0.1", 0, on_ready)))
        await asyncio.gather(*task, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=[run()])
    thread.start()
    try:
        assert started.wait(10)
        yield address[0], log
    finally:
        loop.call_soon_threadsafe(task[0].cancel)
        thread.join()
        loop.close()


@contextmanager
def connected(address: str, token: str = "secret", timeout: float | None = 5.0) -> Iterator[RemotePolicy]:
    with closing(RemotePolicy(Server(address), token, timeout)) as policy:
        yield policy


def droid(address: str, timeout: float | None = 5.0) -> RemotePolicy:
    return RemotePolicy(replace(load_server(str(DROID), PANDA), address=address), timeout=timeout)


def metadata(**changes: Any) -> dict[str, Any]:
    return {"genima": server_interface.metadata(SPEC)["genima"] | changes}


def chunk_of(message: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Reply of a server of Genima to an observation."""
    request = message["genima"]
    reply: dict[str, Any] = {
        "actions": np.tile(message["observation/state"], (SPEC.horizon, 1)),
        "server_timing": {"infer_ms": 1.0},
        "genima": {"sequence": request["sequence"], "stamp": request["stamp"]},
    }
    return reply | changes


# ------------------------------------------------------------------------------------------------- Genima's own server


def test_policy_is_same_on_server() -> None:
    policy, seen = Follower(), replace(observation(), latency=0.3)
    with served(policy) as (address, log), connected(address) as client:
        assert client.spec.to_dict() == SPEC.to_dict()
        client.reset(7)
        chunks = [client.predict_chunk(replace(seen, stamp=seen.stamp + k)) for k in range(3)]
        client.reset(8)
        client.predict_chunk(seen)
    expected = Follower().predict_chunk(seen)
    for k, chunk in enumerate(chunks):
        np.testing.assert_array_equal(chunk.positions, expected.positions)
        np.testing.assert_array_equal(chunk.gripper, expected.gripper)
        assert chunk.stamp == seen.stamp + k and chunk.period == expected.period
    received = policy.seen[0]
    assert set(received.images) == {"wrist", "front"} and received.instruction == seen.instruction
    np.testing.assert_array_equal(received.images["front"], seen.images["front"])
    np.testing.assert_array_equal(received.bodies["button"], seen.bodies["button"])
    np.testing.assert_array_equal(received.joints.positions, POSITIONS)
    assert (received.stamp, received.joints.gripper, received.latency) == (seen.stamp, 0.25, 0.3)
    assert policy.resets == [7, 8]
    assert [line.split(": ", 1)[1] for line in log] == ["connected", "4 action chunks; disconnected"]


def test_depth_images_are_sent_to_policies_that_require_them() -> None:
    policy, depth = Follower(), {view: np.random.default_rng(0).random((12, 16), np.float32) for view in SPEC.views}
    policy.spec = replace(SPEC, requires_depth=True)
    with served(policy) as (address, _), connected(address) as client:
        with pytest.raises(GenimaError, match="observation: depth images missing .wrist, front"):
            client.predict_chunk(observation())
        client.predict_chunk(replace(observation(), depth=depth))
    for view in SPEC.views:
        np.testing.assert_array_equal(policy.seen[0].depth[view], depth[view])


def test_server_resets_policy_for_each_client() -> None:
    policy = Follower()
    with served(policy) as (address, _):
        for _ in range(2):
            with connected(address) as client:
                client.predict_chunk(observation())
    assert policy.resets == [0, 0]


async def exchange(address: str, messages: list[bytes | str]) -> list[Any]:
    """Send messages as openpi's client does; return the metadata and the replies."""
    headers = {"Authorization": "Api-Key secret"}
    async with connect(address, compression=None, max_size=None, additional_headers=headers) as connection:
        replies = [await connection.recv()]
        for message in messages:
            await connection.send(message)
            replies.append(await connection.recv())
    return [reply if isinstance(reply, str) else unpack(reply, "reply") for reply in replies]


def openpi_observation() -> bytes | str:
    seen = observation()
    return openpi_server.message({
        "observation/images/wrist": seen.images["wrist"], "observation/images/front": seen.images["front"],
        "observation/state": np.array([*POSITIONS, 1.0], np.float32), "prompt": "push",
    })  # fmt: skip


def test_openpis_client_is_served() -> None:
    """Its observations have no request, and its replies none either."""
    with served(Follower()) as (address, _):
        described, reply = asyncio.run(exchange(address, [openpi_observation()]))
    assert described["genima"]["protocol"] == 1
    assert reply["actions"].shape == (20, 8) and reply["server_timing"]["infer_ms"] >= 0 and "genima" not in reply


@pytest.mark.parametrize(("instruction", "line"), [
    ("refuse", "error .policy follower: unknown task; give another"),
    ("crash", "error .KeyError: 'two"),
])  # fmt: skip
def test_error_of_policy_is_one_line_at_client(instruction: str, line: str) -> None:
    seen = observation()
    with served(Follower()) as (address, _), connected(address) as client:
        with pytest.raises(GenimaError, match=f"policy server {address}: {line}") as caught:
            client.predict_chunk(replace(seen, instruction=instruction))
        assert "\n" not in str(caught.value)
        if instruction == "refuse":  # the connection lasts
            assert client.predict_chunk(seen).stamp == seen.stamp


@pytest.mark.parametrize(("change", "line"), [
    ({"observation/images/front": None}, "observation/images/front is no array"),
    ({"observation/images/front": np.zeros((12, 16, 4), np.uint8)}, "front is uint8 .12, 16, 4. instead of uint8"),
    ({"observation/images/front": np.zeros((12, 16, 3))}, "front is float64 .* instead of uint8"),
    ({"observation/images/front": np.zeros((12, 16, 3), np.uint16)}, "front is uint16 .* instead of uint8"),
    ({"observation/state": np.zeros(7)}, "state is float64 .7,. instead of float .8,."),
    ({"observation/state": np.full(8, np.nan)}, "not finite"),
    ({"observation/bodies/cup": np.full((4, 4), np.inf)}, "not finite"),
    ({"observation/bodies/cup": np.eye(3)}, "bodies/cup is float64 .3, 3."),
    ({"prompt": b"bytes"}, "prompt is no text"),
    ({"prompt": "x" * 20_000}, "prompt is no text"),
    ({"genima": 1}, "genima is malformed"),
    ({"genima": {"sequence": 1, "stamp": float("nan"), "episode": 0, "seed": 0, "latency": 0.0}},
     "stamp or latency is not finite"),
    ({"genima": {"sequence": True, "stamp": 1.0, "episode": 0, "seed": 0, "latency": 0.0}}, "genima is malformed"),
])  # fmt: skip
def test_hostile_observation_is_refused_in_one_line(change: dict[str, Any], line: str) -> None:
    interface = server_interface.ServerInterface.of_genima(SPEC)
    valid = interface.observation_message(observation(), SPEC)
    assert server_interface.observation_from(valid, SPEC, 1.0).stamp == 1.0

    def read(message: dict[str, Any]) -> None:
        server_interface.Request.from_message(message)
        server_interface.observation_from(message, SPEC, 1.0)

    with pytest.raises(GenimaError, match=f"observation: .*{line}") as caught:
        read(valid | change)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_malformed_message_does_not_end_connection() -> None:
    hostile: list[bytes | str] = ["text", b"\xc1", b"\x80", openpi_observation()]
    with served(Follower()) as (address, _):
        _, *errors, reply = asyncio.run(exchange(address, hostile))
    assert reply["actions"].shape == (20, 8)
    assert all(error.startswith("observation: ") and "\n" not in error for error in errors)


def test_second_client_and_wrong_token_are_refused() -> None:
    with served(Follower()) as (address, log), connected(address):
        with pytest.raises(GenimaError, match="connection closed .serving another client"):
            RemotePolicy(Server(address), "secret")
        for token in ("", "secre", "secret2", "sécret"):
            with pytest.raises(GenimaError, match="token refused; set GENIMA_POLICY_TOKEN to the server's"):
                RemotePolicy(Server(address), token)
    assert sum("refused, wrong token" in line for line in log) == 4 and "secret" not in "".join(log)


def test_message_over_limit_ends_connection() -> None:
    with served(Follower()) as (address, _), connected(address) as client:
        assert client._connection is not None
        client._connection.protocol.max_size = None  # type: ignore[attr-defined]
        with pytest.raises(GenimaError, match="connection closed"):
            client._run(client._exchange(bytes(65 << 20), server_interface.Request(1, 0.0, 0, 0)), 10.0)


# --------------------------------------------------------------------------------------------- replies that are refused

WRONG: dict[str, tuple[Callable[[dict[str, Any]], Reply], str]] = {
    "NaN": (lambda m: chunk_of(m, actions=np.full((20, 8), np.nan)), "action chunk: not finite"),
    "infinite": (lambda m: chunk_of(m, actions=np.full((20, 8), -np.inf)), "action chunk: not finite"),
    "too short": (lambda m: chunk_of(m, actions=np.zeros((19, 8))), r"shape \(19, 8\) instead of \(20, 8\)"),
    "too few joints": (lambda m: chunk_of(m, actions=np.zeros((20, 7))), r"shape \(20, 7\) instead of \(20, 8\)"),
    "batch": (lambda m: chunk_of(m, actions=np.zeros((1, 20, 8))), "shape"),
    "empty": (lambda m: chunk_of(m, actions=np.zeros((0, 8))), "shape"),
    "booleans": (lambda m: chunk_of(m, actions=np.zeros((20, 8), bool)), "no array of numbers"),
    "list": (lambda m: chunk_of(m, actions=[[0.0] * 8] * 20), "no array of numbers"),
    "none": (lambda m: {key: value for key, value in chunk_of(m).items() if key != "actions"}, "no array of numbers"),
    "not MessagePack": (lambda m: b"\xc1", "not MessagePack"),
    "no map": (lambda m: b"\x90", "not a map"),
    "traceback": (
        lambda m: "Traceback (most recent call last):\n  File x\nValueError: bad\n",
        "error .ValueError: bad",
    ),
    "empty error": (lambda m: "", "error .no text"),
    "close": (lambda m: None, "connection closed"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_reply_is_rejected_in_one_line(kind: str) -> None:
    answer, line = WRONG[kind]
    replies = itertools.chain([answer], itertools.repeat(chunk_of))
    with OpenpiServer(lambda m: [next(replies)(m)], metadata()) as server, connected(server.address) as client:
        with pytest.raises(GenimaError, match=f"policy server {server.address}: .*{line}") as caught:
            client.predict_chunk(observation())
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
        client._reconnect_at = 0.0
        chunk = client.predict_chunk(observation(6.0))  # the next one is valid
        assert chunk.stamp == 6.0 and client.rejected == ("error" not in line and "closed" not in line)


@pytest.mark.parametrize(
    "identity",
    [
        {"sequence": 0, "stamp": 5.0},
        {"sequence": 1, "stamp": 4.9},
        {"sequence": 2, "stamp": 5.0},
        {},
        None,
        "x",
        {"sequence": True, "stamp": 5.0},
        {"sequence": np.array([1, 1]), "stamp": np.array([5.0, 5.0])},
    ],
)
def test_reply_to_another_observation_is_rejected(identity: Any) -> None:
    def answer(message: dict[str, Any]) -> list[Reply]:
        wrong = chunk_of(message, genima=identity, actions=np.ones((20, 8)))
        return [wrong, wrong, chunk_of(message)]

    with OpenpiServer(answer, metadata()) as server, connected(server.address) as client:
        chunk = client.predict_chunk(observation())
    assert client.rejected == 2 and np.all(chunk.positions == POSITIONS)


@pytest.mark.parametrize("ours", [True, False], ids=["genima", "openpi"])
def test_late_replies_are_all_rejected(ours: bool) -> None:
    """The server answers nothing in time, and at last sends 100 chunks at once."""
    released = asyncio.Event()
    stalled = [True]

    async def answer(message: dict[str, Any]) -> list[Reply]:
        if not stalled[0]:
            return [chunk_of(message)] if ours else openpi_server.hold(message)
        await released.wait()
        late = chunk_of(message) if ours else openpi_server.hold(message)[0]
        assert isinstance(late, dict)
        return [late | {"actions": np.ones_like(late["actions"])}] * 100

    with OpenpiServer(answer, metadata() if ours else {}) as server:
        policy = RemotePolicy(Server(server.address), timeout=0.3) if ours else droid(server.address, 0.3)
        with closing(policy):
            for k in range(3):
                with pytest.raises(GenimaError, match="no reply within 0.3 s"):
                    policy.predict_chunk(observation(k, policy.spec.camera_size))
            assert len(server.received) <= 1  # nothing queues at the server
            stalled[0], policy.timeout = False, 5.0
            server._loop.call_soon_threadsafe(released.set)
            for _ in range(20):
                policy._reconnect_at = 0.0
                try:
                    chunk = policy.predict_chunk(observation(9.0, policy.spec.camera_size))
                except GenimaError as error:
                    assert "reply without a request; rejected, connecting again" in str(error) and not ours
                    continue
                assert chunk.stamp == 9.0 and np.allclose(chunk.positions, POSITIONS, atol=1e-6)
            assert policy.rejected == 100 if ours else policy.rejected >= 2


def test_chunk_of_stalled_server_is_not_waited_for_longer_than_timeout() -> None:
    """Also where the network takes no data: the server does not read."""
    with OpenpiServer(lambda m: [chunk_of(m)], metadata()) as server, connected(server.address, timeout=0.1) as client:
        blocked = threading.Event()
        server._loop.call_soon_threadsafe(blocked.wait)
        try:
            begin = time.monotonic()
            with pytest.raises(GenimaError, match="no reply within 0.1 s"):
                client._run(client._exchange(bytes(50 << 20), server_interface.Request(1, 0.0, 0, 0)), client.timeout)
            waited = time.monotonic() - begin
        finally:
            blocked.set()
    assert waited < 5.0  # not timed: it would never return


def test_server_that_disappears_and_returns_is_connected_again() -> None:
    def serve(port: int = 0, **changes: Any) -> OpenpiServer:
        described = server_interface.metadata(replace(SPEC, **changes))
        return OpenpiServer(lambda m: [chunk_of(m)], described, port)

    with ExitStack() as stack:
        with serve() as server:
            client = stack.enter_context(connected(server.address))
            client.predict_chunk(observation())
        for _ in range(3):
            with pytest.raises(GenimaError, match="not connected; connecting again|no connection .Connection refused"):
                client.predict_chunk(observation())
        client._reconnect_at = 0.0
        with pytest.raises(GenimaError, match="no connection .Connection refused"):
            client.predict_chunk(observation())
        with serve(server.port):
            client._reconnect_at = 0.0
            assert client.predict_chunk(observation(7.0)).stamp == 7.0
        with pytest.raises(GenimaError, match="not connected; connecting again"):
            client.predict_chunk(observation())
        with serve(server.port, horizon=10):
            client._reconnect_at = 0.0
            for _ in range(2):  # the second one without another connection
                with pytest.raises(GenimaError, match="serves another policy than before; start again"):
                    client.predict_chunk(observation())


def test_silent_connection_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_MAX_SILENCE", 0.0)

    async def answer(message: dict[str, Any]) -> list[Reply]:
        return [] if len(server.received) == 1 else [chunk_of(message)]

    with OpenpiServer(answer, metadata()) as server, connected(server.address, timeout=0.5) as client:
        with pytest.raises(GenimaError, match="no reply"):
            client.predict_chunk(observation())
        client._reconnect_at, client.timeout = 0.0, 5.0
        assert client.predict_chunk(observation(6.0)).stamp == 6.0 and server.connections == 2


def test_mutated_messages_are_read_or_refused() -> None:
    """Nothing but a GenimaError reaches the node's thread."""
    interface = server_interface.ServerInterface.of_genima(SPEC)
    request = server_interface.Request(1, 5.0, 0, 0)
    observed = interface.observation_message(observation(), SPEC) | {"genima": request.to_dict()}
    readers: list[tuple[dict[str, Any], Callable[[dict[str, Any]], object]]] = [
        (chunk_of(observed), lambda data: request.is_answered_by(data) and interface.action_chunk(data, SPEC, 5.0)),
        (metadata(), server_interface.spec_from),
        (observed, lambda data: (server_interface.Request.from_message(data),
                                 server_interface.observation_from(data, SPEC, 1.0))),
    ]  # fmt: skip
    for valid, read in readers:
        for hostile in mutated_bytes(packed(valid), 1000):
            require_clean(lambda hostile=hostile, read=read: read(unpack(hostile, "message")), hostile)
        for data in mutated_data(valid, 1000):
            require_clean(lambda data=data, read=read: read(data), data)


def packed(data: dict[str, Any]) -> bytes:
    message = openpi_server.message(data)
    assert isinstance(message, bytes)
    return message


# ------------------------------------------------------------------------------------------------------ other servers


def test_openpi_server_gets_droids_observation() -> None:
    seen = observation(size=(256, 256))
    with OpenpiServer(openpi_server.hold) as server, closing(droid(server.address)) as policy:
        chunk = policy.predict_chunk(seen)
        (received,) = server.received
    assert set(received) == {
        "observation/wrist_image_left", "observation/exterior_image_1_left", "observation/joint_position",
        "observation/gripper_position", "prompt",
    }  # fmt: skip
    np.testing.assert_array_equal(received["observation/joint_position"], POSITIONS)
    np.testing.assert_array_equal(received["observation/gripper_position"], [0.75])  # DROID's 1 is closed
    assert received["prompt"] == "push the button"
    assert (chunk.stamp, chunk.period, chunk.positions.shape) == (5.0, 1 / 15, (16, 7))
    np.testing.assert_allclose(chunk.positions, np.tile(POSITIONS, (16, 1)), atol=1e-6)
    np.testing.assert_allclose(chunk.gripper, 0.25)


def test_layout_is_by_joint_names(tmp_path: Path) -> None:
    data = yaml.safe_load(DROID.read_text())
    shuffled = [*reversed(PANDA.joint_names), "gripper"]
    data |= {"state": {"s": shuffled, "third": ["panda_joint3"]}, "actions": shuffled, "gripper_one": "open"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    server = load_server(str(tmp_path / "mine.yaml"), PANDA)
    assert server.interface is not None and server.spec is not None
    message = server.interface.observation_message(observation(size=(256, 256)), server.spec)
    np.testing.assert_array_equal(message["s"], [*reversed(POSITIONS), 0.25])
    np.testing.assert_array_equal(message["third"], POSITIONS[2:3])
    actions = np.tile(message["s"], (16, 1))
    chunk = server.interface.action_chunk({"actions": actions}, server.spec, 0.0)
    np.testing.assert_array_equal(chunk.positions[0], POSITIONS)
    assert chunk.gripper[0] == 0.25


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (224, 224), (100, 100), (333, 127)])
def test_images_are_scaled_into_square_with_black_borders(size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 200, np.uint8)
    scaled = resize_with_padding(image, 224)
    assert scaled.shape == (224, 224, 3) and scaled.dtype == np.uint8
    height, width = (int(side * 224 / max(size)) for side in size)
    inside = scaled[(224 - height) // 2 :, (224 - width) // 2 :][:height, :width]
    assert np.all(inside == 200) and scaled.sum() == inside.astype(int).sum()


@pytest.mark.parametrize("file", sorted(paths.shared("config", "policies").glob("*.yaml")), ids=lambda file: file.stem)
def test_shipped_servers_fit_simulated_cells(file: Path) -> None:
    for name in ("sim_panda", "sim_fr3"):
        cell = load_cell(name)
        server = load_server(str(file), cell.robot)
        assert server.spec is not None
        cell.require_policy(server.spec, f"policy {file}")


@pytest.mark.parametrize(("change", "line"), [
    ({"actions": ["joints"]}, "actions are not each joint of panda and gripper once"),
    ({"actions": ["joints", "gripper", "gripper"]}, "actions are not each joint of panda and gripper once"),
    ({"actions": ["joint_1"]}, "actions: no such joint of panda .joint_1.; known: joints, gripper, panda_joint1"),
    ({"state": {"s": ["fr3_joint1"]}}, "state s: no such joint of panda .fr3_joint1."),
    ({"state": {}}, "state: .*at least 1 item"),
    ({"images": {}}, "images: .*at least 1 item"),
    ({"images": {"../x": "key"}}, "images"),
    ({"address": "http://host"}, "not an address of a server .http://host.; write ws://host:8000"),
    ({"horizon": 0}, "horizon: .*greater than or equal to 1"),
    ({"gripper_one": "shut"}, "gripper_one: Input should be 'open' or 'closed'"),
    ({"speed": 1}, "speed: Extra inputs"),
])  # fmt: skip
def test_malformed_server_file_is_one_line(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(DROID.read_text()) | change))
    with pytest.raises(GenimaError, match=f"policy server {file}: .*{line}") as caught:
        load_server(str(file), PANDA)
    assert "\n" not in str(caught.value)


def test_mutated_server_file_is_loaded_or_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for data in mutated_data(yaml.safe_load(DROID.read_text()), 500):
        file.write_text(yaml.safe_dump(data))
        require_clean(lambda: load_server(str(file), PANDA), data)


@pytest.mark.parametrize(
    "address",
    ["ws://", "ws://:8000", "ws://host:x", "ws://host:99999", "ws://host:0", "ws://user:password@host", "ws://a b",
     "ws://host#1", "ws://[::1", "wss://\n", f"ws://{'a' * 70}", "ws://a..b"],
)  # fmt: skip
def test_malformed_address_is_one_line(address: str) -> None:
    with pytest.raises(GenimaError, match="policy: not an address of a server .*; write ws://host:8000") as caught:
        load_policy(address)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------- errors at the start


@pytest.mark.parametrize(("described", "line"), [
    ({}, "none of Genima's .its metadata have no specification.; describe it by a YAML file, docs/policies.md"),
    (metadata(protocol=2), "protocol 2 instead of 1; run the same version of Genima on both machines"),
    (metadata(protocol=None), "protocol None instead of 1"),
    (metadata(protocol=np.ones(2)), "protocol array"),
    (metadata(spec={"robot": np.ones(2)}), "specification: not plain values .TypeError"),
    (metadata(spec={b"robot": 1}), "specification: not plain values .TypeError"),
    (metadata(spec=None), "specification is no map"),
    (metadata(spec={}), "specification: .*Field required"),
    (metadata(spec=SPEC.to_dict() | {"horizon": -1}), "specification: horizon: .*greater than or equal to 1 .-1."),
    (b"\xc1", "metadata: not MessagePack"),
    ("starting\nout of memory", "error .out of memory."),
    (bytes(8 << 20), "connection closed"),
])  # fmt: skip
def test_unsuitable_server_is_refused_at_start(described: Reply, line: str) -> None:
    with OpenpiServer(lambda m: [], described) as server:
        with pytest.raises(GenimaError, match=f"policy server {server.address}: {line}") as caught:
            load_policy(server.address)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_genimas_server_needs_no_file() -> None:
    with OpenpiServer(lambda m: [], metadata()) as server:
        with pytest.raises(GenimaError, match=f"one of Genima's; give its address alone, {server.address}"):
            droid(server.address)


def test_malformed_token_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("a\nHost: b", "sécret"):
        monkeypatch.setenv(remote.TOKEN, token)
        with pytest.raises(GenimaError, match="GENIMA_POLICY_TOKEN: characters that no token has"):
            load_policy("ws://127.0.0.1:9")


def test_missing_server_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(remote.TOKEN, "secret")
    for name, line in (
        ("remote", "policy remote: no server; name its address .--policy ws://host:8000. or its YAML file"),
        ("ws://127.0.0.1:9", "no connection .Connection refused.; start the server, or correct the address"),
        (str(DROID), "policy server ws://127.0.0.1:8000: no connection|no policy server|error"),
        ("nowhere.yaml", "policy server nowhere.yaml does not exist"),
    ):
        with pytest.raises(GenimaError, match=line) as caught:
            load_policy(name, PolicyOptions())
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_other_program_at_address_is_one_line() -> None:
    """A web server is none of a policy."""
    with OpenpiServer(lambda m: [], token="other") as server:
        with pytest.raises(GenimaError, match="token refused"):
            load_policy(server.address)


@pytest.mark.parametrize(("change", "line"), [
    ({"views": ("wrist", "top")}, "takes the view top; cell sim_panda has wrist, front"),
    ({"robot": "fr3", "joint_names": RobotModel.load("fr3").joint_names}, "for joints fr3_joint1, .*panda_joint1"),
    ({"camera_size": (640, 480)}, "takes images of 640x480; wrist of cell sim_panda has 256x256"),
])  # fmt: skip
def test_policy_that_does_not_fit_cell_is_refused(change: dict[str, Any], line: str) -> None:
    from genima_bringup.argument_checks import require_policy as require_fitting_policy

    spec = replace(PolicySpec("panda", PANDA.joint_names), **change)
    if "top" in spec.views:
        spec = replace(spec, appearance=replace(spec.appearance, radii={**spec.appearance.radii, "top": 0.05}))
    with OpenpiServer(lambda m: [], server_interface.metadata(spec)) as server:
        with pytest.raises(GenimaError, match=f"policy {server.address}.*{line}") as caught:
            require_fitting_policy(load_cell("sim_panda"), server.address)
    assert "\n" not in str(caught.value)
