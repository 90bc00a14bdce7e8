"""Messages between a robot and a policy server, both ways.

::

    server  ──► metadata      {"genima": {"protocol": 1, "spec": PolicySpec}}; of another server: anything
    robot   ──► observation   {<image key>: uint8 (h, w, 3), ..., <state key>: float64 (m,), "prompt": text,
                               "genima": {"sequence": 7, "stamp": s, "episode": 2, "seed": 0, "latency": s}}
    server  ──► action chunk  {"actions": float (K, n + 1), "server_timing": {"infer_ms": ms},
                               "genima": {"sequence": 7, "stamp": s}}
    server  ──► error         one line, as a text frame

Every message but an error is binary: :mod:`genima.io.msgpack_numpy`. Only servers of Genima are sent, and return,
``genima``. The protocol without it is openpi's (src/openpi/serving/websocket_policy_server.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from genima.errors import GenimaError
from genima.io.files import describe_error, parse_json, shorten
from genima.policy.spec import PolicySpec
from genima.types import ActionChunk, Image, Joints, Observation

PROTOCOL = 1
GENIMA, GRIPPER = "genima", "gripper"
ACTIONS, TIMING = "actions", "server_timing"
IMAGES, STATE, PROMPT = "observation/images/", "observation/state", "prompt"  # keys of Genima's servers
_BODIES, _DEPTH = "observation/bodies/", "observation/depth/"
_MAX_PROMPT = 10_000  # characters


@dataclass(frozen=True)
class Request:
    """Identity of an observation."""

    sequence: int
    stamp: float
    episode: int  # a server resets its policy at the start of each
    seed: int  # of the episode
    latency: float = 0.0  # s, as of an Observation

    def to_dict(self) -> dict[str, Any]:
        """Return plain types."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Request | None:
        """Return the request of an observation; None: its client is none of Genima's.

        Raises:
            GenimaError: for malformed fields.
        """
        if GENIMA not in message:
            return None
        data = message[GENIMA]
        kinds = {"sequence": int, "stamp": float, "episode": int, "seed": int, "latency": float}
        if not isinstance(data, dict) or any(type(data.get(key)) is not kind for key, kind in kinds.items()):
            raise GenimaError(f"observation: {GENIMA} is malformed ({shorten(repr(data))})")
        if not (math.isfinite(data["stamp"]) and math.isfinite(data["latency"])):
            raise GenimaError(f"observation: stamp or latency is not finite ({data['stamp']}, {data['latency']})")
        return cls(*(data[key] for key in kinds))

    def is_answered_by(self, reply: Mapping[str, Any]) -> bool:
        """Return whether a reply returns the sequence number and the stamp."""
        answer = reply.get(GENIMA)
        return isinstance(answer, dict) and all(
            type(answer.get(key)) is type(value) and answer[key] == value
            for key, value in (("sequence", self.sequence), ("stamp", self.stamp))
        )


@dataclass(frozen=True)
class ServerInterface:
    """Keys and layout of a server's messages."""

    images: Mapping[str, str]  # keys by view
    state: Mapping[str, tuple[str, ...]]  # names of joints, or GRIPPER, of each vector, by key
    actions: tuple[str, ...]  # names of the columns
    prompt: str = PROMPT
    gripper_open: float = 1.0  # value of an open gripper, 1 or 0; the other is closed
    image_size: int | None = None  # px, side of the images; None: of the cameras

    @classmethod
    def of_genima(cls, spec: PolicySpec) -> ServerInterface:
        """Return the interface of Genima's own servers."""
        names = (*spec.joint_names, GRIPPER)
        return cls({view: f"{IMAGES}{view}" for view in spec.views}, {STATE: names}, names)

    def observation_message(self, observation: Observation, spec: PolicySpec) -> dict[str, Any]:
        """Return an observation's message, without the request.

        Raises:
            GenimaError: for a view that the observation lacks.
        """
        if missing := [view for view in self.images if view not in observation.images]:
            raise GenimaError(f"observation: images missing ({', '.join(missing)})")
        values = dict(zip(spec.joint_names, observation.joints.positions, strict=True))
        values[GRIPPER] = self._gripper(observation.joints.gripper)
        message: dict[str, Any] = {}
        for view, key in self.images.items():
            image = observation.images[view]
            message[key] = image if self.image_size is None else resize_with_padding(image, self.image_size)
        for key, names in self.state.items():
            message[key] = np.array([values[name] for name in names])
        return message | {self.prompt: observation.instruction}

    def action_chunk(self, reply: Mapping[str, Any], spec: PolicySpec, stamp: float) -> ActionChunk:
        """Return the chunk of a reply.

        Raises:
            GenimaError: for actions of another shape or type, or that are not finite.
        """
        actions = reply.get(ACTIONS)
        expected = (spec.horizon, len(self.actions))
        if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "fiu":
            raise GenimaError(f"action chunk: {ACTIONS} is no array of numbers ({shorten(repr(actions))})")
        if actions.shape != expected:
            raise GenimaError(f"action chunk: shape {actions.shape} instead of {expected}")
        actions = actions.astype(np.float64)
        if not np.isfinite(actions).all():
            raise GenimaError("action chunk: not finite")
        columns = {name: actions[:, k] for k, name in enumerate(self.actions)}
        positions = np.stack([columns[name] for name in spec.joint_names], axis=1)
        gripper = np.clip(self._gripper(columns[GRIPPER]), 0.0, 1.0)
        return ActionChunk(stamp, 1 / spec.action_rate, positions, gripper)

    def _gripper(self, value: Any) -> Any:
        """Convert between open fractions and the server's convention; the conversion is its own inverse."""
        return value if self.gripper_open == 1.0 else 1.0 - value


