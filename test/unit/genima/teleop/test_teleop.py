"""Tests of leaders, mirroring, and the node between a leader and the command guard."""

from __future__ import annotations

import threading
import time
from array import array
from pathlib import Path

import numpy as np
import pytest
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from ros_graph import PATIENCE, Graph, overrides
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import JointState, Joy
from std_msgs.msg import Float32
from std_srvs.srv import Trigger

from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose
from genima.teleop.cartesian_jog import CartesianJog
from genima.teleop.gamepad import Gamepad
from genima.teleop.leader_follower import FollowerState, LeaderFollower, LeaderFollowerSettings
from genima.teleop.leader_mapping import LeaderMapping, LeaderSample
from genima.types import Joints
from genima_interfaces.msg import GuardStatus, LeaderStatus, SceneStatus, TeleopStatus
from genima_interfaces.srv import SelectSource
from genima_nodes.command_guard import CommandGuardNode
from genima_nodes.jog import JogNode
from genima_nodes.ros import messages, qos
from genima_nodes.ros.transform_messages import pose_message
from genima_nodes.teleop import TeleopNode
from genima_sim.demo_starts import Demo
from genima_sim.experts import Expert
from genima_sim.sim_leader import ExpertLeader
from genima_sim.task import random_placements
from genima_sim.tasks import get_task, scene_objects

PANDA = RobotModel.load("panda")
N = len(PANDA.joint_names)
NAMES = [f"servo_{i}" for i in range(N)]
DT = 0.005  # s between the leader's samples
TURN = 2 * np.pi  # rad
PAD = paths.shared("config", "teleop", "gamepad.yaml").read_text(encoding="utf-8")


def leader_file(folder: Path, **changes: object) -> Path:
    content: dict[str, object] = {"joints": list(NAMES)} | changes
    path = folder / "leader.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


# How a leader's joints become the follower's.


@given(
    st.lists(st.tuples(st.sampled_from([-1, 1]), st.floats(0.2, 3), st.floats(-3, 3)), min_size=N, max_size=N),
    st.lists(st.floats(-4, 4), min_size=N, max_size=N),
    st.permutations(range(N)),
)
@settings(max_examples=50)
def test_leader_mapping_by_name_scale_sign_and_offset(tmp_path_factory, rows, positions, order) -> None:
    joints = [{"name": name, "sign": s, "scale": k, "offset": o} for name, (s, k, o) in zip(NAMES, rows, strict=True)]
    leader = LeaderMapping.load(leader_file(tmp_path_factory.mktemp("leader"), joints=joints), PANDA)
    sample = leader.sample(1.0, [NAMES[i] for i in order], [positions[i] for i in order], [0.1] * N)
    signs, scales, offsets = (np.array(column) for column in zip(*rows, strict=True))
    np.testing.assert_allclose(sample.positions, signs * scales * np.array(positions) + offsets, atol=1e-12)
    np.testing.assert_allclose(sample.velocities, signs * scales * 0.1)
    assert sample.gripper is None


@pytest.mark.parametrize("name", ["panda", "fr3", "same", "gello"])
def test_shipped_leaders_load(name: str) -> None:
    leader = LeaderMapping.load(name, PANDA)
    joints = [*leader.joint_names, *([leader.gripper_joint] if leader.gripper_joint else [])]
    sample = leader.sample(0.0, joints, [*PANDA.home, *([leader.gripper_open] if leader.gripper_joint else [])])
    np.testing.assert_allclose(sample.positions, PANDA.home)
    assert sample.gripper == (1.0 if leader.gripper_joint else None)


