"""Entry script and command line on a machine without an environment."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from genima import __version__
from genima.errors import GenimaError
from genima_cli import COMMANDS
from genima_cli.__main__ import main

ROOT = Path(__file__).resolve().parents[3]
ROS = re.compile(r"(rclpy|\w+_interfaces|ament_\w+|launch|launch_ros|tf2_ros|cv_bridge|\w+_msgs|\w+_srvs)$")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=60)


def executable(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def source_tree(tmp_path: Path) -> Path:
    """Copy of the source tree as after a clone, without an environment."""
    tree = tmp_path / "tree"
    copy_tree(tree)
    return tree


def copy_tree(tree: Path) -> None:
    (tree / "src").mkdir(parents=True)
    for name in ("genima", "requirements.lock", "src/genima_interfaces"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tree / name)
    shutil.copytree(ROOT / "src/genima_cli/genima_cli", tree / "src/genima_cli/genima_cli")
    shutil.copytree(ROOT / "src/genima/genima/system", tree / "src/genima/genima/system")
    for name in ("__init__.py", "errors.py"):
        shutil.copy(ROOT / "src/genima/genima" / name, tree / "src/genima/genima" / name)


@pytest.fixture
def stub(tmp_path: Path) -> Callable[[str, str], str]:
    """Function that replaces a program by a script; returns the PATH to use."""
    folder = tmp_path / "stubs"
    folder.mkdir(exist_ok=True)

    def put(program: str, script: str) -> str:
        executable(folder / program, script)
        # This Python replaces a supported one, wherever it is installed.
        executable(folder / "python3", f'exec "{Path(sys.base_prefix) / "bin" / "python3"}" "$@"')
        return f"{folder}:/usr/bin:/bin"

    return put


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_commands_without_set_up(source_tree: Path, arguments: list[str]) -> None:
    result = run(source_tree / "genima", *arguments)
    assert result.returncode == 0, result.stderr
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.help)}$", result.stdout, re.MULTILINE)
    assert not (source_tree / ".venv").exists()


def test_help_lists_commands_without_python(source_tree: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "readlink", "dirname", "sed", "env"):
        (tools / name).symlink_to(shutil.which(name) or name)
    result = run(source_tree / "genima", "--help", PATH=str(tools))
    assert [line.split(":")[0].strip() for line in result.stdout.splitlines()] == list(COMMANDS)


@pytest.mark.parametrize(
    "setting",
    ["HOME=/nowhere", "INSPECT=1", "MALLOC=none", "IOENCODING=none", "HASHSEED=none", "STARTUP=x.py", "OPTIMIZE=2"],
)
def test_python_environment_variables_are_ignored(source_tree: Path, setting: str) -> None:
    name, _, value = f"PYTHON{setting}".partition("=")
    result = run(source_tree / "genima", "--version", **{name: value})
    assert (result.returncode, result.stdout, result.stderr) == (0, f"genima {__version__}\n", "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_accepted(source_tree: Path, closed: str) -> None:
    for argument, code in (("--help", 0), ("trian", 2)):
        result = run("/bin/bash", "-c", f'"$0" {argument} {closed}', source_tree / "genima")
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr


def test_check_requires_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 2
    assert capsys.readouterr().err.startswith("genima: error: --check: unknown command")


def test_uncreatable_environment_is_reported_in_one_line(source_tree: Path) -> None:
    result = run(source_tree / "genima", "setup", GENIMA_VENV="/proc/x")
    assert result.returncode == 2 and result.stderr.startswith("genima: error: ") and result.stderr.count("\n") == 1


def test_help_imports_only_standard_library() -> None:
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT / 'src' / name) for name in ('genima', 'genima_cli')]!r}\n"
        "from genima_cli.__main__ import main\n"
        "assert main(['--help']) == 0\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "print(names - set(sys.stdlib_module_names) - {'__main__', 'genima_cli'})"
    )
    result = run(Path(sys.base_prefix) / "bin/python3", "-S", "-E", "-c", code)
    assert result.stdout.splitlines()[-1] == "{'genima'}", result.stderr


def test_unknown_command_is_one_line_without_set_up(source_tree: Path) -> None:
    result = run(source_tree / "genima", "recrod")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "genima: error: recrod: unknown command; did you mean record?\n"
    assert not (source_tree / ".venv").exists()


def test_user_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> object:
        def run_command(argv: list[str]) -> int:
            raise error

        return type("Module", (), {"main": staticmethod(run_command)})

    monkeypatch.setattr(importlib, "import_module", lambda name: fail(GenimaError("no such task")))
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "genima: error: no such task\n"
    monkeypatch.setattr(importlib, "import_module", lambda name: fail(KeyboardInterrupt()))
    assert main(["demo"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.function])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = main([name, "--help"])
    except SystemExit as error:  # argparse and tyro leave by themselves
        code = error.code
    assert code in (0, None)
    assert "usage" in capsys.readouterr().out.lower()


def test_library_never_imports_ros() -> None:
    for path in sorted((ROOT / "src/genima").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.append(node.module)
            assert not [name for name in names if ROS.match(name.split(".")[0])], f"{path}: {names}"


def test_missing_system_packages_are_reported_with_command(source_tree: Path, stub: Callable[[str, str], str]) -> None:
    stub("ldconfig", "exit 0")  # lists no libraries
    stub("apt-get", "echo apt-get was run; exit 1")
    result = run(source_tree / "genima", "setup", PATH=stub("id", "echo 1000"))
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(
        r"genima: error: system packages are missing\. "
        r"Run: sudo apt-get install -y --no-install-recommends [a-z0-9.+ -]*libegl1 libopengl0[a-z0-9. -]*\n",
        result.stderr,
    )


def test_system_packages_are_installed_as_root(
    source_tree: Path, stub: Callable[[str, str], str], tmp_path: Path
) -> None:
    stub("ldconfig", "exit 0")
    calls, folders = tmp_path / "calls", tmp_path / "places"
    answer = '[ "$1" = update ] || { echo "E: Unable to locate it"; exit 100; }'
    stub("apt-get", f'echo "$@" >>{calls}; pwd >>{folders}; {answer}')
    result = run(source_tree / "genima", "setup", PATH=stub("id", "echo 0"))
    update, install = calls.read_text().splitlines()
    assert update == "update"
    assert re.fullmatch(r"install -y --no-install-recommends .*libegl1 libopengl0.*", install)
    # The set-up's tools do not import from the user's current folder.
    assert set(folders.read_text().splitlines()) == {str(source_tree.resolve())}
    assert result.returncode == 2
    assert "E: Unable to locate it" in result.stderr and str(source_tree / ".venv/setup.log") in result.stderr


def test_version_needs_no_set_up(source_tree: Path) -> None:
    assert run(source_tree / "genima", "--version").stdout == f"genima {__version__}\n"
    assert not (source_tree / ".venv").exists()


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(("make", "expected"), [
    (lambda venv: (venv / "mine").touch(), "was not made by ./genima"),
    (lambda venv: (venv / "bin/python").symlink_to("/nowhere/python3"), "its interpreter /nowhere/python3 is missing"),
    (lambda venv: executable(venv / "bin/python", "exit 1"), "does not run"),
    (lambda venv: executable(venv / "bin/python", 'case "$*" in *version_info*) exit 1; esac'), "is not 3.11 to 3.13"),
], ids=["foreign", "missing", "broken", "old"])  # fmt: skip
def test_unusable_environment_is_kept(
    source_tree: Path, stub: Callable[[str, str], str], make: Callable[[Path], None], expected: str
) -> None:
    venv = source_tree / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "added by the user").touch()
    if expected != "was not made by ./genima":
        (venv / "made_by_genima").touch()
    make(venv)
    before = contents(venv)
    result = run(source_tree / "genima", "setup")
    assert result.returncode == 2 and contents(venv) == before
    assert expected in result.stderr and len(result.stderr.splitlines()) == 1
    assert f"mv '{venv}' '{venv}'.old; ./genima setup" in result.stderr  # and the remedy works
    venv.rename(f"{venv}.old")
    stub("ldconfig", "exit 0")
    assert "system packages are missing" in run(source_tree / "genima", "setup", PATH=stub("id", "echo 1000")).stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_environment_of_other_user_is_kept() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        tree = Path(folder)
        copy_tree(tree)
        tree.chmod(0o755)
        for path in tree.rglob("*"):
            path.chmod(0o755)
        hidden = tree / "hidden"
        hidden.mkdir()
        executable(hidden / "python3", "exit 0")
        hidden.chmod(0o700)
        (tree / ".venv/bin").mkdir(parents=True)
        (tree / ".venv/made_by_genima").touch()
        (tree / ".venv/bin/python").symlink_to(hidden / "python3")
        command = [tree / "genima", "setup"]
        result = subprocess.run(command, user=65534, group=65534, extra_groups=[], capture_output=True, text=True)
        assert result.returncode == 2 and (tree / ".venv/bin/python").is_symlink()
        assert "root made it with an interpreter that you may not run" in result.stderr
        assert "GENIMA_VENV" in result.stderr and "mv " not in result.stderr and len(result.stderr.splitlines()) == 1
        shutil.rmtree(tree / ".venv")
        result = subprocess.run(command, user=65534, group=65534, extra_groups=[], capture_output=True, text=True)
        assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
        assert f"cannot write {tree}" in result.stderr and "GENIMA_VENV" in result.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_complete_environment_is_usable_without_write_permission() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        tree = Path(folder)
        copy_tree(tree)
        for package in ("genima", "genima_sim", "genima_nodes", "genima_bringup"):
            for name in ("setup.py", "setup.cfg"):
                (tree / "src" / package).mkdir(exist_ok=True)
                shutil.copy(ROOT / "src" / package / name, tree / "src" / package / name)
        (tree / ".venv/bin").mkdir(parents=True)
        executable(tree / ".venv/bin/python", "exit 0")
        script = (tree / "genima").read_text(encoding="utf-8").split("case ${1:-} in")[0]
        (tree / "functions").write_text(script, encoding="utf-8")
        for path in (tree, *tree.rglob("*")):
            path.chmod(0o755)
        steps = ("make_environment", "build_interfaces", "install_ours")
        begin = f'. "{tree}/functions"; VENV={tree}/.venv; '
        run("bash", "-c", begin + "; ".join(f'state_of {step} >"$VENV/{step}.stamp"' for step in steps))
        for user in (0, 65534):
            command = ["bash", "-c", begin + "is_set_up && echo complete"]
            result = subprocess.run(command, user=user, capture_output=True, timeout=60)
            assert result.stdout == b"complete\n", result.stderr
        (tree / ".venv/install_ours.stamp").write_text("older", encoding="utf-8")
        assert run("bash", "-c", begin + "is_set_up && echo complete").stdout == ""


@pytest.mark.parametrize("name", ["a:b", "a;b", "a\nb", "a$b", "a{b"])
def test_unsupported_folder_name_is_rejected_before_download(source_tree: Path, name: str) -> None:
    tree = source_tree.with_name(name)
    source_tree.rename(tree)
    result = run(tree / "genima", "setup")
    assert result.returncode == 2 and "rename it" in result.stderr
    assert not (tree / ".venv").exists()


def test_only_partial_package_of_set_up_is_removed(source_tree: Path) -> None:
    """Test the function alone: a complete set-up takes minutes."""
    script = (source_tree / "genima").read_text(encoding="utf-8").split("case ${1:-} in")[0]
    (source_tree / "functions").write_text(script, encoding="utf-8")
    packages = source_tree / ".venv/lib/python3.11/site-packages"
    for name in ("numpy-2.0.dist-info", "users_own-1.0.dist-info"):
        (packages / name).mkdir(parents=True)
    (packages / "whole-1.0.dist-info").mkdir()
    (packages / "whole-1.0.dist-info/INSTALLER").write_text("pip")
    old = packages / "scipy-1.0.dist-info"  # older than the interrupted set-up
    old.mkdir()
    os.utime(old, (1, 1))
    command = ['. "$2/functions"; VENV=$1; forget_half_unpacked', "bash", str(source_tree / ".venv"), str(source_tree)]
    run("bash", "-c", *command)
    assert len(list(packages.iterdir())) == 4, "packages are removed without an interrupted set-up"
    (source_tree / ".venv/packages.begun").touch()
    os.utime(source_tree / ".venv/packages.begun", (2, 2))
    result = run("bash", "-c", *command)
    assert not (packages / "numpy-2.0.dist-info").exists(), result.stderr
    assert len(list(packages.iterdir())) == 3


def test_ros2_runs_with_python_of_environment(source_tree: Path, tmp_path: Path) -> None:
    """Launch files import packages of the environment."""
    system, environment = tmp_path / "ros/bin", source_tree / ".venv-jazzy"
    for folder in (system, environment / "bin"):
        folder.mkdir(parents=True)
    executable(system / "ros2", "exit 3")
    executable(environment / "bin/python", 'echo "environment: $*"')
    script = (source_tree / "genima").read_text(encoding="utf-8").split("case ${1:-} in")[0]
    (source_tree / "functions").write_text(script, encoding="utf-8")
    command = [
        '. "$2/functions"; VENV=$1 ROS=jazzy; use_ros2_of_environment',
        "bash",
        str(environment),
        str(source_tree),
    ]
    result = run("bash", "-c", *command, PATH=f"{environment}/bin:{system}:/usr/bin:/bin")
    assert result.returncode == 0, result.stderr
    for _ in range(2):  # a second set-up does not wrap the first one's wrapper
        result = run(environment / "bin/ros2", "launch", "a package")
        assert result.stdout == f"environment: {system}/ros2 launch a package\n"
        run("bash", "-c", *command, PATH=f"{environment}/bin:{system}:/usr/bin:/bin")


def test_other_ros_distribution_is_rejected(source_tree: Path) -> None:
    result = run(source_tree / "genima", "demo", ROS_DISTRO="humble", AMENT_PREFIX_PATH="/opt/ros/humble")
    assert result.returncode == 2
    assert re.fullmatch(r"genima: error: .*'humble'.*'jazzy'.*\n", result.stderr)


def test_unsupported_python_is_reported(source_tree: Path, stub: Callable[[str, str], str]) -> None:
    stub("id", "echo 1000")
    path = stub("ldconfig", "exit 0")
    real = Path(sys.base_prefix) / "bin/python3"
    old = f'case "$*" in --version) echo Python 3.10.12 ;; *"(3, 11)"*) exit 1 ;; *) exec {real} "$@" ;; esac'
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        executable(Path(path.split(":")[0]) / name, old)
    result = run(source_tree / "genima", "setup", PATH=path)
    assert result.returncode == 2
    assert "Python 3.11 to 3.13 is needed; this machine has Python 3.10.12" in result.stderr


def test_lock_file_pins_every_package_exactly() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 100
    assert not [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+", line)]
    assert len({line.split("==")[0] for line in pins}) == len(pins)
