"""Serve a LeRobot policy by openpi's websocket protocol, inside LeRobot's environment: python serve_lerobot.py PATH.

PATH is a folder pretrained_model/, or a name on the Hub, of a policy that takes one observation (n_obs_steps 1). The
observation's keys are LeRobot's features, and "task". GENIMA_POLICY_TOKEN must be set. For LeRobot 0.6.0 and 0.6.1.
"""

import argparse
import hmac
import os
import time

import msgpack
import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies import get_policy_class, make_pre_post_processors, prepare_observation_for_inference
from websockets.sync.server import serve

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("path")
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int, default=8000)
parser.add_argument("--device", default="cuda")
args = parser.parse_args()
key = f"Api-Key {os.environ['GENIMA_POLICY_TOKEN']}".encode()
policy = get_policy_class(PreTrainedConfig.from_pretrained(args.path).type).from_pretrained(args.path).to(args.device)
before, after = make_pre_post_processors(
    policy.config, args.path, preprocessor_overrides={"device_processor": {"device": args.device}}
)


def decode(data):
    return np.ndarray(data[b"shape"], data[b"dtype"], data[b"data"]) if b"__ndarray__" in data else data


@torch.inference_mode()
def infer(message):
    begin, device, data = time.monotonic(), torch.device(args.device), msgpack.unpackb(message, object_hook=decode)
    task = data.pop("task", "")
    arrays = {name: np.array(value, np.uint8 if value.ndim == 3 else np.float32) for name, value in data.items()}
    chunk = policy.predict_action_chunk(before(prepare_observation_for_inference(arrays, device, task)))[0]
    rows = torch.cat([after(action[None]) for action in chunk]).float().cpu().numpy()  # (chunk_size, action_dim)
    actions = {b"__ndarray__": True, b"data": rows.tobytes(), b"dtype": rows.dtype.str, b"shape": rows.shape}
    return msgpack.packb({"actions": actions, "server_timing": {"infer_ms": 1000 * (time.monotonic() - begin)}})


def check(connection, request):
    sent = request.headers.get("Authorization", "").encode()
    return None if hmac.compare_digest(sent, key) else connection.respond(401, "wrong token\n")


def answer(connection):
    policy.reset()
    connection.send(msgpack.packb({"policy": args.path}))
    for message in connection:
        connection.send(infer(message))


with serve(answer, args.host, args.port, process_request=check, compression=None, max_size=64 << 20) as server:
    server.serve_forever()
