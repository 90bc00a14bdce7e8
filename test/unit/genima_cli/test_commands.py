"""All commands of ./genima: help pages, limits of options, locales, imports from the current folder."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import outcome

from genima_bringup.node_specs import NodeSpec
from genima_calibration import commands as calibrate
from genima_cli import COMMANDS, episodes
from genima_cli.completion import candidates
from genima_cli.supervisor import _command
from genima_cli.train import COMMANDS as TRAIN_COMMANDS

ROOT = Path(__file__).resolve().parents[3]
HEAVY = {
    "torch", "cv2", "mujoco", "pyarrow", "rclpy", "scipy", "av", "diffusers", "transformers", "ruckig", "OpenGL",
    "matplotlib", "mcap", "datasets", "PIL",
}  # fmt: skip
PAGES = [
    *([name] for name, command in COMMANDS.items() if command.function),
    *(["calibrate", name] for name in (*calibrate.COMMANDS, ".")),
    *(["episodes", name] for name in episodes.COMMANDS),
    *(["train", name] for name in TRAIN_COMMANDS),
]
GROUPS = ("calibrate", "episodes", "train", "test", "completion")  # pages without a table of options
C_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, timeout=120)


# ----------------------------------------------------------------------------------------------------------------- help


def test_help_page_has_light_imports_and_example() -> None:
    """Show all pages in one process: modules accumulate, so that a heavy import of any page is found."""
    code = (
        "import contextlib, io, json, sys\n"
        "from genima_cli.__main__ import main\n"
        "found = {}\n"
        "for page in json.loads(sys.argv[1]):\n"
        "    text = io.StringIO()\n"
        "    with contextlib.redirect_stdout(text):\n"
        "        try:\n"
        "            code = main([*page, '--help'])\n"
        "        except SystemExit as leaving:\n"
        "            code = leaving.code\n"
        "    found[' '.join(page)] = [code or 0, text.getvalue(), sorted({m.split('.')[0] for m in sys.modules})]\n"
        "print(json.dumps(found))"
    )
    result = run(sys.executable, "-P", "-c", code, json.dumps(PAGES))
    assert result.returncode == 0, result.stderr
    for page, (code_of, text, modules) in json.loads(result.stdout).items():
        assert code_of == 0, page
        assert not HEAVY & set(modules), f"./genima {page} --help imports {HEAVY & set(modules)}"
        assert "usage: ./genima" in text, page
        assert "./genima " in text.partition("Example:")[2], f"./genima {page} --help has no example"


def test_eval_rejects_unfit_checkpoint_before_slow_imports() -> None:
    code = "import sys; from genima_cli.__main__ import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    result = run(sys.executable, "-P", "-c", code, "eval", "--task", "push_button", "--cell", "sim_fr3")
    assert result.stdout.split() == [b"2", b"False"] and b"was trained for joints" in result.stderr


@pytest.mark.parametrize("page", PAGES, ids=" ".join)
def test_help_example_is_valid(page: list[str]) -> None:
    """The example belongs to the command of the page."""
    if page[-1] in GROUPS:
        pytest.skip("a group of commands")
    example = next(line for line in outcome(*page, "--help")[1].splitlines() if "Example:" in line)
    assert example.split("Example: ")[1].startswith(f"./genima {' '.join(page).rstrip(' .')}")


@pytest.mark.parametrize(("words", "expected"), [
    ([], {"demo", "completion", "--version"}),
    (["de"], {"demo"}),
    (["demo", "--ov"], {"--overwrite", "--sampling.steps", "--help"}),
    (["teleop", "--leader", ""], {"expert", "keyboard", "gamepad"}),
    (["episodes", ""], {"list", "import-rlbench"}),
    (["train", ""], {"tiny", "controller"}),
    (["episodes", "export", "x", "--"], {"--out"}),
])  # fmt: skip
def test_completion_has_commands_options_and_choices(words: list[str], expected: set[str]) -> None:
    assert expected <= set(candidates(words))


def test_completion_script_works_in_bash() -> None:
    script = (
        "source <(./genima completion bash); COMP_WORDS=(./genima demo --ov); COMP_CWORD=2; _genima; "
        'echo "${COMPREPLY[@]}"'
    )
    assert run("bash", "-c", script).stdout == b"--overwrite\n"
    assert outcome("completion", "fish")[0] == 2


# -------------------------------------------------------------------------------------------------------------- limits

NUMBERS = {
    "demo": ["--episodes", "--seed", "--time-limit", "--port", "--sampling.steps", "--sampling.strength"],
    "eval --task push_button": [
        "--episodes", "--seed", "--time-limit", "--port", "--threads", "--horizon", "--latency", "--ensemble",
        "--sampling.controlnet-every",
    ],
    "faults": ["--seed"],
    "real --cell x": ["--sampling.steps", "--sampling.strength"],
    "task go": ["--time-limit", "--patience"],
    "call stop": ["--patience"],
    "teleop": ["--episodes", "--seed"],
    "record": ["--episodes", "--seed", "--workers", "--camera-rate"],
    "doctor": ["--seconds"],
    "episodes replay x": ["--speed", "--seed"],
}  # fmt: skip


@pytest.mark.parametrize("columns", ["1", "5"])
def test_help_page_on_narrow_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, text = outcome("demo", "--help")
    assert code == 0 and "--time-limit" in text
    assert os.environ["COLUMNS"] == columns


@pytest.mark.parametrize("command", NUMBERS)
def test_numbers_out_of_range_are_rejected_first(command: str) -> None:
    for option in NUMBERS[command]:
        for value in ("nan", "inf", "-inf", "1e400", "100000000000000000000", "-1000", "1" * 5000, "x", ""):
            code, output = outcome(*command.split(), option, value)
            assert code == 2, (option, value, output)
            assert option.lstrip("-") in output and "Traceback" not in output, (option, value, output)


# ------------------------------------------------------------------------------------------------------------- locales


@pytest.mark.parametrize(
    "encoding",
    [
        {},
        pytest.param({"PYTHONIOENCODING": "latin-1"}, marks=pytest.mark.nightly),
    ],
    ids=["ascii", "latin-1"],
)
@pytest.mark.parametrize("arguments", [
    "--help", "--version", "trian", "demo --help", "episodes --help", "episodes list ü-ß-机", "demo --out ü",
    "demo --task drücken", "eval --task 机", "call x", "task", "faults --only ü", "calibrate ü", "inspect ü",
])  # fmt: skip
def test_non_ascii_text_works_in_any_locale(tmp_path: Path, arguments: str, encoding: dict[str, str]) -> None:
    (tmp_path / "ü").mkdir()
    (tmp_path / "ü/日本.txt").write_text("ä", encoding="utf-8")
    command = [sys.executable, "-P", "-m", "genima_cli", *arguments.split()]
    result = run(*command, cwd=tmp_path, **C_LOCALE, **encoding)
    assert result.returncode in (0, 2) and b"Traceback" not in result.stderr, result.stderr


def test_text_files_have_explicit_encoding() -> None:
    """The default encoding is the locale's."""
    missing = []
    files = [*ROOT.glob("src/**/*.py"), *ROOT.glob("benchmarks/*.py")]
    assert len(files) > 200
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _lacks_encoding(node):
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:80]}")
    assert not missing


