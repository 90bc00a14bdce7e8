"""Node: predict action chunks with any policy that observes images and joints."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory

from genima.cameras.camera import VIRTUAL
from genima.errors import GenimaError
from genima.policy.base import Policy, SamplingPolicy
from genima.policy.diffusion_agent.execution_config import inference_threads
from genima.policy.names import GENIMA
from genima.policy.registry import PolicyOptions, load_policy
from genima.policy.remote import RemotePolicy
from genima.policy.trajectory_policy import TrajectoryPolicy
from genima.robot.model import RobotModel
from genima.types import ActionChunk, Joints, Observation
from genima_interfaces.msg import SceneStatus
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import INFERENCE_NICENESS, node_main
from genima_nodes.ros.observation_synchronizer import ObservationSynchronizer, TimedObservation
from genima_nodes.ros.paced_thread import schedule_in_background
from genima_nodes.ros.sampling_parameters import chunk_sampling_options, sampling_options
from genima_nodes.ros.trajectory_messages import chunk_message
from genima_nodes.ros.transform_messages import body_poses

_LATENCIES = 10  # chunks: the longest of their latencies is expected of the next, as in real-time chunking
_FIRST_LATENCY = 0.1  # s, expected of the first


class PolicyNode(Node):
    """Publish an action chunk for the newest observation while a task runs."""

    def __init__(self, policy: Policy | None = None, **options: Any) -> None:
        """Args:
        policy: predicts the chunks; None: loaded by the parameter ``policy``.
        options: of a node.

        Raises:
            GenimaError: for parameters out of range, and a policy that cannot be loaded.
        """
        super().__init__("policy", **options)
        name, cell = parameters.text(self, "policy", GENIMA), parameters.calibrated_cell(self)
        policy_options = PolicyOptions(
            checkpoint=parameters.text(self, "checkpoint", ""),
            device=parameters.text(self, "device", "cpu"),
            robot=cell.robot_reference,
            views=cell.views,
            episode=parameters.text(self, "episode", ""),
            sampling=sampling_options(self),
            chunk_sampling=chunk_sampling_options(self),
            calibration=cell.calibration,
        )
        self._seed = parameters.integer(self, "seed", 0, 0, 2**62)
        _set_threads(parameters.integer(self, "threads", 0, 0, 1024) or inference_threads())
        if policy is None:
            policy = load_policy(name, policy_options)
            self.get_logger().info(f"policy {name}: preparing")
            if isinstance(policy, TrajectoryPolicy):  # it does not use images
                policy.spec.require_robot(cell.robot, f"policy {name}")
            else:
                cell.require_policy(policy.spec, f"policy {name}")
            _warm_up(policy, cell.robot)
        self._policy, self._robot = policy, cell.robot
        self._task_number = 0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)  # s from an observation's stamp to its chunk
        self._bodies: dict[str, NDArray[np.float64]] = {}

        self._diagnostics = DiagnosticUpdater(self)
        self._chunks = self._diagnostics.add_topic("chunks")
        self._latency = self._diagnostics.add_latency("image to chunk")
        if isinstance(policy, RemotePolicy):
            self._diagnostics.add_value("rejected replies", lambda: policy.rejected)
        if isinstance(policy, SamplingPolicy):
            self._diagnostics.add_value("spread of samples", lambda: _millimetres(policy.spread))
        self._publisher = self.create_publisher(JointTrajectory, "action_chunk", qos.DRAWN_TARGET)
        self.create_subscription(SceneStatus, "sim/status", self._on_scene, qos.STATUS)
        views = [view for view in policy.spec.views if view != VIRTUAL]
        size = None if isinstance(policy, TrajectoryPolicy) else policy.spec.camera_size
        self._observations = ObservationSynchronizer(
            self, self._diagnostics, self._robot, views, size, True, cell.calibration, policy.spec.requires_depth
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._predict_forever, name="policy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the predicting thread after its current chunk."""
        self._stop.set()
        self._thread.join()

    def _on_scene(self, message: SceneStatus) -> None:
        self._bodies = body_poses(message)

    def _predict_forever(self) -> None:
        schedule_in_background(computing=False)
        while not self._stop.is_set():
            try:
                if sample := self._observations.take(timeout=0.1):
                    self._predict(sample)
                elif isinstance(self._policy, RemotePolicy):  # also between tasks, which begin without a fault
                    self._policy.require_ready()
                    self._diagnostics.clear_fault("policy")
            except GenimaError as error:
                self._diagnostics.set_fault("policy", str(error))

    def _predict(self, sample: TimedObservation) -> None:
        if sample.task_number != self._task_number:
            self._task_number = sample.task_number
            self._policy.reset(self._seed)
        latency = max(self._latencies, default=_FIRST_LATENCY)
        chunk = self._policy.predict_chunk(replace(sample.observation, bodies=self._bodies, latency=latency))
        _require_finite(chunk)
        self._diagnostics.clear_fault("policy")
        if sample.task_number != self._observations.task_number:
            return
        self._publisher.publish(chunk_message(chunk, self._robot))
        latency = messages.now(self) - chunk.stamp
        if 0 <= latency <= len(chunk.positions) * chunk.period:  # else the clock jumped, or the chunk came too late
            self._latencies.append(latency)
        self._chunks.tick()
        self._latency.add(time.monotonic() - sample.arrival)


def _millimetres(spread: float | None) -> str:
    return "not measured" if spread is None else f"{spread:.1f} mm"


def _require_finite(chunk: ActionChunk) -> None:
    if not (np.all(np.isfinite(chunk.positions)) and np.all(np.isfinite(chunk.gripper))):
        raise GenimaError("action chunk: not finite; the policy's weights or its inputs are damaged")


def _set_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def _warm_up(policy: Policy, robot: RobotModel) -> None:
    """Predict once from blank images, so that compilation and allocation do not delay the first task."""
    spec = policy.spec
    width, height = spec.camera_size
    images = {view: np.zeros((height, width, 3), np.uint8) for view in spec.views}
    depth = {view: np.zeros((height, width), np.float32) for view in spec.views} if spec.requires_depth else {}
    joints = Joints(0.0, robot.home, 1.0)
    with contextlib.suppress(GenimaError):  # a policy may refuse blank images
        policy.predict_chunk(Observation(0.0, images, joints, "warm up", depth=depth))
    policy.reset()


main = node_main(PolicyNode, INFERENCE_NICENESS, real_time=True, role="policy")
