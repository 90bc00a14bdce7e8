from setuptools import find_packages, setup

PACKAGE = "genima_nodes"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="ROS nodes around the Genima library.",
    license="Apache-2.0",
    maintainer="Genima developers",
    maintainer_email="genima-dev@users.noreply.github.com",
    packages=find_packages(),
    package_dir={"": "."},  # lets an editable install be a plain path entry
    package_data={PACKAGE: ["**/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
    ],
    python_requires=">=3.11",
    zip_safe=False,
    entry_points={
        "console_scripts": [
            "arm_adapter = genima_nodes.arm_adapter:main",
            "arm_recovery = genima_nodes.arm_recovery:main",
            "diffusion_agent = genima_nodes.diffusion_agent:main",
            "controller = genima_nodes.controller:main",
            "camera_transforms = genima_nodes.camera_transforms:main",
            "checkup = genima_nodes.checkup:main",
            "clock_watch = genima_nodes.clock_watch:main",
            "command_guard = genima_nodes.command_guard:main",
            "task_runner = genima_nodes.task_runner:main",
            "franka_arm = genima_nodes.franka_arm:main",
            "franka_hand = genima_nodes.franka_hand:main",
            "gripper_adapter = genima_nodes.gripper_adapter:main",
            "jog = genima_nodes.jog:main",
            "realsense_camera = genima_nodes.realsense_camera:main",
            "policy = genima_nodes.policy:main",
            "recorder = genima_nodes.recorder:main",
            "replay = genima_nodes.replay:main",
            "rviz_markers = genima_nodes.rviz_markers:main",
            "scene_overlay = genima_nodes.scene_overlay:main",
            "teleop = genima_nodes.teleop:main",
        ],
    },
)
