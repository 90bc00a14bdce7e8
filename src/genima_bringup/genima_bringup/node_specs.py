"""Nodes that each launch file and command starts, listed once for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from genima.policy.names import GENIMA
from genima_sim.simulators import get_simulator

if TYPE_CHECKING:
    from genima.cameras.camera_devices import CameraDevice
    from genima.cell import Cell
    from genima.policy.chunk_sampling_options import ChunkSamplingOptions
    from genima.policy.diffusion_agent.sampling_options import SamplingOptions

Value: TypeAlias = str | int | float | bool | list[str]

DRIVER_STOP_TIMEOUT = 10.0  # s: a driver brings the arm to rest and closes the device, a recorder writes what it holds
_GUARD_STOP_TIMEOUT = 3.0  # s: the guard first brings the arm to rest


# Where the user has not set these.
ENVIRONMENT = {
    "SKIP_DEFAULT_XML_FILE": "1",  # Fast DDS reads a DEFAULT_FASTRTPS_PROFILES.xml in the current folder
    "PYTHONUTF8": "1",  # files and streams are UTF-8 in every locale
    "TRANSFORMERS_VERBOSITY": "error",  # the model libraries print notices of parts that are not used here
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # idle threads spin by default, on the cores that the robot's control needs
    "LP_NUM_THREADS": "1",  # a software renderer takes all cores by default, likewise
    "MALLOC_MMAP_THRESHOLD_": "67108864",  # else every image costs fresh pages: received tiles come twice as fast
    "MALLOC_TRIM_THRESHOLD_": "268435456",
}


@dataclass(frozen=True)
class NodeSpec:
    """Node to be started.

    The executable is also the name of the module in the package and, unless ``name`` is another, of the node.
    """

    package: str
    executable: str
    parameters: dict[str, Value] = field(default_factory=dict)
    remappings: dict[str, str] = field(default_factory=dict)
    name: str = ""  # where several of one kind run
    stop_timeout: float = 1.0  # s from SIGINT to SIGKILL

    @property
    def node(self) -> str:
        """Return the node's name."""
        return self.name or self.executable


class SamplingParameter(NamedTuple):
    """Sampling option as a parameter of a node."""

    default: str | int | float
    help: str


SAMPLING_PARAMETERS = {
    "steps": SamplingParameter(0, "diffusion steps of a drawing; 0: the checkpoint's"),
    "strength": SamplingParameter(1.0, "share of the steps that is done, from the drawing before; 1: all, from noise"),
    "controlnet_every": SamplingParameter(1, "ask the ControlNet only every so many steps"),
    "tiny_decoder": SamplingParameter(
        "", "an AutoencoderTiny that decodes: a folder, or a name such as madebyollin/taesd"
    ),
}

CHUNK_SAMPLING_PARAMETERS = {
    "sampler": SamplingParameter("usual", "of diffusion_policy: docs/policies.md"),
    "sampler_steps": SamplingParameter(0, "evaluations of the network for a chunk; 0: the sampler's usual ones"),
    "real_time_chunking": SamplingParameter(False, "fit a new chunk to the one that is being executed"),
    "samples": SamplingParameter(1, "chunks to sample, whose spread is measured; the first is executed"),
    "max_spread": SamplingParameter(0.0, "mm at the tip, beyond which the arm is held; 0: any"),
}


def sampling_parameters(options: SamplingOptions) -> dict[str, Value]:
    """Return the parameters of diffusion_agent; 0 and an empty name mean the checkpoint's own."""
    return {
        "steps": options.steps or 0,
        "strength": options.strength,
        "controlnet_every": options.controlnet_every,
        "tiny_decoder": options.tiny_decoder or "",
    }


def chunk_sampling_parameters(options: ChunkSamplingOptions) -> dict[str, Value]:
    """Return the parameters of the policy node."""
    return {name: getattr(options, name) for name in CHUNK_SAMPLING_PARAMETERS}


