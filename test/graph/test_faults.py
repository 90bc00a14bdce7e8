"""Fault bench: its measurements, and one fault in the whole graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genima.control.jerk_limited_motion import JerkLimitedMotion, MotionLimits
from genima.control.limit_violations import count_violations
from genima.errors import GenimaError
from genima.policy.remote import TOKEN, RemotePolicy, Server
from genima.robot.model import RobotModel
from genima.types import Joints, Observation
from genima_cli.faults import bench as fault_bench
from genima_cli.faults.bench import Result, hold_ms, line, main, rest_ms, table
from genima_cli.faults.injection import Fault, all_faults
from genima_cli.faults.policy_server import PolicyServerProcess
from genima_cli.faults.relays import Record, Relay, remappings
from genima_cli.faults.shifted_clock import build_shifted_clock, set_clock

ROBOTS = [RobotModel.load(name) for name in ("panda", "fr3")]


@pytest.mark.parametrize("robot", ROBOTS, ids=lambda robot: robot.name)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1))
def test_limit_violations_are_counted(robot: RobotModel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    motion = JerkLimitedMotion(MotionLimits.of(robot, 1.0, 1.0, 1.0), 0.02)
    motion.reset(robot.home)
    goal, times, positions = robot.home, [0.0], [robot.home]
    for _ in range(80):
        if rng.random() < 0.1:
            goal = rng.uniform(robot.position_min, robot.position_max)
        for _ in range(periods := int(rng.choice([1, 1, 1, 2, 5]))):  # set-points may be missing
            motion.step_toward(goal, np.zeros(7))
        times.append(times[-1] + 0.02 * periods)
        positions.append(motion.position)
    stamps, kept = np.array(times), np.array(positions)
    assert count_violations(stamps, kept, robot) == 0
    k, joint = int(rng.integers(10, 70)), int(rng.integers(0, 7))
    for wrong in (0.2, -0.2, np.nan, 10.0):
        broken = kept.copy()
        broken[k, joint] += wrong
        assert count_violations(stamps, broken, robot) > 0


def test_stream_restarts_after_gap() -> None:
    robot, step = ROBOTS[0], np.eye(7)[0]
    moving = robot.home + np.arange(0, 1, 0.005)[:, None] * step  # 1 rad/s
    resting = np.repeat(moving[-1:], 50, axis=0)  # the robot stopped
    positions = np.concatenate([moving, resting])
    for gap, breaks in ((0.01, False), (0.11, True)):
        times = np.concatenate([np.arange(200) * 0.005, 0.995 + gap + np.arange(50) * 0.005])
        assert count_violations(times, positions, robot) > 0
        assert (count_violations(times, positions, robot, 0.1) == 0) is breaks
        for k in (100, 225):  # violations before or after the gap still count
            broken = positions.copy()
            broken[k] += 0.01 * step
            assert count_violations(times, broken, robot, 0.1) > 0


def test_rest_time_is_when_set_points_become_constant() -> None:
    times = np.arange(0, 2, 0.02)
    positions = np.zeros((100, 7))
    positions[:, 2] = np.minimum(times, 1.0) * 0.3  # moves until 1 s
    record = Record(times + 50, times, positions)
    assert rest_ms(record, 50.905, 52.0) == pytest.approx(95, abs=0.11)
    assert rest_ms(record, 51.5, 52.0) == 0.0  # at rest already
    assert rest_ms(record, 50.905, 51.05) is None  # not for long enough
    silent = Record(times[:30] + 50, times[:30], positions[:30])  # without set-points the arm stays
    assert rest_ms(silent, 50.5, 52.0) == pytest.approx(80, abs=0.11)


@pytest.mark.parametrize("speed", [0.2, 0.8, 1.5])
@pytest.mark.parametrize("share", [1.0, 0.2])
def test_hold_time_is_start_of_fastest_stop(speed: float, share: float) -> None:
    robot = ROBOTS[0]
    motion = JerkLimitedMotion(MotionLimits.of(robot, 1.0, 1.0, 1.0), 0.02)
    brakes = MotionLimits.of(robot, 1.0, share, 1.0)
    motion.reset(robot.home)
    positions = []
    for k in range(150):  # a fault at 1 s, a stop from 1.1 s on
        if k < 55:
            motion.step_toward(motion.position + 0.02 * speed * np.eye(7)[1], speed * np.eye(7)[1], 0.02)
        else:
            motion.stop(brakes)
        positions.append(motion.position)
    times = 0.02 * np.arange(150)
    record = Record(times, times, np.array(positions))
    hold, rest = hold_ms(record, 1.0, 3.0, robot), rest_ms(record, 1.0, 3.0)
    assert hold is not None and rest is not None
    braking = 1000 * abs(positions[54] - positions[53])[1] / 0.02 / robot.acceleration_max[1]
    if share == 1.0:
        assert hold == pytest.approx(80, abs=25) and rest == pytest.approx(80 + braking, abs=25)
    else:  # a slow stop counts only from the time at which the fastest would have to begin
        assert hold > 100 + 0.6 * (rest - 100 - braking)


@pytest.mark.real_time
def test_relay_forwards_corrupts_drops_and_delays() -> None:
    received: list[str] = []
    relay = Relay(received.append)
    relay("a")
    assert (received, relay.first_fault, relay.last) == (["a"], None, "a")
    relay.fault = lambda message: message.upper()
    relay("b")
    assert received[-1] == "B" and relay.first_fault is not None and relay.last == "a"
    relay.fault = lambda message: None
    relay("c")
    relay.clear_fault()
    relay.delay = 0.05
    relay("d")
    assert received == ["a", "B"]
    time.sleep(0.3)
    relay.clear_fault()
    relay("e")
    assert received == ["a", "B", "d", "e"]


def test_all_documented_faults_are_injected() -> None:
    for policy, more in (("genima", 16), ("expert", 16), ("my_policy", 16), ("remote", 18)):
        names = [fault.name for fault in all_faults(("wrist", "front"), policy)]
        assert len(names) == len(set(names)) == 2 * 4 + more
        assert any(name.startswith("diffusion_agent") for name in names) is (policy == "genima")
        assert ("policy server: stalled for 3 s" in names) is (policy == "remote")
    assert set(remappings("policy", ("wrist",))) == {"action_chunk"}
    assert set(remappings("sim_node", ("wrist",))) == {"joint_states", "cameras/wrist/color/image_raw"}


def test_results_are_formatted_as_line_and_table() -> None:
    faults = ["command_guard: arm: held: malformed"]
    held = Result("controller: NaN", 0, 119.7, 170.2, True, True, "went on", 150, faults)
    moving = Result("clock: 10 s back", 2, None, None, False, False, "went on", 150, [])
    assert line(held) == (
        "controller: NaN: holds after 120 ms, at rest after 170 ms, 0 of 150 set-points over a limit, recovers; "
        "task went on"
    )
    assert table([held, moving]).splitlines()[2:] == [
        "| controller: NaN | 0 of 150 | 120 | 170 | yes | command_guard: arm: held: malformed |",
        "| clock: 10 s back | 2 of 150 | continues | | no |  |",
    ]


def test_invalid_arguments_are_rejected_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"a": 1}')
    for arguments, expected in (
        (["--only", "meteor"], "--only meteor: no such fault; there are: camera wrist: silent"),
        (["--out", str(tmp_path / "other.json")], "was not written by ./genima faults"),
        (["--table", str(tmp_path / "none.md")], "page .* does not exist"),
        (["--checkpoint", "/nowhere"], "no checkpoint at /nowhere"),
        (["--checkpoint", "/nowhere", "--policy", "remote"], "no checkpoint at /nowhere"),
        (["--policy", "none_such"], "policy 'none_such': unknown"),
        (["--policy", "ws://127.0.0.1:9"], "no connection .Connection refused."),
        (["--policy", "expert", "--only", "diffusion_agent"], "--only diffusion_agent: no such fault"),
        (["--seed", "-1"], "--seed -1: must be greater"),
    ):
        with pytest.raises(GenimaError, match=expected) as caught:
            main(arguments)
        assert "\n" not in str(caught.value)


def test_record_is_continued_only_with_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Result("controller: NaN", 0, 119.7, 170.2, True, True, "went on", 150, [])
    runs: list[list[str]] = []

    def run(options: object, cell: object, spec: object, known: object, faults: list[Fault]) -> Iterator[Result]:
        runs.append([fault.name for fault in faults])
        yield from (replace(held, fault=fault.name) for fault in faults)

    monkeypatch.setattr(fault_bench, "_run", run)
    out = str(tmp_path / "faults.json")
    assert main(["--only", "NaN", "--out", out]) == 0
    assert main(["--only", "NaN", "--out", out]) == 0
    assert sorted(map(len, runs)) == [0, 2]  # the second run has nothing to do
    before = Path(out).read_bytes()
    with pytest.raises(GenimaError, match=r"faults.json: of another run \(seed: 0, not 1\); name another --out"):
        main(["--only", "NaN", "--out", out, "--seed", "1"])
    other = json.loads(before)
    other["settings"]["checkpoint_digest"] = "0123"
    Path(out).write_text(json.dumps(other))
    with pytest.raises(GenimaError, match=r"checkpoint_digest: \"0123\", not"):
        main(["--out", out])
    assert main(["--only", "NaN", "--out", out, "--seed", "1", "--overwrite"]) == 0
    assert json.loads(Path(out).read_text())["settings"]["seed"] == 1
    readme = tmp_path / "README.md"
    readme.write_text("mine")
    with pytest.raises(GenimaError, match="was not written by ./genima faults"):
        main(["--out", str(readme), "--overwrite"])
    assert readme.read_text() == "mine"


@pytest.mark.real_time
def test_process_clock_can_be_shifted(tmp_path: Path) -> None:
    file, environment = build_shifted_clock(tmp_path)
    program = (
        "import time as t; a, b = t.time(), t.monotonic(); print(flush=True); input(); "
        "print(t.time() - a, t.monotonic() - b)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | environment, stdin=-1, stdout=-1, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()  # it has read both clocks
    set_clock(file, -30.25)
    output, _ = process.communicate("\n", timeout=60)
    wall, monotonic = map(float, output.split())
    assert wall - monotonic == pytest.approx(-30.25, abs=0.01)


@pytest.mark.nightly  # daily: test_nodes.py stalls a server of a policy node
@pytest.mark.real_time
def test_stalled_policy_server_holds_arm(tmp_path: Path) -> None:
    """Run the whole graph, with the bundled models behind a server that stalls for 3 s while the arm moves."""
    out = tmp_path / "faults.json"
    command = [
        sys.executable,
        "-m",
        "genima_cli",
        "faults",
        "--policy",
        "remote",
        "--only",
        "stalled",
        "--out",
        str(out),
    ]
    environment = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    print(result.stdout, result.stderr)
    assert result.returncode == 0
    (record,) = json.loads(out.read_text())["faults"]
    assert record["fault"] == "policy server: stalled for 3 s" and record["recovered"] is True
    assert record["limit_violations"] == 0 and record["hold_ms"] < 150
    assert any("no reply within 1 s" in message for message in record["reported"])


@pytest.mark.nightly
@pytest.mark.real_time
def test_policy_server_process_is_stalled_and_killed(tmp_path: Path) -> None:
    with PolicyServerProcess(["expert"], tmp_path / "server.log") as server:
        policy = RemotePolicy(Server(server.address), server.environment[TOKEN])
        images = {view: np.zeros((256, 256, 3), np.uint8) for view in policy.spec.views}
        seen = Observation(0.0, images, Joints(0.0, ROBOTS[0].home, 1.0), "none")
        with pytest.raises(GenimaError, match="error .policy expert: instruction of no task"):
            policy.predict_chunk(seen)
        server.pause()
        with pytest.raises(GenimaError, match="no reply"):
            policy.predict_chunk(seen)
        server.resume()
        policy.timeout = 60.0
        policy.require_ready()
        assert policy.rejected == 1
        server.kill()
        address = server.address
        server.start()
        assert server.address == address
        policy._reconnect_at = 0.0
        policy.require_ready()
        policy.close()


def test_policy_server_that_does_not_start_is_reported(tmp_path: Path) -> None:
    with pytest.raises(GenimaError, match="policy server: does not listen .*no_such.*; log: "):
        with PolicyServerProcess(["no_such"], tmp_path / "server.log"):
            pass


@pytest.mark.real_time
def test_jumping_controller_is_held_and_recovers(tmp_path: Path) -> None:
    """Run the whole graph with the bundled models."""
    out, page = tmp_path / "faults.json", tmp_path / "safety.md"
    page.write_text("before\n<!-- table of faults -->\noutdated\n<!-- end -->\nafter\n")
    command = [sys.executable, "-m", "genima_cli", "faults", "--only", "jumps", "--out", str(out), "--table", str(page)]
    environment = {k: v for k, v in os.environ.items() if k != "ROS_DOMAIN_ID"}
    for attempt in ("measured", "read back"):
        result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
        print(attempt, result.stdout, result.stderr)
        assert result.returncode == 0
    assert "continuing after 1 faults" in result.stdout
    (record,) = json.loads(out.read_text())["faults"]
    assert record["fault"] == "controller: jumps by 1 rad" and record["recovered"] is True
    assert record["limit_violations"] == 0 and record["set_points"] > 50
    assert record["hold_ms"] is not None
    assert any("command jumps away from the set-point" in message for message in record["reported"])
    assert page.read_text().startswith("before\n<!-- table of faults -->\n| fault |")
    assert page.read_text().endswith("<!-- end -->\nafter\n") and "outdated" not in page.read_text()
