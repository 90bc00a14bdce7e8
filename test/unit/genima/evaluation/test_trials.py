"""Blinded trials: protocols, random order, result file, and the policy that hides which one is in use."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genima.errors import GenimaError
from genima.evaluation.blinded_policy import BlindedPolicy
from genima.evaluation.results import open_results
from genima.evaluation.trials import Protocol, Trial, TrialFile, load_protocol, random_order
from genima.io.paths import yaml_files
from genima.policy import remote
from genima.policy.policy_server import policy_server
from genima.policy.spec import PolicySpec
from genima.types import ActionChunk, Joints, Observation

PAPER = {
    "lid_off", "place_teddy", "elbow_touch", "hang_scarf", "put_marker", "slide_book", "avoid_lamp", "lift_bag",
    "flip_cup",
}  # fmt: skip
PROTOCOL = Protocol(instruction="push", setup="as drawn", variants={"near": "1 m", "far": "2 m"}, success="pushed")


def test_protocols_of_the_project_are_valid() -> None:
    """The paper has 9 tasks, each with 5 trials in and out of distribution (section 3.4, appendix B)."""
    protocols = {file.stem: load_protocol(file.stem) for file in yaml_files("config", "trials")}
    assert protocols.keys() - {"sim_push_button"} == PAPER
    for name in PAPER:
        assert list(protocols[name].variants) == ["in_distribution", "out_of_distribution"], name
        assert protocols[name].trials == 5 and protocols[name].task is None and len(protocols[name].pairs) == 10


@pytest.mark.parametrize(("change", "named"), [
    ("trials: 0", "trials"), ("trials: many", "trials"), ("variants: {}", "variants"), ("success: ''", "success"),
    ("variants: {near far: here}", "near far"), ("time_limit: -1.0", "time_limit"), ("colour: red", "colour"),
])  # fmt: skip
def test_invalid_protocol_is_one_line(tmp_path: Path, change: str, named: str) -> None:
    lines = {"instruction": "push", "setup": "there", "variants": "{near: here}", "success": "pushed"}
    key, _, value = change.partition(": ")
    lines[key] = value
    file = tmp_path / "mine.yaml"
    file.write_text("\n".join(f"{key}: {value}" for key, value in lines.items()), encoding="utf-8")
    with pytest.raises(GenimaError, match="protocol .*mine.yaml: ") as caught:
        load_protocol(str(file))
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_protocol_is_one_line() -> None:
    with pytest.raises(GenimaError, match="lid_of.yaml not found"):
        load_protocol("lid_of")


@given(st.integers(0, 50), st.integers(0, 2**31 - 1))
def test_order_is_balanced_in_blocks_of_two_pairs(pairs: int, seed: int) -> None:
    order = random_order(pairs, seed)
    assert len(order) == pairs and order == random_order(pairs, seed)
    for block in range(0, pairs - 1, 2):
        assert sorted(order[block : block + 2]) == ["ab", "ba"]


def test_order_is_random() -> None:
    assert len({tuple(random_order(12, seed)) for seed in range(100)}) > 50


def trial_file(path: Path, seed: int = 4, **settings: Any) -> TrialFile:
    return TrialFile(PROTOCOL, seed, False, {"seed": seed, **settings}, path)


def run(file: TrialFile, trials: int, verdict: Callable[[int, str], Any]) -> None:
    for _ in range(trials):
        following = file.next_trial()
        assert following is not None
        pair, side = following
        file.add(Trial(pair=pair, side=side, verdict=verdict(pair, side), seconds=1.0, ended="FINISHED"))


def test_interrupted_trials_resume_with_the_same_order(tmp_path: Path) -> None:
    path = tmp_path / "trials.json"
    with open_results(trial_file(path), False) as first:
        run(first, 7, lambda pair, side: "success" if side == "a" else "failure")
        order, following = first.order, first.next_trial()
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["order"] = stored["order"][::-1]  # as of another version of NumPy: the file's counts
    path.write_text(json.dumps(stored), encoding="utf-8")
    with open_results(trial_file(path), False) as second:
        assert second.order == order[::-1] and second.counted == 7
    stored["order"] = order
    path.write_text(json.dumps(stored), encoding="utf-8")
    with open_results(trial_file(path), False) as third:
        assert third.next_trial() == following
        run(third, 13, lambda pair, side: "success" if side == "a" else "failure")
        assert third.next_trial() is None
    with pytest.raises(GenimaError, match="of another run .seed: 4, not 5"), open_results(trial_file(path, 5), False):
        pass
    report = third.comparison().report("x", "y")
    assert [line.split()[0] for line in report.splitlines()[3:6]] == ["near", "far", "all"] and "10/10" in report
    assert report.splitlines()[-1].startswith("A is better: McNemar's exact test at 5%, 10 of 10")


def test_trial_that_does_not_count_is_repeated(tmp_path: Path) -> None:
    file = trial_file(tmp_path / "trials.json")
    first = file.next_trial()
    run(file, 1, lambda *_: "not counted")
    assert file.next_trial() == first and file.counted == 0
    run(file, 2, lambda *_: "success")
    assert file.counted == 2 and len(file.trials) == 3 and file.next_trial() != first
    assert file.comparison().outcomes().both == 1


@pytest.mark.parametrize("change", [{"order": ["ab"]}, {"order": ["aa"] * 10}, {"trials": [{"pair": 99}]}])
def test_damaged_result_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "trials.json"
    trial_file(path).write()
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(GenimaError, match="trials.json"), open_results(trial_file(path), False):
        pass


class Hold:
    """Policy that holds at a joint angle, and notes its resets."""

    def __init__(self, spec: PolicySpec, angle: float) -> None:
        self.spec, self._angle, self.resets = spec, angle, list[int]()

    def reset(self, seed: int = 0) -> None:
        self.resets.append(seed)

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        joints = len(self.spec.joint_names)
        return ActionChunk(observation.stamp, 0.05, np.full((self.spec.horizon, joints), self._angle), np.ones(20))


def test_blinded_policies_are_served_at_one_address(monkeypatch: pytest.MonkeyPatch, spec: PolicySpec) -> None:
    policies = {"a": Hold(spec, 0.1), "b": Hold(spec, 0.2)}
    blinded = BlindedPolicy(policies, {"a": "x", "b": "y"})
    width, height = spec.camera_size
    images = {view: np.zeros((height, width, 3), np.uint8) for view in spec.views}
    observation = Observation(0.0, images, Joints(0.0, np.zeros(len(spec.joint_names)), 1.0), "push")
    with policy_server(blinded, "token", "127.0.0.1", 0) as port:
        client = remote.RemotePolicy(remote.Server(f"ws://127.0.0.1:{port}"), "token", 30.0)
        try:
            angles = []
            for side in "aba":
                blinded.select(side)
                client.reset(7)
                angles.append(float(client.predict_chunk(observation).positions[0, 0]))
        finally:
            client.close()
        with pytest.raises(GenimaError, match="cannot listen"), policy_server(blinded, "token", "127.0.0.1", port):
            pass
    assert angles == pytest.approx([0.1, 0.2, 0.1])
    assert policies["a"].resets == [7, 0, 7] and policies["b"].resets == [
        0,
        7,
    ]  # 0: warmed up, at the first observation


def test_policies_with_other_observations_are_refused(spec: PolicySpec) -> None:
    other = Hold(replace(spec, camera_size=(128, 128)), 0.0)
    with pytest.raises(GenimaError, match="policies x and y: camera_size differs .*128, 128") as caught:
        BlindedPolicy({"a": Hold(spec, 0.0), "b": other}, {"a": "x", "b": "y"})
    assert "\n" not in str(caught.value)
