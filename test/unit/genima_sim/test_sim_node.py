"""Simulator node: success of the task that was started last."""

from __future__ import annotations

import pytest
from ros_graph import Graph
from std_msgs.msg import String

from genima_interfaces.msg import SceneStatus
from genima_interfaces.srv import ResetScene
from genima_nodes.ros import qos
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
