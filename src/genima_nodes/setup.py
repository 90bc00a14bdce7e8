from setuptools import find_packages, setup

PACKAGE = "genima_nodes"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Thin ROS nodes around the Genima library.",
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
            "diffusion_agent = genima_nodes.diffusion_agent:main",
            "controller = genima_nodes.controller:main",
            "command_guard = genima_nodes.command_guard:main",
            "task_runner = genima_nodes.task_runner:main",
            "jog = genima_nodes.jog:main",
            "recorder = genima_nodes.recorder:main",
            "replay = genima_nodes.replay:main",
            "scene_overlay = genima_nodes.scene_overlay:main",
            "teleop = genima_nodes.teleop:main",
        ],
    },
)
