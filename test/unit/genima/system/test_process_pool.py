"""Tests of worker processes: they end with the process that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from genima.errors import GenimaError
from genima.system.process_pool import WorkerPool

# Two workers that wait for a minute and note when they have cleaned up; the parent notes that they have begun.
PARENT = """
import sys, time
from pathlib import Path
from genima.system.process_pool import WorkerPool

def work(folder):
    (folder / f"begun-{id(object())}").touch()
    try:
        time.sleep(60)
    finally:
        (folder / f"cleaned-{id(object())}").touch()

if __name__ == "__main__":
    with WorkerPool(2) as pool:
        for job in [pool.submit(work, Path(sys.argv[1]) / name) for name in ("a", "b", "a", "b")]:
            job.result()
"""


def square(number: int) -> int:
    return number**2


def die(_: int) -> None:
    os._exit(1)


def test_pool_returns_results() -> None:
    with WorkerPool(2) as pool:
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]


def test_dead_worker_is_one_line_error() -> None:
    with pytest.raises(GenimaError, match="worker process: died"), WorkerPool(1) as pool:
        pool.submit(die, 0).result()


def test_worker_ended_during_start_prints_nothing() -> None:
    script = (
        "import os, signal; from genima.system import process_pool\n"
        "process_pool.end_with_parent = lambda: os.kill(os.getpid(), signal.SIGTERM)\n"
        "process_pool._start_worker(None, ())"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_parent(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    parent = subprocess.Popen([sys.executable, script, tmp_path], stderr=subprocess.PIPE, process_group=0)
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*/begun*"))) < 2:
            assert time.monotonic() < deadline and parent.poll() is None
            time.sleep(0.02)
        workers = psutil.Process(parent.pid).children(recursive=True)
        assert len(workers) >= 2
        if number == signal.SIGINT:  # as a terminal does: to the whole group
            os.killpg(parent.pid, number)
        else:
            parent.send_signal(number)
        parent.wait(30)
        _, remaining = psutil.wait_procs(workers, 30)
        assert not remaining
        assert len(list(tmp_path.glob("*/begun*"))) == len(list(tmp_path.glob("*/cleaned*"))) == 2
        assert b"Process SpawnProcess" not in parent.communicate()[1], "a worker printed a traceback"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()


def _save_at_the_end(folder: Path) -> None:
    def save(*_: object) -> None:
        time.sleep(1.5)  # longer than workers have that save nothing
        (folder / "saved").touch()
        raise SystemExit

    signal.signal(signal.SIGTERM, save)
    (folder / "begun").touch()
    time.sleep(60)


def test_worker_has_time_to_save(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), WorkerPool(1, grace=20.0) as pool:
        pool.submit(_save_at_the_end, tmp_path)
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        begin = time.monotonic()
        raise KeyboardInterrupt
    assert (tmp_path / "saved").exists() and time.monotonic() - begin < 15
