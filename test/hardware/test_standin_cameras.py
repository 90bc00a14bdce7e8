"""The stand-in for realsense2_camera: what it shows is what the driver shows, and true."""

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
def film(graph: Graph, simulation: Simulation) -> Iterator[Callable[..., Any]]:
    """Starts the cameras."""
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


def test_a_camera_shows_what_the_driver_shows(graph: Graph, film: Callable[..., Any]) -> None:
    interfaces.provide()
    from realsense2_camera_msgs.msg import Metadata

    kinds = {"color/image_raw": Image, "color/camera_info": CameraInfo, "color/metadata": Metadata}
    heard = {topic: graph.subscribe(kind, f"cameras/front/{topic}", qos.IMAGE) for topic, kind in kinds.items()}
    frames = graph.subscribe(TFMessage, "/tf_static", _STATIC_SUBSCRIBER)
    film()
    graph.until(lambda: all(heard.values()) and frames, "no status received")
    assert topics(graph, "front") == set(kinds), "no depth unless it is asked for"
    graph.until(lambda: len(heard["color/metadata"]) > 3, "no more comes")
    images, infos, metadata = (list(said) for said in heard.values())
    assert {message.header.frame_id for message in (*images, *infos, *metadata)} == {"front_color_optical_frame"}
    assert (images[0].encoding, images[0].width) == ("rgb8", infos[0].width)
    stamps = {messages.seconds(message.header.stamp) for message in images}
    before, said = (json.loads(message.json_data) for message in metadata[:2])
    stamp = messages.seconds(metadata[1].header.stamp)
    assert stamp in stamps and said["frame_timestamp"] / 1e3 == pytest.approx(stamp, abs=1e-5)
    assert said["clock_domain"] == "global_time" and said["frame_number"] > before["frame_number"]
    tree = {t.child_frame_id: t.header.frame_id for t in frames[-1].transforms if t.child_frame_id.startswith("front")}
    assert tree == {"front_color_frame": "front_link", "front_color_optical_frame": "front_color_frame"}


def test_depth_is_how_far_the_table_is(
    graph: Graph, film: Callable[..., Any], simulation: Simulation, robot: RobotModel
) -> None:
    images = graph.subscribe(Image, "cameras/front/depth/image_rect_raw", qos.IMAGE)
    frames = graph.subscribe(TFMessage, "/tf_static", _STATIC_SUBSCRIBER)
    film(depth=True)
    graph.until(lambda: images and frames, "there is no depth")
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
    meets = T_base_depth[:3, 3] + expected[..., None] * directions
    table = (expected > 0) & (np.abs(meets[..., 0] - 0.5) < 0.6) & (np.abs(meets[..., 1]) < 0.65)
    error = np.abs(depth - expected)[table]
    assert np.mean(error < 2e-3) > 0.5 and table.sum() > 1000  # robot and objects stand on the rest of it


def test_a_camera_that_is_unplugged_publishes_no_more_until_it_is_back(graph: Graph, film: Callable[..., Any]) -> None:
    images = graph.subscribe(Image, "cameras/wrist/color/image_raw", qos.IMAGE)
    others = graph.subscribe(Image, "cameras/front/color/image_raw", qos.IMAGE)
    frames = graph.subscribe(TFMessage, "/tf_static", _STATIC_SUBSCRIBER)
    film()
    graph.until(lambda: images and others, "nothing comes")
    graph.call(SetBool, "cameras/wrist/standin/unplug", SetBool.Request(data=True))
    graph.until(lambda: not topics(graph, "wrist"), "its topics stay")
    gone, went_on, said = len(images), len(others), len(frames)
    graph.until(lambda: len(others) > went_on + 2, "the other one is gone, too")
    assert len(images) <= gone + 1  # one may have been under way
    graph.call(SetBool, "cameras/wrist/standin/unplug", SetBool.Request(data=False))
    graph.until(lambda: len(images) > gone + 3 and len(frames) > said, "it does not come back")


def test_a_serial_number_that_is_not_there_gives_no_topics(graph: Graph, film: Callable[..., Any]) -> None:
    others = graph.subscribe(Image, "cameras/front/color/image_raw", qos.IMAGE)
    film(plugged_in={"01"})
    graph.until(lambda: len(others) > 2, "nothing comes")
    assert topics(graph, "front") and not topics(graph, "wrist")


def test_images_that_are_lost_are_missing_from_the_numbers(graph: Graph, film: Callable[..., Any]) -> None:
    interfaces.provide()
    from realsense2_camera_msgs.msg import Metadata

    heard = graph.subscribe(Metadata, "cameras/front/color/metadata", qos.COMMAND_LOG)
    film(lost=0.5)
    graph.until(lambda: len(heard) > 8, "nothing comes")
    numbers = [json.loads(message.json_data)["frame_number"] for message in heard]
    assert np.all(np.diff(numbers) > 0) and np.any(np.diff(numbers) > 1)
