"""Launch files and configuration of Genima."""

from genima.system.signals import hide_interrupt_traceback  # importing genima also selects MuJoCo's backend

hide_interrupt_traceback()
