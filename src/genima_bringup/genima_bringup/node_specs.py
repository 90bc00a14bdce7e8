"""What runs together: written once, for `./genima demo` and for the launch file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from genima.cameras.rig import Device

Value: TypeAlias = str | int | float | bool | list[str]

DRIVER_STOP_TIMEOUT = 10.0  # s: a driver brings the arm to rest and closes the device, a recorder writes what it holds
_GUARD_STOP_TIMEOUT = 3.0  # s: the guard first brings the arm to rest


# Where the user has not set these.
ENVIRONMENT = {
    "SKIP_DEFAULT_XML_FILE": "1",  # Fast DDS reads a DEFAULT_FASTRTPS_PROFILES.xml in the current folder
    "PYTHONUTF8": "1",  # files and streams are UTF-8, whatever the locale says
    "TRANSFORMERS_VERBOSITY": "error",  # the model libraries greet with notices of parts that nobody here needs
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # idle threads spin by default, on the cores that the robot's control needs
    "LP_NUM_THREADS": "1",  # a software renderer takes all cores by default, likewise
    "MALLOC_MMAP_THRESHOLD_": "67108864",  # else every image costs fresh pages: received tiles come twice as fast
    "MALLOC_TRIM_THRESHOLD_": "268435456",
}


@dataclass(frozen=True)
class NodeSpec:
    """One node: the executable is also the name of the module in the package and, unless it has a name of its own, of
    the node."""

    package: str
    executable: str
    parameters: dict[str, Value] = field(default_factory=dict)
    remappings: dict[str, str] = field(default_factory=dict)
    name: str = ""  # where several of one kind run
    stop_timeout: float = 1.0  # s from SIGINT to SIGKILL

    @property
    def node(self) -> str:
        """The node's name."""
        return self.name or self.executable


class SamplingParameter(NamedTuple):
    """A parameter of diffusion_agent that makes drawings faster, and others."""

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

TASK_RUNNER = NodeSpec("genima_nodes", "task_runner")
CLOCK_WATCH = NodeSpec("genima_nodes", "clock_watch")
RECOVERY = "robot/recover"  # the service of who brings a real robot back after a reflex


def command_guard(robot: Value = "panda", rate: Value = 200, recovery: Value = "") -> NodeSpec:
    """What all commands pass; ``rate`` in Hz is its own, ``recovery`` the service that brings a real robot back."""
    parameters = {"robot": robot, "rate": rate, "recovery": recovery}
    return NodeSpec("genima_nodes", "command_guard", parameters, stop_timeout=_GUARD_STOP_TIMEOUT)


def leader_follower_nodes(robot: Value = "panda", rate: Value = 200) -> list[NodeSpec]:
    """A follower that mirrors a leader like itself, and comes to it fast: nobody stands beside a simulated one.

    ``rate`` in Hz is the guard's.
    """
    return [command_guard(robot, rate), teleop_node(robot, "same", 0.5)]


def teleop_node(
    robot: Value, leader: Value, speed: Value, topics: Mapping[str, str] | None = None, unwrap: Value = False
) -> NodeSpec:
    """Node that makes a follower mirror a leader, where a guard runs already.

    Args:
        robot: the follower.
        leader: a name in config/teleop or a YAML file.
        speed: share of the follower's own, while it comes to the leader.
        topics: the leader's, by ours.
        unwrap: whether joints of the leader that are whole turns off are turned back at the start.
    """
    parameters = {"robot": robot, "leader": leader, "speed": speed, "unwrap_at_start": unwrap}
    return NodeSpec("genima_nodes", "teleop", parameters, dict(topics or {}))


def simulator(cameras: dict[str, Value] | None = None) -> list[NodeSpec]:
    """The robot, its cameras and the scene."""
    return [NodeSpec("genima_sim", "sim_node", cameras or {})]


def simulated_leader(leader: str) -> list[NodeSpec]:
    """``leader`` is ``expert``, or ``jog`` for who pushes the tip of an arm that is not there."""
    return [jog() if leader == "jog" else NodeSpec("genima_sim", "sim_leader", {"rate": 100})]


def jog(robot: Value = "panda") -> NodeSpec:
    """A leader without an arm, pushed by a gamepad or by keys."""
    return NodeSpec("genima_nodes", "jog", {"robot": robot})


def teleop_stack(leader: str) -> list[NodeSpec]:
    """The simulated robot as a follower of a leader as above."""
    return [*simulator(), *simulated_leader(leader), *leader_follower_nodes()]


