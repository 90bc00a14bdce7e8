"""Quality of service by kind of topic. Inputs of control have depth 1: only the newest sample is used."""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

# Reliable, as images above the transport's buffer are lost to best-effort readers.
IMAGE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
DRAWN_TARGET = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
OBSERVED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
JOINT_STATES = qos_profile_sensor_data
# Of drivers: their newest state alone; compatible with reliable publishers, too.
DRIVER_STATES = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # a late subscriber gets the last sample
TASK = LATCHED
GUARD_STATUS = LATCHED
NODE_STATUS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # all nodes; each latches one
JOINT_COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
COMMAND_LOG = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)  # to count or record every command
# Publishers of commands offer a deadline. The guard subscribes with JOINT_COMMAND, so that it also receives commands
# without one: it checks the age of commands itself.
SOURCE_COMMAND = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, deadline=Duration(seconds=0.1))
STATUS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
