"""Tests of the consistency of drawn target and chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from genima.cameras.camera import Camera
from genima.cameras.tiling import tile
from genima.errors import GenimaError
from genima.policy.spec import PolicySpec
from genima.policy.target_consistency import TargetConsistency
from genima.robot.model import RobotModel
from genima.targets import Appearance
from genima.targets.rendering import render_spheres
from genima.targets.sphere_geometry import place_spheres
from genima.types import Image

CURRENT = np.array([0.1, -0.2, 0.1, -2.2, 0.0, 2.1, 0.7])


def draw_spheres(
    spec: PolicySpec, robot: RobotModel, cameras: Mapping[str, Camera], target: np.ndarray, gripper_open: bool
) -> Image:
    """Return the spheres of a target on a noise background."""
    rng = np.random.default_rng(0)
    views = {}
    for view in spec.views:
        camera = cameras[view].crop_square(spec.view_size)
        placed = place_spheres(camera, robot, spec.appearance, target, gripper_open, CURRENT)
        layer = render_spheres(camera, placed, spec.appearance)
        background = rng.integers(0, 256, (spec.view_size, spec.view_size, 3), np.uint8)
        views[view] = np.where(layer[..., 3:] > 0, layer[..., :3], background).astype(np.uint8)
    return tile(views, spec.views)


@pytest.mark.parametrize("look", ["wide_stripes", "genima_release"])
def test_exact_targets_are_consistent(robot, spec, cameras, look: str) -> None:
    spec = replace(spec, appearance=Appearance.load(look))
    agreement = TargetConsistency(spec, robot, cameras)
    rng = np.random.default_rng(1)
    for gripper_open in (True, False):
        target = CURRENT + rng.normal(0, 0.05, 7)
        drawn = draw_spheres(spec, robot, cameras, target, gripper_open)
        right = agreement(drawn, target, gripper_open, CURRENT)
        blurred = np.clip(drawn + rng.normal(0, 15, drawn.shape), 0, 255).astype(np.uint8)
        assert right > 0.99 and agreement(blurred, target, gripper_open, CURRENT) > 0.95
        assert agreement(drawn, target + 0.4, gripper_open, CURRENT) < 0.5
        views_swapped = np.roll(drawn, spec.view_size, axis=1)
        assert agreement(views_swapped, target, gripper_open, CURRENT) < 0.5
        noise = rng.integers(0, 256, drawn.shape, np.uint8)
        assert agreement(noise, target, gripper_open, CURRENT) < 0.3
        plain = agreement(np.zeros_like(drawn), target, gripper_open, CURRENT)
        assert plain < (0.3 if look == "wide_stripes" else 0.51)  # black stripes are black


def test_views_without_calibration_are_not_compared(robot, spec, cameras) -> None:
    some = TargetConsistency(spec, robot, {"front": cameras["front"]})
    assert some(draw_spheres(spec, robot, cameras, CURRENT, True), CURRENT, True, CURRENT) > 0.99
    with pytest.raises(GenimaError, match="no calibration for any of the views wrist, front.*there are none"):
        TargetConsistency(spec, robot, {})