TASK_RUNNER = NodeSpec("genima_nodes", "task_runner")
CLOCK_WATCH = NodeSpec("genima_nodes", "clock_watch")
RECOVERY = "robot/recover"  # service that recovers a real robot after a reflex
TELEOP_RATE = 200.0  # Hz of the guard's set-points behind a leader


def command_guard(cell: Cell, rate: Value | None = None) -> NodeSpec:
    """Command guard of the cell's robot; ``rate`` in Hz replaces the cell's."""
    parameters = {"cell": cell.reference, "rate": cell.guard.rate if rate is None else rate}
    return NodeSpec(
        "genima_nodes",
        "command_guard",
        parameters | {"recovery": RECOVERY if cell.recovers else ""},
        stop_timeout=_GUARD_STOP_TIMEOUT,
    )


def leader_follower_nodes(cell: Cell, rate: Value = TELEOP_RATE) -> list[NodeSpec]:
    """Guard and teleoperation of a simulated follower, which approaches a leader of its own kind fast.

    ``rate`` in Hz is the guard's.
    """
    return [command_guard(cell, rate), teleop_node(cell, "same", 0.5)]


def teleop_node(
    cell: Cell, leader: Value, speed: Value, topics: Mapping[str, str] | None = None, unwrap: Value = False
) -> NodeSpec:
    """Teleoperation of the cell's arm, where a guard runs already.

    Args:
        cell: the follower's.
        leader: a name in config/teleop or a YAML file.
        speed: share of the follower's own speed, while it comes to the leader.
        topics: the leader's, by ours.
        unwrap: turn back joints of the leader that are whole turns off at the start.
    """
    parameters = {"cell": cell.reference, "leader": leader, "speed": speed, "unwrap_at_start": unwrap}
    return NodeSpec("genima_nodes", "teleop", parameters, dict(topics or {}))


def simulator(
    cell: Cell, host: Value = "localhost", port: Value = 23000, options: Mapping[str, Value] | None = None
) -> list[NodeSpec]:
    """The cell's simulator: robot, cameras and scene.

    Args:
        cell: a simulated one.
        host: machine that CoppeliaSim runs on.
        port: of its remote API.
        options: further parameters of the node.

    Raises:
        GenimaError: for the cell of a real robot, an unknown simulator, and one without a node.
    """
    found = get_simulator(cell, real_time=True)
    parameters: dict[str, Value] = {"cell": cell.reference, **found.node_parameters(host, port), **(options or {})}
    return [NodeSpec("genima_sim", found.node, parameters)]


def _perturbations(names: Sequence[str]) -> dict[str, Value]:
    """Return the parameter of a simulator that has perturbations; none for an empty list, which has no type."""
    return {"perturbations": list(names)} if names else {}


def simulated_leader(cell: Cell, leader: str) -> list[NodeSpec]:
    """Leader without an arm: ``expert``, or ``jog`` for a gamepad or keys."""
    parameters: dict[str, Value] = {"cell": cell.reference, "rate": 100}
    return [jog(cell) if leader == "jog" else NodeSpec("genima_sim", "sim_leader", parameters)]


def jog(cell: Cell) -> NodeSpec:
    """Leader without an arm, for a gamepad or keys."""
    return NodeSpec("genima_nodes", "jog", {"cell": cell.reference})


def teleop_stack(cell: Cell, leader: str) -> list[NodeSpec]:
    """Simulated robot as the follower of a simulated leader."""
    return [*simulator(cell), *simulated_leader(cell, leader), *leader_follower_nodes(cell)]


def recording_stack(
    cell: Cell, leader: str, rate: float, folder: str, images: str, perturbations: Sequence[str] = ()
) -> list[NodeSpec]:
    """Teleoperation stack with a recorder; ``rate`` in Hz is the cameras'.

    The guard runs at half its usual rate: two cores have enough to do with rendering.
    """
    options: dict[str, Value] = {"folder": folder, "images": images}
    options["recreatable"] = leader == "expert"  # a person's demos cannot be made again
    cameras: dict[str, Value] = {"camera_rate": rate, "camera_backlog": 20, **_perturbations(perturbations)}
    follower = leader_follower_nodes(cell, rate=100)
    return [
        *simulator(cell, options=cameras), *simulated_leader(cell, leader), *follower, recorder(cell, options),
    ]  # fmt: skip


