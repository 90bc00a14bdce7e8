"""Tests of the latency benchmark: trace events and their assignment to observations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import latency
import numpy as np
import pytest
from domains import free_domain
from latency import CHUNK, COMMAND, DRAWN, IMAGES, SET_POINT, STAGES, TARGET, Trace

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"

DELAYS = 1e-3 * np.array([31, 2, 95, 3, 12, 9, 1, 4, 0.5, 0.3, 0.7])  # s of each stage
NODE = """
import rclpy
from sensor_msgs.msg import JointState
rclpy.init()
node = rclpy.create_node("node")
received = []
node.create_subscription(JointState, "here", received.append, 1)
node.create_subscription(JointState, "elsewhere", received.append, 1)
publishers = [node.create_publisher(JointState, name, 1) for name in ("here", "elsewhere")]
message = JointState()
message.header.stamp.sec, message.header.stamp.nanosec = 3, 7
while len(received) < 4:
    for publisher in publishers:
        publisher.publish(message)
    rclpy.spin_once(node, timeout_sec=0.05)
rclpy.shutdown()
"""


def write_trace(folder: Path, exposures: np.ndarray, offset: float, lost: tuple[str, str, str] | None = None) -> None:
    """Traces of observations that took :data:`DELAYS`; ``lost`` is an event that the second one lacks."""
    lines: dict[str, list[tuple[float, str, str, float]]] = {}

    def note(program: str, event: str, topic: str, moment: float, stamp: float, number: int) -> None:
        if lost != (program, event, topic) or number != 1:
            lines.setdefault(program, []).append((moment, event, topic, stamp + offset))

    for number, exposed in enumerate(exposures):
        at = exposed + np.cumsum(DELAYS)
        for topic in IMAGES:
            note("hardware", "publish", topic, at[0] - 1e-3 * (topic != IMAGES[-1]), exposed, number)
            note("diffusion_agent", "callback", topic, at[1] - 1e-3 * (topic != IMAGES[0]), exposed, number)
        note("diffusion_agent", "publish", DRAWN, at[2], exposed, number)
        note("controller", "callback", DRAWN, at[3], exposed, number)
        note("controller", "publish", CHUNK, at[4], exposed, number)
        before, due = at[4] - 0.001, at[4] + 0.008  # the commands' deadlines around the chunk
        note("controller", "publish", COMMAND, before + 0.001, before, number)
        note("controller", "publish", COMMAND, at[5], due, number)
        note("command_guard", "callback", COMMAND, at[6], due, number)
        early, then = at[6] - 0.002, at[6] + 0.003
        note("command_guard", "publish", SET_POINT, early + 0.001, early, number)
        note("command_guard", "publish", SET_POINT, at[7], then, number)
        note("arm_adapter", "callback", SET_POINT, at[8], then, number)
        note("arm_adapter", "publish", TARGET, at[9], then, number)
        note("hardware", "callback", TARGET, at[10], then, number)
    for program, events in lines.items():
        text = "".join(f"{round(1e9 * m)} {event} {topic} {round(1e9 * stamp)}\n" for m, event, topic, stamp in events)
        (folder / f"{program}-77.trace").write_text(text)


def test_observation_is_traced_through_all_stages(tmp_path: Path) -> None:
    exposures, offset = 100.0 + 0.2 * np.arange(5), 1.7e9
    write_trace(tmp_path, exposures, offset)
    traces = latency.read(tmp_path, offset)
    stamps = traces["diffusion_agent", "publish", DRAWN].stamps
    np.testing.assert_allclose(stamps, exposures, atol=1e-6)
    for stamp in stamps:
        stages = latency.follow(traces, stamp)
        assert stages is not None
        np.testing.assert_allclose(stages, DELAYS, atol=2e-6)


@pytest.mark.parametrize(
    "lost",
    [
        ("hardware", "publish", IMAGES[2]),
        ("controller", "callback", DRAWN),
        ("controller", "publish", CHUNK),
        ("command_guard", "callback", COMMAND),
        ("hardware", "callback", TARGET),
    ],
)
def test_lost_messages_are_not_counted(tmp_path: Path, lost: tuple[str, str, str]) -> None:
    exposures = 100.0 + 0.2 * np.arange(3)
    write_trace(tmp_path, exposures, 0.0, lost)
    traces = latency.read(tmp_path, 0.0)
    followed = [latency.follow(traces, stamp) is not None for stamp in exposures]
    assert followed == [True, False, True]


def test_first_later_message_is_found() -> None:
    trace = Trace([1.1, 1.2, 1.3], [1.0, 1.15, 1.25])
    assert trace.due_after(1.1) == (1.2, 1.15)
    assert trace.due_after(1.3) is None
    assert (trace.of(1.15), trace.of(1.2)) == (1.2, None)


def test_table_and_plot_have_every_stage(tmp_path: Path) -> None:
    stages = np.random.default_rng(0).uniform(0.5, 1.5, (200, 1)) * DELAYS
    rows = latency.table(stages).splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:-1]] == list(STAGES)
    total = 1e3 * np.percentile(stages.sum(axis=1), [50, 99])
    assert rows[-1] == f"| **all** | {total[0]:.1f} | {total[1]:.1f} | 100% |"
    latency.plot(stages, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_tracing_records_publications_and_callbacks(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(NODE)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(BENCHMARKS / "tracing"), os.environ.get("PYTHONPATH", "")]),
        "GENIMA_TRACE": str(tmp_path),
        "GENIMA_TRACED": "/here",
        "ROS_DOMAIN_ID": str(free_domain()),
    }
    subprocess.run([sys.executable, tmp_path / "program.py"], env=os.environ | environment, check=True, timeout=120)
    (file,) = tmp_path.glob("program-*.trace")
    lines = [line.split() for line in file.read_text().splitlines()]
    times = [int(now) for now, *_ in lines]
    assert {event for _, event, *_ in lines} == {"publish", "callback"}
    assert {(topic, stamp) for *_, topic, stamp in lines} == {("/here", str(3 * 10**9 + 7))}
    assert times == sorted(times) and lines[0][1] == "publish"
