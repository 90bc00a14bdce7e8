"""`./genima serve`, the example server for LeRobot, and the stand-in of openpi's: real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command import outcome

from genima.errors import GenimaError
from genima.io import paths
from genima.policy.registry import PolicyOptions, load_policy
from genima.policy.remote import TOKEN, RemotePolicy
from genima.robot.model import RobotModel
from genima.types import Joints, Observation
from genima_cli.serve import main
from genima_sim.environment import Environment

ROOT = Path(__file__).resolve().parents[3]
PANDA = RobotModel.load("panda")
VIEWS = ("wrist", "front", "right_shoulder", "left_shoulder")


@contextmanager
def process(*command: str, environment: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[str]]:  # noqa: B006
    started = subprocess.Popen(
        [sys.executable, *command], env=os.environ | environment, stdout=-1, stderr=subprocess.STDOUT, text=True,
        cwd=ROOT / "test",
    )  # fmt: skip
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def connect(name: str, server: subprocess.Popen[str]) -> RemotePolicy:
    """Connect as soon as the server listens."""
    for _ in range(600):
        try:
            policy = load_policy(name, PolicyOptions(reply_timeout=30.0))
            assert isinstance(policy, RemotePolicy)
            return policy
        except GenimaError as error:
            if "Connection refused" not in str(error):
                raise
            assert server.poll() is None, server.communicate()[0]
            time.sleep(0.05)
    raise AssertionError("the server does not listen")


def observation(size: int = 256) -> Observation:
    images = {view: np.full((size, size, 3), k, np.uint8) for k, view in enumerate(VIEWS)}
    return Observation(1.0, images, Joints(1.0, PANDA.home, 0.25), "push")


def configured(file: str, folder: Path, port: int, **changes: Any) -> str:
    """Return a copy of a shipped YAML file with the port."""
    data = yaml.safe_load(paths.shared("config", "policies", file).read_text())
    copy = folder / file
    copy.write_text(yaml.safe_dump(data | {"address": f"ws://127.0.0.1:{port}"} | changes))
    return str(copy)


@pytest.mark.any_pace
def test_printed_command_reaches_served_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expert, over the socket, plans the same as in this process."""
    with process("-P", "-m", "genima_cli", "serve", "expert", "--port", "0") as server:
        assert server.stdout is not None
        assert (
            server.stdout.readline()
            == "policy expert: panda, views wrist, front, right_shoulder, left_shoulder, K 20\n"
        )
        printed = re.fullmatch(rf"{TOKEN}=(\S+) \./genima demo --policy (\S+)\n", server.stdout.readline())
        assert printed
        with pytest.raises(GenimaError, match="token refused"):
            load_policy(printed[2])
        monkeypatch.setenv(TOKEN, printed[1])
        policy = load_policy(printed[2], PolicyOptions(reply_timeout=60.0))
        assert isinstance(policy, RemotePolicy)
        with closing(Environment()) as environment:
            environment.reset("push_button", 3)
            seen = environment.observe()
        with closing(policy):
            chunk = policy.predict_chunk(seen)
        server.send_signal(signal.SIGINT)
        output, _ = server.communicate(timeout=60)
    expected = load_policy("expert").predict_chunk(seen)
    np.testing.assert_allclose(chunk.positions, expected.positions, atol=1e-9)
    assert server.returncode == 0
    lines = [re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", line) for line in output.splitlines()]
    assert lines == [
        "client ADDRESS: refused, wrong token", "client ADDRESS: connected",
        "client ADDRESS: 1 action chunks; disconnected",
    ]  # fmt: skip


@pytest.mark.parametrize(("arguments", "line"), [
    (["nowhere"], "policy .nowhere.: unknown"),
    (["ws://host:8000"], "policy ws://host:8000: on a server already; connect to that"),
    (["remote"], "policy remote: on a server already"),
    (["--port", "70000"], "--port 70000: must be less than or equal to 65535"),
    (["--cell", "nowhere"], "nowhere"),
    (["expert", "--host", "192.0.2.1"], "192.0.2.1:8000: cannot listen .*; name another port"),
])  # fmt: skip
def test_invalid_arguments_are_refused_in_one_line(arguments: list[str], line: str) -> None:
    with pytest.raises(GenimaError, match=line) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)


