"""Parameters of nodes: type, range, read-only or changeable."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rclpy
from domains import free_domain
from rclpy.node import Node
from rclpy.parameter import Parameter
from ros_graph import overrides

from genima.errors import GenimaError
from genima_nodes.ros import parameters

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", autouse=True)
def _ros() -> Iterator[None]:
    rclpy.init(domain_id=free_domain())
    yield
    rclpy.shutdown()


@pytest.fixture
def make() -> Iterator[Callable[..., Node]]:
    """Function that creates a node with parameter overrides, as from the command line."""
    nodes: list[Node] = []

    def node(**given: Any) -> Node:
        nodes.append(Node("tried", parameter_overrides=overrides(**given)))
        return nodes[-1]

    yield node
    for each in nodes:
        each.destroy_node()


@dataclass(frozen=True)
class Settings:
    speed: float = 0.5
    torques: tuple[float, ...] = (1, 2)


DECLARE: dict[str, Callable[[Node], Any]] = {
    "number": lambda node: parameters.number(node, "x", 1.0, 0.5, 2.0),
    "integer": lambda node: parameters.integer(node, "x", 1, 0, 10),
    "optional_number": lambda node: parameters.optional_number(node, "x"),
    "flag": lambda node: parameters.flag(node, "x", True),
    "text": lambda node: parameters.text(node, "x", "usual"),
    "choice": lambda node: parameters.text(node, "x", "a", ("a", "b")),
    "digits": lambda node: parameters.digits(node, "x"),
    "texts": lambda node: parameters.texts(node, "x", ["a"]),
    "numbers": lambda node: parameters.numbers(node, "x", [1.0]),
    "service": lambda node: parameters.service(node, "x"),
    "frame_prefix": lambda node: parameters.frame_prefix(node, "x"),
}
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("number", 2, 2.0),
        ("number", 0.5, 0.5),
        ("integer", 3, 3),
        ("integer", 3.0, 3),
        ("optional_number", True, 1.0),
        ("optional_number", 7, 7.0),
        ("flag", False, False),
        ("text", "", ""),
        ("text", "7", "7"),
        ("choice", "b", "b"),
        ("digits", 12, "12"),
        ("digits", "_012", "_012"),
        ("texts", ["b", "c"], ["b", "c"]),
        ("texts", [], []),
        ("numbers", [1, 2], [1.0, 2.0]),
        ("numbers", [0.5], [0.5]),
        ("service", "robot/recover", "robot/recover"),
        ("frame_prefix", "left_", "left_"),
        ("frame_prefix", "left/", "left/"),
    ],
)
def test_value_is_accepted_and_read_only(make: Callable[..., Node], kind: str, given: Any, value: Any) -> None:
    node = make(x=given)
    assert DECLARE[kind](node) == value
    (result,) = node.set_parameters([Parameter("x", value=given)])
    assert not result.successful and "read-only" in result.reason
    assert node.describe_parameter("x").read_only
    assert not parameters.unknown(node)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *(("number", value) for value in ("fast", True, NAN, INF, -INF, 0.4, 2.1, [1.0], "1.0")),
        *(("integer", value) for value in (2.5, NAN, INF, -1, 11, 1e20, "3", True)),
        *(("optional_number", value) for value in ("much", NAN, INF, [1])),
        *(("flag", value) for value in ("yes", 1, 0.0, [True])),
        *(("text", value) for value in (7, 0.5, True, ["a"], "x" * 5000)),
        *(("choice", value) for value in ("c", "", 1)),
        *(("digits", value) for value in (1.5, True, ["1"])),
        *(("texts", value) for value in ("front", [1, 2], 3, [True])),
        *(("numbers", value) for value in ("1", [NAN], ["a"], 1.0, [True], [INF])),
        *(("service", value) for value in ("a-b", "a//b", 5)),
        *(("frame_prefix", value) for value in ("a b", "-", 5)),
    ],
)
def test_invalid_value_is_rejected_in_one_line(make: Callable[..., Node], kind: str, given: Any) -> None:
    with pytest.raises(GenimaError, match="^tried: parameter x") as error:
        DECLARE[kind](make(x=given))
    assert str(error.value).isprintable() and len(str(error.value)) < 300


def test_changeable_number_keeps_its_range(make: Callable[..., Node]) -> None:
    node, seen = make(), []
    assert parameters.number(node, "x", 1.0, 0.5, 2.0, seen.append) == 1.0
    parameters.text(node, "other", "")
    for value, taken in ((1.5, True), (3.0, False), (NAN, False), ("fast", False), (0.5, True)):
        (result,) = node.set_parameters([Parameter("x", value=value)])
        assert result.successful == taken
    assert seen == [1.5, 0.5]


def test_change_is_applied_to_its_attribute(make: Callable[..., Node]) -> None:
    class Target:
        low = high = 0.0

    node, target = make(), Target()
    for name in ("low", "high"):
        parameters.number(node, name, 1.0, apply=partial(setattr, target, name))
    node.set_parameters([Parameter("high", value=7.0)])
    assert (target.low, target.high) == (0.0, 7.0)


def test_settings_dataclass_is_declared(make: Callable[..., Node]) -> None:
    assert parameters.settings(make(), Settings()) == Settings()
    found = parameters.settings(make(speed=1, torques=[3.0, 4.0]), Settings())
    assert found == Settings(1.0, (3.0, 4.0))


@pytest.mark.parametrize("given", [["left-shoulder"], ["front", "front"], [], ["front", ""], "front"])
def test_invalid_views_are_rejected(make: Callable[..., Node], given: Any) -> None:
    with pytest.raises(GenimaError, match="^tried: parameter views"):
        parameters.views(make(views=given), ["wrist"])


def test_empty_view_needs_empty_default(make: Callable[..., Node]) -> None:
    assert parameters.view(make(view=""), "") == ""
    for given in ("", "left-shoulder", "a/b"):
        with pytest.raises(GenimaError, match="^tried: parameter view"):
            parameters.view(make(view=given))


def test_misspelt_parameter_is_reported(make: Callable[..., Node]) -> None:
    node = make(rate=50.0, raet=100.0)
    parameters.rate(node)
    assert parameters.unknown(node) == ["raet"]


def test_all_parameters_are_declared_through_module() -> None:
    """Parameters that are declared directly are neither typed nor read-only."""
    for file in (ROOT / "src").rglob("*.py"):
        if file.name == "parameters.py" or "build" in file.parts:
            continue
        for call in (node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Attribute)):
            assert call.attr not in ("declare_parameter", "declare_parameters"), f"{file}:{call.lineno}"
