"""Programs for ``python -c`` that send and receive drawn targets of 512x512 px."""

from __future__ import annotations

TILES = 60
RATE = 15.0  # Hz; the diffusion agent draws at 5 to 10
TILE = """
def tile_of(k):
    if k % 2:
        return np.random.default_rng(k).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    return np.full((512, 512, 3), (k * 64 + 128) % 256, np.uint8)
"""
SENDER = f"""
import time, numpy as np, rclpy
{TILE}
from genima.types import DrawnTarget
from genima_interfaces.msg import DrawnTarget as Message
from genima_nodes.ros import messages, qos
rclpy.init()
node = rclpy.create_node("sender")
publisher = node.create_publisher(Message, "drawn_target", qos.DRAWN_TARGET)
while publisher.get_subscription_count() < 1:
    time.sleep(0.02)
time.sleep(0.3)  # the reader knows of us, too
for k in range({TILES}):
    drawn = DrawnTarget(time.time(), "wave", ("a", "b", "c", "d"), tile_of(k), 5, k)
    publisher.publish(messages.drawn_target_message(drawn, 0.1, 0))
    time.sleep(1 / {RATE})
time.sleep(0.5)
"""
READER = f"""
import json, time, numpy as np, rclpy
{TILE}
from genima_interfaces.msg import DrawnTarget as Message
from genima_nodes.ros import messages, qos
rclpy.init()
node = rclpy.create_node("reader")
seeds, latencies = [], []
def on_tile(message):
    drawn = messages.drawn_target_from(message)
    assert np.array_equal(drawn.tile, tile_of(drawn.seed))
    seeds.append(drawn.seed)
    latencies.append(time.time() - drawn.stamp)
node.create_subscription(Message, "drawn_target", on_tile, qos.DRAWN_TARGET)
end = time.monotonic() + 80
while len(seeds) < {TILES} and time.monotonic() < end and not (seeds and seeds[-1] == {TILES - 1}):
    rclpy.spin_once(node, timeout_sec=0.5)
print(json.dumps(dict(seeds=seeds, p50=1e3 * np.median(latencies), p99=1e3 * np.percentile(latencies, 99))))
"""
