"""Replacement of pylibfranka in a process's PYTHONPATH: arms at home at the addresses of ``_ROBOTS``."""

from standins.pylibfranka import *  # noqa: F403
from standins.pylibfranka import add_robot

from genima.robot.model import RobotModel

_ROBOTS = {"robot.here": "panda", "fr3.here": "fr3"}
for _address, _name in _ROBOTS.items():
    _robot = RobotModel.load(_name)
    add_robot(_address, _robot, _robot.home, real_time=True)
