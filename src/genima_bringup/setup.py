from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "genima_bringup"


def installed(folder: str) -> list[tuple[str, list[str]]]:
    """All files below a folder (a link to the repository's), each to the same place in the package's share."""
    places: dict[str, list[str]] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            places.setdefault(f"share/{PACKAGE}/{path.parent}", []).append(str(path))
    return list(places.items())


setup(
    name=PACKAGE,
    version="0.1.0",
    description="Launch files and configuration of Genima.",
    license="Apache-2.0",
    maintainer="Genima developers",
    maintainer_email="genima-dev@users.noreply.github.com",
    packages=find_packages(),
    package_dir={"": "."},  # lets an editable install be a plain path entry
    package_data={PACKAGE: ["**/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *installed("launch"),
        *installed("config"),
        *installed("calibration"),
        *installed("models"),
    ],
    python_requires=">=3.11",
    zip_safe=False,
)
