"""The simulated workcell: MuJoCo scene, tasks, scripted experts, and the node around them."""

from genima.system.signals import hide_interrupt_traceback  # importing genima also selects MuJoCo's backend

hide_interrupt_traceback()
