"""From an arm that a person moves by hand to wishes for the arm that mirrors it."""

from genima.teleop.leader import SAME, Leader, Sample, toggled
from genima.teleop.mirror import Mirror, MirrorSettings, Phase

__all__ = ["SAME", "Leader", "Mirror", "MirrorSettings", "Phase", "Sample", "toggled"]
