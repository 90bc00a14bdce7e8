"""Scene overlay: comparison of the present scene with the start of an episode."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from recorded_messages import compressed, raw, record, table
from ros_graph import Graph, overrides
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from genima.cameras.scene_comparison import LIVE_COLOUR, REFERENCE_COLOUR
from genima.data.episodes.bag import compressed_topic, raw_topic
from genima.errors import GenimaError
from genima.io import paths
from genima_interfaces.msg import SceneDifference
from genima_interfaces.srv import ShowEpisode
from genima_nodes.ros import messages, qos
from genima_nodes.scene_overlay import SceneOverlayNode

VIEWS = ("front", "wrist")
SIZE = 100
CAPTION = 18  # px

pytestmark = pytest.mark.any_pace  # of the nodes


def demo(folder: Path, at: int = 20) -> Path:
    """Record an episode whose object begins at column ``at``, by a raw and by a compressed camera."""
    pictures = [table(at + 5 * i, SIZE) for i in range(3)]
    streams = {
        raw_topic("front"): [raw(i, picture) for i, picture in enumerate(pictures)],
        compressed_topic("wrist"): [compressed(i, picture) for i, picture in enumerate(pictures)],
    }
    return record(folder, streams)


class OverlayFixture:
    """Two cameras above a table with an object, and the node."""

    def __init__(self, graph: Graph, folder: Path, **parameters: object) -> None:
        self.graph = graph
        values = {"views": list(VIEWS), "picture": str(folder / "saved" / "overlay.png")} | parameters
        graph.add(SceneOverlayNode(parameter_overrides=overrides(**values)))
        self.statuses = graph.subscribe(SceneDifference, "scene_overlay/status", qos.STATUS)
        self._images = {v: graph.publisher(Image, f"cameras/{v}/color/image_raw", qos.IMAGE) for v in VIEWS}
        self.stamp = 0.0

    def publish_images(self, at: int = 20, silent: str = "", size: int = SIZE) -> None:
        """Publish images of the object at a column from all cameras but ``silent``."""
        self.stamp = round(time.time(), 3)
        for view in VIEWS:
            if view != silent:
                self._images[view](messages.image_message(table(at, size), self.stamp, f"{view}_optical"))

    def until(self, condition: Any, otherwise: str, **what: Any) -> SceneDifference:
        """Return the next status for which a condition holds, while the cameras publish."""
        self.statuses.clear()
        self.graph.until(
            lambda: any(map(condition, self.statuses)),
            f"{otherwise}: {self.statuses[-1:]}",
            lambda: self.publish_images(**what),
        )
        return next(filter(condition, self.statuses))

    def show(self, folder: Path | str) -> ShowEpisode.Response:
        return self.graph.call(ShowEpisode, "scene_overlay/show", ShowEpisode.Request(folder=str(folder)))

    def save(self) -> Trigger.Response:
        return self.graph.call(Trigger, "scene_overlay/save", Trigger.Request())


def test_match_when_object_is_at_reference_position(graph: Graph, tmp_path: Path) -> None:
    folder = demo(tmp_path / "one")
    fixture = OverlayFixture(graph, tmp_path, episode=str(folder))
    away = fixture.until(lambda s: not s.problem, "nothing is compared", at=50)
    assert not away.matches and away.episode == str(folder) and list(away.views) == list(VIEWS)
    assert min(away.differences) > 0.05
    nearer = fixture.until(lambda s: max(s.differences) < 0.05, "no smaller difference", at=24)
    assert not nearer.matches and min(nearer.differences) > 0.002
    there = fixture.until(lambda s: s.matches, "no match")
    assert max(there.differences) < 0.002 and not there.problem
    assert abs(messages.seconds(there.header.stamp) - fixture.stamp) < 5
    graph.until(graph.has_no_fault("scene_overlay"), "no OK status", fixture.publish_images)


def test_overlays_are_published_for_subscribers(graph: Graph, tmp_path: Path) -> None:
    fixture = OverlayFixture(graph, tmp_path, episode=str(demo(tmp_path / "one")))
    front = graph.subscribe(Image, "scene_overlay/front/image", qos.IMAGE)
    sheets = graph.subscribe(Image, "scene_overlay/image", qos.IMAGE)

    def drawn(pictures: list[Image]) -> bool:
        return bool(pictures) and (messages.image_from(pictures[-1]) == REFERENCE_COLOUR).all(axis=-1).any()

    graph.until(lambda: drawn(front) and drawn(sheets), "no pictures", lambda: fixture.publish_images(at=50))
    assert front[-1].header.frame_id == "front_optical"
    picture = messages.image_from(front[-1])[CAPTION:]
    assert picture.shape == (SIZE, SIZE, 3)
    for colour, first in ((REFERENCE_COLOUR, 20), (LIVE_COLOUR, 50)):
        assert np.nonzero((picture == colour).all(axis=-1))[1].min() == pytest.approx(first, abs=2)
    sheet = messages.image_from(sheets[-1])
    np.testing.assert_array_equal(sheet[: SIZE + CAPTION, :SIZE], messages.image_from(front[-1]))


def test_show_service_changes_episode(graph: Graph, tmp_path: Path) -> None:
    one, two = demo(tmp_path / "one"), demo(tmp_path / "two", at=50)
    fixture = OverlayFixture(graph, tmp_path)
    status = fixture.until(lambda s: "no image" not in s.problem, "no images received")
    assert "no episode" in status.problem and not status.matches and np.isnan(status.differences).all()
    graph.until(graph.has_no_fault("scene_overlay"), "no episode is a fault", fixture.publish_images)
    assert fixture.show(one).success
    fixture.until(lambda s: s.matches and s.episode == str(one), "the first is not shown")
    assert fixture.show(two).success
    fixture.until(lambda s: not s.problem and not s.matches and s.episode == str(two), "the second is not shown")
    record(tmp_path / "other", {raw_topic("ceiling"): [raw(0, table(20, SIZE))]})
    for folder, expected in (
        ("", "no folder"),
        (tmp_path / "nowhere", "cannot be read"),
        (tmp_path / "other", "has images of ceiling, none of front, wrist"),
    ):
        response = fixture.show(folder)
        assert not response.success and expected in response.message and "\n" not in response.message
    fixture.until(lambda s: s.episode == str(two) and not s.problem, "the episode has changed")


def test_save_service_writes_picture(graph: Graph, tmp_path: Path) -> None:
    fixture = OverlayFixture(graph, tmp_path)
    assert "no episode" in fixture.save().message
    assert fixture.show(demo(tmp_path / "one")).success
    assert "front: no image yet" in fixture.save().message
    fixture.until(lambda s: not s.problem, "nothing is compared", at=50)
    response = fixture.save()
    assert response.success and str(tmp_path / "saved" / "overlay.png") in response.message
    (file,) = (tmp_path / "saved").iterdir()
    picture = cv2.imread(str(file))[..., ::-1]
    assert picture.shape[0] > SIZE and picture.shape[1] > 2 * SIZE
    assert (picture == REFERENCE_COLOUR).all(axis=-1).any() and (picture == LIVE_COLOUR).all(axis=-1).any()
    former = file.read_bytes()
    assert fixture.save().success
    kept = [other for other in file.parent.iterdir() if other != file]
    assert [other.read_bytes() for other in kept] == [former], "the former picture is lost"


def test_picture_parameter_must_be_png(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(GenimaError, match="must be a .png file"):
        OverlayFixture(graph, tmp_path, picture=str(tmp_path / "README.md"))


def test_save_reports_unwritable_picture(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fixture = OverlayFixture(
        graph, tmp_path, episode=str(demo(tmp_path / "one")), picture=str(tmp_path / "file" / "overlay.png")
    )
    fixture.until(lambda s: not s.problem, "nothing is compared")
    response = fixture.save()
    assert not response.success and "cannot write" in response.message


@pytest.mark.parametrize(
    "what, expected",
    [
        ({"silent": "wrist"}, "wrist: no image for 1 s"),
        ({"size": 120}, "front: image: size differs from the episode's (120x120, 100x100)"),
    ],
)
def test_failed_camera_is_reported_and_does_not_match(graph: Graph, tmp_path: Path, what: Any, expected: str) -> None:
    fixture = OverlayFixture(graph, tmp_path, episode=str(demo(tmp_path / "one")))
    fixture.until(lambda s: s.matches, "no match")
    wrist = graph.subscribe(Image, "scene_overlay/wrist/image", qos.IMAGE)
    status = fixture.until(lambda s: expected in s.problem, "problem not reported", **what)
    assert not status.matches and np.isnan(status.differences[1])
    graph.until(
        graph.reports_fault("scene_overlay", expected.split(": ", 1)[1]),
        "no fault",
        lambda: fixture.publish_images(**what),
    )
    wrist.clear()
    graph.until(lambda: len(wrist) > 1, "no picture", lambda: fixture.publish_images(**what))
    picture = messages.image_from(wrist[-1])[CAPTION:]
    assert (picture == picture[0, 0]).all(), "an old picture is shown as if it were new"
    fixture.until(lambda s: s.matches, "no recovery")


def test_view_missing_in_episode_is_reported(graph: Graph, tmp_path: Path) -> None:
    folder = record(tmp_path / "one", {raw_topic("front"): [raw(0, table(20, SIZE))]})
    fixture = OverlayFixture(graph, tmp_path, episode=str(folder))
    status = fixture.until(lambda s: not np.isnan(s.differences[0]), "front is not compared")
    assert "wrist: not in the episode, which has front" in status.problem and not status.matches
    assert status.differences[0] == 0


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"episode": "nowhere"}, "episode nowhere: cannot be read"),
        ({"match": 1.5}, "match is 1.5; it must be a number from 0 to 1"),
        ({"match": "much"}, "match is much"),
    ],
)
def test_invalid_parameters_are_rejected(graph: Graph, tmp_path: Path, changes: Any, expected: str) -> None:
    with pytest.raises(GenimaError, match=expected):
        OverlayFixture(graph, tmp_path, **changes)


def test_rviz_config_shows_published_images(graph: Graph) -> None:
    config = yaml.safe_load(paths.shared("config", "rviz", "scene_reset.rviz").read_text())
    assert set(config) == {"Panels", "Visualization Manager", "Window Geometry"}
    displays = config["Visualization Manager"]["Displays"]
    assert {display["Class"] for display in displays} == {"rviz_default_plugins/Image"}
    assert {display["Topic"]["Reliability Policy"] for display in displays} == {"Reliable"}
    node = graph.add(SceneOverlayNode())
    published = {publisher.topic_name for publisher in node.publishers if publisher.msg_type is Image}
    shown = [display["Topic"]["Value"] for display in displays]
    assert not any(topic.startswith("/") for topic in shown), "not the robot's own, where it has a namespace"
    assert {node.resolve_topic_name(topic) for topic in shown} == published
    assert {display["Name"] for display in displays} <= set(config["Window Geometry"])
