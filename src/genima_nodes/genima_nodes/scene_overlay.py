"""Node: overlay the start of an episode on the camera images, to set up the scene as recorded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image as ImageMessage
from std_srvs.srv import Trigger

from genima.cameras.scene_comparison import MATCH, Comparison, Reference
from genima.data.episodes.frames import first_images
from genima.errors import GenimaError
from genima.inspection.sheet import add_caption, grid
from genima.io.files import atomic_write, backup
from genima.types import Image
from genima_interfaces.msg import SceneDifference
from genima_interfaces.srv import ShowEpisode
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater, TopicStats
from genima_nodes.ros.node_process import MONITOR_NICENESS, node_main
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.services import trigger_callback

_PERIOD = 0.2  # s between checks
_IMAGE_TIMEOUT = 1.0  # s without an image after which a camera counts as stopped
_NO_EPISODE = "no episode; call scene_overlay/show"
_BLANK = (480, 640)  # px, height and width of the image of a view without a reference
_GREY = 127


@dataclass(frozen=True)
class OverlayResult:
    """Overlay of all views at one time."""

    compared: dict[str, Comparison]
    problems: dict[str, str]  # by view, why its image cannot be compared; a missing episode is no problem


class SceneOverlayNode(Node):
    """Comparison five times a second; overlays are drawn only for subscribers."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for parameters out of range, and an episode that cannot be shown.
        """
        super().__init__("scene_overlay", **options)
        self._views = parameters.views(self, parameters.cell(self).views)
        self._match = parameters.number(self, "match", MATCH, 0.0, 1.0, partial(setattr, self, "_match"))
        self._picture = Path(parameters.text(self, "picture", "scene_overlay.png"))
        if self._picture.suffix != ".png":
            raise GenimaError(f"scene_overlay: parameter picture is {str(self._picture)!r}; it must be a .png file")
        self._episode = ""
        self._references: dict[str, Reference] = {}
        if episode := parameters.text(self, "episode", ""):
            self._show(episode)
        self._latest: dict[str, ImageMessage] = {}

        self._diagnostics = DiagnosticUpdater(self)
        self._cost = self._diagnostics.add_latency("comparison")
        self._cameras: dict[str, TopicStats] = {}
        for view in self._views:
            self._cameras[view] = self._diagnostics.add_topic(f"image {view}")
            self._subscribe(view)
        self._status = self.create_publisher(SceneDifference, "scene_overlay/status", qos.STATUS)
        self._view_publishers = {
            view: self.create_publisher(ImageMessage, f"scene_overlay/{view}/image", qos.IMAGE) for view in self._views
        }
        self._sheet_publisher = self.create_publisher(ImageMessage, "scene_overlay/image", qos.IMAGE)
        self.create_service(ShowEpisode, "scene_overlay/show", self._on_show)
        self.create_service(Trigger, "scene_overlay/save", trigger_callback(self._save))
        self.create_timer(_PERIOD, self._compare_latest, clock=STEADY)

    def close(self) -> None:
        """Do nothing: the node has no threads."""

    def _subscribe(self, view: str) -> None:
        def on_image(message: ImageMessage) -> None:
            self._cameras[view].tick()
            self._latest[view] = message

        self.create_subscription(ImageMessage, f"cameras/{view}/color/image_raw", on_image, qos.IMAGE)

    # Episode

    def _on_show(self, request: ShowEpisode.Request, response: ShowEpisode.Response) -> ShowEpisode.Response:
        try:
            self._show(request.folder)
        except GenimaError as error:
            response.message = str(error)
        else:
            response.success, response.message = True, f"scene_overlay: showing {self._episode}"
        return response

    def _show(self, folder: str) -> None:
        if not folder.strip():
            raise GenimaError("scene_overlay/show: no folder; name that of an episode")
        images = first_images(Path(folder))
        if not any(view in images for view in self._views):
            available, views = ", ".join(images), ", ".join(self._views)
            raise GenimaError(f"scene_overlay: episode {folder} has images of {available}, none of {views}")
        self._episode = folder
        self._references = {view: Reference(image) for view, image in images.items()}

    # Images

    def _compare_latest(self) -> None:
        begin = time.monotonic()
        result = self._compare()
        self._cost.add(time.monotonic() - begin)
        for view in self._views:
            self._diagnostics.update_fault(f"view {view}", result.problems.get(view, ""))
        self._publish_status(result)
        for view, publisher in self._view_publishers.items():
            if publisher.get_subscription_count():
                stamp, frame = messages.now(self), ""
                if view in result.compared:
                    header = self._latest[view].header
                    stamp, frame = messages.seconds(header.stamp), header.frame_id
                publisher.publish(messages.image_message(self._draw(view, result), stamp, frame))
        if self._sheet_publisher.get_subscription_count():
            self._sheet_publisher.publish(messages.image_message(self._sheet(result), messages.now(self)))

    def _compare(self) -> OverlayResult:
        result = OverlayResult({}, {})
        for view, camera in self._cameras.items():
            try:
                if camera.age > _IMAGE_TIMEOUT:
                    raise GenimaError(f"no image for {_IMAGE_TIMEOUT:g} s" if camera.total else "no image yet")
                live = messages.image_from(self._latest[view])
                if self._episode and view not in self._references:
                    raise GenimaError(f"not in the episode, which has {', '.join(self._references)}")
                if self._episode:
                    result.compared[view] = self._references[view].compare(live)
            except GenimaError as error:
                result.problems[view] = str(error)
        return result

    def _problem(self, result: OverlayResult) -> str:
        lines = [f"{view}: {line}" for view, line in result.problems.items()]
        return "; ".join(lines if self._episode else [_NO_EPISODE, *lines])

    def _publish_status(self, result: OverlayResult) -> None:
        compared = result.compared
        differences = [compared[view].difference if view in compared else np.nan for view in self._views]
        status = SceneDifference(
            episode=self._episode,
            views=self._views,
            differences=differences,
            matches=all(difference <= self._match for difference in differences),
            problem=self._problem(result),
        )
        stamps = [messages.seconds(self._latest[view].header.stamp) for view in compared]
        status.header.stamp = messages.time_message(min(stamps, default=0.0))
        self._status.publish(status)

    # Output

    def _draw(self, view: str, result: OverlayResult) -> Image:
        if view in result.compared:
            difference = result.compared[view].difference
            verdict = "matches" if difference <= self._match else "differs"
            return add_caption(result.compared[view].overlay(), f"{view} {difference:.2%}: {verdict}")
        reference = self._references.get(view)
        h, w = _BLANK if reference is None else reference.image.shape[:2]
        return add_caption(np.full((h, w, 3), _GREY, np.uint8), f"{view}: {result.problems.get(view, _NO_EPISODE)}")

    def _sheet(self, result: OverlayResult) -> Image:
        return grid([self._draw(view, result) for view in self._views])

    def _save(self) -> str:
        result = self._compare()
        if not result.compared:
            raise GenimaError(f"scene_overlay/save: nothing to save ({self._problem(result)})")
        sheet = cv2.cvtColor(self._sheet(result), cv2.COLOR_RGB2BGR)
        backup(self._picture)  # an earlier overlay, or a file of the user
        atomic_write(self._picture, cv2.imencode(".png", sheet)[1].tobytes())
        return f"saved {self._picture.absolute()}"


main = node_main(SceneOverlayNode, MONITOR_NICENESS)
