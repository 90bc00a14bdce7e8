"""Node: generate drawn targets from synchronised images and the task, as fast as the model allows."""

from __future__ import annotations

import threading
import time
from typing import Any

import torch
from rclpy.node import Node
from sensor_msgs.msg import Image as ImageMessage

from genima.cameras.tiling import untile
from genima.errors import GenimaError
from genima.policy.diffusion_agent.agent import DiffusionAgent
from genima.policy.diffusion_agent.compiled_pipeline import CompiledPipeline
from genima.policy.diffusion_agent.execution_config import inference_threads
from genima.policy.spec import DIFFUSION_AGENT, name_checkpoint, read_pair
from genima.types import DrawnTarget
from genima_interfaces.msg import DrawnTarget as DrawnTargetMessage
from genima_nodes.ros import messages, parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import INFERENCE_NICENESS, node_main
from genima_nodes.ros.observation_synchronizer import ObservationSynchronizer, TimedObservation
from genima_nodes.ros.paced_thread import schedule_in_background
from genima_nodes.ros.sampling_parameters import sampling_options


class DiffusionAgentNode(Node):
    """Generate a target for the newest set of images while a task runs."""

    def __init__(self, agent: DiffusionAgent | None = None, **options: Any) -> None:
        """Args:
        agent: generates the targets; None: loaded from the parameter ``checkpoint``.
        options: of a node.

        Raises:
            GenimaError: for parameters out of range, a calibration that is damaged or lacks a view, and a device that
                cannot run the model.
        """
        super().__init__("diffusion_agent", **options)
        checkpoint = parameters.text(self, "checkpoint", "")
        device = parameters.text(self, "device", "cpu")
        cell = parameters.calibrated_cell(self)
        self._seed = parameters.integer(self, "seed", 0, 0, 2**62)
        torch.set_num_threads(parameters.integer(self, "threads", 0, 0, 1024) or inference_threads())
        sampling = sampling_options(self)
        self._diagnostics = DiagnosticUpdater(self)
        if agent is None:
            agent = DiffusionAgent.from_pretrained(read_pair(checkpoint)[1][DIFFUSION_AGENT], device)
            cell.require_policy(agent.spec, name_checkpoint(checkpoint))
            pipeline = agent.pipeline = CompiledPipeline(agent, sampling)
            duration = "; takes minutes the first time" if pipeline.config.compile else ""
            self.get_logger().info(f"model: preparing ({pipeline.config}){duration}")
            pipeline.warm_up()  # before the first task
            self._diagnostics.add_value("execution", lambda: pipeline.config)
        self._agent = agent
        self._previous: DrawnTarget | None = None  # of the running task
        self._task_number = 0  # of ``_previous``

        self._generated = self._diagnostics.add_topic("drawn targets")
        self._latency = self._diagnostics.add_latency("image to drawn target")
        self._publisher = self.create_publisher(DrawnTargetMessage, "drawn_target", qos.DRAWN_TARGET)
        self._view_publishers = {
            view: self.create_publisher(ImageMessage, f"drawn_target/{view}/image", qos.IMAGE) for view in agent.views
        }
        has_virtual_view = agent.camera_views != agent.views  # rendered from the measured joints
        self._observations = ObservationSynchronizer(
            self,
            self._diagnostics,
            agent.robot,
            agent.camera_views,
            agent.camera_size,
            has_virtual_view,
            cell.calibration,
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._generate_forever, name="generation", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the generating thread after its current target."""
        self._stop.set()
        self._thread.join()

    def _generate_forever(self) -> None:
        schedule_in_background(computing=torch.get_num_threads() == 1)  # only the images have deadlines
        while not self._stop.is_set():
            try:
                if sample := self._observations.take(timeout=0.1):
                    self._generate(sample)
            except GenimaError as error:
                self._diagnostics.set_fault("generation", str(error))

    def _generate(self, sample: TimedObservation) -> None:
        if sample.task_number != self._task_number:  # also with the same instruction: the scene may have changed
            self._task_number, self._previous = sample.task_number, None
        seed = self._seed + self._generated.total
        drawn = self._previous = self._agent.generate(sample.observation, seed, self._previous)
        self._diagnostics.clear_fault("generation")
        if sample.task_number == self._observations.task_number:
            self._publish(drawn, time.monotonic() - sample.arrival)

    def _publish(self, drawn: DrawnTarget, latency: float) -> None:
        self._publisher.publish(messages.drawn_target_message(drawn, latency, self._observations.skipped))
        self._generated.tick()
        self._latency.add(latency)
        if any(publisher.get_subscription_count() for publisher in self._view_publishers.values()):
            for view, image in untile(drawn.tile, drawn.views).items():
                message = messages.image_message(image, drawn.stamp, f"{view}_color_optical_frame")
                self._view_publishers[view].publish(message)


main = node_main(DiffusionAgentNode, INFERENCE_NICENESS, real_time=True, role="diffusion_agent")
