"""Control loop of one episode. The ROS nodes run the same parts in separate processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from genima.control.chunk_stream import ChunkStream
from genima.control.command_guard import CommandGuard
from genima.policy.base import Policy
from genima.types import Command, Joints, Observation

SOURCE = "controller"  # owner of the commands
_INSTANT = 1e-6  # s: times that differ by less are the same


class Robot(Protocol):
    """A robot in lock-step: time passes only in :meth:`apply`."""

    @property
    def time(self) -> float:
        """Seconds since the episode's start."""

    @property
    def done(self) -> bool:
        """Return whether the task is accomplished."""

    def joints(self) -> Joints:
        """Return the joints as measured now."""

    def observe(self) -> Observation:
        """Return what cameras and joints show now."""

    def apply(self, command: Command | None, seconds: float) -> None:
        """Send a set-point (None: hold) and let time pass."""


def run_episode(
    robot: Robot,
    policy: Policy,
    stream: ChunkStream,
    guard: CommandGuard,
    *,
    command_rate: float,
    latency: float,
    time_limit: float,
    seed: int,
) -> int:
    """Follow a policy until the task is done or ``time_limit`` seconds have passed; return the number of chunks.

    ``latency`` seconds pass between an observation and the first command of its chunk; ``command_rate`` is in Hz.

    ::

        observation ──► policy ──► chunk ──► stream ──► command ──► guard ──► robot
             ▲          K actions ahead      spliced, at 50 Hz      limited     │
             └──────────────────────────────────────────────────────────────────┘
    """
    guard.select(SOURCE)
    policy.reset(seed)
    stream.reset(robot.joints())
    chunks, ready, chunk = 0, 0.0, None
    while not robot.done and robot.time < time_limit:
        if chunk is None and stream.needs_chunk(robot.time, latency):
            observation = replace(robot.observe(), latency=latency)
            chunk, ready = policy.predict_chunk(observation), robot.time + latency
            chunks += 1
        if chunk is not None and robot.time >= ready - _INSTANT:
            stream.add(chunk)
            chunk = None
        joints = robot.joints()
        guard.update_joints(joints)
        if command := stream.command(robot.time, joints):
            guard.submit(SOURCE, command)
        robot.apply(guard.step(robot.time).command, 1 / command_rate)
    return chunks
