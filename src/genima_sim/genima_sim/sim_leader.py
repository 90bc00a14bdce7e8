"""ROS node: simulated leader arm, moved by scripted experts.

It reads the scene from `sim/status` and plays the demo for it: `leader/home` puts the leader near the start of the
demo, `leader/approach` moves it to the start (demos that start with a failed grasp need that), `leader/play` plays it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from std_srvs.srv import Trigger

from genima.control.joint_trajectory import JointTrajectory
from genima.errors import GenimaError
from genima_interfaces.msg import SceneStatus
from genima_nodes.ros import qos
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.services import trigger_callback
from genima_nodes.ros.trajectory_leader import Stage, TrajectoryLeader
from genima_nodes.ros.transform_messages import body_poses
from genima_sim.demo_starts import Bodies, Demo
from genima_sim.experts import Expert, Trajectory
from genima_sim.tasks import DEMO_HZ, get_task


class ExpertLeader(TrajectoryLeader):
    """Play the demo for the scene."""

    def __init__(self) -> None:
        """Raises:
        GenimaError: for a rate out of range.
        """
        super().__init__("sim_leader")
        self._expert = Expert(self.robot)
        self._scene: SceneStatus | None = None
        self._ahead: JointTrajectory | None = None  # of the first stage, planned in advance: the arm waits for it
        self.create_subscription(SceneStatus, "sim/status", self._on_scene, qos.STATUS)
        for name, act in {"home": self._home, "approach": self._approach, "play": self._play}.items():
            self.create_service(Trigger, f"leader/{name}", trigger_callback(act))
        self.start()

    def is_finished(self) -> bool:
        """Return whether the task is done: a grasp that should fail holds now and then."""
        return self._scene is not None and self._scene.success

    def _on_scene(self, message: SceneStatus) -> None:
        self._scene = message
        self.set_resets(message.resets)

    def _home(self) -> str:
        demo = self._demo()
        self.set_joints(demo.above(self._expert), 1.0)
        self._ahead = None
        return f"at home for {demo.task.name}"

    def _approach(self) -> str:
        self.require_idle()
        demo = self._demo()
        approach = _joint_trajectory(demo.above(self._expert), demo.approach(self._expert))
        self._ahead = self._stages_of(demo)[0](demo.start)
        self.play([lambda start: approach])
        return "moves to the start of the demo"

    def _play(self) -> str:
        demo = self._demo()
        stages = self._stages_of(demo)
        if (ahead := self._ahead) is not None:
            self._ahead, stages[0] = None, lambda start: ahead
        self.play(stages)
        return f"plays {demo.task.name}"

    def _demo(self) -> Demo:
        """Return the demo for the present scene."""
        scene = self._scene
        if scene is None or not scene.task:
            raise GenimaError("leader: no scene; reset the simulator (sim/reset)")
        return Demo.random(get_task(scene.task), scene.seed, self._bodies(), self._expert)

    def _stages_of(self, demo: Demo) -> list[Stage]:
        return [
            lambda start, plan=plan: _joint_trajectory(start, plan(start, self._bodies()))  # type: ignore[misc]
            for plan in demo.planners(self._expert)
        ]

    def _bodies(self) -> Bodies:
        return body_poses(self._scene or SceneStatus())


def _joint_trajectory(start: NDArray[np.float64], plan: Trajectory) -> JointTrajectory:
    times = np.arange(len(plan.positions) + 1) / DEMO_HZ
    return JointTrajectory(times, np.vstack([start, plan.positions]), np.append(plan.gripper, plan.gripper[-1]))


main = node_main(ExpertLeader, CONTROL_NICENESS)
