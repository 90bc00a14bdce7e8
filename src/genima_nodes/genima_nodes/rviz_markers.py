"""Node: publish RViz markers of policy and robot on `rviz_markers`.

Spheres at the joints of the newest chunk's last action, the path of the tip, and the nodes' faults as text above the
arm.
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
from genima.policy.names import GENIMA
from genima.policy.spec import read_policy
from genima.types import ActionChunk
from genima_nodes.ros import parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import MONITOR_NICENESS, node_main
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.trajectory_messages import chunk_from

_LIFETIME = 1  # s after which spheres without a new chunk are removed
_TEXT_PERIOD = 0.5  # s between updates of the nodes' faults
_STALE = 3.0  # s after which a node's last status is outdated
_LINE_WIDTH, _TEXT_HEIGHT = 0.006, 0.06  # m: of the path; of a capital letter
_TEXT_POSITION = 1.25  # m above the base
_MAX_LENGTH = 160  # characters of a fault


class RvizMarkersNode(Node):
    """Publisher of markers while there is a subscriber."""

    def __init__(self, **options: object) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for a cell or a checkpoint that cannot be read, and spheres at frames that the robot lacks.
        """
        super().__init__("rviz_markers", **options)  # type: ignore[arg-type]
        appearance = read_policy(parameters.text(self, "checkpoint", "") or GENIMA).spec.appearance
        self._robot = parameters.cell(self).robot
        appearance.require_frames(self._robot)
        self._frame = parameters.text(self, "frame", Frames.of(self._robot, "base", "").parent)
        self._appearance = appearance
        self._radius = min(appearance.radii.values())  # the larger radii of distant cameras would hide the arm
        self._faults: dict[str, tuple[float, str]] = {}  # by node: monotonic s, text; empty: none
        self._diagnostics = DiagnosticUpdater(self)
        self._chunks = self._diagnostics.add_topic("action_chunk")
        self._publisher = self.create_publisher(MarkerArray, "rviz_markers", qos.STATUS)
        self.create_subscription(JointTrajectory, "action_chunk", self._on_chunk, qos.DRAWN_TARGET)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.STATUS)
        self.create_timer(_TEXT_PERIOD, self._publish_faults, clock=STEADY)

    def close(self) -> None:
        """Do nothing: the node has no threads."""

    def _has_subscribers(self) -> bool:
        return self._publisher.get_subscription_count() > 0

    def _on_chunk(self, message: JointTrajectory) -> None:
        self._chunks.tick()
        if not self._has_subscribers():
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
            is_ok = status.level == DiagnosticStatus.OK
            self._faults[status.name] = time.monotonic(), "" if is_ok else str(status.message)

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
        marker = self._marker("tip path", 0, Marker.LINE_STRIP, ColorRGBA(r=1.0, g=1.0, b=1.0))
        marker.scale.x = _LINE_WIDTH
        marker.points = [_point(position) for position in self._robot.link_poses(chunk.positions)[:, -1, :3, 3]]
        return marker

    def _publish_faults(self) -> None:
        if not self._has_subscribers():
            return
        now = time.monotonic()
        recent = {name: text for name, (received, text) in self._faults.items() if now - received < _STALE}
        faults = [f"{name}: {text}"[:_MAX_LENGTH] for name, text in sorted(recent.items()) if text]
        marker = self._marker("diagnostics", 0, Marker.TEXT_VIEW_FACING, ColorRGBA(r=1.0, g=0.35, b=0.2))
        marker.text = "\n".join(faults) or "no faults"
        marker.pose.position.z = _TEXT_POSITION
        marker.scale.z = _TEXT_HEIGHT
        if not faults:
            marker.color = ColorRGBA(r=0.4, g=0.9, b=0.4)
        marker.color.a = 1.0
        self._publisher.publish(MarkerArray(markers=[marker]))

    def _marker(self, kind: str, number: int, shape: int, colour: ColorRGBA) -> Marker:
        """Return an unstamped marker, for which RViz uses the latest transform."""
        colour.a = 0.7
        marker = Marker(ns=kind, id=number, type=shape, color=colour, lifetime=Duration(sec=_LIFETIME))
        marker.header.frame_id = self._frame
        marker.pose.orientation.w = 1.0
        return marker


def _point(position: NDArray) -> Point:
    x, y, z = map(float, position)
    return Point(x=x, y=y, z=z)


main = node_main(RvizMarkersNode, MONITOR_NICENESS)
