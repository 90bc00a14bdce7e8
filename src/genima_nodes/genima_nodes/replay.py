"""Node that replays a recorded episode's commands as a leader, at recorded speed or slower.

`leader/home` moves it to the start of the episode; the follower approaches slowly (`teleop/start`), and `leader/play`
starts the replay.
"""

from __future__ import annotations

from pathlib import Path

from std_srvs.srv import Trigger

from genima.control.joint_trajectory import JointTrajectory
from genima.data.episodes import Episode
from genima.data.episodes.robot import load_episode_robot
from genima.errors import GenimaError
from genima.robot.model import RobotModel
from genima.system.command_line import REPLAY_SPEED
from genima_nodes.ros import parameters
from genima_nodes.ros.node_process import CONTROL_NICENESS, node_main
from genima_nodes.ros.services import answer_service
from genima_nodes.ros.trajectory_leader import TrajectoryLeader


class ReplayNode(TrajectoryLeader):
    """Replays one episode."""

    def __init__(self) -> None:
        """Raises:
        GenimaError: for parameters that make no sense, and an episode that cannot be read.
        """
        super().__init__("replay")
        speed = parameters.number(self, "speed", 1.0, *REPLAY_SPEED)
        episode = Episode.load(self._demo, self.robot)
        times = (episode.stamps - episode.stamps[0]) / speed
        self._episode = JointTrajectory(times, episode.command_positions, episode.command_gripper)
        self._home()
        self.create_service(Trigger, "leader/home", answer_service(self._home))
        self.create_service(Trigger, "leader/play", answer_service(self._play))
        self.start()

    def _load_robot(self) -> RobotModel:
        """The robot of the episode."""
        demo = parameters.text(self, "episode", "")
        if not demo:
            raise GenimaError("replay: the parameter episode is missing; give the folder of a demo: -p episode:=FOLDER")
        self._demo = Path(demo)
        return load_episode_robot(self._demo)

    def _home(self) -> str:
        positions, _, gripper = self._episode.at(0.0)
        self.stand(positions, gripper)
        return "where the episode begins"

    def _play(self) -> str:
        self.play([lambda start: self._episode])
        return f"plays for {self._episode.seconds:.1f} s"


main = node_main(ReplayNode, CONTROL_NICENESS)
