"""The RealSense cameras of a file of config/cameras: `ros2 launch genima_bringup cameras.launch.py cameras:=mine.yaml`.

Images come on `cameras/<view>/color/image_raw`; each camera's own frames hang below `<view>_link`.
"""

from launch.conditions import IfCondition
from launch.substitutions import EqualsSubstitution, LaunchConfiguration, PathJoinSubstitution

from genima.cameras.rig import Device
from genima_bringup import argument_checks as checks
from genima_bringup.driver_launch import ForEachCamera, include
from genima_bringup.launch_actions import GRAPH, NAMESPACE, Argument, check_arguments, environment, node
from genima_bringup.node_specs import camera
from launch import LaunchDescription, LaunchDescriptionEntity

ARGUMENTS = {
    "cameras": Argument(
        "four_d415", "which camera is which view: a name in config/cameras, or a YAML file", checks.cameras
    ),
    "camera_driver": Argument(
        "realsense2_camera",
        "ROS's, our own over pyrealsense2, or none here",
        checks.anything,
        ["realsense2_camera", "realsense_camera", "none"],
    ),
    **GRAPH,
}


def realsense2_camera(view: str, device: Device) -> LaunchDescriptionEntity:
    """ROS's driver, with the colour images alone."""
    profile = f"{device.width}x{device.height}x{device.rate}"
    return include(
        "realsense2_camera",
        "rs_launch.py",
        {
            "camera_namespace": PathJoinSubstitution([LaunchConfiguration(NAMESPACE), "cameras"]),
            "camera_name": view,
            "serial_no": f"_{device.serial}",  # without it, a number
            "rgb_camera.color_profile": profile,
            "depth_module.color_profile": profile,  # a D405 has its colours from there
            "rgb_camera.color_format": "RGB8",
            "enable_depth": "false",
            "diagnostics_period": "1.0",
        },
    )


def realsense_camera(view: str, device: Device) -> LaunchDescriptionEntity:
    """Our own."""
    return node(camera(view, device))


def generate_launch_description() -> LaunchDescription:
    """One driver a camera."""
    cameras, driver = LaunchConfiguration("cameras"), LaunchConfiguration("camera_driver")
    return check_arguments(
        ARGUMENTS,
        lambda: [
            *environment(),
            ForEachCamera(cameras, realsense2_camera, IfCondition(EqualsSubstitution(driver, "realsense2_camera"))),
            ForEachCamera(cameras, realsense_camera, IfCondition(EqualsSubstitution(driver, "realsense_camera"))),
        ],
    )