def resize_with_padding(image: Image, side: int) -> Image:
    """Scale an image (h, w, 3) into a square of ``side`` px, centred on black, as openpi's client does.

    Source: openpi_client.image_tools.resize_with_pad.
    """
    h, w = image.shape[:2]
    if (h, w) == (side, side):
        return image
    scale = max(h, w) / side
    height, width = int(h / scale), int(w / scale)
    resized = PillowImage.fromarray(image).resize((width, height), PillowImage.Resampling.BILINEAR)
    padded = np.zeros((side, side, 3), np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    padded[top : top + height, left : left + width] = np.asarray(resized)
    return padded


# ------------------------------------------------------------------------------------------------- of Genima's servers


def metadata(spec: PolicySpec) -> dict[str, Any]:
    """Return the message with which a server of Genima begins."""
    return {GENIMA: {"protocol": PROTOCOL, "spec": spec.to_dict()}}


def spec_from(message: Mapping[str, Any]) -> PolicySpec:
    """Return the specification in a server's metadata.

    Raises:
        GenimaError: for another program's server, another version of the protocol, and a malformed specification.
    """
    data = message.get(GENIMA)
    if not isinstance(data, dict):
        raise GenimaError(
            "none of Genima's (its metadata have no specification); describe it by a YAML file, docs/policies.md"
        )
    version, spec = data.get("protocol"), data.get("spec")
    if type(version) is not int or version != PROTOCOL:
        raise GenimaError(
            f"protocol {shorten(repr(version))} instead of {PROTOCOL}; run the same version of Genima on both machines"
        )
    if not isinstance(spec, dict):
        raise GenimaError(f"specification is no map ({shorten(repr(spec))})")
    try:
        plain = json.dumps(spec)
    except (TypeError, ValueError, RecursionError) as error:
        raise GenimaError(f"specification: not plain values ({describe_error(error)})") from None
    return PolicySpec.from_dict(parse_json(plain, "specification"), "specification")


def poses_and_depth(observation: Observation, spec: PolicySpec) -> dict[str, NDArray[Any]]:
    """Return the poses of simulated objects and, where they are required, the depth images, by key.

    Raises:
        GenimaError: for a depth image that is required and missing.
    """
    views = spec.views if spec.requires_depth else ()
    if missing := [view for view in views if view not in observation.depth]:
        raise GenimaError(f"observation: depth images missing ({', '.join(missing)})")
    return {
        **{f"{_BODIES}{name}": pose for name, pose in observation.bodies.items()},
        **{f"{_DEPTH}{view}": observation.depth[view] for view in views},
    }


def observation_from(message: Mapping[str, Any], spec: PolicySpec, stamp: float, latency: float = 0.0) -> Observation:
    """Return the observation of a message to a server of Genima.

    Args:
        message: untrusted.
        spec: of the server's policy.
        stamp: of the observation.
        latency: of the observation.

    Raises:
        GenimaError: for a missing entry, and one of another type or shape.
    """
    width, height = spec.camera_size
    images = {
        view: _array(message, f"{IMAGES}{view}", (height, width, 3), "u").astype(np.uint8, copy=False)
        for view in spec.views
    }
    depth = {
        view: _array(message, f"{_DEPTH}{view}", (height, width), "f").astype(np.float32)
        for view in (spec.views if spec.requires_depth else ())
    }
    state = _array(message, STATE, (len(spec.joint_names) + 1,), "f").astype(np.float64)
    bodies = {
        key.removeprefix(_BODIES): _array(message, key, (4, 4), "f").astype(np.float64)
        for key in message
        if isinstance(key, str) and key.startswith(_BODIES)
    }
    if not np.isfinite(state).all() or not all(np.isfinite(pose).all() for pose in bodies.values()):
        raise GenimaError("observation: state or poses are not finite")
    prompt = message.get(PROMPT)
    if not isinstance(prompt, str) or len(prompt) > _MAX_PROMPT:
        raise GenimaError(f"observation: {PROMPT} is no text ({shorten(repr(prompt))})")
    return Observation(stamp, images, Joints(stamp, state[:-1], float(state[-1])), prompt, bodies, latency, depth)


def _array(message: Mapping[str, Any], key: str, shape: tuple[int, ...], kind: str) -> NDArray[Any]:
    value = message.get(key)
    if not isinstance(value, np.ndarray):
        raise GenimaError(f"observation: {key} is no array ({shorten(repr(value))})")
    if value.shape != shape or value.dtype.kind != kind or (kind == "u" and value.dtype.itemsize != 1):
        wanted = "uint8" if kind == "u" else "float"
        raise GenimaError(f"observation: {key} is {value.dtype} {value.shape} instead of {wanted} {shape}")
    return value


def chunk_message(chunk: ActionChunk, seconds: float, request: Request | None) -> dict[str, Any]:
    """Return a server's reply; ``seconds`` is the time of the inference."""
    actions = np.column_stack([chunk.positions, chunk.gripper])
    reply: dict[str, Any] = {ACTIONS: actions, TIMING: {"infer_ms": 1000 * seconds}}
    return reply if request is None else reply | {GENIMA: {"sequence": request.sequence, "stamp": request.stamp}}
