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


def following(
    robot: Value = "panda",
    leader: Value = "same",
    leader_joints: str = "leader/joint_states",
    leader_gripper: str = "leader/gripper",
    speed: Value = 0.5,
) -> list[Process]:
    """A follower that mirrors a leader; it comes to it with ``speed``: nobody stands beside a simulated one."""
    return [
        Process("genima_nodes", "command_guard", {"robot": robot, "self_collision": True, "rate": 200}),
        Process(
            "genima_nodes",
            "teleop",
            {"robot": robot, "leader": leader, "speed": speed},
            {"leader/joint_states": leader_joints, "leader/gripper": leader_gripper},
        ),
    ]


def simulator(cameras: dict[str, Value] | None = None) -> list[Process]:
    """The robot, its cameras and the scene."""
    return [Process("genima_sim", "sim_node", cameras or {})]


def simulated_leader(leader: str) -> list[Process]:
    """``leader`` is ``expert``, or ``jog`` for who pushes the tip of an arm that is not there."""
    leaders = {"expert": Process("genima_sim", "sim_leader"), "jog": Process("genima_nodes", "jog")}
    return [leaders[leader]]


def led(leader: str) -> list[Process]:
    """The simulated robot as a follower of a leader as above."""
    return [*simulator(), *simulated_leader(leader), *following()]


def recorded(leader: str, rate: float, folder: str, images: str) -> list[Process]:
    """The same, recorded; ``rate`` in Hz is the cameras'."""
    recorder = Process("genima_nodes", "recorder", {"folder": folder, "images": images, "calibration": "sim"})
    cameras: dict[str, Value] = {"camera_rate": rate, "camera_backlog": 20}
    return [*simulator(cameras), *simulated_leader(leader), *following(), recorder]


def simulated(checkpoint: Value = "", seed: Value = 0) -> list[Process]:
    """The closed loop around the simulated robot. An empty checkpoint means the one that comes with the project."""
    return [
        Process("genima_sim", "sim_node"),
        Process("genima_nodes", "command_guard", {"self_collision": True}),
        Process("genima_nodes", "controller", {"checkpoint": checkpoint, "calibration": "sim"}),
        Process("genima_nodes", "diffusion_agent", {"checkpoint": checkpoint, "seed": seed, "straggler_timeout": 0.03}),
        Process("genima_nodes", "task_runner"),
    ]
