"""Subscribe to the topics of a running graph and check them with :mod:`genima.doctor.streams`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, JointState
from sensor_msgs.msg import Image as ImageMessage

from genima.cameras.camera import Camera
from genima.cameras.camera_devices import CameraDevice
from genima.cameras.intrinsics import CameraIntrinsics
from genima.cameras.undistortion import Undistorter
from genima.doctor import Finding, Group, fail, ok, skipped, streams, warn
from genima.doctor.streams import TopicPublisher, TopicSamples
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima_nodes.ros import messages, qos

CHECKUP = "checkup"  # name of the node that checks continuously


class TopicListener(Node):
    """Subscriber of cameras, joints and diagnostics; publishes nothing."""

    def __init__(self, name: str, namespace: str = "") -> None:
        """Args:
        name: of this node.
        namespace: of the robot's nodes.
        """
        super().__init__(name, namespace=namespace)
        self._devices: Mapping[str, CameraDevice] = {}
        self._cameras: Mapping[str, Camera] = {}
        self._robot: RobotModel | None = None
        self._topics: dict[str, str] = {}
        self._statuses: dict[str, DiagnosticStatus] = {}
        self.clear()
        self.create_subscription(JointState, "joint_states", self._on_joints, qos.JOINT_STATES)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.STATUS)

    def expect(
        self,
        views: Sequence[str],
        devices: Mapping[str, CameraDevice],
        cameras: Mapping[str, Camera],
        robot: RobotModel | None,
    ) -> None:
        """Subscribe to cameras and set what is expected of them.

        Args:
            views: of the cameras.
            devices: their expected settings, where known.
            cameras: their calibrations, where known.
            robot: of the joint states, where known.
        """
        self._devices, self._cameras, self._robot = devices, cameras, robot
        self._topics = {view: f"cameras/{view}/color/image_raw" for view in views}
        self.clear()
        for view, topic in self._topics.items():
            self.create_subscription(ImageMessage, topic, self._image_callback(view), qos.IMAGE)
            self.create_subscription(
                CameraInfo, f"cameras/{view}/color/camera_info", self._info_callback(view), qos.IMAGE
            )

    def close(self) -> None:
        """Do nothing: the node has no threads."""

    def clear(self) -> None:
        """Clear all statistics."""
        self._images = {view: TopicSamples() for view in self._topics}
        self._newest: dict[str, tuple[tuple[int, int], str]] = {}  # size and encoding of images, by view
        self._infos: dict[str, CameraInfo] = {}
        self._joints, self._state = TopicSamples(), JointState()

    def check(self) -> list[Group]:
        """Return the findings since the last :meth:`clear`."""
        own = self.get_fully_qualified_name()
        names = [f"{namespace.rstrip('/')}/{name}" for name, namespace in self.get_node_names_and_namespaces()]
        graph = [
            streams.check_duplicate_nodes(names, own),
            streams.check_command_publishers(self._publishers_of("joint_command")),
        ]
        self._joints.publishers = self._publishers_of("joint_states")
        return [
            Group("running graph", [*graph, streams.check_joint_states(self._joints, self._problem())]),
            Group("received images", list(self._check_images()) or [skipped("cameras", "no views given", "--cameras")]),
        ]

    def node_diagnostics(self) -> Group:
        """Return the findings of nodes on /diagnostics, except those of :meth:`check`."""
        findings = [
            _as_finding(status) for name, status in sorted(self._statuses.items()) if f"{CHECKUP}: " not in name
        ]
        return Group("diagnostics of the nodes", findings or [skipped("/diagnostics", "no messages")])

    def _check_images(self) -> Iterator[Finding]:
        for view, topic in self._topics.items():
            samples = self._images[view]
            samples.publishers = self._publishers_of(topic)
            size, encoding = self._newest.get(view, ((0, 0), ""))
            yield streams.check_images(view, topic, samples, size, encoding, self._devices.get(view))
            if view in self._cameras:
                yield self._check_intrinsics(view)

    def _check_intrinsics(self, view: str) -> Finding:
        what, info = f"{view} intrinsics", self._infos.get(view)
        if info is None:
            return skipped(what, "no camera_info received")
        if not info.k.any():
            return warn(what, "none from the driver (camera_info is zero)", "those of the calibration are used")
        try:
            received = CameraIntrinsics.from_camera_info(info.width, info.height, info.distortion_model, info.d, info.k)
            Undistorter(self._cameras[view]).require_intrinsics(received)
        except GenimaError as error:
            return fail(what, str(error), "use the calibration of this camera at this resolution")
        return ok(what, f"camera_info agrees with the calibration (fx {received.fx:.0f} px)")

    def _problem(self) -> str:
        if self._robot is None or not self._joints.stamps:
            return ""
        try:
            messages.joints_from(self._state, self._robot)
        except GenimaError as error:
            return str(error)
        return ""

    def _publishers_of(self, topic: str) -> list[TopicPublisher]:
        return [
            TopicPublisher(
                f"{info.node_namespace.rstrip('/')}/{info.node_name}",
                info.qos_profile.reliability != ReliabilityPolicy.BEST_EFFORT,
            )
            for info in self.get_publishers_info_by_topic(self.resolve_topic_name(topic))
        ]

    # Callbacks.

    def _image_callback(self, view: str) -> Callable[[ImageMessage], None]:
        def on_image(message: ImageMessage) -> None:
            self._images[view].add(messages.seconds(message.header.stamp), time.time())
            self._newest[view] = (message.width, message.height), message.encoding

        return on_image

    def _info_callback(self, view: str) -> Callable[[CameraInfo], None]:
        return lambda message: self._infos.__setitem__(view, message)

    def _on_joints(self, message: JointState) -> None:
        self._joints.add(messages.seconds(message.header.stamp), time.time())
        self._state = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._statuses.update({status.name: status for status in message.status})


def _as_finding(status: DiagnosticStatus) -> Finding:
    if status.level == DiagnosticStatus.OK:
        return ok(status.name, status.message or "ok")
    if status.level == DiagnosticStatus.STALE:
        return skipped(status.name, status.message or "stale")
    make = warn if status.level == DiagnosticStatus.WARN else fail
    return make(status.name, status.message or "no message", "see its log")