def _lacks_encoding(call: ast.Call) -> bool:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords:
        return False
    name, texts = ast.unparse(call.func), [each.value for each in call.args if isinstance(each, ast.Constant)]
    if isinstance(mode := keywords.get("mode"), ast.Constant):
        texts.append(mode.value)
    if name.endswith((".read_text", ".write_text")):
        return "utf-8" not in texts
    if name in ("subprocess.run", "subprocess.Popen", "subprocess.check_output"):
        return bool(keywords.keys() & {"text", "universal_newlines"})
    if name == "open":
        return not any("b" in str(text) for text in texts) and not isinstance(call.args[1], ast.IfExp)
    if name.endswith(".open") and name.split(".")[0] not in ("av", "os", "Image", "Picture", "PIL", "Pillow"):
        return any(isinstance(text, str) and text and set(text) <= set("rwaxt+") for text in texts)
    return False


# ------------------------------------------------------------------------------------------- the current folder's code


@pytest.fixture
def hostile_folder(tmp_path: Path) -> Path:
    """Folder with modules that write a file when they are imported."""
    for name in ("tyro", "inspect", "json", "numpy", "sitecustomize", "usercustomize", "torch", "rclpy", "genima_sim"):
        text = f"open({str(tmp_path / 'executed')!r}, 'a').write({name!r})\nraise SystemExit({name!r})\n"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return tmp_path


