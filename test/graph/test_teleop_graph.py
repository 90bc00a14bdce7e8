"""`./genima teleop`, `record` and `episodes replay` with the simulated robot as separate processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from command import outcome
from terminal import Terminal

from genima.cell import load_cell
from genima.data.episodes import Episode, find_episodes
from genima.robot.model import RobotModel
from genima_bringup.node_specs import leader_follower_nodes, recording_stack, simulator
from genima_cli.supervisor import Supervisor
from genima_nodes.ros.ros_environment import ros_environment
from genima_sim.demo_recorder import DemoRecorder

COMMAND = [sys.executable, "-m", "genima_cli", "teleop"]
REPLAY = [sys.executable, "-m", "genima_cli", "episodes", "replay"]
RECORD = [sys.executable, "-m", "genima_cli", "record"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"} | {"MUJOCO_GL": "egl", "TERM": "xterm"}


FAULTY_TASK = """
from genima_sim.tasks.push_button import PushButton

class Press(PushButton):
    def succeeded(self, state):
        return state.data.time > 0.2 and 1 / 0
"""


def run(command: list[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=ENVIRONMENT | dict(environment or {}),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=200,
    )


@pytest.mark.real_time
def test_expert_leader_completes_task(tmp_path: Path) -> None:
    command = [*COMMAND, "--leader", "expert", "--task", "take_lid_off_saucepan", "--logs", str(tmp_path)]
    done = run(command)
    print(done.stdout, done.stderr, sep="\n")
    assert done.returncode == 0 and "seed 0: done" in done.stdout
    assert "owner: teleop" in (tmp_path / "command_guard.log").read_text()


@pytest.mark.real_time
def test_keyboard_moves_arm(tmp_path: Path) -> None:
    with Terminal([*COMMAND, "--logs", str(tmp_path)], ENVIRONMENT) as terminal:
        terminal.until("space follow or rest")
        terminal.until("MIRRORING")
        terminal.until("MIRRORING", "r")
        terminal.press(" ")
        terminal.until("follower: PAUSED")
        terminal.until("PAUSED, space to continue")
        terminal.press(" ")
        terminal.until("follower: aligning with the leader")
        terminal.until("MIRRORING")
        terminal.press("gn")
        terminal.until("push down")  # the next scene's instruction
        terminal.press("q")
        assert terminal.process.wait(30) == 0


@pytest.mark.nightly
@pytest.mark.real_time
def test_interrupted_expert_recording_is_continued(tmp_path: Path) -> None:
    out = tmp_path / "demos"
    command = [*RECORD, "--sim", "--task", "push_button", "--episodes", "2", "--out", str(out), "--camera-rate", "10"]
    first, second = out / "push_button-100000", out / "push_button-100001"
    (out / ".partial" / first.name).mkdir(parents=True)  # of a killed run
    process = subprocess.Popen(command, env=ENVIRONMENT, text=True)
    deadline = time.monotonic() + 120
    while not (out / ".partial" / second.name).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert first.exists() and not second.exists() and not any((out / ".partial").iterdir())
    recorded_at = first.stat().st_mtime_ns

    done = run(command)
    assert done.returncode == 0 and "2 demos" in done.stdout, done.stderr
    assert first.stat().st_mtime_ns == recorded_at
    robot = RobotModel.load("panda")
    for folder in find_episodes(out):
        episode = Episode.load(folder, robot)
        assert episode.success and episode.instruction == "push down the maroon button" and len(episode) > 30
        assert episode.period == pytest.approx(0.1, abs=0.001)
        assert abs(episode.command_positions - episode.positions).max() < 0.5
    assert run(command).stdout.startswith("2 demos")


@pytest.mark.nightly
@pytest.mark.real_time
def test_error_in_task_code_ends_recording(tmp_path: Path, write_module: Callable[..., Path]) -> None:
    file = write_module("tasks/press.py", FAULTY_TASK)
    command = [*RECORD, "--sim", "--task", "press", "--episodes", "1", "--out", str(tmp_path / "demos")]
    done = run(command, {"GENIMA_PATH": str(tmp_path)})
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and line.startswith("genima: error: sim_node: task: ")
    assert f"task press: Press.succeeded failed (ZeroDivisionError: division by zero); correct {file}" in line


@pytest.mark.real_time
def test_keyboard_records_running_arm(tmp_path: Path) -> None:
    environment = ENVIRONMENT | ros_environment()
    out = tmp_path / "demos"
    keys = [*RECORD, "--instruction", "wave", "--operator", "Ada"]
    with Supervisor(recording_stack(load_cell("sim_panda"), "jog", 10, str(out), "png"), tmp_path, environment):
        with Terminal(keys, environment) as terminal:
            terminal.until("w/s forwards")  # the jog node runs
            terminal.until("b begin to record")
            terminal.press("y")
            terminal.until("not recording")
            terminal.until("deg apart")  # the leader's joints are received
            terminal.press(" ")
            terminal.until("follower: aligning with the leader")
            terminal.until("MIRRORING")
            for key, expected in {"x": ": discarded", "y": ": complete", "z": ": complete"}.items():
                terminal.press("b")
                terminal.until("recording 1 s")
                terminal.press(key)
                terminal.until(expected)
                terminal.discard_output(1.0)  # episodes are named by the second
            terminal.press("b")
            terminal.until("recording 1 s")
            terminal.process.send_signal(signal.SIGINT)
            terminal.until("owner of the follower: none")
            terminal.until(": complete, and not judged")
            assert terminal.process.wait(30) == 130
    demos = [Episode.load(folder, RobotModel.load("panda")) for folder in find_episodes(out)]
    assert {demo.instruction for demo in demos} == {"wave"}
    assert [demo.success for demo in demos] == [True, False, None]


@pytest.mark.real_time
def test_demo_is_replayed_on_running_arm(recorder: DemoRecorder, tmp_path: Path) -> None:
    demo = tmp_path / "push_button-7"
    assert recorder.record(demo, "push_button", 7)
    environment = ENVIRONMENT | ros_environment()
    with Supervisor(
        [*simulator(load_cell("sim_panda")), *leader_follower_nodes(load_cell("sim_panda"))], tmp_path, environment
    ):
        with Terminal([*REPLAY, str(demo)], environment) as terminal:
            terminal.until("p play")
            terminal.press("p")
            terminal.until("follower IDLE")
            terminal.until("deg apart")  # the leader's joints are received
            terminal.press(" ")
            terminal.until("follower: aligning with the leader")
            terminal.until("MIRRORING")
            terminal.press("p")
            terminal.until("leader: playing for ")
            terminal.until("Hz, plays")
            terminal.press(" ")  # keys are handled during the replay
            terminal.until("follower: PAUSED")
            terminal.press("q")
            terminal.until("owner of the follower: none")
            assert terminal.process.wait(30) == 0


@pytest.mark.nightly
@pytest.mark.real_time
def test_demo_is_replayed(recorder: DemoRecorder, tmp_path: Path) -> None:
    demo = tmp_path / "push_button-7"
    assert recorder.record(demo, "push_button", 7)
    done = run([*REPLAY, str(demo), "--sim", "--speed", "0.7"])
    assert done.returncode == 0 and "push_button-7: done after" in done.stdout, done.stderr
    other_task = run([*REPLAY, str(demo), "--sim", "--task", "take_lid_off_saucepan"])
    assert other_task.returncode == 1 and "push_button-7: not done" in other_task.stdout, other_task.stderr
    demo = demo.rename(tmp_path / "mine")
    for arguments, expected in {
        (): "needs a terminal",
        ("--sim",): "unknown scene",
        ("--sim", "--speed", "2"): "--speed 2.0: must be less than or equal to 1",
    }.items():
        rejected = run([*REPLAY, str(demo), *arguments])
        assert rejected.returncode == 2 and expected in rejected.stderr


@pytest.mark.parametrize(
    "command, expected",
    [
        ("teleop --leader keyboard", "needs a terminal"),
        ("teleop --leader expert --episodes 0", "--episodes 0: must be greater"),
        ("teleop --leader expert --task juggle", "juggle"),
        ("record", "give --instruction"),
        ("record --instruction wave", "needs a terminal"),
        ("record --sim --leader gamepad", "needs a terminal"),
        ("record --sim --task juggle", "juggle"),
        ("record --lockstep --episodes 0", "--episodes 0: must be greater"),
    ],
)
def test_invalid_arguments_are_rejected_in_one_line(
    command: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, text = outcome(*command.split())
    assert code == 2 and expected in text and len(text.strip().splitlines()) == 1
