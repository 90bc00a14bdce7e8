"""Hand-eye calibration: camera poses on the robot."""

from genima.system.signals import hide_interrupt_traceback

hide_interrupt_traceback()