def recorder(cell: Cell, options: Mapping[str, Value], topics: Mapping[str, str] | None = None) -> NodeSpec:
    """Recorder with further parameters; without a calibration its episodes hold none.

    ``topics`` are a leader's, by ours.
    """
    parameters: dict[str, Value] = {"cell": cell.reference, **options}
    if not cell.calibrated:
        parameters["calibration"] = ""
    return NodeSpec("genima_nodes", "recorder", parameters, dict(topics or {}), stop_timeout=DRIVER_STOP_TIMEOUT)


def calibrator(
    cell: Cell,
    view: Value = "front",
    parent: Value = "base",
    board: Value = "",
    calibration: Value = "calibration/mine",
    samples: Value = "",
    speed: Value = 0.15,
    most: Value = 20,
    base_frame: Value = "",
    flange_frame: Value = "",
) -> NodeSpec:
    """Node that calibrates a camera; in its automatic mode it moves the arm at ``speed``, relative to the arm's own.

    ``base_frame`` and ``flange_frame`` are the robot's frames in tf where they are not called as in franka_description.
    """
    parameters: dict[str, Value] = {
        "cell": cell.reference, "view": view, "parent": parent, "board": board, "calibration": calibration,
        "samples": samples, "speed": speed, "most": most, "base_frame": base_frame, "flange_frame": flange_frame,
    }  # fmt: skip
    return NodeSpec("genima_calibration", "calibrator", parameters)


def simulator_with_board(cell: Cell, view: Value, place: Value, board: Value = "") -> list[NodeSpec]:
    """Simulated robot with a calibration board on the ``table`` or in the ``gripper``, and one camera."""
    return simulator(cell, options={"view": view, "board": place, "board_file": board})


@dataclass(frozen=True)
class PolicyArguments:
    """Policy that a stack runs, and its parameters."""

    name: str = GENIMA  # of the registry
    checkpoint: Value = ""  # empty: the bundled one
    episode: Value = ""  # that replay replays
    device: Value = "cpu"
    seed: Value = 0
    sampling: Mapping[str, Value] = field(default_factory=dict)  # some of SAMPLING_PARAMETERS
    chunk_sampling: Mapping[str, Value] = field(default_factory=dict)  # some of CHUNK_SAMPLING_PARAMETERS


def policy_nodes(
    cell: Cell, policy: PolicyArguments = PolicyArguments(), straggler_timeout: Value = 0.1
) -> list[NodeSpec]:
    """Nodes of a policy, and the controller that follows its chunks.

    GENIMA is two nodes, diffusion_agent and the controller itself; any other is the node ``policy``.
    ``straggler_timeout`` is how long in s a camera's image may come after the first of its moment.
    """
    loaded: dict[str, Value] = {"cell": cell.reference, "checkpoint": policy.checkpoint, "device": policy.device}
    observing = loaded | {"seed": policy.seed, "straggler_timeout": straggler_timeout, **policy.sampling}
    if policy.name == GENIMA:
        return [
            NodeSpec("genima_nodes", "controller", loaded),
            NodeSpec("genima_nodes", "diffusion_agent", observing),
        ]
    return [
        NodeSpec("genima_nodes", "controller", {"cell": cell.reference, "input": "action_chunk"}),
        NodeSpec(
            "genima_nodes",
            "policy",
            {**observing, **policy.chunk_sampling, "policy": policy.name, "episode": policy.episode},
        ),
    ]


def camera(view: str, device: CameraDevice) -> NodeSpec:
    """Our own driver of a RealSense."""
    parameters: dict[str, Value] = {
        "view": view,
        "serial_no": f"_{device.serial}",  # ROS would take a number for one
        "rgb_camera.color_profile": f"{device.width}x{device.height}x{device.rate}",
        "depth_module.depth_profile": device.depth_profile,
    }
    return NodeSpec(
        "genima_nodes", "realsense_camera", parameters, name=f"{view}_camera", stop_timeout=DRIVER_STOP_TIMEOUT
    )


