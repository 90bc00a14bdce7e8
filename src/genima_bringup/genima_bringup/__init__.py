"""Launch files and configuration of Genima."""

from genima.signals import hide_interrupt_traceback  # importing genima also selects MuJoCo's backend

hide_interrupt_traceback()
