"""Depth images of the simulated cameras."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from genima.cell import SIMULATED, load_cell
from genima.errors import GenimaError
from genima.policy.spec import PolicySpec
from genima_sim.environment import Environment
from genima_sim.simulators import SIMULATORS, get_simulator


def test_depth_is_that_of_rays_along_the_optical_axis() -> None:
    environment = Environment(load_cell(SIMULATED), depth=True)
    environment.reset("push_button", 3)
    observation = environment.observe()
    environment.close()
    simulation = environment.simulation
    joints = observation.joints.positions
    rng = np.random.default_rng(0)
    errors = []
    groups = np.array([1, 1, 0, 0, 0, 0], np.uint8)  # rendered
    for view, camera in simulation.cameras.items():
        depth, T = observation.depth[view], camera.T_base_camera(simulation.robot, joints)
        assert depth.shape == (camera.height, camera.width) and depth.dtype == np.float32
        for v, u in rng.integers(0, camera.height, (30, 2)):
            ray = np.linalg.inv(camera.K) @ [u + 0.5, v + 0.5, 1.0]
            along = T[:3, :3] @ (ray / np.linalg.norm(ray))
            hit = np.zeros(1, np.int32)
            distance = mujoco.mj_ray(simulation.model, simulation.data, T[:3, 3], along, groups, 1, -1, hit, None)
            if distance > 0:
                errors.append(abs(distance / np.linalg.norm(ray) - depth[v, u]))
    assert len(errors) > 60
    assert np.median(errors) < 1e-3 and np.mean(np.array(errors) < 5e-3) > 0.9  # m; edges and textures of meshes differ


def test_observations_have_depth_only_where_a_policy_requires_it() -> None:
    cell = load_cell(SIMULATED)
    plain = PolicySpec(cell.robot.name, cell.robot.joint_names)
    environment = get_simulator(cell).environment(cell, plain, "", 0)
    environment.reset("push_button", 0)
    assert not environment.observe().depth
    environment.close()


@pytest.mark.parametrize("name", sorted(name for name, _ in SIMULATORS.items()))
def test_only_cells_of_simulators_that_render_depth_may_have_it(name: str) -> None:
    cell = replace(load_cell(SIMULATED), simulator=name)
    assert cell.depth and SIMULATORS.find(name).has_depth == (name == "mujoco")
    get_simulator(replace(cell, depth=False))
    if name == "mujoco":
        get_simulator(cell)
        return
    with pytest.raises(GenimaError, match=f"cell sim_panda: {name} renders no depth images; leave depth out"):
        get_simulator(cell)
