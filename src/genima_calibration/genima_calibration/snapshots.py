"""Take camera images of a running robot, with the joints at their stamps."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.system.ros_names import require_namespace, require_ros_name
from genima_calibration.markerless import RobotImage
from genima_calibration.samples import JOINT_TOLERANCE
from genima_nodes.ros.ros_context import create, ros_context
from genima_nodes.ros.ros_environment import joining_environment

_TIMEOUT = 5.0  # s


def take_snapshots(
    views: Sequence[str], robot: RobotModel, namespace: str, dds: str
) -> Mapping[str, Sequence[RobotImage]]:
    """Take one image of every published view, by view; ``dds`` is a profile of config/dds.

    Raises:
        GenimaError: when no images or no joints are received.
    """
    require_namespace(namespace, "--namespace")
    for view in views:
        require_ros_name(view, "view")
    os.environ.update(joining_environment(dds))
    with ros_context():
        photos, published = _receive(views, robot, namespace)
    if not photos:
        problem = "cameras: no images"
        if published:
            problem = f"joint_states: none at the stamps of the images of {', '.join(published)}"
        raise GenimaError(f"{problem}; start the robot's nodes, or set ROS_DOMAIN_ID and --namespace")
    for view in set(views) - set(photos):
        print(f"{view:<16}no image")
    return {view: photos[view] for view in views if view in photos}


def _receive(
    views: Sequence[str], robot: RobotModel, namespace: str
) -> tuple[dict[str, Sequence[RobotImage]], Collection[str]]:
    """Return one image of each view with the joints at its stamp, and the views with images."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from sensor_msgs.msg import Image as ImageMessage

    from genima_nodes.ros import messages, qos
    from genima_nodes.ros.diagnostics import DiagnosticUpdater
    from genima_nodes.ros.joint_states import JointStates

    executor = SingleThreadedExecutor()
    node = create(lambda: rclpy.create_node("snapshots", namespace=namespace))
    try:
        executor.add_node(node)
        joint_states = JointStates(node, DiagnosticUpdater(node), robot)
        newest: dict[str, ImageMessage] = {}
        for view in views:
            node.create_subscription(
                ImageMessage, f"cameras/{view}/color/image_raw", partial(newest.__setitem__, view), qos.IMAGE
            )
        photos: dict[str, Sequence[RobotImage]] = {}
        deadline = time.monotonic() + _TIMEOUT
        while len(photos) < len(views) and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
            for view in set(newest) - set(photos):
                stamp = messages.seconds(newest[view].header.stamp)
                if joints := joint_states.at(stamp, JOINT_TOLERANCE):
                    photos[view] = [RobotImage(view, messages.image_from(newest[view]).copy(), joints)]
        return photos, newest.keys()
    finally:
        executor.shutdown()
        node.destroy_node()