def test_gripper_may_have_its_own_joint_state(tmp_path: Path) -> None:
    leader = LeaderMapping.load(leader_file(tmp_path, gripper={"joint": "finger", "closed": 0.04, "open": 0.0}), PANDA)
    assert not leader.has_arm_joints(["finger"]) and leader.has_arm_joints([*NAMES, "finger"])
    assert leader.gripper_fraction(["finger"], [0.03]) == pytest.approx(0.25)
    assert leader.gripper_fraction(["finger"], [0.045]) == 0.0, "a little beyond its stop"
    assert leader.gripper_fraction(NAMES, [0.0] * N) is None
    for position in (9.0, -0.02, float("nan"), float("inf")):
        with pytest.raises(GenimaError, match=r"finger: outside its travel \(.*, 0.04 closed .. 0 open\)"):
            leader.gripper_fraction(["finger"], [position])


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"joints": NAMES[:-1]}, "wrong number of joints (6); panda has 7"),
        ({"joints": [NAMES[0]] * N}, "names twice: servo_0"),
        ({"joints": [{"name": name, "scale": 0} for name in NAMES]}, "joints.0.scale: must be from 0.001 to 1000 (0"),
        ({"joints": [{"name": name, "sign": 2} for name in NAMES]}, "joints.0.sign: must be 1 or -1"),
        ({"joints": [{"name": name, "ofset": 1} for name in NAMES]}, "joints.0.ofset: Extra inputs"),
        ({"joints": [{"name": name, "offset": "much"} for name in NAMES]}, "joints.0.offset: Input should be a"),
        ({"joints": [{"name": name, "offset": 90} for name in NAMES]}, "joints.0.offset: Input should be less"),  # deg
        ({"joints": [1, *NAMES[1:]]}, "joints.0: Input should be a valid dictionary (1)"),
        ({"joints": None}, "joints: Input should be a valid list"),
        ({"gripper": {"closed": 1}}, "gripper: give either the joint of the gripper, or"),
        ({"gripper": {"joint": "f", "button": 1}}, "gripper: give either the joint of the gripper, or"),
        ({"gripper": {"button": 1, "open": 2.0}}, "closed and open belong to a joint"),
        ({"gripper": {"joint": "f", "closed": 1}}, "closed and open must differ"),
        ({"gripper": {"button": -1}}, "gripper.button: Input should be greater than or equal to 0"),
        ({"gripper": {"button": "red"}}, "gripper.button: Input should be a valid integer"),
        ({"unwrap_at_start": 1}, "unwrap_at_start: Input should be a valid boolean"),
    ],
)
def test_bad_leader_file_is_one_line(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    with pytest.raises(GenimaError) as caught:
        LeaderMapping.load(leader_file(tmp_path, **changes), PANDA)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_missing_or_invalid_leader_file_is_error(tmp_path: Path) -> None:
    with pytest.raises(GenimaError, match="does not exist"):
        LeaderMapping.load(tmp_path / "no.yaml", PANDA)
    (tmp_path / "bad.yaml").write_text("joints: [")
    with pytest.raises(GenimaError, match="not YAML"):
        LeaderMapping.load(tmp_path / "bad.yaml", PANDA)


@pytest.mark.parametrize(
    "names, positions, expected",
    [
        (NAMES[1:], [0.0] * (N - 1), r"joints missing \(servo_0\)"),
        ([*NAMES, NAMES[0]], [0.0] * (N + 1), "duplicate names"),
        (NAMES, [0.0] * (N - 1), "7 names, 6 values"),
        (NAMES, [*[0.0] * (N - 1), float("inf")], r"not finite \(servo_6\)"),
    ],
)
def test_invalid_samples_are_rejected(tmp_path: Path, names: list[str], positions: list[float], expected: str) -> None:
    with pytest.raises(GenimaError, match=expected):
        LeaderMapping.load(leader_file(tmp_path), PANDA).sample(0.0, names, positions)


def off(joint: int, turns: float) -> NDArray[np.float64]:
    """Home position with one joint offset by a number of turns."""
    return PANDA.home + turns * TURN * np.eye(N)[joint]


@pytest.mark.parametrize("turns", [1, -1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_leader_with_turn_offset_is_rejected_or_unwrapped(tmp_path: Path, turns: int, sign: int) -> None:
    joints = [{"name": name, "sign": sign} for name in NAMES]
    leader = LeaderMapping.load(leader_file(tmp_path, joints=joints), PANDA)
    published = sign * PANDA.home + turns * TURN * np.eye(N)[6]
    sample = leader.sample(0.0, NAMES, published)
    with pytest.raises(GenimaError) as rejected:
        leader.require_within_range(sample.positions, 0.02)
    line = str(rejected.value)
    assert f"servo_6 is at {sample.positions[6]:.2f} rad, outside the range -2.90 .. 2.90 of" in line
    assert "panda_joint7; it seems to be" in line and "turn" in line and "set unwrap_at_start" in line
    found = leader.unwrap(sample.positions, PANDA.home, 0.02)
    assert found[6] == -turns and not found[:6].any()
    now = sample.positions + leader.turn_offset(found)
    leader.require_within_range(now, 0.02)
    np.testing.assert_allclose(now, PANDA.home, atol=1e-9)


@pytest.mark.parametrize("beyond, hint", [(0.5, "move the leader back"), (90.0, "are these degrees"), (20.0, "degr")])
def test_leader_out_of_range_is_not_unwrapped(beyond: float, hint: str) -> None:
    leader = LeaderMapping.load("same", PANDA)
    positions = PANDA.home.copy()
    positions[3] = PANDA.position_max[3] + beyond
    assert not np.any(leader.unwrap(positions, PANDA.home, 0.02))
    with pytest.raises(GenimaError, match=rf"panda_joint4 is at {positions[3]:.2f} rad, outside .*; .*{hint}"):
        leader.require_within_range(positions, 0.02)


def test_all_joints_out_of_range_are_reported() -> None:
    leader = LeaderMapping.load("same", PANDA)
    with pytest.raises(GenimaError, match="panda_joint1 is at .*, panda_joint5 is at"):
        leader.require_within_range(off(0, 1) + off(4, 1) - PANDA.home, 0.02)
    leader.require_within_range(PANDA.position_max + 0.01, 0.02)


# Leader-follower mirroring.


class Follower:
    """Follower that executes commands immediately."""

    def __init__(self, **changes: float) -> None:
        self.mirror = LeaderFollower(PANDA, LeaderFollowerSettings(**changes))
        self.positions = PANDA.home.copy()
        self.commands: list[tuple[float, np.ndarray]] = []

    def receive(self, stamp: float, positions: np.ndarray, velocities: np.ndarray | None = None) -> bool:
        command = self.mirror.follow(
            LeaderSample(stamp, positions, velocities, 0.3), Joints(stamp, self.positions, 1.0)
        )
        if command is not None:
            assert command.stamp == stamp and command.gripper == 0.3
            self.positions = command.positions
            self.commands.append((stamp, command.positions))
        return command is not None


def wave(stamp: float, size: float = 0.3) -> np.ndarray:
    return PANDA.home + size * np.sin(stamp)


@pytest.mark.parametrize("rate", [25, 200, 1000])
@pytest.mark.parametrize("apart", [0.0, 0.8])
def test_follower_aligns_slowly_then_mirrors(rate: int, apart: float) -> None:
    follower = Follower()
    follower.positions = PANDA.home - apart * np.eye(N)[0]
    first = follower.positions
    assert not follower.receive(0.0, PANDA.home), "commands before the start"
    follower.mirror.start()
    stamp = 0.0
    while follower.mirror.state is FollowerState.ALIGNING:
        stamp += 1 / rate
        assert stamp < 30, "the follower does not align"
        assert follower.receive(stamp, wave(stamp, 0.05))
    assert follower.mirror.state is FollowerState.MIRRORING
    times = np.array([0.0, *(t for t, _ in follower.commands)])
    trajectory = np.array([first, *(q for _, q in follower.commands)])
    # While it comes, it is slow; a set-point may be a step of the motion late.
    assert np.max(np.abs(np.diff(trajectory, axis=0)) / PANDA.velocity_max) <= 0.151 * (np.diff(times).max() + DT)
    assert stamp > apart / (0.15 * PANDA.velocity_max[0])
    for _ in range(200):
        stamp += 1 / rate
        follower.receive(stamp, wave(stamp))
        np.testing.assert_array_equal(follower.positions, wave(stamp))


def mirroring(**changes: float) -> tuple[Follower, float]:
    """A mirroring follower and the stamp of its last command."""
    follower, stamp = Follower(**changes), 0.0
    follower.mirror.start()
    while follower.mirror.state is not FollowerState.MIRRORING:
        stamp += DT
        follower.receive(stamp, PANDA.home)
    return follower, stamp


def test_missing_leader_velocity_is_estimated() -> None:
    follower, stamp = mirroring()
    for _ in range(100):
        stamp += DT
        follower.receive(stamp, PANDA.home + 0.1 * (stamp % 100))
    command = follower.mirror.follow(
        LeaderSample(stamp + DT, PANDA.home + 0.1 * (stamp + DT), None, None), Joints(stamp, follower.positions, 1.0)
    )
    assert command is not None and command.gripper == 0.3, "the gripper is not kept"
    np.testing.assert_allclose(command.velocities, 0.1, rtol=1e-6)


@pytest.mark.parametrize(
    "later, positions, expected",
    [
        (DT, PANDA.home + 0.2 * np.eye(N)[2], "panda_joint3 jumped by 0.20 rad"),
        (-0.02, PANDA.home, "stamps go back (0.020 s)"),
        (0.3, PANDA.home, "no leader samples for 0.30 s"),
    ],
)
def test_invalid_leader_holds_follower_until_start(later, positions, expected) -> None:
    follower, stamp = mirroring()
    count = len(follower.commands)
    assert not follower.receive(stamp + later, positions)
    assert follower.mirror.state is FollowerState.HELD and expected in follower.mirror.reason
    assert not follower.receive(stamp + later + DT, positions), "the follower resumes without a start"
    assert len(follower.commands) == count
    follower.mirror.start()
    assert follower.receive(stamp + later + 2 * DT, positions)
    assert follower.mirror.state is FollowerState.ALIGNING and follower.mirror.reason == ""
    assert np.max(np.abs(follower.positions - PANDA.home)) < 1e-3, "the follower jumps to the leader"


def test_alignment_to_leader_outside_range_is_held() -> None:
    follower = Follower()
    follower.mirror.start()
    assert not follower.receive(0.0, off(6, 1)) and not follower.commands
    assert follower.mirror.state is FollowerState.HELD
    assert follower.mirror.reason == (
        "the leader is at 7.07 rad of panda_joint7, outside -2.90 .. 2.90; move the leader back"
    )
    measured = Joints(0.0, PANDA.home, 1.0)
    distance = follower.mirror.distance(LeaderSample(0.0, off(6, 1), None, None), measured)
    np.testing.assert_allclose(distance, TURN * np.eye(N)[6], atol=1e-12)  # the true one


def test_follower_stays_at_limit_when_leader_leaves_range() -> None:
    follower, stamp = mirroring()
    leader, speed = PANDA.home.copy(), 1.0
    limit = PANDA.position_max[6]
    for _ in range(600):
        stamp += DT
        leader = leader + speed * DT * np.eye(N)[6]
        assert follower.receive(stamp, leader)
        assert np.all(follower.positions <= PANDA.position_max)
    assert leader[6] > limit + 0.5 and follower.positions[6] == limit
    assert follower.mirror.state is FollowerState.MIRRORING
    assert f"the leader is at {leader[6]:.2f} rad of panda_joint7, outside -2.90 .. 2.90" in follower.mirror.reason
    command = follower.mirror.follow(
        LeaderSample(stamp + DT, leader, None, 1.0), Joints(stamp, follower.positions, 1.0)
    )
    assert command is not None and command.velocities[6] == 0.0
    while leader[6] > limit - 0.1:
        stamp += DT
        leader = leader - speed * DT * np.eye(N)[6]
        follower.receive(stamp + DT, leader)
    np.testing.assert_array_equal(follower.positions, leader)
    assert follower.mirror.reason == ""


def test_timeout_of_leader_holds_follower() -> None:
    follower, stamp = mirroring()
    follower.mirror.check_timeout(stamp + 0.09)
    assert follower.mirror.state is FollowerState.MIRRORING
    follower.mirror.check_timeout(stamp + 0.11)
    assert follower.mirror.state is FollowerState.HELD and "no leader samples" in follower.mirror.reason


def test_pause_allows_leader_to_move() -> None:
    follower, stamp = mirroring()
    follower.mirror.pause()
    assert follower.mirror.state is FollowerState.PAUSED
    target = PANDA.home + 0.5 * np.eye(N)[3]
    assert not follower.receive(stamp + DT, target)
    stamp += 5.0
    follower.mirror.check_timeout(stamp)
    assert follower.mirror.state is FollowerState.PAUSED, "a lost leader is reported without a follower"
    follower.mirror.start()
    while follower.mirror.state is FollowerState.ALIGNING:
        stamp += DT
        follower.receive(stamp, target)
        assert stamp < 40
    np.testing.assert_allclose(follower.positions, target, atol=0.02)
    follower.mirror.end()
    assert not follower.receive(stamp + DT, target) and follower.mirror.state is FollowerState.IDLE


@given(st.lists(st.tuples(st.floats(0.0005, 0.09), st.integers(0, N - 1), st.floats(-1, 1)), min_size=5, max_size=60))
@settings(max_examples=50)
def test_follower_keeps_alignment_speed(steps) -> None:
    follower, stamp, leader = Follower(), 0.0, PANDA.home + 0.4
    follower.mirror.start()
    last = follower.positions
    for dt, joint, share in steps:
        stamp += dt
        leader = leader + share * PANDA.velocity_max[joint] * dt * np.eye(N)[joint]
        follower.receive(stamp, leader)
        assert follower.mirror.state is FollowerState.ALIGNING
        assert np.all(np.abs(follower.positions - last) <= 0.1501 * PANDA.velocity_max * (dt + DT))
        last = follower.positions


@pytest.mark.parametrize(
    "changes", [{"near": 0.0}, {"speed": 1.5}, {"late": float("nan")}, {"jump": 1e9}, {"near": float("inf")}]
)
def test_invalid_settings_are_rejected(changes: dict[str, float]) -> None:
    with pytest.raises(GenimaError, match="teleop "):
        LeaderFollower(PANDA, LeaderFollowerSettings(**changes))


# The node.


class LeaderFollowerFixture:
    """Moving leader, and a follower that executes the guard's commands."""

    def __init__(self, graph: Graph, leader: str = "panda", guard: bool = True, **others: object) -> None:
        self.graph = graph
        if guard:
            graph.add(CommandGuardNode())
        values = {"leader": leader, **others}
        graph.add(TeleopNode(parameter_overrides=overrides(**values)))
        self.leader, self.follower = PANDA.home + 0.05, PANDA.home.copy()
        self.names = [f"panda_joint{i + 1}" for i in range(N)]
        self.silent, self.late = False, 0.0  # s
        self.gripper = 1.0  # open fraction of the follower's
        graph.subscribe(JointState, "joint_command", qos.JOINT_COMMAND, self._on_command)
        self.statuses = graph.subscribe(TeleopStatus, "teleop/status", qos.STATUS)
        self.commands = graph.subscribe(JointState, "teleop/command", qos.JOINT_COMMAND)
        self._publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._publish_leader = graph.publisher(JointState, "leader/joint_states", qos.JOINT_STATES)

    def _on_command(self, message: JointState) -> None:
        self.follower = messages.command_from(message, PANDA).positions

    def work(self) -> None:
        self._publish_joints(messages.joints_message(Joints(time.time(), self.follower, self.gripper), PANDA))
        if not self.silent:
            message = JointState(name=self.names, position=list(self.leader))
            message.header.stamp = messages.time_message(time.time() - self.late)
            self._publish_leader(message)

    def call(self, name: str) -> Trigger.Response:
        return self.graph.call(Trigger, f"teleop/{name}", Trigger.Request())

    def until(self, condition, otherwise: str) -> None:
        self.graph.until(condition, otherwise, self.work)

    def come_to_rest(self) -> NDArray[np.float64]:
        """Position of rest (7,) in rad, which the follower reaches smoothly after a stop."""
        last = self.follower
        while True:
            for _ in range(10):
                self.work()
                time.sleep(0.02)
            if np.array_equal(self.follower, last):
                return last
            last = self.follower

    @property
    def state(self) -> int | None:
        return self.statuses[-1].state if self.statuses else None

    def start(self) -> None:
        def has_started() -> bool:
            self.work()
            return self.call("start").success

        self.until(has_started, "no start")
        self.until(lambda: self.state == TeleopStatus.MIRRORING, "no mirroring")


@pytest.fixture
def pair(graph: Graph) -> LeaderFollowerFixture:
    return LeaderFollowerFixture(graph)


def test_pedal_opens_and_closes_gripper(graph, tmp_path: Path) -> None:
    names = [f"panda_joint{i + 1}" for i in range(N)]
    pair = LeaderFollowerFixture(graph, str(leader_file(tmp_path, joints=names, gripper={"button": 1})))
    press = graph.publisher(Joy, "leader/joy", qos.JOINT_STATES)
    pair.gripper = 0.3  # it holds something
    pair.start()

    def gripper_is_at(opening: float) -> bool:
        return messages.command_from(pair.commands[-1], PANDA).gripper == pytest.approx(opening)

    np.testing.assert_allclose([message.position[N] for message in pair.commands], 0.3)  # nor does it drop that
    for opening in (1.0, 0.0, 1.0):
        for buttons in ([0, 1], [0, 1], [1, 0]):  # held, then released
            press(Joy(buttons=buttons))
            time.sleep(0.02)
            pair.work()
        pair.until(lambda opening=opening: gripper_is_at(opening), f"gripper not at {opening}")
    press(Joy(buttons=[1]))
    pair.until(graph.reports_fault("teleop", "(1 buttons)"), "fault not reported")


def test_follower_follows_leader(graph) -> None:
    pair = LeaderFollowerFixture(graph)
    publish_gripper = graph.publisher(Float32, "leader/gripper", qos.IMAGE)
    publish_gripper(Float32(data=0.25))
    pair.start()
    assert np.abs(pair.statuses[-1].distance).max() < 0.05 and pair.statuses[-1].joints == list(PANDA.joint_names)
    for _ in range(50):
        pair.leader = pair.leader + 0.004
        pair.work()
        time.sleep(0.02)
    pair.until(lambda: np.allclose(pair.follower, pair.leader, atol=1e-3), "the follower does not arrive")
    assert messages.command_from(pair.commands[-1], PANDA).gripper == 0.25
    assert pair.call("pause").success
    pair.until(lambda: pair.state == TeleopStatus.PAUSED, "no pause")
    rest = pair.come_to_rest()
    pair.leader = pair.leader - 0.3
    for _ in range(10):
        pair.work()
        time.sleep(0.02)
    np.testing.assert_allclose(pair.follower, rest, atol=1e-3)
    assert pair.call("end").success
    assert not pair.call("pause").success, "nothing to pause"
    graph.until(lambda: pair.state == TeleopStatus.IDLE, "no end")


@pytest.mark.parametrize(
    "corrupt, expected",
    [
        (lambda pair: setattr(pair, "silent", True), "no leader samples for"),
        (lambda pair: setattr(pair, "late", 0.8), "stamps are 0.8"),
        (lambda pair: setattr(pair, "leader", pair.leader + 0.5), "jumped by 0.50 rad"),
        (lambda pair: setattr(pair, "leader", pair.leader * np.nan), "not finite"),
        (lambda pair: setattr(pair, "names", ["a", *pair.names[1:]]), "joints missing (panda_joint1)"),
    ],
)
def test_invalid_leader_message_holds_arm(graph, pair, corrupt, expected) -> None:
    pair.start()
    original = dict(vars(pair))
    corrupt(pair)
    pair.until(graph.reports_fault("teleop", expected), "fault not reported")
    pair.until(lambda: pair.state == TeleopStatus.HELD, "not held")
    rest, count = pair.follower.copy(), len(pair.commands)
    for _ in range(10):
        pair.work()
        time.sleep(0.02)
    np.testing.assert_allclose(pair.follower, rest, atol=1e-2)
    assert len(pair.commands) == count, "the follower resumes without a start"
    for name in ("silent", "late", "leader", "names"):
        setattr(pair, name, original[name])
    pair.start()


def test_non_finite_gripper_is_ignored(graph, pair) -> None:
    publish = graph.publisher(Float32, "leader/gripper", qos.IMAGE)
    publish(Float32(data=0.5))
    pair.start()
    publish(Float32(data=float("nan")))
    pair.until(graph.reports_fault("teleop", "leader/gripper: open fraction: out of range (nan)"), "fault not reported")
    assert messages.command_from(pair.commands[-1], PANDA).gripper == 0.5
    publish(Float32(data=0.25))
    pair.until(lambda: messages.command_from(pair.commands[-1], PANDA).gripper == 0.25, "gripper not updated")


def test_leader_with_turn_offset_does_not_start(graph) -> None:
    pair = LeaderFollowerFixture(graph)
    pair.leader = off(6, 1)

    def rejected() -> bool:
        pair.work()
        response = pair.call("start")
        return (
            not response.success and "panda_joint7 is at 7.07 rad, outside the range -2.90 .. 2.90" in response.message
        )

    pair.until(rejected, "the start is not rejected")
    pair.until(lambda: pair.statuses and pair.statuses[-1].distance, "no distance")
    assert pair.statuses[-1].distance[6] == pytest.approx(TURN, abs=0.01), "the distance is not the true one"
    assert pair.state == TeleopStatus.IDLE and not pair.commands


def test_leader_is_unwrapped_until_restart(graph) -> None:
    pair = LeaderFollowerFixture(graph, unwrap_at_start=True)
    pair.leader = off(6, 1) + 0.05
    pair.start()
    pair.until(lambda: np.allclose(pair.follower, PANDA.home + 0.05, atol=0.01), "the follower does not arrive")
    assert np.all(np.abs(np.array([m.position[6] for m in pair.commands]) - PANDA.home[6]) < 0.1)
    assert pair.call("pause").success
    pair.until(lambda: pair.state == TeleopStatus.PAUSED, "no pause")
    pair.leader = off(6, 1) + 0.1
    pair.start()  # the turn is remembered
    pair.until(lambda: np.allclose(pair.follower, PANDA.home + 0.1, atol=0.01), "the follower does not arrive")
    pair.leader = PANDA.home + 0.05  # switched off and on again
    pair.until(lambda: pair.state == TeleopStatus.HELD, "a jump of a turn is followed")
    pair.start()
    pair.until(lambda: np.allclose(pair.follower, PANDA.home + 0.05, atol=0.01), "the follower does not arrive")


def test_pause_is_not_a_fault(graph) -> None:
    pair = LeaderFollowerFixture(graph)
    pair.start()
    assert pair.call("pause").success
    pair.until(lambda: pair.state == TeleopStatus.PAUSED, "no pause")
    reports = graph.subscribe(DiagnosticArray, "/diagnostics", qos.STATUS)
    end = time.monotonic() + 1.5  # commands count as lost after 0.5 s
    pair.until(lambda: time.monotonic() > end, "")
    statuses = [status for report in reports for status in report.status if status.name in ("command_guard", "teleop")]
    assert {status.name for status in statuses} == {"command_guard", "teleop"}
    assert not [status.message for status in statuses if status.level != DiagnosticStatus.OK]
    assert (graph.guard.state, graph.guard.reason) == (GuardStatus.HELD, GuardStatus.PAUSED)
    pair.start()


@pytest.mark.parametrize("other", ["controller", "none"])
def test_mirroring_ends_with_ownership(graph, pair, other: str) -> None:
    pair.start()
    pair.until(lambda: pair.state == TeleopStatus.MIRRORING, "no mirroring")
    assert graph.call(SelectSource, "command_guard/select", SelectSource.Request(source=other)).success
    pair.until(lambda: pair.state == TeleopStatus.IDLE, "the lost ownership is not detected")
    assert pair.statuses[-1].reason == f"owner of the arm: {other}"
    assert other in pair.call("end").message, "the arm is taken from its owner"
    pair.start()


def test_pause_cancels_pending_start(graph) -> None:
    may_answer, answered = threading.Event(), threading.Event()

    def on_select(request: SelectSource.Request, response: SelectSource.Response) -> SelectSource.Response:
        may_answer.wait(PATIENCE)
        answered.set()
        response.success = True
        return response

    guard, executor = rclpy.create_node("slow_guard"), SingleThreadedExecutor()
    guard.create_service(SelectSource, "command_guard/select", on_select)
    executor.add_node(guard)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    pair = LeaderFollowerFixture(graph, guard=False)

    def has_started() -> bool:
        pair.work()
        return pair.call("start").success

    pair.until(has_started, "no start")
    assert pair.call("pause").success
    may_answer.set()
    pair.until(answered.is_set, "the guard was not asked")
    for _ in range(20):
        pair.work()
        time.sleep(0.02)
    executor.shutdown()
    thread.join()
    guard.destroy_node()
    assert pair.state == TeleopStatus.IDLE and not pair.commands


def test_leader_with_other_joints_is_reported(graph) -> None:
    pair = LeaderFollowerFixture(graph)
    pair.names = [f"fr3_joint{i + 1}" for i in range(N)]

    def reports_joints() -> bool:
        pair.work()
        response_message = pair.call("start").message
        return "with panda_joint1, " in response_message and "(received: fr3_joint1, " in response_message

    pair.until(reports_joints, "the joints are not reported")


def test_start_requires_leader_follower_and_guard(graph) -> None:
    graph.add(TeleopNode())
    response = graph.call(Trigger, "teleop/start", Trigger.Request())
    assert not response.success and "leader: no joint states on /leader/joint_states" in response.message
    publish_leader = graph.publisher(JointState, "leader/joint_states", qos.JOINT_STATES)

    def assert_start_rejected(expected: str, *others) -> None:
        def is_reported() -> bool:
            message = JointState(name=[f"panda_joint{i + 1}" for i in range(N)], position=list(PANDA.home))
            message.header.stamp = messages.time_message(time.time())
            publish_leader(message)
            for other in others:
                other(messages.joints_message(Joints(time.time(), PANDA.home, 1.0), PANDA))
            time.sleep(0.02)
            response = graph.call(Trigger, "teleop/start", Trigger.Request())
            assert not response.success
            return expected in response.message

        graph.until(is_reported, f"not reported: {expected}")

    assert_start_rejected("follower: no joint states on /joint_states")
    assert_start_rejected(
        "command_guard/select: service not available", graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
    )


# Leaders without an arm.


def tip(positions: np.ndarray) -> np.ndarray:
    return PANDA.link_poses(positions)[-1]


@given(st.lists(st.floats(-0.08, 0.08), min_size=3, max_size=3), st.lists(st.floats(-0.4, 0.4), min_size=3, max_size=3))
@settings(max_examples=20)
def test_tip_follows_twist(linear: list[float], angular: list[float]) -> None:
    jog = CartesianJog(PANDA)
    before = tip(jog.positions)
    for _ in range(100):  # a second
        jog.move(np.array(linear), np.array(angular), 0.01)
        assert np.all(np.abs(jog.velocities) <= 0.5001 * PANDA.velocity_max)
    after = tip(jog.positions)
    np.testing.assert_allclose(after[:3, 3] - before[:3, 3], linear, atol=4e-3)
    turned = Rotation.from_matrix(after[:3, :3] @ before[:3, :3].T).as_rotvec()
    np.testing.assert_allclose(turned, angular, atol=0.03)
    rest = jog.positions
    jog.move(np.zeros(3), np.zeros(3), 0.01)
    np.testing.assert_array_equal(jog.positions, rest)
    assert not np.any(jog.velocities)


def test_jog_beyond_reach_stays_within_limits() -> None:
    jog = CartesianJog(PANDA)
    for _ in range(1500):
        jog.move(np.array([0.2, 0.0, 0.0]), np.zeros(3), 0.01)
        assert np.all(jog.positions >= PANDA.position_min - 1e-6) and np.all(jog.positions <= PANDA.position_max + 1e-6)
    far = tip(jog.positions)[0, 3]
    assert 0.6 < far < 1.1
    for _ in range(50):
        jog.move(np.array([-0.2, 0.0, 0.0]), np.zeros(3), 0.01)
    assert tip(jog.positions)[0, 3] < far - 0.015, "motion beyond the limit is accumulated"


def test_gamepad_moves_only_with_held_button() -> None:
    gamepad = Gamepad.load()
    axes, buttons = [0.0] * 8, [0] * 11
    axes[1], axes[0], axes[3] = 1.0, 0.05, -0.5
    np.testing.assert_array_equal(gamepad.twist(axes, buttons), np.zeros(6))
    buttons[gamepad.enable_button] = 1
    np.testing.assert_allclose(gamepad.twist(axes, buttons), [0.15, 0, 0, 0, 0, -0.25])
    with pytest.raises(GenimaError, match=r"too few axes or buttons \(2, 11\)"):
        gamepad.twist(axes[:2], buttons)
    for value in (-32767.0, 1.5, float("nan"), float("inf")):
        axes[1] = value
        with pytest.raises(GenimaError, match=r"axis 1 outside -1 .. 1 \(.*\)"):
            gamepad.twist(axes, buttons)
    axes[1] = 1.004  # rounding
    np.testing.assert_allclose(gamepad.twist(axes, buttons)[:2], [0.15, 0])


@pytest.mark.parametrize(
    "text, expected",
    [
        ("linear: {", "not YAML"),
        ("linear: {}", "dead_zone: Field required"),
        (PAD.replace("axis: 4", "axis: -1"), "linear.z.axis: Input should be greater"),
        (PAD.replace("0.15", "15"), "linear.x.speed: Input should be less than or equal to 0.5"),
        (PAD.replace("0.15", ".nan"), "linear.x.speed: Input should be a finite number"),
        (PAD.replace("enable: 5", "enable: 0"), "gripper and enable are the same button"),
    ],
)
def test_bad_gamepad_file_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "pad.yaml").write_text(text)
    with pytest.raises(GenimaError, match=expected):
        Gamepad.load(tmp_path / "pad.yaml")
    with pytest.raises(GenimaError, match="does not exist"):
        Gamepad.load(tmp_path / "no.yaml")


class JogFixture:
    """The jog node with a follower at a given position."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        graph.add(JogNode())
        self.joint_states = graph.subscribe(JointState, "leader/joint_states", qos.JOINT_STATES)
        self._publish_joints = graph.publisher(JointState, "joint_states", qos.JOINT_STATES)
        self._publish_status = graph.publisher(TeleopStatus, "teleop/status", qos.STATUS)
        self.publish_twist = graph.publisher(TwistStamped, "leader/jog", qos.JOINT_COMMAND)
        self.publish_joy = graph.publisher(Joy, "joy", qos.JOINT_STATES)
        self.state, self.joints = TeleopStatus.IDLE, PANDA.home + 0.1

    def work(self) -> None:
        self._publish_joints(messages.joints_message(Joints(time.time(), self.joints, 1.0), PANDA))
        self._publish_status(TeleopStatus(state=self.state))

    def until(self, condition, otherwise: str, more=lambda: None) -> None:
        self.graph.until(condition, otherwise, lambda: (self.work(), more()))

    @property
    def tip(self) -> np.ndarray:
        return tip(np.array(self.joint_states[-1].position[:N]))[:3, 3]


def test_jog_starts_at_follower(graph) -> None:
    jogged = JogFixture(graph)
    jogged.until(
        lambda: jogged.joint_states and np.allclose(jogged.joint_states[-1].position[:N], PANDA.home + 0.1),
        "not at the goal",
    )
    jogged.joints = PANDA.home
    jogged.until(lambda: np.allclose(jogged.joint_states[-1].position[:N], PANDA.home), "not at the follower")
    push = TwistStamped()
    push.twist.linear.z = 0.2
    jogged.publish_twist(push)
    time.sleep(0.1)
    jogged.work()
    assert np.allclose(jogged.joint_states[-1].position[:N], PANDA.home), "the leader moves without a follower"
    jogged.state = TeleopStatus.MIRRORING
    low = jogged.tip[2]
    jogged.until(lambda: jogged.tip[2] > low + 0.05, "no motion", lambda: jogged.publish_twist(push))
    jogged.until(lambda: jogged.joint_states[-1].velocity[3] == 0.0, "the leader does not stop")
    push.twist.linear.z = float("nan")
    jogged.until(graph.reports_fault("jog", "not finite"), "fault not reported", lambda: jogged.publish_twist(push))
    push.twist.linear.z, push.twist.linear.x = 30.0, 40.0
    expected = "twist too fast (50 m/s, 0 rad/s); scaled down to 0.5 m/s, 1.5 rad/s"
    jogged.until(graph.reports_fault("jog", expected), "fault not reported", lambda: jogged.publish_twist(push))
    grip = graph.publisher(Float32, "leader/jog/gripper", qos.JOINT_COMMAND)
    expected = "leader/jog/gripper: open fraction: out of range (100)"
    jogged.until(graph.reports_fault("jog", expected), "fault not reported", lambda: grip(Float32(data=100.0)))
    assert jogged.joint_states[-1].name == list(PANDA.joint_names), "the gripper is moved"


def test_gamepad_moves_tip_and_gripper(graph) -> None:
    jogged = JogFixture(graph)
    jogged.state = TeleopStatus.MIRRORING
    pad = Joy(axes=[0.0] * 8, buttons=[0] * 11)
    pad.axes[1] = 1.0
    pad.buttons[5] = 1
    jogged.until(lambda: jogged.joint_states, "no status received")
    assert jogged.joint_states[-1].name == list(PANDA.joint_names), "the gripper is moved without a command"
    begin = jogged.tip[0]
    jogged.until(lambda: jogged.tip[0] > begin + 0.03, "no motion", lambda: jogged.publish_joy(pad))
    pad.buttons[0] = 1
    jogged.until(
        lambda: jogged.joint_states[-1].position[N:] == array("d", [0.7]), "no grip", lambda: jogged.publish_joy(pad)
    )
    jogged.until(
        graph.reports_fault("jog", "too few axes or buttons (1, 0)"),
        "fault not reported",
        lambda: jogged.publish_joy(Joy(axes=[1.0])),
    )
    pad.axes[1] = 32767.0
    expected = "axis 1 outside -1 .. 1 (32767)"
    jogged.until(graph.reports_fault("jog", expected), "fault not reported", lambda: jogged.publish_joy(pad))
    jogged.until(lambda: not np.any(jogged.joint_states[-1].velocity[:N]), "no stop", lambda: jogged.publish_joy(pad))


class SimulatedLeaderFixture:
    """The simulated leader in a scene."""

    def __init__(self, graph: Graph, task: str, seed: int) -> None:
        self.graph = graph
        graph.add(ExpertLeader())
        self.joint_states = graph.subscribe(JointState, "leader/joint_states", qos.JOINT_STATES)
        self.leader = graph.subscribe(LeaderStatus, "leader/status", qos.LATCHED)
        assert "no scene" in self.call("play").message
        self._publish_scene = graph.publisher(SceneStatus, "sim/status", qos.STATUS)
        placed = random_placements(scene_objects(get_task(task)), np.random.default_rng(seed))
        places = {name: pose(np.eye(3), np.array([*placed[name].xy, 0.0])) for name in ("button", "saucepan")}
        places["lid"] = places["saucepan"]
        self.scene = SceneStatus(task=task, seed=seed, bodies=list(places))
        self.scene.poses = [pose_message(T) for T in places.values()]
        self.demo = Demo.random(get_task(task), seed, places, Expert(PANDA))
        graph.until(lambda: self.call("home").success, "no scene status", lambda: self._publish_scene(self.scene))

    def call(self, name: str) -> Trigger.Response:
        return self.graph.call(Trigger, f"leader/{name}", Trigger.Request())

    def publish_scene(self) -> None:
        self._publish_scene(self.scene)

    def play(self, name: str) -> None:
        """Run until the leader has finished."""
        count = len(self.leader)
        assert self.call(name).success
        self.graph.until(lambda: [m.playing for m in self.leader[count:]] == [True, False], f"{name} does not end")

    @property
    def positions(self) -> np.ndarray:
        return np.array(self.joint_states[-1].position[:N])


def test_simulated_leader_solves_task(graph) -> None:
    stage = SimulatedLeaderFixture(graph, "push_button", 3)
    graph.until(lambda: np.allclose(stage.positions, stage.demo.start), "not at the start of the demo")
    stage.play("approach")
    assert stage.call("play").success
    assert "already playing" in stage.call("play").message
    joint_states = stage.joint_states
    graph.until(lambda: abs(joint_states[-1].position[0] - stage.demo.start[0]) > 0.01, "no motion")
    time.sleep(1.0)
    stamps = np.array([messages.seconds(m.header.stamp) for m in joint_states])
    positions = np.array([m.position[:N] for m in joint_states])
    speeds = np.array([m.velocity[:N] for m in joint_states])
    k = np.flatnonzero(np.diff(stamps) < 0.02)  # the machine may be busy
    jumps = np.linalg.norm(np.diff(positions, axis=0)[k], axis=1) > 0.1  # to its home, once
    slopes = np.diff(positions, axis=0)[k] / np.diff(stamps)[k, None]
    assert jumps.sum() <= 1
    np.testing.assert_allclose(slopes[~jumps], ((speeds[k] + speeds[k + 1]) / 2)[~jumps], atol=0.05)
    assert stage.call("home").success
    graph.until(lambda: np.allclose(stage.positions, stage.demo.start), "not at home")
    graph.until(lambda: not stage.leader[-1].playing, "still playing")
    stage.scene.resets = 5  # the operator waits for this number before it moves the leader home
    graph.until(lambda: stage.leader[-1].resets == 5, "the status has an old scene", stage.publish_scene)


def test_missed_grasp_is_retried(graph) -> None:
    seed = next(s for s in range(100) if np.random.default_rng([s, 0x4E74]).random() < 0.3)
    stage = SimulatedLeaderFixture(graph, "take_lid_off_saucepan", seed)
    start = tip(stage.demo.start)[:3, 3]
    graph.until(lambda: tip(stage.positions)[2, 3] > start[2] + 0.05, "not above the scene")
    stage.play("approach")
    np.testing.assert_allclose(tip(stage.positions)[:3, 3], start, atol=1e-3)
    assert stage.joint_states[-1].position[N] == pytest.approx(PANDA.gripper_position(0.0))
    lid = stage.scene.poses[2].position
    lid.x, lid.y = lid.x + 0.02, lid.y - 0.01  # it was pushed
    stage.publish_scene()
    stage.play("play")
    np.testing.assert_allclose(tip(stage.positions)[:2, 3], [lid.x, lid.y], atol=1e-3)


def test_simulated_leader_ends_with_task(graph) -> None:
    seed = next(s for s in range(100) if np.random.default_rng([s, 0x4E74]).random() < 0.3)
    stage = SimulatedLeaderFixture(graph, "take_lid_off_saucepan", seed)
    stage.play("approach")
    assert stage.call("play").success
    graph.until(lambda: stage.leader[-1].playing, "not playing")
    stage.scene.success = True  # the grasp held after all
    graph.until(lambda: not stage.leader[-1].playing, "still playing", stage.publish_scene)
    assert tip(stage.positions)[2, 3] > tip(stage.demo.start)[2, 3] + 0.1  # lifted, and not come down again
