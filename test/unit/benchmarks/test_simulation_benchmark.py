"""Benchmark of the simulated tasks."""

from __future__ import annotations

from simulation import measure

from genima_sim.demo_recorder import DemoRecorder


def test_physics_and_images_are_measured(recorder: DemoRecorder) -> None:
    speed = measure(recorder.environment.simulation, recorder.expert, "push_button", 3)
    assert speed.real_time_factor > 0 and 0 < speed.p50 <= speed.p99
