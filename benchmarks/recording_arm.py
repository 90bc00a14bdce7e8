"""Node: an arm that publishes its joints and commands a thousand times a second."""

from __future__ import annotations

import array
import sys
import time

from sensor_msgs.msg import JointState

from benchmarks.recording_source import COMMAND_RATE, COMMANDS, JOINT_RATE, JOINTS, Source
from genima_nodes.ros import qos
from genima_nodes.ros.node_process import run

_NAMES = [*(f"panda_joint{i}" for i in range(1, 8)), "finger_joint"]


class Arm(Source):
    """The effort of the first joint is the message's number."""

    def __init__(self) -> None:
        super().__init__("recording_arm", JOINT_RATE)
        self.speak(JointState, JOINTS, qos.JOINT_STATES)
        self.speak(JointState, COMMANDS, qos.JOINT_COMMAND)
        self._message = JointState(name=_NAMES)
        self._message.position, self._message.velocity = (array.array("d", [0.1] * len(_NAMES)) for _ in range(2))
        self._message.effort = array.array("d", [0.0] * len(_NAMES))
        self._number = 0
        self.start()

    def tick(self, deadline: float, periods: int) -> bool:
        """The joints, and a command now and then; what was missed is caught up with."""
        for _ in range(periods):
            self._say(JOINTS, self._number)
            number, rest = divmod(self._number, JOINT_RATE // COMMAND_RATE)
            if rest == 0:
                self._say(COMMANDS, number)
            self._number += 1
        return True

    def _say(self, topic: str, number: int) -> None:
        self._message.effort[0] = number
        self.send(topic, self._message, number, time.time_ns())


if __name__ == "__main__":
    sys.exit(run(Arm, real_time=True))