def recording_stack(leader: str, rate: float, folder: str, images: str) -> list[NodeSpec]:
    """The same, recorded; ``rate`` in Hz is the cameras'.

    The guard speaks at half its usual rate: two cores have enough to do with rendering.
    """
    options: dict[str, Value] = {"folder": folder, "images": images, "calibration": "sim"}
    options["recreatable"] = leader == "expert"  # a person's demos cannot be made again
    recorder = NodeSpec("genima_nodes", "recorder", options, stop_timeout=DRIVER_STOP_TIMEOUT)
    cameras: dict[str, Value] = {"camera_rate": rate, "camera_backlog": 20}
    return [*simulator(cameras), *simulated_leader(leader), *leader_follower_nodes(rate=100), recorder]


def calibrator(
    view: Value = "front",
    parent: Value = "base",
    board: Value = "",
    robot: Value = "panda",
    calibration: Value = "calibration/mine",
    samples: Value = "",
    speed: Value = 0.15,
    most: Value = 20,
    base_frame: Value = "",
    flange_frame: Value = "",
) -> list[NodeSpec]:
    """Node that calibrates a camera, and moves the arm at ``speed``, relative to the arm's own, when asked to.

    ``base_frame`` and ``flange_frame`` are the robot's frames in tf where they are not called as in franka_description.
    """
    parameters: dict[str, Value] = {
        "view": view, "parent": parent, "board": board, "robot": robot, "calibration": calibration,
        "samples": samples, "speed": speed, "most": most, "base_frame": base_frame, "flange_frame": flange_frame,
    }  # fmt: skip
    return [NodeSpec("genima_calibration", "calibrator", parameters)]


def simulator_with_board(view: Value, place: Value, board: Value = "") -> list[NodeSpec]:
    """The robot with a calibration board on the ``table`` or in the ``gripper``, filmed by one camera."""
    return simulator({"view": view, "board": place, "board_file": board})


def policy(
    checkpoint: Value = "",
    calibration: Value = "sim",
    device: Value = "cpu",
    seed: Value = 0,
    straggler_timeout: Value = 0.1,
    shortcuts: Mapping[str, Value] | None = None,
) -> list[NodeSpec]:
    """What looks, draws and reads. An empty checkpoint means the one that comes with the project.

    ``straggler_timeout`` is how long in s a camera's image may come after the first of its moment; ``shortcuts`` are
    some of those above.
    """
    shared = {"checkpoint": checkpoint, "calibration": calibration, "device": device}
    seeing = {"seed": seed, "straggler_timeout": straggler_timeout, **(shortcuts or {})}
    return [
        NodeSpec("genima_nodes", "controller", shared),
        NodeSpec("genima_nodes", "diffusion_agent", shared | seeing),
    ]


def any_policy(
    name: Value, options: Mapping[str, Value] | None = None, straggler_timeout: Value = 0.1
) -> list[NodeSpec]:
    """Return a policy node, the controller that follows its chunks, and a task runner that waits for both.

    ``options`` are parameters of the policy node, such as the checkpoint.
    """
    given = {"policy": name, "straggler_timeout": straggler_timeout, **(options or {})}
    followed: dict[str, Value] = {"input": "action_chunk"}
    if "robot" in given:
        followed["robot"] = given["robot"]
    return [
        NodeSpec("genima_nodes", "controller", followed),
        NodeSpec("genima_nodes", "policy", given),
        NodeSpec("genima_nodes", "task_runner", {"policy_node": "policy"}),
    ]


def camera(view: str, device: Device) -> NodeSpec:
    """Our own driver of a RealSense."""
    parameters: dict[str, Value] = {
        "view": view,
        "serial_no": f"_{device.serial}",  # ROS would take a number for one
        "rgb_camera.color_profile": f"{device.width}x{device.height}x{device.rate}",
    }
    return NodeSpec(
        "genima_nodes", "realsense_camera", parameters, name=f"{view}_camera", stop_timeout=DRIVER_STOP_TIMEOUT
    )


def adapters(robot: Value, backend: Value, gripper: Value) -> list[NodeSpec]:
    """Between the guard and ROS's drivers of an arm and a gripper.

    The last one brings the arm back after a reflex: it is left out where the backend knows no recovery.
    """
    return [
        NodeSpec(
            "genima_nodes",
            "arm_adapter",
            {"robot": robot, "backend": backend},
            stop_timeout=DRIVER_STOP_TIMEOUT,
        ),
        NodeSpec(
            "genima_nodes",
            "gripper_adapter",
            {"robot": robot, "backend": gripper},
            stop_timeout=DRIVER_STOP_TIMEOUT,
        ),
        NodeSpec("genima_nodes", "arm_recovery", {"backend": backend}),
    ]


