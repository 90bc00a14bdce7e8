"""Simulator node: success of the task that was started last."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import ClassVar

import mujoco
import numpy as np
import pytest
from policy_standins import PANDA, SIZE, VIEWS
from ros_graph import Graph, overrides
from sensor_msgs.msg import Image
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from genima.policy.spec import PolicySpec
from genima.types import ActionChunk, Observation
from genima_interfaces.msg import SceneStatus
from genima_interfaces.srv import ResetScene
from genima_nodes.policy import PolicyNode
from genima_nodes.ros import qos
from genima_sim import sim_node
from genima_sim.sim_node import SimNode
from genima_sim.simulation import Simulation


@pytest.mark.any_pace
def test_restarted_task_resets_success(graph: Graph, simulation: Simulation) -> None:
    node = graph.add(SimNode(simulation))
    statuses = graph.subscribe(SceneStatus, "sim/status", qos.STATUS)
    start_task = graph.publisher(String, "task", qos.TASK)

    def latest_success() -> bool:
        return bool(statuses and statuses[-1].success)

    assert graph.call(ResetScene, "sim/reset", ResetScene.Request(task="push_button", seed=1)).success
    with node._lock:
        simulation.success = True  # as after a completed task
    graph.until(latest_success, "success is not published")
    start_task(String(data=""))  # the end of a task
    count = len(statuses)
    graph.until(lambda: len(statuses) > count + 3, "no status")
    assert latest_success()
    graph.until(lambda: not latest_success(), "success is not reset", lambda: start_task(String(data="push")))
    with node._lock:
        simulation.data.joint("button_slide").qpos[0] = -0.012  # pressed, without a reset of the scene
        start_task(String(data="push"))
        simulation.success = simulation.task.succeeded(simulation.state)
    graph.until(latest_success, "success is not published")


@pytest.mark.any_pace
def test_reset_does_not_move_objects_of_exposed_image(
    graph: Graph, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renderer's model has the poses of the exposure, whatever the next episode does meanwhile."""
    begun, reset = threading.Event(), threading.Event()
    places: list[np.ndarray] = []

    class Renderer:
        def __init__(self, model: mujoco.MjModel, cameras: Mapping[str, object]) -> None:
            pass

        def render(self, qpos: np.ndarray, model: mujoco.MjModel) -> dict[str, np.ndarray]:
            if not places:
                begun.set()
                assert reset.wait(20)
            places.append(model.body("button").pos.copy())
            return {}

        def close(self) -> None:
            pass

    def place() -> np.ndarray:
        return np.array(simulation.model.body("button").pos)

    monkeypatch.setattr(sim_node, "SceneRenderer", Renderer)
    before = place()
    graph.add(SimNode(simulation))
    assert begun.wait(20)
    assert graph.call(ResetScene, "sim/reset", ResetScene.Request(task="push_button", seed=1)).success
    after = place()
    reset.set()
    graph.until(lambda: places and np.array_equal(places[-1], after), "the new scene is not rendered")
    assert np.array_equal(places[0], before) and not np.array_equal(before, after)


@pytest.mark.any_pace
def test_depth_is_rendered_for_subscribed_views_alone(
    graph: Graph, simulation: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that requires depth gets it in the graph, of the moment of the images; before, none is rendered."""
    depth_views: list[list[str]] = []

    class Renderer:
        def __init__(self, model: mujoco.MjModel, cameras: Mapping[str, object]) -> None:
            self.count = 0

        def render(self, qpos: np.ndarray, model: mujoco.MjModel) -> dict[str, np.ndarray]:
            self.count += 1
            return {view: np.full((SIZE, SIZE, 3), self.count % 256, np.uint8) for view in VIEWS}

        def render_depth(self, qpos: np.ndarray, model: mujoco.MjModel, views: list[str]) -> dict[str, np.ndarray]:
            depth_views.append(views)
            return {view: np.full((SIZE, SIZE), 1e-3 * (self.count % 256), np.float32) for view in views}

        def close(self) -> None:
            pass

    class Policy:
        spec = PolicySpec("panda", PANDA.joint_names, ("wrist", "front"), (SIZE, SIZE), requires_depth=True)
        seen: ClassVar[list[Observation]] = []

        def reset(self, seed: int = 0) -> None:
            pass

        def predict_chunk(self, observation: Observation) -> ActionChunk:
            self.seen.append(observation)
            return ActionChunk(observation.stamp, 0.05, np.tile(observation.joints.positions, (20, 1)), np.ones(20))

    monkeypatch.setattr(sim_node, "SceneRenderer", Renderer)
    graph.add(SimNode(simulation))
    images = graph.subscribe(Image, "cameras/front/color/image_raw", qos.IMAGE)
    graph.until(lambda: len(images) > 3, "no images")
    assert not depth_views
    chunks = graph.subscribe(JointTrajectory, "action_chunk", qos.DRAWN_TARGET)
    graph.add(PolicyNode(Policy(), parameter_overrides=overrides(calibration="")))
    graph.publisher(String, "task", qos.TASK)(String(data="push"))
    graph.until(lambda: len(chunks) > 3 and graph.has_no_fault("policy")(), "no chunks")
    assert {tuple(views) for views in depth_views[-3:]} == {("wrist", "front")}
    for observation in Policy.seen:
        for view in Policy.spec.views:
            assert (np.rint(1000 * observation.depth[view]) == observation.images[view][..., 0]).all()
