from setuptools import find_packages, setup

PACKAGE = "genima_calibration"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Hand-eye calibration: library, nodes and commands.",
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
            "calibrator = genima_calibration.calibrator:main",
            "calibration_watch = genima_calibration.calibration_watch:main",
        ],
    },
)
