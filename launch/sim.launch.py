"""The closed loop around the simulated robot: `ros2 launch genima_bringup sim.launch.py`."""

from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from genima_bringup.processes import ENVIRONMENT, simulated
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """The nodes of `genima_bringup.processes`, with their checkpoint and seed as arguments."""
    names = {
        "checkpoint": "folder with diffusion_agent/ and controller/; empty: the models that come with Genima",
        "seed": "seed of the drawings",
    }
    defaults = {"seed": "0"}
    profile = PathJoinSubstitution([FindPackageShare("genima_bringup"), "config", "dds", "shared_memory.xml"])
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=defaults.get(name, ""), description=text)
                for name, text in names.items()
            ),
            # tiles are lost in the default shared memory
            SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile),
            *(
                SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
                for name, value in ENVIRONMENT.items()
            ),
            *(
                Node(
                    package=process.package,
                    executable=process.executable,
                    parameters=[process.parameters],
                    output="screen",
                )
                for process in simulated(**{name: LaunchConfiguration(name) for name in names})
            ),
        ]
    )
