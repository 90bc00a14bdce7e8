"""The whole graph as separate processes, as `./genima demo` runs it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import psutil
import pytest
from untrained import save_checkpoints

from genima_cli.demo_report import Report

Demo = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def demo(checkpoint: Path, tmp_path: Path) -> Demo:
    """Function that starts a demo with untrained models; later arguments take precedence."""

    def start(*arguments: str, **options: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "genima_cli", "demo", "--headless", "--out", str(tmp_path / "out")]
        command += ["--checkpoint", str(checkpoint), *arguments]
        environment = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"} | {"MUJOCO_GL": "egl"}
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,  # type: ignore[call-overload]
        )

    return start


def end_of(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=280)
    print(output, errors, sep="\n")
    return process.returncode, output, errors


def error_line(process: subprocess.Popen[str]) -> str:
    """Return the single error line of a demo that cannot start."""
    code, _, errors = end_of(process)
    assert code == 2
    assert len(errors.strip().splitlines()) == 1
    return errors


@pytest.mark.real_time
def test_short_episode_writes_report(demo: Demo, tmp_path: Path) -> None:
    """Use the bundled models: drawn targets of untrained models do not move the arm."""
    task = "take_lid_off_saucepan"
    arguments = ("--episodes", "1", "--time-limit", "20", "--task", task, "--seed", "3", "--checkpoint", "")
    code, output, _ = end_of(demo(*arguments))
    assert code == 0
    assert "success" in output and "seed 3" in output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["tasks"], report["episodes"], report["seeds"]) == ([task], 1, [3])
    assert report["successes"] in (0, 1)
    assert report["results"][0]["outcome"] in ("TIMEOUT", "SUCCEEDED")
    assert report["drawing_hz"] > 0 and report["command_hz"] > 0 and report["real_time_factor"] > 0
    assert 0 <= report["late_fraction"] <= 1
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"]
    assert report["first_drawn_target_s"] > 0
    with av.open(str(tmp_path / "out" / "video.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) > 5
    assert cv2.imread(str(tmp_path / "out" / "picture.png")).shape == (568, 1024, 3)  # 56 px of labels
    assert not list((tmp_path / "out").glob("*.part"))


@pytest.mark.parametrize("stage", ["starting", "running"])
@pytest.mark.real_time
def test_ctrl_c_ends_all_processes(demo: Demo, tmp_path: Path, stage: str) -> None:
    """Drawn targets of untrained models do not move the arm."""
    process = demo("--episodes", "3", "--time-limit", "60")
    assert process.stdout is not None
    assert "starting" in process.stdout.readline()
    logs = tmp_path / "out" / "logs"
    running = {"command_guard": "owner: controller", "controller": "drawn target and chunk do not agree"}
    for node, text in running.items() if stage == "running" else ():
        while text not in (logs / f"{node}.log").read_text():
            assert process.poll() is None
            time.sleep(0.1)
    time.sleep(4.0 if stage == "running" else 0.0)  # further drawn targets, which do not move the arm either
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 5
    interrupted_at = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)  # an impatient user
    code, output, errors = end_of(process)
    print(f"ended {time.monotonic() - interrupted_at:.1f} s after Ctrl-C")
    assert code == 130
    assert "interrupted" in output and "Traceback" not in errors
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["interrupted"] is True
    if stage == "running":
        assert (report["drawing_hz"] or 0) > 0 and report["command_hz"] is None


@pytest.mark.real_time
def test_nodes_end_with_killed_demo(demo: Demo) -> None:
    process = demo("--episodes", "3")
    assert process.stdout is not None
    assert "starting" in process.stdout.readline()
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=30)
    _, remaining = psutil.wait_procs(children, timeout=30)
    assert not remaining


@pytest.mark.real_time
def test_crashed_node_is_reported_by_name(demo: Demo, tmp_path: Path) -> None:
    process = demo("--episodes", "3")
    assert process.stdout is not None
    assert "starting" in process.stdout.readline()
    for child in psutil.Process(process.pid).children(recursive=True):
        if "genima_nodes.command_guard" in " ".join(child.cmdline()):
            child.kill()
    error = error_line(process)
    assert "command_guard: ended with code -9" in error
    assert not (tmp_path / "out" / "report.json").exists()


def test_unknown_task_is_rejected(demo: Demo) -> None:
    assert "task 'push_buton': unknown" in error_line(demo("--task", "push_buton"))


def test_missing_checkpoint_is_rejected(demo: Demo) -> None:
    assert "no checkpoint at /nowhere" in error_line(demo("--checkpoint", "/nowhere"))


def test_truncated_checkpoint_is_rejected(demo: Demo, tmp_path: Path) -> None:
    folder = save_checkpoints(tmp_path / "damaged")
    weights = next((folder / "diffusion_agent" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    error = error_line(demo("--checkpoint", str(folder)))
    assert str(weights) in error and "damaged" in error


@pytest.mark.parametrize(
    "field, value",
    [("views", ["front", "wrist", "right_shoulder", "left_shoulder"]), ("horizon", 10), ("joint_names", ["a", "b"])],
)
def test_mismatched_checkpoints_are_rejected(demo: Demo, tmp_path: Path, field: str, value: object) -> None:
    folder = save_checkpoints(tmp_path / "other")
    file = folder / "diffusion_agent" / "genima.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    error = error_line(demo("--checkpoint", str(folder)))
    assert "specifications differ" in error and field in error


def test_unwritable_output_folder_is_rejected(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot write run" in error_line(demo("--out", str(tmp_path / "file" / "out")))


def test_full_disk_leaves_no_partial_report(tmp_path: Path) -> None:
    script = f"""
import signal, sys
from pathlib import Path
from genima.errors import GenimaError
from genima_cli.demo_report import Report
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    Report(["push_button"], 10).write(Path({str(tmp_path)!r}) / "report.json")
except GenimaError as error:
    sys.exit(str(error))
"""

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    result = subprocess.run([sys.executable, "-c", script], preexec_fn=limit_file_size, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("cannot write") and len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_report_without_measurements_is_valid_json(tmp_path: Path) -> None:
    Report(["push_button"], 10, interrupted=True).write(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["successes"] == 0
