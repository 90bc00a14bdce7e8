from setuptools import find_packages, setup

PACKAGE = "genima"

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Genima: draw the joints' targets on camera images, then follow them.",
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
)
