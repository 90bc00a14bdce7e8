"""The last word before the robot."""

from genima.guard.command_guard import CommandGuard, Guarded, GuardSettings
from genima.guard.keep_out import SelfCollision, Workspace
from genima.guard.verdict import INTENDED, Reason, Verdict

__all__ = ["INTENDED", "CommandGuard", "GuardSettings", "Guarded", "Reason", "SelfCollision", "Verdict", "Workspace"]
