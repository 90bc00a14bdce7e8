from setuptools import find_packages, setup

PACKAGE = "genima_sim"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="MuJoCo scene, tasks and scripted experts; simulator nodes.",
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
            "coppeliasim = genima_sim.coppeliasim.bridge:main",
            "sim_node = genima_sim.sim_node:main",
            "sim_leader = genima_sim.sim_leader:main",
            "simulator_node = genima_sim.simulator_node:main",
        ],
    },
)
