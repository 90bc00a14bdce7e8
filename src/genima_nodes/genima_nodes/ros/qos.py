"""Quality of service by kind of topic. Nothing that is acted on ever queues: depth 1, the newest counts."""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

# Reliable, as images above the transport's buffer are lost to best-effort readers.
IMAGE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
DRAWN_TARGET = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
OBSERVED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
JOINT_STATES = qos_profile_sensor_data
TASK = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
JOINT_COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
EVERY_COMMAND = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)  # for who counts, not for who obeys
# What a source promises. The guard reads with JOINT_COMMAND, so that a source without the promise is heard too:
# it watches the age of commands by itself.
SOURCE_COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, deadline=Duration(seconds=0.1))
STATUS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
