"""ROS nodes around the Genima library."""

from genima.system.signals import hide_interrupt_traceback  # importing genima also selects MuJoCo's backend

hide_interrupt_traceback()
