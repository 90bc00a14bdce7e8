"""What runs together: written once, for `./genima demo` and for the launch file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool


# Where the user has not set these.
ENVIRONMENT = {
    "MUJOCO_GL": "egl",  # renders without a display
    "TRANSFORMERS_VERBOSITY": "error",  # the model libraries greet with notices of parts that nobody here needs
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # idle threads spin by default, on the cores that the robot's control needs
    "LP_NUM_THREADS": "1",  # a software renderer takes all cores by default, likewise
    "MALLOC_MMAP_THRESHOLD_": "67108864",  # else every image costs fresh pages: received tiles come twice as fast
    "MALLOC_TRIM_THRESHOLD_": "268435456",
}


@dataclass(frozen=True)
class Process:
    """One node: the executable is also the name of the module in the package and of the node."""

    package: str
    executable: str
    parameters: dict[str, Value] = field(default_factory=dict)
    remappings: dict[str, str] = field(default_factory=dict)


def led(leader: str) -> list[Process]:
    """The simulated robot as a follower; ``leader`` is ``expert``, or ``jog`` for who pushes its tip."""
    leaders = {"expert": Process("genima_sim", "sim_leader"), "jog": Process("genima_nodes", "jog")}
    return [
        Process("genima_sim", "sim_node"),
        Process("genima_nodes", "command_guard", {"self_collision": True, "rate": 200}),
        Process("genima_nodes", "teleop", {"leader": "same"}),
        leaders[leader],
    ]


def simulated(checkpoint: Value = "", seed: Value = 0) -> list[Process]:
    """The closed loop around the simulated robot. An empty checkpoint means the one that comes with the project."""
    return [
        Process("genima_sim", "sim_node"),
        Process("genima_nodes", "command_guard", {"self_collision": True}),
        Process("genima_nodes", "controller", {"checkpoint": checkpoint, "calibration": "sim"}),
        Process("genima_nodes", "diffusion_agent", {"checkpoint": checkpoint, "seed": seed, "straggler_timeout": 0.03}),
        Process("genima_nodes", "task_runner"),
    ]
