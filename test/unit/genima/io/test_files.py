"""Tests of reading files with limits and a schema, and of atomic writing."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import pytest
from mutation import mutated_bytes, require_clean
from pydantic import Field

from genima.errors import GenimaError
from genima.io.files import FileSchema, Positive, atomic_write, load_yaml, parse_json, parse_yaml, read_text, read_yaml
from genima.io.outputs import output_folder, output_lock
from genima.system.command_line import parse_options
from genima.system.terminal import printable


class Sphere(FileSchema):
    name: str
    radius: Positive


class Scene(FileSchema):
    spheres: list[Sphere]


VALID = "spheres:\n- {name: a, radius: 1}\n- {name: b, radius: 0.5}\n"


def load(path: Path, text: str) -> Scene:
    path.write_text(text)
    return load_yaml(Scene, path, "scene")


def test_valid_yaml_is_read_and_integers_count_as_floats(tmp_path: Path) -> None:
    assert load(tmp_path / "a.yaml", VALID) == Scene(
        spheres=[Sphere(name="a", radius=1.0), Sphere(name="b", radius=0.5)]
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (VALID.replace("0.5", ".inf"), r"spheres.1.radius: .*finite.* \(inf\)"),
        (VALID.replace("0.5", "'0.5'"), "spheres.1.radius: .*number"),
        (VALID.replace("0.5", "-1"), r"greater than 0 \(-1\)"),
        (VALID.replace("0.5", "2024-01-01"), r"number \('2024-01-01'\)"),
        (VALID.replace("0.5", "9" * 6000), "not YAML"),
        (VALID.replace("name: b", "name: 5"), "spheres.1.name: .*string"),
        (VALID.replace("name: b", "colour: b"), "spheres.1.name: Field required; spheres.1.colour: Extra inputs"),
        (VALID + "spheres: []\n", "key 'spheres' appears twice"),
        ("a: &a {x: 1}\nspheres:\n- <<: *a\n", "merge keys"),
        ("[" * 50_000, "nested too deeply"),
        ("a: " * 3000, "not YAML"),
        ("&a [*a]", "nested more than"),
        ("\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else '0'] * 9)}]" for i in range(12)), "more than"),
        ("spheres: !!python/object/apply:os.system [exit 3]", "could not determine a constructor"),
        ("x" * 2_000_000, "too large"),
        ("", "a.yaml: .*"),
    ],
    ids=itertools.count(),  # some texts are huge
)
def test_malformed_yaml_is_one_line_within_seconds(tmp_path: Path, text: str, problem: str) -> None:
    start = time.process_time()
    with pytest.raises(GenimaError, match=problem) as caught:
        load(tmp_path / "a.yaml", text)
    assert time.process_time() - start < 10
    assert "a.yaml" in str(caught.value) and len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ['{"a": NaN}', '{"a": Infinity}', '{"a": 1, "a": 2}', "[" * 100_000, '{"a": ' + "9" * 6000 + "}", "", "{"],
    ids=itertools.count(),
)
def test_malformed_json_is_one_line(text: str) -> None:
    with pytest.raises(GenimaError, match="^manifest: "):
        parse_json(text, "manifest")


def test_mutated_bytes_raise_no_unexpected_error(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for data in mutated_bytes(VALID.encode(), 1000):
        path.write_bytes(data)
        require_clean(lambda: load_yaml(Scene, path, "scene"), data)


def test_files_are_utf8_in_any_locale(tmp_path: Path) -> None:
    path = tmp_path / "ü.yaml"
    path.write_bytes("# Käfig\na: ü\n".encode())
    script = "import sys; from genima.io.files import read_yaml, Path; print(ascii(read_yaml(Path(sys.argv[1]), 'x')))"
    for locale in ("C", "POSIX", "en_US.ISO-8859-1"):
        environment = os.environ | {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run([sys.executable, "-c", script, path], env=environment, capture_output=True, text=True)
        assert done.stdout == "{'a': '\\xfc'}\n", done.stderr
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(GenimaError, match="not UTF-8"):
        read_text(path, "file")


def test_only_regular_files_are_accepted(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.yaml")  # reading it would wait forever
    for name in ("fifo.yaml", ".", "missing.yaml"):
        with pytest.raises(GenimaError):
            read_yaml(tmp_path / name, "file")
    with pytest.raises(GenimaError):
        read_yaml(Path("a\x00b"), "file")


def test_dates_stay_text() -> None:
    assert parse_yaml("a: 2024-01-01\nb: 2024-01-01T10:00:00Z", "x") == {"a": "2024-01-01", "b": "2024-01-01T10:00:00Z"}


def test_atomic_write_leaves_nothing_half_written(tmp_path: Path) -> None:
    atomic_write(tmp_path / "new" / "a", b"1")
    atomic_write(tmp_path / "new" / "a", b"2")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]
    assert (tmp_path / "new" / "a").read_bytes() == b"2"
    with pytest.raises(GenimaError):
        atomic_write(tmp_path / "new" / "a" / "b", b"")


# ----------------------------------------------------------------------------------------------------------- outputs


def is_ours(path: Path) -> bool:
    return (path / "ours").exists()


def write(path: Path, text: str, **options: bool) -> None:
    with output_folder(path, "report", is_ours=is_ours, **options) as folder:
        (folder / "ours").write_text(text)


def test_output_is_atomic(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with pytest.raises(KeyError), output_folder(out, "report") as folder:
        (folder / "half").write_text("")
        raise KeyError
    assert list(out.parent.iterdir()) == []
    write(out, "1")
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_existing_output_is_replaced_only_with_overwrite_and_only_its_own_kind(tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    write(out, "1")
    with pytest.raises(GenimaError, match="--overwrite"):
        write(out, "2")
    write(out, "3", overwrite=True)
    assert (out / "ours").read_text() == "3"
    other.mkdir()
    (other / "thesis.tex").write_text("years")
    for options in ({}, {"overwrite": True}):
        with pytest.raises(GenimaError, match="already exists and is not one"):
            write(other, "4", **options)
    link = tmp_path / "link"
    link.symlink_to(out)
    with pytest.raises(GenimaError, match="already exists"):
        write(link, "5", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "other", "out"]
    assert (other / "thesis.tex").read_text() == "years"


def test_leftovers_of_killed_process_are_removed(tmp_path: Path) -> None:
    for name in (".out.abc.partial", ".out.mine.partial", "out.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / ".out.lock").write_text(".out.abc.partial")  # as a killed process leaves it
    with output_folder(tmp_path / "out", "report"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.mine.partial", "out", "out.partial"]
    for name in ("../x.partial", "", "out.partial", ".out./../mine.partial"):
        (tmp_path / ".out.lock").write_text(name)
        with output_folder(tmp_path / "out", "report", overwrite=True, is_ours=lambda path: True):
            pass
        assert (tmp_path / "out.partial").is_dir() and (tmp_path / ".out.mine.partial").is_dir()


def test_concurrent_writers_of_output_are_rejected(tmp_path: Path) -> None:
    with output_lock(tmp_path / "out", "report"):
        with pytest.raises(GenimaError, match="another process is writing it"):
            write(tmp_path / "out", "1")
    write(tmp_path / "out", "1")


@pytest.mark.parametrize("path", [".", "..", "/", "/proc/nothing/here"])
def test_output_path_must_be_new(path: str) -> None:
    with pytest.raises(GenimaError):
        write(Path(path), "1", overwrite=True)


# --------------------------------------------------------------------------------------------------- options, terminal


@dataclasses.dataclass
class Options:
    """Do something."""

    rate: Annotated[float, Field(gt=0, le=1000)] = 20.0
    """Actions a second."""
    gripper_range: tuple[float, float] | None = None
    """Closed and open."""


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("--rate nan", "--rate nan: must be a finite number"),
        ("--rate 1e6", "--rate 1000000.0: must be less than or equal to 1000"),
        ("--rate 0", "--rate 0.0: must be greater than 0"),
        ("--gripper-range nan 1", "--gripper-range nan 1.0: must be a finite number"),
    ],
)
def test_numbers_are_checked_where_they_are_parsed(arguments: str, problem: str) -> None:
    with pytest.raises(GenimaError, match=problem):
        parse_options(Options, "genima x", arguments.split())


def test_escape_codes_are_removed_from_terminal_output() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed é漢") == "a\\x1b[2Jb\\nc\\u202ed é漢"
