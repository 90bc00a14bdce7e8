"""In a process's PYTHONPATH, takes the place of pylibfranka: a Panda at its home has the address `robot.here`."""

from standins.pylibfranka import *  # noqa: F403
from standins.pylibfranka import put_at

from genima.robot.model import RobotModel

_PANDA = RobotModel.load("panda")
put_at("robot.here", _PANDA, _PANDA.home, real_time=True)
