"""The RealSense cameras of a cell: `ros2 launch genima_bringup cameras.launch.py cell:=mine.yaml`.

Images come on `cameras/<view>/color/image_raw`; each camera's own frames hang below `<view>_link`.
"""

from launch.substitutions import LaunchConfiguration, PathJoinSubstitution

from genima.cameras.camera_devices import CameraDevice
from genima.cell import Cell
from genima_bringup.argument_checks import require_driver
from genima_bringup.driver_launch import ForCell, include
from genima_bringup.launch_actions import GRAPH, NAMESPACE, REAL_CELL, check_arguments, environment, node
from genima_bringup.node_specs import camera
from launch import LaunchDescription, LaunchDescriptionEntity

ARGUMENTS = {**REAL_CELL, **GRAPH}


def realsense2_camera(view: str, device: CameraDevice) -> LaunchDescriptionEntity:
    """Return ROS's driver, with colour images and, where the camera has a profile of them, aligned depth images."""
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
            "diagnostics_period": "1.0",
            **(
                {
                    "enable_depth": "true",
                    "depth_module.depth_profile": device.depth_profile,
                    "align_depth.enable": "true",
                    "enable_sync": "true",  # a depth image has the stamp of its colour image
                }
                if device.depth_profile
                else {"enable_depth": "false"}
            ),
        },
    )


def cameras(cell: Cell) -> list[LaunchDescriptionEntity]:
    """Return one driver a camera: ROS's, or our own."""
    own = cell.require_driver().cameras == "realsense_camera"
    devices = {view: cell.camera_devices[view] for view in cell.views}
    return [node(camera(view, device)) if own else realsense2_camera(view, device) for view, device in devices.items()]


def generate_launch_description() -> LaunchDescription:
    """Describe one driver a camera."""
    return check_arguments(ARGUMENTS, lambda: [*environment(), ForCell(cameras)], require_driver)
