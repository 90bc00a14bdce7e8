"""Hand-eye calibration: camera poses relative to the robot."""

from genima.system.signals import hide_interrupt_traceback

hide_interrupt_traceback()
