"""Node: a leader arm in simulation, moved by the scripted experts.

It knows the scene from the simulator's words, and shows one demo in it, when the operator tells it to: `leader/home`
puts it near where the demo begins, `leader/approach` brings it there (demos that begin in the middle of a failure take
that), and `leader/play` shows the demo.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from std_srvs.srv import Trigger

from genima.control.joint_trajectory import JointTrajectory
from genima.errors import GenimaError
from genima_interfaces.msg import SceneStatus
from genima_nodes.ros import qos
from genima_nodes.ros.node_process import CONTROL_NICENESS, run
from genima_nodes.ros.services import answer_service
from genima_nodes.ros.trajectory_leader import Stage, TrajectoryLeader
from genima_sim.demo_starts import Demo, Objects
from genima_sim.experts import Expert, Trajectory
from genima_sim.tasks import DEMO_HZ, Layout


class ExpertLeader(TrajectoryLeader):
    """Plays the demo of the scene."""

    def __init__(self) -> None:
        """Raises:
        GenimaError: for a rate out of range.
        """
        super().__init__("sim_leader")
        self._expert = Expert(self.robot)
        self._scene: SceneStatus | None = None
        self._ahead: JointTrajectory | None = None  # of the first stage, made before somebody waits for it
        self.create_subscription(SceneStatus, "sim/status", self._on_scene, qos.STATUS)
        for name, act in {"home": self._home, "approach": self._approach, "play": self._play}.items():
            self.create_service(Trigger, f"leader/{name}", answer_service(act))
        self.start()

    def enough(self) -> bool:
        """Now and then, a grasp that should miss holds."""
        return self._scene is not None and self._scene.success

    def _on_scene(self, message: SceneStatus) -> None:
        self._scene = message

    def _home(self) -> str:
        demo = self._demo()
        self.stand(demo.above(self._expert), 1.0)
        self._ahead = None
        return f"at home for {demo.task} {demo.seed}"

    def _approach(self) -> str:
        self.require_idle()
        demo = self._demo()
        approach = _way(demo.above(self._expert), demo.approach(self._expert))
        self._ahead = self._stages_of(demo)[0](demo.start)
        self.play([lambda start: approach])
        return "comes to where the demo begins"

    def _play(self) -> str:
        demo = self._demo()
        stages = self._stages_of(demo)
        if (ahead := self._ahead) is not None:
            self._ahead, stages[0] = None, lambda start: ahead
        self.play(stages)
        return f"plays {demo.task}"

    def _demo(self) -> Demo:
        """The demo of the scene as it is."""
        scene = self._scene
        if scene is None or not scene.task:
            raise GenimaError("there is no scene; reset the simulator first (sim/reset)")
        objects = self._objects()
        layout = Layout(objects["button"][:2], objects["saucepan"][:2])
        return Demo.random(scene.task, scene.seed, layout, self._expert)

    def _stages_of(self, demo: Demo) -> list[Stage]:
        return [
            lambda start, plan=plan: _way(start, plan(start, self._objects()))  # type: ignore[misc]
            for plan in demo.stages(self._expert)
        ]

    def _objects(self) -> Objects:
        scene = self._scene or SceneStatus()
        return {name: np.array([at.x, at.y, at.z]) for name, at in zip(scene.objects, scene.positions, strict=True)}


def _way(start: NDArray[np.float64], plan: Trajectory) -> JointTrajectory:
    times = np.arange(len(plan.positions) + 1) / DEMO_HZ
    return JointTrajectory(times, np.vstack([start, plan.positions]), np.append(plan.gripper, plan.gripper[-1]))


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(ExpertLeader, args, CONTROL_NICENESS)


if __name__ == "__main__":
    sys.exit(main())
