"""Node that publishes RViz markers of policy and robot on `rviz_markers`.

It shows the spheres at the decoded joints of the latest chunk's end, the path of the tip, and the nodes' problems as
text above the arm.
"""

from __future__ import annotations

import time

from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Point, Vector3
from numpy.typing import NDArray
from rclpy.node import Node
from std_msgs.msg import ColorRGBA
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import Marker, MarkerArray

from genima.cameras.calibration_file import Frames
from genima.errors import GenimaError
from genima.policy.spec import read_pair
from genima.robot.model import RobotModel
from genima.types import ActionChunk
from genima_nodes.ros import parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import FILMING_NICENESS, node_main
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.trajectory_messages import chunk_from

_SHOWN = 1  # s: spheres without a new chunk are removed
_TELL = 0.5  # s between updates of the nodes' problems
_SILENT = 3.0  # s after which a node's last status is outdated
_LINE, _LETTERS = 0.006, 0.06  # m: the way's width, the height of an A
_WORDS_AT = 1.25  # m above the base
_LONGEST = 160  # characters of a problem


class RvizMarkersNode(Node):
    """Draws only for subscribers."""

    def __init__(self, **options: object) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for a checkpoint that cannot be read.
        """
        super().__init__("rviz_markers", **options)  # type: ignore[arg-type]
        spec, _ = read_pair(parameters.text(self, "checkpoint", ""))
        self._robot = RobotModel.load(spec.robot)
        self._frame = parameters.text(self, "frame", Frames.of(self._robot, "base", "").parent)
        self._appearance = spec.appearance
        self._radius = min(spec.appearance.radii.values())  # larger ones, of cameras far away, would hide the arm
        self._problems: dict[str, tuple[float, str]] = {}  # by node: monotonic s, problem; empty without one
        self._diagnostics = DiagnosticUpdater(self)
        self._chunks = self._diagnostics.add_topic("action_chunk")
        self._publisher = self.create_publisher(MarkerArray, "rviz_markers", qos.STATUS)
        self.create_subscription(JointTrajectory, "action_chunk", self._on_chunk, qos.DRAWN_TARGET)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.STATUS)
        self.create_timer(_TELL, self._publish_problems, clock=STEADY)

    def close(self) -> None:
        """Stop; there are no threads."""

    @property
    def _watched(self) -> bool:
        return self._publisher.get_subscription_count() > 0

    def _on_chunk(self, message: JointTrajectory) -> None:
        self._chunks.tick()
        if not self._watched:
            return
        try:
            chunk = chunk_from(message, self._robot)
        except GenimaError as error:
            self._chunks.drop()
            self._diagnostics.set_fault("action_chunk", str(error))
            return
        self._diagnostics.clear_fault("action_chunk")
        self._publisher.publish(MarkerArray(markers=[*self._spheres(chunk), self._tip_path(chunk)]))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            wrong = status.level != DiagnosticStatus.OK
            self._problems[status.name] = time.monotonic(), str(status.message) if wrong else ""

    def _spheres(self, chunk: ActionChunk) -> list[Marker]:
        poses = self._robot.link_poses(chunk.positions[-1])
        markers = []
        for number, sphere in enumerate(self._appearance.spheres):
            closing = chunk.gripper[-1] < 0.5 and sphere.closed_colour is not None
            red, green, blue = sphere.closed_colour if closing and sphere.closed_colour else sphere.colour
            marker = self._marker("targets", number, Marker.SPHERE, ColorRGBA(r=red / 255, g=green / 255, b=blue / 255))
            marker.pose.position = _point(poses[sphere.frame, :3, 3])
            marker.scale = Vector3(x=2 * self._radius, y=2 * self._radius, z=2 * self._radius)
            markers.append(marker)
        return markers

    def _tip_path(self, chunk: ActionChunk) -> Marker:
        marker = self._marker("way of the tip", 0, Marker.LINE_STRIP, ColorRGBA(r=1.0, g=1.0, b=1.0))
        marker.scale.x = _LINE
        marker.points = [_point(place) for place in self._robot.link_poses(chunk.positions)[:, -1, :3, 3]]
        return marker

    def _publish_problems(self) -> None:
        if not self._watched:
            return
        now = time.monotonic()
        heard = {name: words for name, (at, words) in self._problems.items() if now - at < _SILENT}
        complaints = [f"{name}: {words}"[:_LONGEST] for name, words in sorted(heard.items()) if words]
        marker = self._marker("diagnostics", 0, Marker.TEXT_VIEW_FACING, ColorRGBA(r=1.0, g=0.35, b=0.2))
        marker.text = "\n".join(complaints) or "all fine"
        marker.pose.position.z = _WORDS_AT
        marker.scale.z = _LETTERS
        if not complaints:
            marker.color = ColorRGBA(r=0.4, g=0.9, b=0.4)
        marker.color.a = 1.0
        self._publisher.publish(MarkerArray(markers=[marker]))

    def _marker(self, kind: str, number: int, shape: int, colour: ColorRGBA) -> Marker:
        """Return an unstamped marker: RViz then takes the latest transform."""
        colour.a = 0.7
        marker = Marker(ns=kind, id=number, type=shape, color=colour, lifetime=Duration(sec=_SHOWN))
        marker.header.frame_id = self._frame
        marker.pose.orientation.w = 1.0
        return marker


def _point(place: NDArray) -> Point:
    x, y, z = map(float, place)
    return Point(x=x, y=y, z=z)


main = node_main(RvizMarkersNode, FILMING_NICENESS)
