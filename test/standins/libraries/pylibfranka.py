"""In a process's PYTHONPATH, takes the place of pylibfranka: arms at their home have the addresses of ``_THERE``."""

from standins.pylibfranka import *  # noqa: F403
from standins.pylibfranka import put_at

from genima.robot.model import RobotModel

_THERE = {"robot.here": "panda", "fr3.here": "fr3"}
for _address, _name in _THERE.items():
    _robot = RobotModel.load(_name)
    put_at(_address, _robot, _robot.home, real_time=True)
