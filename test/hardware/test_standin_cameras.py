"""Stand-in for realsense2_camera: topics, frames and depth as of the real driver."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from ros_graph import Graph
from sensor_msgs.msg import CameraInfo, Image
from standins import interfaces
from std_srvs.srv import SetBool
from tf2_msgs.msg import TFMessage

from genima.cameras.frame_tree import FrameTree
from genima.robot.model import RobotModel
from genima_nodes.camera_transforms import _STATIC_SUBSCRIBER
from genima_nodes.ros import messages, qos
from genima_nodes.ros.transform_messages import transform_from
from genima_sim.simulation import Simulation

SERIALS = {"front": "01", "wrist": "02"}


@pytest.fixture
def start_cameras(graph: Graph, simulation: Simulation) -> Iterator[Callable[..., Any]]:
    """Function that starts the camera drivers."""
    interfaces.provide()
    from standins.realsense import RealSenseDrivers

    started = []

    def start(**options: Any) -> Any:
        started.append(RealSenseDrivers(graph.probe, simulation, simulation.qpos, 10.0, SERIALS, **options))
        return started[-1]

    yield start
    for drivers in started:
        drivers.close()


def topics(graph: Graph, view: str) -> set[str]:
    start = f"/cameras/{view}/"
    published = dict(graph.probe.get_publisher_names_and_types_by_node("probe", ""))
    return {name.removeprefix(start) for name in published if name.startswith(start)}


def test_camera_publishes_as_driver(graph: Graph, start_cameras: Callable[..., Any]) -> None:
    interfaces.provide()
    from realsense2_camera_msgs.msg import Metadata

    kinds = {"color/image_raw": Image, "color/camera_info": CameraInfo, "color/metadata": Metadata}
    received = {topic: graph.subscribe(kind, f"cameras/front/{topic}", qos.IMAGE) for topic, kind in kinds.items()}
    frames = graph.subscribe(TFMessage, "/tf_static", _STATIC_SUBSCRIBER)
    start_cameras()
    graph.until(lambda: all(received.values()) and frames, "no images or frames")
    assert topics(graph, "front") == set(kinds), "depth is published without being enabled"
    graph.until(lambda: len(received["color/metadata"]) > 3, "no further metadata")
    images, infos, metadata = (list(topic_messages) for topic_messages in received.values())
    assert {message.header.frame_id for message in (*images, *infos, *metadata)} == {"front_color_optical_frame"}
    assert (images[0].encoding, images[0].width) == ("rgb8", infos[0].width)
    stamps = {messages.seconds(message.header.stamp) for message in images}
    before, values = (json.loads(message.json_data) for message in metadata[:2])
    stamp = messages.seconds(metadata[1].header.stamp)
    assert stamp in stamps and values["frame_timestamp"] / 1e3 == pytest.approx(stamp, abs=1e-5)
    assert values["clock_domain"] == "global_time" and values["frame_number"] > before["frame_number"]
    tree = {t.child_frame_id: t.header.frame_id for t in frames[-1].transforms if t.child_frame_id.startswith("front")}
    assert tree == {"front_color_frame": "front_link", "front_color_optical_frame": "front_color_frame"}


def test_depth_equals_distance_to_table(
    graph: Graph, start_cameras: Callable[..., Any], simulation: Simulation, robot: RobotModel
) -> None:
    images = graph.subscribe(Image, "cameras/front/depth/image_rect_raw", qos.IMAGE)
    frames = graph.subscribe(TFMessage, "/tf_static", _STATIC_SUBSCRIBER)
    start_cameras(depth=True)
    graph.until(lambda: images and frames, "no depth images")
    assert topics(graph, "front") == {
        f"{stream}/{name}"
        for stream, image in (("color", "image_raw"), ("depth", "image_rect_raw"))
        for name in (image, "camera_info", "metadata")
    }
    image = images[-1]
    assert (image.encoding, image.header.frame_id) == ("16UC1", "front_depth_optical_frame")
    depth = 1e-3 * np.frombuffer(image.data, "<u2").reshape(image.height, image.width)

    camera, tree = simulation.cameras["front"], FrameTree()
    for transform in frames[-1].transforms:
        tree.add(transform.header.frame_id, transform.child_frame_id, transform_from(transform))
    T_color_depth = np.linalg.inv(tree.T("front_link", "front_color_optical_frame")) @ tree.T(
        "front_link", "front_depth_optical_frame"
    )
    T_base_depth = camera.T_base_camera(robot, robot.home) @ T_color_depth
    v, u = np.mgrid[: camera.height, : camera.width] + 0.5
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], axis=-1)
    directions = rays @ T_base_depth[:3, :3].T
    expected = -T_base_depth[2, 3] / directions[..., 2]  # to z = 0, along the optical axis
    points = T_base_depth[:3, 3] + expected[..., None] * directions
    table = (expected > 0) & (np.abs(points[..., 0] - 0.5) < 0.6) & (np.abs(points[..., 1]) < 0.65)
    error = np.abs(depth - expected)[table]
    assert np.mean(error < 2e-3) > 0.5 and table.sum() > 1000  # robot and objects cover the rest


def test_unplugged_camera_does_not_publish_until_reconnected(graph: Graph, start_cameras: Callable[..., Any]) -> None:
    images = graph.subscribe(Image, "cameras/wrist/color/image_raw", qos.IMAGE)
    others = graph.subscribe(Image, "cameras/front/color/image_raw", qos.IMAGE)
    frames = graph.subscribe(TFMessage, "/tf_static", _STATIC_SUBSCRIBER)
    start_cameras()
    graph.until(lambda: images and others, "no images")
    graph.call(SetBool, "cameras/wrist/standin/unplug", SetBool.Request(data=True))
    graph.until(lambda: not topics(graph, "wrist"), "the topics remain")
    wrist_count, front_count, frame_count = len(images), len(others), len(frames)
    graph.until(lambda: len(others) > front_count + 2, "the other camera does not publish")
    assert len(images) <= wrist_count + 1  # one may have been in transit
    graph.call(SetBool, "cameras/wrist/standin/unplug", SetBool.Request(data=False))
    graph.until(lambda: len(images) > wrist_count + 3 and len(frames) > frame_count, "the camera is not reconnected")


def test_missing_serial_number_has_no_topics(graph: Graph, start_cameras: Callable[..., Any]) -> None:
    others = graph.subscribe(Image, "cameras/front/color/image_raw", qos.IMAGE)
    start_cameras(plugged_in={"01"})
    graph.until(lambda: len(others) > 2, "no images")
    assert topics(graph, "front") and not topics(graph, "wrist")


def test_lost_images_are_missing_in_frame_numbers(graph: Graph, start_cameras: Callable[..., Any]) -> None:
    interfaces.provide()
    from realsense2_camera_msgs.msg import Metadata

    received = graph.subscribe(Metadata, "cameras/front/color/metadata", qos.COMMAND_LOG)
    start_cameras(lost=0.5)
    graph.until(lambda: len(received) > 8, "no images")
    numbers = [json.loads(message.json_data)["frame_number"] for message in received]
    assert np.all(np.diff(numbers) > 0) and np.any(np.diff(numbers) > 1)