def test_address_of_missing_server_ends_commands_in_one_line() -> None:
    address = f"ws://127.0.0.1:{free_port()}"
    for command in (["eval", "--task", "push_button"], ["demo"]):
        code, text = outcome(*command, "--policy", address)
        assert code == 2 and len(text.strip().splitlines()) == 1
        assert f"policy server {address}: no connection (Connection refused" in text


@pytest.mark.any_pace
def test_openpi_server_process_is_used(tmp_path: Path) -> None:
    port = free_port()
    with process("-m", "standins.openpi_server", str(port)) as server:
        with closing(connect(configured("openpi_droid.yaml", tmp_path, port), server)) as policy:
            chunk = policy.predict_chunk(observation())
    np.testing.assert_allclose(chunk.positions, np.tile(PANDA.home, (16, 1)), atol=1e-6)
    np.testing.assert_allclose(chunk.gripper, 0.25)


LEROBOT = """
import numpy as np
import torch

class Config:
    type = "act"

class PreTrainedConfig:
    @classmethod
    def from_pretrained(cls, path):
        assert path == "runs/act"
        return Config()

class Policy:
    config = Config()
    @classmethod
    def from_pretrained(cls, path):
        assert path == "runs/act"
        return cls()
    def to(self, device):
        assert device == "cpu"
        return self
    def reset(self):
        pass
    def predict_action_chunk(self, batch):
        means = [float(batch[f"observation.images.{view}"].mean()) for view in VIEWS]
        assert np.allclose(means, np.arange(4) / 255) and batch["task"] == "push" and batch["normalized"]
        return batch["observation.state"][:, None].repeat(1, 5, 1)

VIEWS = ("wrist", "front", "right_shoulder", "left_shoulder")

def get_policy_class(name):
    assert name == "act"
    return Policy

def make_pre_post_processors(config, path, preprocessor_overrides):
    assert path == "runs/act" and preprocessor_overrides == {"device_processor": {"device": "cpu"}}
    def after(action):
        assert action.shape == (1, 8)  # one action of the batch
        return action * 2
    return lambda batch: batch | {"normalized": True}, after

def prepare_observation_for_inference(observation, device, task=None, robot_type=None):
    batch = {}
    for name, value in observation.items():
        value = torch.from_numpy(value)
        if "image" in name:
            value = (value.type(torch.float32) / 255).permute(2, 0, 1)
        batch[name] = value[None].to(device)
    assert batch["observation.state"].dtype == torch.float32
    return batch | {"task": task}
"""
"""What the example uses of LeRobot 0.6: names, arguments and shapes as in its sources."""


@pytest.mark.any_pace
def test_lerobot_example_serves_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lerobot"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "policies.py").write_text(LEROBOT)
    (package / "configs.py").write_text("from lerobot.policies import PreTrainedConfig\n")
    monkeypatch.setenv(TOKEN, "secret")
    port = free_port()
    example = str(ROOT / "docs" / "examples" / "serve_lerobot.py")
    command = (example, "runs/act", "--port", str(port), "--device", "cpu")
    file = configured("lerobot.yaml", tmp_path, port, horizon=5)
    with process(*command, environment={"PYTHONPATH": str(tmp_path)}) as server:
        with closing(connect(file, server)) as policy:
            chunk = policy.predict_chunk(observation())
            assert policy.predict_chunk(observation()).positions.shape == (5, 7)
        monkeypatch.setenv(TOKEN, "other")
        with pytest.raises(GenimaError, match="token refused"):
            load_policy(file)
    np.testing.assert_allclose(chunk.positions, np.tile(2 * PANDA.home, (5, 1)), rtol=1e-6)
    np.testing.assert_allclose(chunk.gripper, 0.5)


def test_lerobot_example_is_short() -> None:
    assert len((ROOT / "docs" / "examples" / "serve_lerobot.py").read_text().splitlines()) <= 60
