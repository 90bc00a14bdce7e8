"""Action spaces: round trips against independent kinematics, statistics, checkpoints, and use by a policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genima.data.datasets.chunk_samples import ObservationDataset, action_encoding, joint_statistics
from genima.data.datasets.sample_index import SampleIndex
from genima.data.datasets.target_dataset import TargetDataset
from genima.errors import GenimaError
from genima.policy.act import ActPolicy
from genima.policy.visuomotor.action_space import ACTION_SPACES, END_EFFECTOR, JointDeltas, TipPoses
from genima.robot.ik import UnreachableError
from genima.robot.model import RobotModel
from genima.training.chunk_model import build_chunk_model
from genima.training.options import SMALL
from genima.types import Joints

PANDA = RobotModel.load("panda")
RNG = np.random.default_rng(0)


def motion(steps: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Start (7,) and a smooth chunk (K, 7) of joint positions."""
    start, goal = (PANDA.home + RNG.uniform(-0.3, 0.3, 7) for _ in range(2))
    shares = np.linspace(0, 1, steps + 1)[1:, None]
    return start, start + shares * (goal - start)


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_decoding_inverts_encoding(name: str) -> None:
    space = ACTION_SPACES[name](PANDA)
    start, positions = motion()
    columns = space.encode(positions, start)
    assert columns.shape == (20, space.size)
    decoded = space.decode(columns, start)
    assert decoded.shape == positions.shape
    tips, expected = (PANDA.link_poses(q)[:, -1] for q in (decoded, positions))
    np.testing.assert_allclose(tips, expected, atol=2e-3 if name == END_EFFECTOR else 1e-12)  # m; the arm has 7 joints


def test_deltas_add_up_from_measured_positions() -> None:
    start, positions = motion()
    columns = JointDeltas(PANDA).encode(positions, start)
    np.testing.assert_allclose(columns[0], positions[0] - start)
    np.testing.assert_allclose(start + columns.sum(0), positions[-1])


def test_tip_poses_are_those_of_forward_kinematics() -> None:
    _, positions = motion(3)
    columns = TipPoses(PANDA).encode(positions, PANDA.home)
    for column, q in zip(columns, positions, strict=True):
        x, y = column[3:6], column[6:9]
        turn = np.column_stack([x, y, np.cross(x, y)])
        assert np.linalg.det(turn) == pytest.approx(1)
        np.testing.assert_allclose(turn, PANDA.link_poses(q)[-1, :3, :3], atol=1e-12)
        np.testing.assert_allclose(column[:3], PANDA.link_poses(q)[-1, :3, 3], atol=1e-12)


def test_predicted_rotations_are_orthonormalised() -> None:
    space, start = TipPoses(PANDA), PANDA.home
    columns = space.encode(np.tile(PANDA.home, (2, 1)), start)
    turn = Rotation.from_rotvec([0.0, 0.0, 0.1]).as_matrix() @ columns[0, 3:].reshape(2, 3).T
    columns[:, 3:] = np.concatenate([1.7 * turn[:, 0], 0.6 * turn[:, 1] + 0.2 * turn[:, 0]])
    T = PANDA.link_poses(space.decode(columns, start)[-1])[-1]
    np.testing.assert_allclose(T[:3, :2], turn, atol=5e-3)


def test_poses_out_of_reach_are_one_line() -> None:
    columns = TipPoses(PANDA).encode(PANDA.home[None], PANDA.home)
    columns[0, 0] += 2.0
    with pytest.raises(UnreachableError, match="tip pose: out of reach"):
        TipPoses(PANDA).decode(columns, PANDA.home)


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_samples_are_normalised_and_decode_to_demos(targets: TargetDataset, name: str) -> None:
    moments, statistics = targets.moments, joint_statistics(targets.moments)
    encoding = action_encoding(name, PANDA, moments, statistics)
    dataset = ObservationDataset(targets, np.arange(len(moments)), statistics, encoding=encoding)
    columns = np.concatenate([dataset[SampleIndex(i, 0)].actions[:, :-1].numpy() for i in range(0, len(moments), 5)])
    assert np.abs(columns.mean(0)).max() < 2 and columns.std(0).max() < 3
    sample = dataset[SampleIndex(4, 0)]
    decoded = encoding.decode(sample.actions[:, :-1].double().numpy(), moments.positions[4])
    tips, expected = (PANDA.link_poses(q)[:, -1, :3, 3] for q in (decoded, moments.actions[4]))
    np.testing.assert_allclose(tips, expected, atol=2e-3)  # m


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_checkpoints_keep_the_action_space(targets: TargetDataset, tmp_path: Path, name: str) -> None:
    policy = build_chunk_model(ActPolicy, "act", targets.spec, targets.moments, clip=SMALL, action_space=name)
    for parameter in policy.network.action_head.parameters():  # predicts the mean action
        parameter.data.zero_()
    policy.network.eval().requires_grad_(False)
    policy.save_pretrained(tmp_path)
    loaded = ActPolicy.from_pretrained(tmp_path)
    assert loaded.encoding.name == name
    np.testing.assert_array_equal(loaded.encoding.statistics.mean, policy.encoding.statistics.mean)
    size, views = targets.spec.view_size, len(targets.spec.views)
    images = np.zeros((views, size, size, 3), np.uint8)
    joints = Joints(0.0, targets.moments.positions[0], 1.0)
    positions, _ = loaded.predict_actions(images, "push", joints)
    expected = loaded.encoding.space.decode(np.tile(loaded.encoding.statistics.mean, (20, 1)), joints.positions)
    np.testing.assert_allclose(positions, expected, atol=1e-5)


def test_damaged_encodings_are_one_line(targets: TargetDataset, tmp_path: Path) -> None:
    policy = build_chunk_model(ActPolicy, "act", targets.spec, targets.moments, clip=SMALL)
    policy.save_pretrained(tmp_path)
    file = tmp_path / "genima.json"
    text = file.read_text(encoding="utf-8")
    for change, line in (
        (('"action_space": "joints"', '"action_space": "end_effector"'), "actions of 7 numbers; end_effector has 9"),
        (('"action_space": "joints"', '"action_space": "thoughts"'), "action_space"),
    ):
        assert change[0] in text
        file.write_text(text.replace(*change), encoding="utf-8")
        with pytest.raises(GenimaError, match=line) as caught:
            ActPolicy.from_pretrained(tmp_path)
        assert "\n" not in str(caught.value)
