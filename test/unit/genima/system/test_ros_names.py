"""Tests of names for ROS topics: names that ROS rejects are rejected on reading."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from rclpy.exceptions import InvalidNamespaceException, InvalidTopicNameException
from rclpy.validate_namespace import validate_namespace
from rclpy.validate_node_name import validate_node_name
from rclpy.validate_topic_name import validate_topic_name

from genima.errors import GenimaError
from genima.io.files import validate
from genima.system.ros_names import RosName, require_namespace, require_ros_name, require_topic

WRONG = ["left-shoulder", "left shoulder", "1st", "", "a.b", "a/b", "ä", "a\n", "x" * 101, "~a", "{node}", "\x1b[31m"]


@pytest.mark.parametrize("name", ["front", "left_shoulder", "Wrist2", "a__b"])
def test_valid_ros_names(name: str) -> None:
    assert require_ros_name(name, "view") == name
    assert validate_node_name(name) and validate_topic_name(f"cameras/{name}/image_raw")


@pytest.mark.parametrize("name", [*WRONG, 5, None, True, ["front"]])
def test_invalid_ros_names_are_one_line_errors(name: object) -> None:
    with pytest.raises(GenimaError, match="^view: ") as error:
        require_ros_name(name, "view")
    assert str(error.value).isprintable()


@pytest.mark.parametrize("name", ["", "/", "left", "/left", "cell/left", "/cell/left_2"])
def test_valid_namespaces(name: str) -> None:
    assert require_namespace(name) == name
    assert validate_namespace(name if name.startswith("/") else f"/{name}")


@pytest.mark.parametrize("name", ["left-arm", "left/", "//", "a//b", "1", "/2nd", "a b", "~", "ä", "left\n", "x" * 101])
def test_invalid_namespaces(name: str) -> None:
    with pytest.raises(GenimaError, match="^namespace: "):
        require_namespace(name)
    if len(name) <= 100:
        with pytest.raises(InvalidNamespaceException):
            validate_namespace(name if name.startswith("/") else f"/{name}")


def test_topics() -> None:
    for name in ("image_raw", "/a/b", "~/status", "a/b"):
        assert require_topic(name, "topic") == name
        validate_topic_name(name)
    for name in ("", "/", "a-b", "a/", "~", "~a", "a//b", "a/1b"):
        with pytest.raises(GenimaError, match="^topic: "):
            require_topic(name, "topic")
    with pytest.raises(InvalidTopicNameException):
        validate_topic_name("a-b")


def test_error_proposes_valid_name() -> None:
    with pytest.raises(GenimaError, match="for example left_shoulder$"):
        require_ros_name("left-shoulder", "view")


def test_schema_field() -> None:
    class Schema(BaseModel):
        view: RosName

    assert validate(Schema, {"view": "front"}, "file").view == "front"
    with pytest.raises(GenimaError, match="file: view: ROS does not allow"):
        validate(Schema, {"view": "left-shoulder"}, "file")
