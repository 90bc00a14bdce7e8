"""Hand-eye calibration: where the cameras are on the robot."""

from genima.system.signals import hide_interrupt_traceback

hide_interrupt_traceback()
