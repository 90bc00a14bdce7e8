"""Every option of ./genima train in eval, the two ROS nodes and the demo."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from accelerate.state import AcceleratorState
from domains import free_domain
from ros_graph import Graph
from sensor_msgs.msg import Image as ImageMessage
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from genima.data.datasets.target_dataset import TargetDataset
from genima.policy.spec import FILE
from genima.robot.model import RobotModel
from genima.types import Joints
from genima_cli import evaluate
from genima_cli.train import main as train_command
from genima_interfaces.msg import DrawnTarget as DrawnTargetMessage
from genima_nodes.controller import ControllerNode
from genima_nodes.diffusion_agent import DiffusionAgentNode
from genima_nodes.ros import messages, qos
from genima_sim.environment import Environment

# Valid combinations of --base, --conditioning and --tiled.
KINDS = {
    f"{base} {conditioning} {tiled}": ["--base", base, "--conditioning", conditioning, f"--{tiled}"]
    for base in ("tiny", "tiny-xl", "small")
    for conditioning in ("controlnet", "unet")
    for tiled in ("tiled", "no-tiled")
    if (base, conditioning) != ("small", "unet")  # refused, see test_training
}
PAPER = "tiny controlnet tiled"  # an SD-Turbo with a ControlNet, sampled with the Euler ancestral scheduler
QUICK = [pytest.param(kind, marks=() if kind == PAPER else pytest.mark.nightly) for kind in KINDS]
GOAL = "push down the maroon button"
PANDA = RobotModel.load("panda")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the trained models."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def controller(folder: Path, targets: TargetDataset) -> Path:
    """Controller for all agents: it does not depend on their prompts."""
    arguments = ["--clip", "small", "--validation-chunks", "1", "--out", str(folder)]
    return train("controller", targets, arguments, folder / "controller")


def train(recipe: str, targets: TargetDataset, arguments: list[str], result: Path) -> Path:
    AcceleratorState._reset_state(reset_partial_state=True)
    short = ["--steps", "1", "--batch-size", "2", "--workers", "0", "--save-every", "1", "--warmup-steps", "0"]
    assert train_command([recipe, "--data", str(targets.folder), *short, *arguments]) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    return result


@pytest.fixture
def pair(kind: str, folder: Path, bases: Path, controller: Path, targets: TargetDataset) -> Path:
    """Folder of a trained diffusion agent of a kind, with the controller."""
    out = folder / kind.replace(" ", "-")
    if not out.exists():
        base, *others = KINDS[kind][1:]
        known = base if base == "small" else str(bases / base)
        arguments = [
            "--base",
            known,
            *others,
            "--inference-steps",
            "3",
            "--validation-targets",
            "1",
            "--out",
            str(out),
        ]
        train("diffusion", targets, arguments, out)
        shutil.copytree(controller, out / "controller", symlinks=True)
    return out


@pytest.mark.parametrize("kind", QUICK)
def test_eval_runs_every_trained_option(kind: str, pair: Path, shared_environment: Environment, tmp_path: Path) -> None:
    description = json.loads((pair / "diffusion_agent/best" / FILE).read_text())
    assert description["scheduler"] == ("DDIMScheduler" if "small" in kind else "EulerAncestralDiscreteScheduler")
    assert description["tiled"] == ("no-tiled" not in kind) and description["conditioning"] in kind
    faster = ["--sampling.strength", "0.5", "--sampling.controlnet-every", "2", "--sampling.steps", "4"]
    for i, sampling in enumerate(([], faster)):
        out = tmp_path / f"{i}.json"
        arguments = ["--task", "push_button", "--episodes", "1", "--time-limit", "1.2", "--horizon", "10", *sampling]
        assert evaluate.main([*arguments, "--checkpoint", str(pair), "--out", str(out)]) == 0
        assert json.loads(out.read_text())["episodes"] == 1


@pytest.fixture
def nodes(kind: str, pair: Path) -> Iterator[Graph]:
    """Both nodes with the trained models, with the parameters of their processes."""
    # Drawn targets of an untrained agent show no joints: the consistency check would hold the arm.
    arguments = ["--ros-args", "-p", f"checkpoint:={pair}", "-p", "least_agreement:=0.0"]
    rclpy.init(args=arguments, domain_id=free_domain())
    graph = Graph()
    graph.add(DiffusionAgentNode())
    graph.add(ControllerNode())
    yield graph
    graph.close()


@pytest.mark.real_time
@pytest.mark.parametrize("kind", QUICK)
def test_nodes_run_every_trained_option(kind: str, nodes: Graph) -> None:
    views = nodes.nodes[0]._agent.camera_views
    drawn = nodes.subscribe(DrawnTargetMessage, "drawn_target", qos.DRAWN_TARGET)
    commands = nodes.subscribe(JointState, "controller/command", qos.SOURCE_COMMAND)
    publish_task = nodes.publisher(String, "task", qos.TASK)
    cameras = [nodes.publisher(ImageMessage, f"cameras/{view}/color/image_raw", qos.IMAGE) for view in views]
    publish_joints = nodes.publisher(JointState, "joint_states", qos.JOINT_STATES)
    images: Any = np.random.default_rng(0)

    def publish_observation() -> None:
        now = time.time()
        publish_joints(messages.joints_message(Joints(now, PANDA.home, 1.0), PANDA))
        for publish_image in cameras:
            publish_image(messages.image_message(images.integers(0, 255, (256, 256, 3), np.uint8), now))

    publish_task(String(data=GOAL))
    nodes.until(lambda: len(drawn) > 2, "no drawn targets", publish_observation)
    nodes.until(lambda: bool(commands), "no commands", publish_observation)
    target = messages.drawn_target_from(drawn[-1])
    assert target.steps == 3 and target.tile.shape == (64, 64, 3) and target.tile.std() > 0


@pytest.mark.real_time
@pytest.mark.nightly
@pytest.mark.parametrize("kind", [PAPER, "tiny-xl unet no-tiled", "small controlnet tiled"])
def test_demo_runs_trained_options(kind: str, pair: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "genima_cli", "demo", "--headless", "--episodes", "1", "--time-limit", "3"]
    command += ["--checkpoint", str(pair), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["results"][0]["drawn_targets"] > 0
