"""The closed loop on one screen. The ROS nodes run these same parts, each in a process of its own."""

from __future__ import annotations

from typing import Protocol

from genima.control.chunk_stream import ChunkStream
from genima.control.command_guard import CommandGuard
from genima.types import ActionChunk, Command, DrawnTarget, Joints, Observation

SOURCE = "controller"  # as the guard knows us
_INSTANT = 1e-6  # s: times that differ by less are the same


class Robot(Protocol):
    """A robot that waits for us: time passes only in :meth:`apply`."""

    @property
    def time(self) -> float:
        """Seconds."""

    @property
    def done(self) -> bool:
        """Whether the task is accomplished."""

    def joints(self) -> Joints:
        """Measured now."""

    def observe(self) -> Observation:
        """What the cameras and joints show now."""

    def apply(self, command: Command | None, seconds: float) -> None:
        """Send a set-point (None: hold) and let time pass."""


class Draws(Protocol):
    """A diffusion agent."""

    def draw(self, observation: Observation, seed: int, former: DrawnTarget | None = None) -> DrawnTarget:
        """Where the joints should be K steps from now; ``former`` is the drawing before."""


class Reads(Protocol):
    """A controller."""

    def read(self, drawn: DrawnTarget, joints: Joints) -> ActionChunk:
        """The actions that lead there."""


def run_episode(
    robot: Robot,
    diffusion_agent: Draws,
    controller: Reads,
    stream: ChunkStream,
    guard: CommandGuard,
    *,
    command_rate: float,
    latency: float,
    time_limit: float,
    seed: int,
) -> int:
    """Follow drawings until the task is done or ``time_limit`` seconds have passed; returns the number of drawings.

    From an observation until its chunk can be followed, ``latency`` seconds pass.

    ::

        cameras ──► diffusion_agent ──► controller ──► stream ──► guard ──► robot
                    draws the joints'   reads it into  smooth at   the last    │
           ▲        target spheres      a chunk        50 Hz       word        │
           └───────────────────────────────────────────────────────────────────┘
    """
    guard.select(SOURCE)
    stream.reset(robot.joints())
    drawings, ready, chunk, drawn_target = 0, 0.0, None, None
    while not robot.done and robot.time < time_limit:
        if chunk is None and stream.wants_drawing(robot.time, latency):
            observation = robot.observe()
            drawn_target = diffusion_agent.draw(observation, seed + drawings, drawn_target)
            chunk, ready = controller.read(drawn_target, observation.joints), robot.time + latency
            drawings += 1
        if chunk is not None and robot.time >= ready - _INSTANT:
            stream.add(chunk)
            chunk = None
        joints = robot.joints()
        guard.measure(joints)
        if command := stream.command(robot.time, joints):
            guard.offer(SOURCE, command)
        robot.apply(guard.step(robot.time).command, 1 / command_rate)
    return drawings
