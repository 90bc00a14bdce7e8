"""Launch files, the arguments that they forward to other packages, and configuration files of drivers."""

from __future__ import annotations

import ast
import importlib.util
import logging
import re
import runpy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import yaml
from cells import write_cell
from launch_arguments import RECORDED, declared
from recorded_demos import SHORT
from untrained import save_checkpoints

from genima.cameras.camera_devices import load_camera_devices
from genima.cell import load_cell
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.backend import ArmBackend, GripperBackend
from genima.robot.model import RobotModel
from genima_bringup import node_specs as processes
from genima_bringup.argument_checks import require_policy
from genima_bringup.node_specs import NodeSpec
from genima_cli import real

ROOT = Path(__file__).resolve().parents[3]
LAUNCH = sorted((ROOT / "launch").glob("*.launch.py"))
BRINGUP = ROOT / "src" / "genima_bringup" / "genima_bringup"
FRANKA_ROS2 = ("crisp", "gello", "jtc")
FR3 = RobotModel.load("fr3")
SIM = load_cell("sim_panda")


# ------------------------------------------------------------------------------------------------ without `launch`


def includes(file: Path) -> Iterator[tuple[str, str, set[str]]]:
    """Yield package, launch file and arguments of each ``include(...)`` in a launch file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "include":
            package, name, arguments = node.args[:3]
            assert isinstance(package, ast.Constant) and isinstance(name, ast.Constant)
            yield package.value, name.value, constant_keys(arguments)


def constant_keys(expression: ast.AST) -> set[str]:
    """Return the constant keys of all dictionaries in an expression."""
    return {
        key.value
        for node in ast.walk(expression)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant)
    }


@pytest.mark.parametrize("package", sorted(RECORDED))
def test_recorded_arguments_have_source(package: str) -> None:
    data = RECORDED[package]
    assert re.fullmatch(r"[0-9a-f]{40}", data["commit"]) and data["source"].startswith("https://") and data["version"]
    assert all(file["arguments"] for file in data["files"].values())


@pytest.mark.parametrize("file", LAUNCH, ids=lambda file: file.name)
def test_forwarded_arguments_exist_in_included_file(file: Path) -> None:
    for package, name, arguments in includes(file):
        if package == "genima_bringup":
            assert arguments <= declared(ROOT / "launch" / name)
        else:
            known = RECORDED[package]["files"][name]["arguments"]
            assert arguments <= set(known), f"{name} of {package} {RECORDED[package]['version']}"
            assert {key for key, default in known.items() if default is None} <= arguments


def test_drivers_are_included() -> None:
    """Ensure that the test above checks something."""
    found = {(package, name) for file in LAUNCH for package, name, _ in includes(file)}
    assert {("franka_bringup", "franka.launch.py"), ("realsense2_camera", "rs_launch.py")} <= found


def test_easy_handeye2_gets_exactly_its_arguments() -> None:
    tree = ast.parse((BRINGUP / "launch_actions.py").read_text())
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "easy_handeye2")
    assert constant_keys(function) == set(RECORDED["easy_handeye2"]["files"]["calibrate.launch.py"]["arguments"])


def test_robotiq_launch_file_cannot_be_included() -> None:
    """Once their launch file takes a namespace and controllers, robotiq.launch.py is obsolete."""
    theirs = RECORDED["robotiq_description"]["files"]["robotiq_control.launch.py"]["arguments"]
    assert not {"namespace", "controllers_file", "controllers_yaml"} & set(theirs)


@pytest.mark.parametrize("file", LAUNCH, ids=lambda file: file.name)
def test_arguments_are_declared_and_described(file: Path) -> None:
    tree = ast.parse(file.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    arguments = [call for call in calls if call.func.id == "Argument"]  # type: ignore[union-attr]
    assert arguments or file.name in ("cameras.launch.py", "robotiq.launch.py")  # which use shared arguments
    for call in arguments:
        assert len(call.args) >= 2 and isinstance(call.args[1], ast.Constant) and len(call.args[1].value) > 5
    used = {
        call.args[0].value
        for call in calls
        if call.func.id in ("LaunchConfiguration", "text")  # type: ignore[union-attr]
        and isinstance(call.args[0], ast.Constant)
    }
    assert used <= declared(file)


def test_processes_are_installed() -> None:
    """Every node can be started: by `launch` as an executable, without it as a module."""
    listed = [
        *processes.simulation_stack(SIM),
        *processes.leader_follower_nodes(SIM),
        *processes.adapters(load_cell("fr3_crisp")),
        *processes.real_robot_stack(load_cell("fr3_own_driver")),
        processes.recorder(SIM, {}),
        processes.markers("sim_panda", ""),
    ]
    for process in listed:
        assert importlib.util.find_spec(f"{process.package}.{process.executable}"), process.executable
        setup = (ROOT / "src" / process.package / "setup.py").read_text()
        assert f'"{process.executable} = {process.package}.{process.executable}:main"' in setup


def test_controller_follows_policy_node() -> None:
    expert = processes.simulation_stack(load_cell("sim_fr3"), processes.PolicyArguments("expert", seed=3))
    by_name = {spec.node: spec.parameters for spec in expert}
    assert set(by_name) == {"sim_node", "command_guard", "controller", "policy", "task_runner"}
    assert by_name["policy"]["policy"] == "expert" and by_name["controller"]["input"] == "action_chunk"
    assert {given["cell"] for given in by_name.values() if "cell" in given} == {"sim_fr3"}
    agent = {spec.node for spec in processes.simulation_stack(SIM)}
    assert agent == set(by_name) - {"policy"} | {"diffusion_agent"}


@pytest.mark.parametrize(
    ("cell", "arguments", "expected"),
    [
        ("sim_fr3", (), "cell sim_fr3: the checkpoint of Genima"),
        (
            "sim_panda",
            ("none_such",),
            "policy .none_such.: unknown; known: act, diffuser_actor, diffusion_policy, expert, genima, remote, replay",
        ),
        ("sim_panda", ("expert", "runs/mine"), "policy expert: takes no checkpoint"),
        ("sim_panda", ("genima", "", "data/demos/one"), "policy genima: takes no episode"),
        ("sim_panda", ("replay",), "policy replay: episode missing; name the folder of one"),
        ("sim_panda", ("replay", "", "nowhere"), "policy replay: episode no such folder"),
        ("fr3_crisp", ("expert",), "needs the objects of a simulated scene; cell fr3_crisp is real"),
    ],
)
def test_incompatible_policy_is_rejected_in_one_line(cell: str, arguments: tuple[str, ...], expected: str) -> None:
    with pytest.raises(GenimaError, match=expected) as rejected:
        require_policy(load_cell(cell), *arguments)
    assert "\n" not in str(rejected.value)


def test_each_camera_has_a_node() -> None:
    rig = load_camera_devices("four_d415")
    nodes = [process.node for process in processes.real_robot_stack(load_cell("fr3_own_driver"))]
    assert len(set(nodes)) == len(nodes)
    assert {f"{view}_camera" for view in rig} <= set(nodes)


@pytest.mark.parametrize("profile", ["", "848x480x30"])
def test_driver_of_camera_with_depth_gets_its_profile(profile: str) -> None:
    device = replace(load_camera_devices("four_d415")["front"], depth_profile=profile)
    assert processes.camera("front", device).parameters["depth_module.depth_profile"] == profile


def test_no_policy_needs_no_models_or_calibration(tmp_path: Path) -> None:
    listed = real._nodes(real.Real(write_cell(tmp_path, "fr3_own_driver", calibration="not_yet"), no_policy=True))
    assert not {"controller", "diffusion_agent", "camera_transforms"} & {process.node for process in listed}
    calibrated = real._nodes(real.Real(write_cell(tmp_path, "fr3_own_driver", calibration="sim"), no_policy=True))
    assert {process.node for process in calibrated} - {process.node for process in listed} == {"camera_transforms"}
    with pytest.raises(GenimaError, match="--check"):
        real.main(["--cell", "fr3_own_driver", "--no-policy", "--checkpoint", "runs/mine"])
    with pytest.raises(GenimaError, match="trained for joints"):
        real._nodes(real.Real(write_cell(tmp_path, "fr3_own_driver", calibration="not_yet")))
    with pytest.raises(GenimaError, match="its drivers are ROS's; start ros2 launch"):
        real._nodes(real.Real("fr3_crisp", no_policy=True))


def test_robot_address_can_be_overridden() -> None:
    listed = real._nodes(real.Real("fr3_own_driver", robot_ip="robot.here", no_policy=True))
    assert {spec.parameters["robot_ip"] for spec in listed if "robot_ip" in spec.parameters} == {"robot.here"}


# ---------------------------------------------------------------------------------- configuration files of ROS drivers


def controllers(file: str) -> dict[str, dict[str, Any]]:
    """Return the parameters of a ros2_control file by node."""
    data = yaml.safe_load(paths.shared("config", *file.split("/")).read_text())["/**"]
    return {node: part["ros__parameters"] for node, part in data.items()}


@pytest.mark.parametrize("name", FRANKA_ROS2)
def test_backend_has_controllers(name: str) -> None:
    backend, nodes = ArmBackend.load(name), controllers(f"controllers/{name}.yaml")
    manager = nodes.pop("controller_manager")
    assert manager["update_rate"] == 1000
    types = {key: value["type"] for key, value in manager.items() if isinstance(value, dict) and "type" in value}
    assert backend.recovery is not None
    assert types.keys() == {backend.controller, *backend.recovery.broadcasters}
    assert nodes.keys() == {backend.controller}
    parameters = nodes[backend.controller]
    joints = tuple(parameters.get("joints", [])) or tuple(f"{parameters['arm_id']}_joint{i}" for i in range(1, 8))
    assert joints == FR3.joint_names


def test_crisp_is_joint_impedance_controller() -> None:
    parameters = controllers("controllers/crisp.yaml")["joint_impedance_controller"]
    assert not any(parameters["task"].values())
    assert parameters["nullspace"]["projector_type"] == "none"
    assert tuple(parameters["nullspace"]["weights"]) == FR3.joint_names
    assert parameters["max_delta_tau"] < 1.0  # Nm a cycle: 1000 Nm/s, where the robot trips


def test_jtc_accepts_streamed_points() -> None:
    parameters = controllers("controllers/jtc.yaml")["joint_trajectory_controller"]
    assert parameters["command_interfaces"] == ["effort"]  # position commands would be steps
    assert parameters["interpolate_from_desired_state"] and parameters["allow_nonzero_velocity_at_trajectory_end"]
    assert tuple(parameters["gains"]) == FR3.joint_names


def test_robotiq_controllers_match_backend() -> None:
    backend, nodes = GripperBackend.load("robotiq_2f140"), controllers("grippers/robotiq_2f140.controllers.yaml")
    namespace, controller, action = backend.action.split("/")
    assert nodes[controller]["joint"] == backend.joint == FR3.gripper_joint
    assert action == "gripper_cmd" and controller in nodes["controller_manager"]
    assert namespace == "robotiq" and backend.states == "robotiq/joint_states"  # as robotiq.launch.py has it


# --------------------------------------------------------------------------------------------------- with `launch`


EXECUTABLES = {
    "robot_state_publisher": ["robot_state_publisher"],
    "controller_manager": ["spawner", "ros2_control_node"],
    "tf2_ros": ["static_transform_publisher"],
    "rviz2": ["rviz2"],
} | {
    package: re.findall(r'"(\w+) = ', (ROOT / "src" / package / "setup.py").read_text())
    for package in ("genima_nodes", "genima_calibration", "genima_sim")
}


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ROS prefix with all packages that our launch files need; their executables record that they run.

    Other packages' launch files only declare the recorded arguments.
    """
    pytest.importorskip("launch_ros", reason="launch is not among the wheels")
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    for package, data in RECORDED.items():
        (index / package).touch()
        folder = tmp_path / "share" / package / "launch"
        folder.mkdir(parents=True)
        for name, file in data["files"].items():
            (folder / name).write_text(
                "from launch import LaunchDescription\nfrom launch.actions import DeclareLaunchArgument\n\n"
                f"ARGUMENTS = {file['arguments']!r}\n\n"
                "def generate_launch_description():\n"
                "    return LaunchDescription(\n"
                "        [DeclareLaunchArgument(name, default_value=default) for name, default in ARGUMENTS.items()]\n"
                "    )\n"
            )
    for package in ("genima_bringup", "franka_description", *EXECUTABLES):
        (index / package).touch()
        (tmp_path / "share" / package).mkdir(exist_ok=True)
        for name in EXECUTABLES.get(package, ()):
            executable = tmp_path / "lib" / package / name
            executable.parent.mkdir(parents=True, exist_ok=True)
            executable.write_text(f"#!/bin/sh\necho {package}/{name} >> {tmp_path}/started\nexec sleep 20\n")
            executable.chmod(0o755)
    for folder in ("launch", "config"):
        (tmp_path / "share" / "genima_bringup" / folder).symlink_to(ROOT / folder)
    description = tmp_path / "share" / "franka_description" / "robots" / "fr3" / "fr3.urdf.xacro"
    description.parent.mkdir(parents=True)
    description.write_text("<robot/>")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "xacro").write_text("#!/bin/sh\necho a warning >&2\necho '<robot/>'\n")
    (tmp_path / "bin" / "xacro").chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    for name in ("ROS_DOMAIN_ID", "ROS_DISCOVERY_SERVER", "RMW_IMPLEMENTATION"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of checkpoints by robot."""
    folder = tmp_path_factory.mktemp("checkpoints")
    robots = ("fr3", "fr3_franka_hand", "panda")
    return {robot: str(save_checkpoints(folder / robot, 256, robot)) for robot in robots}


@pytest.fixture
def default_arguments(checkpoints: dict[str, str], tmp_path: Path) -> Any:
    """Function that returns the arguments of a launch file, with valid ones where the defaults are not."""
    rig = yaml.safe_load(paths.shared("config", "cameras", "four_d415.yaml").read_text())
    square = tmp_path / "square.yaml"
    square.write_text(yaml.safe_dump({view: camera | {"profile": "256x256x30"} for view, camera in rig.items()}))

    def arguments(file: str, **given: str) -> dict[str, str]:
        if file != "real_robot":
            return given
        cell = given.pop("cell", "fr3_crisp")
        calibration = given.pop("calibration", "sim")
        if not cell.endswith(".yaml"):
            cell = write_cell(tmp_path, cell, calibration=calibration, cameras=str(square))
        return {"cell": cell, "checkpoint": checkpoints.get(load_cell(cell).robot.name, "")} | given

    return arguments


@pytest.fixture
def evaluate(prefix: Path, default_arguments: Any) -> Any:
    """Function that evaluates a launch file without starting it.

    It returns "package/executable" of every node, and the parameters of our nodes.
    """
    import asyncio

    from launch.actions import ExecuteProcess, IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    from launch.utilities import perform_substitutions
    from launch_ros.actions import Node
    from launch_ros.utilities import evaluate_parameters

    from launch import Action, LaunchContext

    def run(file: str, **arguments: str) -> SimpleNamespace:
        context = LaunchContext()
        context._set_asyncio_loop(asyncio.new_event_loop())
        started: list[str] = []
        included: list[str] = []
        parameters: dict[str, dict[str, Any]] = {}
        arguments_of: dict[str, list[str]] = {}  # of each spawner, by controller
        remapped: dict[str, dict[str, str]] = {}  # by included launch file
        topics: dict[str, dict[str, str]] = {}  # of our nodes, by their own topic names

        def visit(entity: Any) -> None:
            if isinstance(entity, Action) and entity.condition is not None and not entity.condition.evaluate(context):
                return
            if isinstance(entity, Node):
                started.append(f"{entity.node_package}/{entity.node_executable}")
                if entity.node_package == "genima_nodes":
                    (given,) = evaluate_parameters(context, entity._Node__parameters) or [{}]
                    parameters[started[-1]] = given
                    topics[started[-1]] = {
                        perform_substitutions(context, ours): perform_substitutions(context, theirs)
                        for ours, theirs in entity._Node__remappings
                    }
                if entity.node_executable == "spawner":
                    command = [perform_substitutions(context, argument) for argument in entity.cmd[1:]]
                    arguments_of[command[0]] = command
            elif isinstance(entity, ExecuteProcess):
                started.append(" ".join(perform_substitutions(context, argument) for argument in entity.cmd[3:5]))
            else:
                for below in entity.visit(context) or []:
                    visit(below)
                if isinstance(entity, IncludeLaunchDescription):
                    included.append(Path(entity.launch_description_source.location).name)
                    remapped[included[-1]] = dict(context.launch_configurations.get("ros_remaps", []))

        source = PythonLaunchDescriptionSource(str(ROOT / "launch" / f"{file}.launch.py"))
        visit(IncludeLaunchDescription(source, launch_arguments=default_arguments(file, **arguments).items()))
        return SimpleNamespace(
            started=started,
            included=included,
            parameters=parameters,
            spawners=arguments_of,
            remapped=remapped,
            topics=topics,
        )

    return run


def executables(listed: list[NodeSpec]) -> set[str]:
    return {f"{process.package}/{process.executable}" for process in listed}


CRISP = replace(load_cell("fr3_crisp"), calibration="sim")
SUPPORT = executables(processes.driver_support_nodes(CRISP))
POLICY = executables([*processes.policy_nodes(CRISP), processes.camera_watch(CRISP)])
ADAPTERS = executables(processes.adapters(CRISP))
SAFETY = {*executables(processes.safety_nodes(CRISP)), "genima_nodes/task_runner"}
CLOCK = {"genima_nodes/clock_watch"}
SPAWNER = {"controller_manager/spawner"}
ROBOTIQ = {"robot_state_publisher/robot_state_publisher", "controller_manager/ros2_control_node", *SPAWNER}


@pytest.mark.parametrize("backend", FRANKA_ROS2)
def test_real_robot_with_ros_drivers(evaluate: Any, backend: str) -> None:
    """One camera driver per view; none of our own drivers."""
    found = evaluate("real_robot", cell=f"fr3_{backend}")
    assert set(found.started) == POLICY | ADAPTERS | SAFETY | CLOCK | ROBOTIQ == ADAPTERS | SUPPORT | ROBOTIQ
    assert found.included.count("rs_launch.py") == 4 and found.included.count("franka.launch.py") == 1


@pytest.mark.parametrize("backend", FRANKA_ROS2)
def test_only_adapter_reaches_controller(evaluate: Any, backend: str) -> None:
    """Remap the controller's topic to the adapter's target, without overriding the rules of franka_ros2's spawners."""
    found, described = evaluate("real_robot", cell=f"fr3_{backend}"), ArmBackend.load(backend)
    spawner_arguments = found.spawners[described.controller]
    rule = spawner_arguments[spawner_arguments.index("--controller-ros-args") + 1]
    assert rule == f"--remap {described.subscribes}:={described.target}"
    rules = found.remapped["franka.launch.py"]
    assert rules and all(re.match(r"(joint|robot)_state_publisher:", topic) for topic in rules)


def test_real_robot_with_own_drivers(evaluate: Any) -> None:
    """The nodes equal those of `./genima real`."""
    found = evaluate("real_robot", cell="fr3_own_driver")
    listed = processes.real_robot_stack(replace(load_cell("fr3_own_driver"), calibration="sim"))
    assert sorted(found.started) == sorted(f"{process.package}/{process.executable}" for process in listed)


@pytest.mark.parametrize("calibration", ["sim", "not_yet"])
def test_nodes_without_policy_equal_real_robot_stack(evaluate: Any, calibration: str) -> None:
    found = evaluate("real_robot", policy="false", cell="fr3_own_driver", calibration=calibration, record="true")
    listed = processes.real_robot_stack(replace(load_cell("fr3_own_driver"), calibration=calibration), None)
    started = [name for name in found.started if name != "genima_nodes/recorder"]
    assert sorted(started) == sorted(f"{process.package}/{process.executable}" for process in listed)
    assert found.parameters["genima_nodes/recorder"].get("calibration") == (None if calibration == "sim" else "")


def test_two_machines_start_every_node_once(evaluate: Any) -> None:
    """Except the clock watch, which runs on both."""
    robots = evaluate("real_robot", policy="false", cameras="false", dds="two_machines")
    gpus = evaluate("real_robot", hardware="false", dds="two_machines")
    whole = evaluate("real_robot")
    assert set(robots.started) == ADAPTERS | SAFETY | CLOCK | ROBOTIQ
    assert set(gpus.started) == POLICY | CLOCK
    assert sorted(robots.started + gpus.started) == sorted([*whole.started, *CLOCK])
    assert sorted(robots.included + gpus.included) == sorted([*whole.included, "real_robot.launch.py"])


def test_panda_has_external_driver(evaluate: Any) -> None:
    found = evaluate("real_robot", cell="panda_multipanda", cameras="false")
    assert set(found.started) == POLICY | (ADAPTERS - {"genima_nodes/arm_recovery"}) | SAFETY | CLOCK | ROBOTIQ


def test_optional_nodes_are_started(evaluate: Any) -> None:
    plain, full = evaluate("real_robot"), evaluate("real_robot", rviz="true", record="true", task="push the button")
    displays = {"genima_nodes/rviz_markers", "tf2_ros/static_transform_publisher", "rviz2/rviz2"}
    assert set(full.started) - set(plain.started) == {*displays, "genima_nodes/recorder", "task push the button"}


def test_guard_is_started_once(evaluate: Any) -> None:
    guard = "genima_nodes/command_guard"
    assert evaluate("teleop").started.count(guard) == 1
    assert evaluate("teleop", guard="false").started.count(guard) == 0
    assert evaluate("real_robot", policy="false").started.count(guard) == 1


def test_teleop_and_recorder_subscribe_to_same_leader(evaluate: Any) -> None:
    found = evaluate("record", leader_joints="gello/joint_states", leader_joy="pedal").topics
    for node in ("teleop", "recorder"):
        assert found[f"genima_nodes/{node}"] == {
            "leader/joint_states": "gello/joint_states", "leader/gripper": "leader/gripper", "leader/joy": "pedal"
        }  # fmt: skip


def test_jog_is_optional(evaluate: Any) -> None:
    plain, jogged = evaluate("teleop", leader="same"), evaluate("teleop", leader="same", jog="true")
    assert set(jogged.started) - set(plain.started) == {"genima_nodes/jog"}


@pytest.mark.parametrize("file", ["sim", "real_robot"])
def test_sampling_options_reach_agent(evaluate: Any, file: str) -> None:
    """Numbers are passed as numbers, names as strings."""
    sampling = {"steps": "2", "strength": "0.5", "controlnet_every": "3", "tiny_decoder": "7"}
    found = evaluate(file, **sampling).parameters["genima_nodes/diffusion_agent"]
    assert found | {"steps": 2, "strength": 0.5, "controlnet_every": 3, "tiny_decoder": "7"} == found


@pytest.mark.parametrize("file", ["sim", "real_robot"])
def test_chunk_sampling_options_reach_policy(evaluate: Any, file: str, tmp_path: Path) -> None:
    given = {"policy": "replay", "episode": str(SHORT.write(tmp_path / "demo"))}
    sampling = {
        "sampler": "ddim", "sampler_steps": "4", "real_time_chunking": "true", "samples": "8", "max_spread": "20.5"
    }  # fmt: skip
    cell = {"cell": "panda_multipanda", "checkpoint": ""} if file == "real_robot" else {}
    found = evaluate(file, **given, **cell, **sampling).parameters["genima_nodes/policy"]
    expected = {"sampler": "ddim", "sampler_steps": 4, "real_time_chunking": True, "samples": 8, "max_spread": 20.5}
    assert found | expected == found


def test_simulated_cell_has_guard_of_its_robot(evaluate: Any) -> None:
    """All nodes have the same cell: no FR3 guard with a Panda simulator."""
    found = evaluate("teleop", cell="sim_fr3", sim="true", leader="same")
    assert {given["cell"] for given in found.parameters.values()} == {"sim_fr3"}
    assert "genima_sim/sim_node" in found.started


@pytest.mark.parametrize("file", ["sim", "real_robot"])
def test_controller_follows_other_policy(evaluate: Any, file: str, tmp_path: Path) -> None:
    given = {"policy": "replay", "episode": str(SHORT.write(tmp_path / "demo"))}
    cell = {"cell": "panda_multipanda", "checkpoint": ""} if file == "real_robot" else {}
    found = evaluate(file, **given, **cell)
    assert "genima_nodes/policy" in found.started and "genima_nodes/diffusion_agent" not in found.started
    assert found.parameters["genima_nodes/policy"]["policy"] == given["policy"]
    assert found.parameters["genima_nodes/controller"]["input"] == "action_chunk"


def test_missing_panda_description_is_rejected(evaluate: Any) -> None:
    with pytest.raises(GenimaError, match="description:=FILE"):
        evaluate("view", cell="panda_multipanda")


def test_panda_without_hardware_and_with_description(evaluate: Any, tmp_path: Path) -> None:
    assert set(evaluate("real_robot", cell="panda_multipanda", hardware="false").started) == POLICY | CLOCK
    (tmp_path / "mine.urdf.xacro").write_text("<robot/>")
    found = evaluate("view", cell="panda_multipanda", description=str(tmp_path / "mine.urdf.xacro"))
    assert "rviz2/rviz2" in found.started


def test_missing_cell_is_reported(evaluate: Any) -> None:
    with pytest.raises(GenimaError, match="nowhere.yaml"):
        evaluate("cameras", cell="nowhere.yaml")


@pytest.mark.parametrize("file", [file.name.removesuffix(".launch.py") for file in LAUNCH])
def test_launch_file_evaluates(evaluate: Any, file: str) -> None:
    found = evaluate(file)
    assert found.started or len(found.included) > 1
    assert runpy.run_path(str(ROOT / "launch" / f"{file}.launch.py"))["__doc__"]


# -------------------------------------------------------------------------------------------- errors before the start


@pytest.fixture
def launch_file(prefix: Path, default_arguments: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function that launches a file; returns the exit code, the started nodes and the logged errors."""
    from launch.actions import IncludeLaunchDescription, Shutdown, TimerAction
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    from launch import LaunchDescription, LaunchService

    monkeypatch.setenv("ROS_LOG_DIR", str(prefix / "log"))

    class Errors(logging.Handler):
        lines: list[str] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.lines += [record.getMessage()] if record.levelno >= logging.ERROR else []

    handler = Errors()

    def run(file: str, **arguments: str) -> tuple[int, list[str], list[str]]:
        source = PythonLaunchDescriptionSource(str(ROOT / "launch" / f"{file}.launch.py"))
        include = IncludeLaunchDescription(source, launch_arguments=default_arguments(file, **arguments).items())
        service = LaunchService(noninteractive=True)
        service.include_launch_description(LaunchDescription([include, TimerAction(period=1.5, actions=[Shutdown()])]))
        logger = logging.getLogger("launch")
        logger.addHandler(handler)
        handler.lines = []
        try:
            code = service.run()
        finally:
            logger.removeHandler(handler)
        started_file = prefix / "started"
        started = started_file.read_text().split() if started_file.exists() else []
        remaining = [child.cmdline() for child in psutil.Process().children(recursive=True) if "sleep" in child.name()]
        assert not remaining
        return code, started, handler.lines

    return run


LAUNCH_ARGUMENTS: dict[str, dict[str, str]] = {file.name.removesuffix(".launch.py"): {} for file in LAUNCH}
INVALID: list[tuple[str, dict[str, str]]] = [
    *((file, {"dds": "nope"}) for file in LAUNCH_ARGUMENTS),
    *((file, {"namespace": "left-arm"}) for file in LAUNCH_ARGUMENTS),
    ("calibrate", {"view": "left-shoulder"}),
    ("calibrate", {"parent": "ceiling"}),
    ("calibrate", {"board": "nowhere.yaml"}),
    ("calibrate", {"cell": "nowhere"}),
    ("calibrate", {"image": "my-topic"}),
    ("calibrate", {"speed": "fast"}),
    ("calibrate", {"sim": "maybe"}),
    ("calibrate", {"sim": "true", "view": "ceiling"}),
    ("calibrate", {"calibration": str(ROOT / "README.md" / "x")}),
    ("cameras", {"cell": "nowhere.yaml"}),
    ("cameras", {"cell": "sim_panda"}),
    ("real_robot", {"calibration": "nowhere"}),
    ("real_robot", {"checkpoint": "nowhere"}),
    ("real_robot", {"checkpoint": ""}),  # of a Panda
    ("real_robot", {"robot_ip": "a b"}),
    ("real_robot", {"namespace": "left", "cell": "fr3_gello"}),
    ("real_robot", {"device": "tpu"}),
    ("real_robot", {"time_limit": "nan"}),
    ("real_robot", {"hardware": "yes please"}),
    ("real_robot", {"steps": "2.5"}),
    ("real_robot", {"strength": "inf"}),
    ("real_robot", {"strength": "0"}),
    ("real_robot", {"folder": str(ROOT / "README.md" / "x"), "record": "true"}),
    ("record", {"cell": "nowhere"}),
    ("record", {"images": "webp"}),
    ("record", {"folder": str(ROOT / "README.md" / "x")}),
    ("record", {"episode": "nowhere"}),
    ("record", {"leader": "nowhere"}),  # an argument of teleop.launch.py, which it includes
    ("robotiq", {"cell": "fr3_own_driver"}),
    ("sim", {"seed": "10e20"}),
    ("sim", {"checkpoint": "nowhere"}),
    ("sim", {"cell": "sim_fr3"}),  # the bundled models are of a Panda
    ("sim", {"cell": "fr3_crisp"}),
    ("sim", {"port": "99999"}),
    ("teleop", {"cell": "nowhere"}),
    ("teleop", {"cell": "fr3_crisp", "sim": "true", "leader": "same"}),
    ("teleop", {"leader": "nowhere.yaml"}),
    ("teleop", {"leader_joints": "a-b"}),
    ("teleop", {"speed": "-1"}),
    ("view", {"description": "nowhere.xacro"}),
    ("view", {"checkpoint": "nowhere"}),
    ("view", {"rviz": "perhaps"}),
]


@pytest.mark.parametrize(("file", "arguments"), INVALID, ids=lambda value: str(value))
def test_invalid_argument_starts_nothing(launch_file: Any, file: str, arguments: dict[str, str]) -> None:
    code, started, errors = launch_file(file, **arguments)
    assert (code, started) == (1, [])
    name, value = next(iter(arguments.items()))
    assert any(name in line or value in line for line in errors), errors
    assert not any("\n" in line or "Traceback" in line for line in errors)


@pytest.mark.parametrize(
    ("file", "arguments", "missing"),
    [
        ("real_robot", {}, "realsense2_camera"),
        ("real_robot", {}, "franka_bringup"),
        ("real_robot", {"rviz": "true"}, "rviz2"),
        ("real_robot", {}, "controller_manager"),
        ("real_robot", {}, "genima_nodes/task_runner"),
        ("real_robot", {}, "xacro"),
        ("cameras", {}, "realsense2_camera"),
        ("view", {}, "tf2_ros"),
        ("calibrate", {"rviz": "true"}, "rviz2"),
        ("teleop", {"jog": "true"}, "genima_nodes/jog"),
        ("record", {}, "genima_nodes/recorder"),
        ("sim", {}, "genima_sim"),
    ],
)
def test_missing_package_starts_nothing(
    launch_file: Any, prefix: Path, file: str, arguments: dict[str, str], missing: str
) -> None:
    package, _, executable = missing.partition("/")
    if executable:
        (prefix / "lib" / package / executable).unlink()
    elif missing == "xacro":
        (prefix / "bin" / "xacro").unlink()
    else:
        (prefix / "share" / "ament_index" / "resource_index" / "packages" / package).unlink()
    code, started, errors = launch_file(file, **arguments)
    assert (code, started) == (1, [])
    assert any((executable or package) in line for line in errors), errors


@pytest.mark.parametrize(
    ("name", "value"),
    [("ROS_DOMAIN_ID", "abc"), ("ROS_DISCOVERY_SERVER", "10.0.0.1:11811"), ("RCUTILS_COLORIZED_OUTPUT", "yes")],
)
def test_invalid_ros_environment_starts_nothing(
    launch_file: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    code, started, errors = launch_file("real_robot")
    assert (code, started) == (1, []) and name in errors[-1]


@pytest.mark.parametrize("file", [*LAUNCH_ARGUMENTS])
def test_launch_file_starts_and_ends_nodes(launch_file: Any, evaluate: Any, file: str) -> None:
    """The started processes equal the evaluated ones, and none remains."""
    code, started, _ = launch_file(file)
    expected = [name for name in evaluate(file).started if "/" in name and not name.startswith("task ")]
    assert code == 0 and sorted(started) == sorted(expected)


def test_relative_paths_are_from_current_folder(
    launch_file: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    folder = tmp_path / "mine"
    (folder / "cameras.yaml").write_text(paths.shared("config", "cameras", "four_d415.yaml").read_text())
    file = Path(write_cell(folder, "fr3_own_driver", cameras="cameras.yaml")).name
    monkeypatch.chdir(folder)
    code, started, _ = launch_file("cameras", cell=file)
    assert code == 0 and started == ["genima_nodes/realsense_camera"] * 4
    monkeypatch.chdir(tmp_path)
    (tmp_path / "started").unlink()
    assert launch_file("cameras", cell=file)[:2] == (1, [])