def own_drivers(robot: Value, robot_ip: Value) -> list[NodeSpec]:
    """Our own drivers of a Franka arm and of its hand."""
    parameters = {"robot": robot, "robot_ip": robot_ip}
    return [
        NodeSpec(
            "genima_nodes",
            "franka_arm",
            parameters,
            {"franka_arm/recover": RECOVERY},
            stop_timeout=DRIVER_STOP_TIMEOUT,
        ),
        NodeSpec("genima_nodes", "franka_hand", parameters, stop_timeout=DRIVER_STOP_TIMEOUT),
    ]


def safety_nodes(robot: Value, calibration: Value, views: Value, recovery: Value = RECOVERY) -> list[NodeSpec]:
    """Return the guard and, unless ``calibration`` is empty, the transforms of the cameras of ``views``."""
    places = {"robot": robot, "calibration": calibration, "views": views, "wait": -1.0}
    transforms = [NodeSpec("genima_nodes", "camera_transforms", places)] if calibration != "" else []
    return [command_guard(robot, 200, recovery), *transforms]


def camera_watch(robot: Value, calibration: Value, views: Value) -> NodeSpec:
    """What notices that a camera has been moved; beside the policy, where the images are."""
    parameters = {"robot": robot, "calibration": calibration, "views": views}
    return NodeSpec("genima_calibration", "calibration_watch", parameters)


def driver_support_nodes(
    robot: Value,
    views: list[str],
    calibration: Value,
    checkpoint: Value = "",
    device: Value = "cpu",
    shortcuts: Mapping[str, Value] | None = None,
) -> list[NodeSpec]:
    """What closes the loop around a real robot, whoever drives it."""
    return [
        *safety_nodes(robot, calibration, views),
        *policy(checkpoint, calibration, device, shortcuts=shortcuts),
        camera_watch(robot, calibration, views),
        TASK_RUNNER,
        CLOCK_WATCH,
    ]


def hardware(robot: Value, robot_ip: Value, cameras: Mapping[str, Device]) -> list[NodeSpec]:
    """Our own drivers of a real robot."""
    return [*own_drivers(robot, robot_ip), *(camera(view, found) for view, found in cameras.items())]


def real_robot_stack(
    robot: Value,
    robot_ip: Value,
    cameras: Mapping[str, Device],
    calibration: Value,
    checkpoint: Value,
    device: Value,
    shortcuts: Mapping[str, Value] | None = None,
) -> list[NodeSpec]:
    """A real robot by our own drivers: what real_robot.launch.py starts with them."""
    around = driver_support_nodes(robot, list(cameras), calibration, checkpoint, device, shortcuts)
    return [*hardware(robot, robot_ip, cameras), *around]


def real_robot_stack_without_policy(
    robot: Value, robot_ip: Value, cameras: Mapping[str, Device], calibration: Value = ""
) -> list[NodeSpec]:
    """The same with `policy:=false`: for who calibrates, leads or records."""
    safe = safety_nodes(robot, calibration, list(cameras))
    return [*hardware(robot, robot_ip, cameras), *safe, TASK_RUNNER, CLOCK_WATCH]


def markers(checkpoint: Value) -> NodeSpec:
    """What RViz shows beside the robot and the images."""
    return NodeSpec("genima_nodes", "rviz_markers", {"checkpoint": checkpoint})


def simulation_stack(
    checkpoint: Value = "", seed: Value = 0, shortcuts: Mapping[str, Value] | None = None
) -> list[NodeSpec]:
    """The closed loop around the simulated robot."""
    return [*simulator(), *simulator_support_nodes(checkpoint, seed, shortcuts=shortcuts)]


def simulator_support_nodes(
    checkpoint: Value = "",
    seed: Value = 0,
    calibration: Value = "sim",
    robot: Value = "panda",
    shortcuts: Mapping[str, Value] | None = None,
) -> list[NodeSpec]:
    """What closes the loop, whatever simulates the robot."""
    return [
        command_guard(robot, 50),
        *policy(checkpoint, calibration, seed=seed, straggler_timeout=0.03, shortcuts=shortcuts),
        TASK_RUNNER,
    ]


def coppeliasim(
    scene: Value = "rlbench", host: Value = "localhost", port: Value = 23000, robot: Value = "panda"
) -> NodeSpec:
    """The robot, its cameras and the scene in a CoppeliaSim that runs already."""
    return NodeSpec("genima_sim", "coppeliasim", {"scene": scene, "host": host, "port": port, "robot": robot})
