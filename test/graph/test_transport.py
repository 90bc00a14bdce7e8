"""512x512 tiles between two processes over the demo's transport."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tile_transport import READER, SENDER, TILES

from genima_cli import supervisor
from genima_cli.supervisor import remove_stale_shared_memory
from genima_nodes.ros.ros_environment import ros_environment

pytestmark = pytest.mark.real_time


# every other tile is random, the rest are of one value: some transport settings damage some contents


def test_no_tile_is_lost() -> None:
    environment = os.environ | ros_environment()
    reader = subprocess.Popen([sys.executable, "-c", READER], env=environment, stdout=subprocess.PIPE, text=True)
    sender = subprocess.Popen([sys.executable, "-c", SENDER], env=environment)
    try:
        output, _ = reader.communicate(timeout=90)
        sender.wait(timeout=10)
    finally:
        reader.kill()
        sender.kill()
    result = json.loads(output)
    print(f"latency p50 {result['p50']:.1f} ms, p99 {result['p99']:.1f} ms")
    assert result["seeds"] == list(range(TILES))


def test_only_shared_memory_of_ended_processes_is_removed() -> None:
    script = 'import rclpy, time; rclpy.init(); node = rclpy.create_node("x"); print("up", flush=True); time.sleep(90)'
    environment = os.environ | ros_environment()
    before = segments()
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        mine = segments() - before
        assert mine
        for segment in mine:
            os.utime(segment, (0, 0))  # old enough to be removed
        remove_stale_shared_memory()
        assert mine <= segments()
    finally:
        process.kill()
        process.wait()
    for segment in mine:
        os.utime(segment, (0, 0))
    remove_stale_shared_memory()
    assert not mine & segments()


def segments() -> set[Path]:
    """Return shared memory segments of Fast DDS, without their lock files."""
    return {file for file in Path("/dev/shm").glob("fast*_*") if not file.name.endswith(("_el", "_sl"))}


def test_other_shared_memory_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_SHARED_MEMORY", tmp_path)
    stale, held, young, foreign, mine = (
        tmp_path / name
        for name in (f"fastdds_{'a' * 16}", f"fastdds_{'b' * 16}", f"fastdds_{'c' * 16}", "fastdds_notes", "fast_food")
    )
    for file in (stale, held, young, foreign, mine):
        file.write_bytes(b"x")
        if file != young:
            os.utime(file, (0, 0))
    lock = held.with_name(f"{held.name}_el")
    with open(lock, "w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with monkeypatch.context() as other:
            other.setattr(supervisor.os, "getuid", lambda: os.geteuid() + 1)
            remove_stale_shared_memory()
        assert stale.exists()  # another user's
        remove_stale_shared_memory()
    assert {file.name for file in tmp_path.iterdir()} == {f.name for f in (held, lock, young, foreign, mine)}