QUICK_COMMANDS = ["--help", "trian", "record --help"]
LATE_IMPORTS = ["inspect .", "episodes list ."]  # with the libraries that take seconds to import


@pytest.mark.parametrize(("commands", "path"), [
    ([*QUICK_COMMANDS, *LATE_IMPORTS], {}),
    *((QUICK_COMMANDS, {"PYTHONPATH": path}) for path in ("", ":")),
    ([*QUICK_COMMANDS, "episodes list ."], {"PYTHONPATH": "."}),
    *(pytest.param(LATE_IMPORTS, {"PYTHONPATH": path}, marks=pytest.mark.nightly) for path in ("", ":", ".")),
])  # fmt: skip
def test_commands_import_nothing_from_current_folder(
    hostile_folder: Path, commands: list[str], path: dict[str, str]
) -> None:
    for arguments in map(str.split, commands):
        result = run(ROOT / "genima", *arguments, cwd=hostile_folder, **path)
        assert not (hostile_folder / "executed").exists(), (
            arguments,
            (hostile_folder / "executed").read_text(encoding="utf-8"),
        )
        assert result.returncode in (0, 2) and b"Traceback" not in result.stderr, result.stderr


def test_nodes_and_workers_import_nothing_from_current_folder(hostile_folder: Path) -> None:
    node = _command(NodeSpec("genima_nodes", "command_guard", {"cell": "nowhere.yaml"}))
    result = run(*node, cwd=hostile_folder)
    assert b"nowhere.yaml" in result.stdout + result.stderr
    script = "from genima.system.process_pool import WorkerPool\n"
    script += "with WorkerPool(1) as pool: print(pool.submit(abs, -3).result())"
    result = run(sys.executable, "-P", "-c", script, cwd=hostile_folder)
    assert result.stdout == b"3\n", result.stderr
    assert not (hostile_folder / "executed").exists()


# ------------------------------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.nightly
@pytest.mark.parametrize("command", ["inspect models/tiny", "eval --task push_button", "record --lockstep --out OUT"])
def test_ctrl_c_during_imports_has_no_traceback(tmp_path: Path, command: str) -> None:
    """The interpreter's start, some 50 ms before our first line, has its own message."""
    argv = [str(tmp_path) if word == "OUT" else word for word in command.split()]
    for seconds in (0.15, 0.4, 0.8, 1.6):
        code = f"import genima_cli; print(flush=True); from genima_cli.__main__ import end, main; end(main({argv}))"
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(seconds)
        begin = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        # While the interpreter exits, the signal has its default action.
        interrupted = process.returncode in (0, 130, -signal.SIGINT)
        assert b"Traceback" not in errors and interrupted, (seconds, process.returncode, errors)
        assert time.monotonic() - begin < 20  # s; about 2 on a quiet machine


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ({}, "starting"),
        ({"policy": "cameras: silent"}, "cameras: silent"),
        ({"policy": ""}, ""),
        ({"diffusion_agent": "silent", "policy": ""}, ""),
    ],
)
def test_one_of_two_policies_suffices(reports: dict[str, str], expected: str) -> None:
    from genima_cli.graph_client import GraphClient

    client: Any = SimpleNamespace(statuses=reports, problem=reports.get)
    assert GraphClient._startup_problem(client, ("diffusion_agent", "policy")) == expected
