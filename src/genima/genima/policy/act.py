"""ACT on camera images: the baseline that predicts joint positions without drawing them.

Sources: Zhao et al., Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware, 2023; the GENIMA paper,
section 3 and table 4. The network is the controller's.
"""

from __future__ import annotations

from genima.policy.names import ACT
from genima.policy.registry import PolicyOptions
from genima.policy.spec import read_policy
from genima.policy.visuomotor.policy import VisuomotorPolicy


def load(options: PolicyOptions) -> ActPolicy:
    """Load a checkpoint of ``./genima train act``.

    Raises:
        GenimaError: when loading fails, or the device is not available.
    """
    return ActPolicy.from_pretrained(read_policy(ACT, options.checkpoint).folders[ACT], options.device)


class ActPolicy(VisuomotorPolicy):
    """ACT network on camera images."""

    KIND = ACT