def _driver(executable: str, parameters: Mapping[str, Value], remappings: Mapping[str, str] | None = None) -> NodeSpec:
    return NodeSpec(
        "genima_nodes", executable, dict(parameters), dict(remappings or {}), stop_timeout=DRIVER_STOP_TIMEOUT
    )


def adapters(cell: Cell) -> list[NodeSpec]:
    """Nodes between the guard and ROS's drivers of arm and gripper, as far as the cell has them."""
    driver = cell.require_driver()
    parameters: dict[str, Value] = {"cell": cell.reference}
    nodes = [_driver("arm_adapter", parameters)] if driver.arm else []
    if driver.gripper:
        nodes.append(_driver("gripper_adapter", parameters))
    if driver.kind == "franka_ros2" and cell.recovers:
        nodes.append(NodeSpec("genima_nodes", "arm_recovery", dict(parameters)))
    return nodes


def own_drivers(cell: Cell) -> list[NodeSpec]:
    """Our own drivers of a Franka arm and of its hand, as far as the cell has them."""
    driver = cell.require_driver()
    if driver.kind != "franka_arm":
        return []
    parameters: dict[str, Value] = {"cell": cell.reference, "robot_ip": driver.robot_ip}
    hand = [] if driver.gripper else [_driver("franka_hand", parameters)]
    return [_driver("franka_arm", parameters, {"franka_arm/recover": RECOVERY}), *hand]


def safety_nodes(cell: Cell) -> list[NodeSpec]:
    """Guard and, where the cell is calibrated, the transforms of its cameras."""
    places: dict[str, Value] = {"cell": cell.reference, "wait": -1.0}
    transforms = [NodeSpec("genima_nodes", "camera_transforms", places)] if cell.calibrated else []
    return [command_guard(cell), *transforms]


def camera_watch(cell: Cell) -> NodeSpec:
    """Node that detects a moved camera, on the machine of the policy, which receives the images."""
    return NodeSpec("genima_calibration", "calibration_watch", {"cell": cell.reference})


def real_policy_nodes(cell: Cell, policy: PolicyArguments | None) -> list[NodeSpec]:
    """Nodes of a policy on a real robot, with the watch of its cameras; None: no policy."""
    return [] if policy is None else [*policy_nodes(cell, policy), camera_watch(cell)]


def driver_support_nodes(cell: Cell, policy: PolicyArguments | None = PolicyArguments()) -> list[NodeSpec]:
    """All nodes of a real robot but for drivers and adapters; without a policy to calibrate, teleoperate or record."""
    return [*safety_nodes(cell), *real_policy_nodes(cell, policy), TASK_RUNNER, CLOCK_WATCH]


def hardware(cell: Cell) -> list[NodeSpec]:
    """Our own drivers of a real robot and its cameras."""
    return [*own_drivers(cell), *adapters(cell), *(camera(view, cell.camera_devices[view]) for view in cell.views)]


def real_robot_stack(cell: Cell, policy: PolicyArguments | None = PolicyArguments()) -> list[NodeSpec]:
    """Real robot by our own drivers, as real_robot.launch.py starts it; None: ``policy:=false``."""
    return [*hardware(cell), *driver_support_nodes(cell, policy)]


def markers(cell: Value, checkpoint: Value) -> NodeSpec:
    """Node of the markers that RViz shows in addition to the robot and the images."""
    return NodeSpec("genima_nodes", "rviz_markers", {"cell": cell, "checkpoint": checkpoint})


def simulation_stack(
    cell: Cell,
    policy: PolicyArguments = PolicyArguments(),
    host: Value = "localhost",
    port: Value = 23000,
    perturbations: Sequence[str] = (),
) -> list[NodeSpec]:
    """Control loop around a simulated robot; ``host`` and ``port`` are CoppeliaSim's."""
    return [
        *simulator(cell, host, port, _perturbations(perturbations)),
        command_guard(cell),
        *policy_nodes(cell, policy, straggler_timeout=0.03),
        TASK_RUNNER,
    ]
