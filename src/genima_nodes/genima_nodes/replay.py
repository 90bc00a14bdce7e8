"""Node: virtual leader that replays a recorded episode's commands, at the recorded speed or slower.

`leader/home` sets the leader to the start of the episode, `teleop/start` moves the follower there slowly, and
`leader/play` starts the replay.
"""

from __future__ import annotations

from pathlib import Path

from std_srvs.srv import Trigger

from genima.cell import load_cell
from genima.control.joint_trajectory import JointTrajectory
from genima.data.episodes import Episode
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.system.command_line import REPLAY_SPEED
from genima_nodes.ros import parameters
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.services import trigger_callback
from genima_nodes.ros.trajectory_leader import TrajectoryLeader


class ReplayNode(TrajectoryLeader):
    """Virtual leader of one episode."""

    def __init__(self) -> None:
        """Raises:
        GenimaError: for parameters out of range, and an episode that cannot be read.
        """
        super().__init__("replay")
        self._home()
        self.create_service(Trigger, "leader/home", trigger_callback(self._home))
        self.create_service(Trigger, "leader/play", trigger_callback(self._play))
        self.start()

    def _load_robot(self) -> RobotModel:
        """Load the episode; return its robot model."""
        demo = parameters.text(self, "episode", "")
        if not demo:
            raise GenimaError("replay: parameter episode is missing; give the folder of a demo: -p episode:=FOLDER")
        speed = parameters.number(self, "speed", 1.0, *REPLAY_SPEED)
        cell = parameters.text(self, "cell", "")  # of an episode that holds no robot model
        episode = Episode.load(Path(demo), load_cell(cell).robot if cell else None)
        times = (episode.stamps - episode.stamps[0]) / speed
        self._episode = JointTrajectory(times, episode.command_positions, episode.command_gripper)
        return episode.robot

    def _home(self) -> str:
        positions, _, gripper = self._episode.at(0.0)
        self.set_joints(positions, gripper)
        return "leader: at the start of the episode"

    def _play(self) -> str:
        self.play([lambda start: self._episode])
        return f"leader: playing for {self._episode.seconds:.1f} s"


main = node_main(ReplayNode, CONTROL_NICENESS)
