"""One robot cell: robot, driver or simulator, cameras, calibration, guard settings; one YAML file.

A user describes a cell by a file beside those in ``config/cells``; docs/real_robot.md describes its fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from genima.cameras.calibration_file import calibration_folder, load_cameras
from genima.cameras.camera import VIRTUAL, Camera
from genima.cameras.camera_devices import CameraDevice, image_problem, load_camera_devices
from genima.cameras.tiling import MAX_VIEWS
from genima.errors import GenimaError
from genima.io import paths
from genima.io.files import FileSchema, Text, load_yaml
from genima.policy.spec import PolicySpec
from genima.robot.backend import ArmBackend, GripperBackend
from genima.robot.model import RobotModel
from genima.system.ros_names import RosName

SIMULATED = "sim_panda"  # the cell of commands and nodes that name none
ROS_DRIVER, OWN_DRIVER = "fr3_crisp", "fr3_own_driver"  # those of drivers' nodes
HAND, ROBOTIQ = "franka_hand", "robotiq_2f140"  # of config/backends


class GuardConfig(FileSchema):
    """Settings of the command guard."""

    rate: Annotated[float, Field(ge=20, le=200)] = 200.0  # Hz of its set-points
    self_collision: bool | None = None  # stop before the arm touches itself; None: where the arm has meshes


class DriverConfig(FileSchema):
    """Drivers of a real arm, its gripper and its cameras."""

    kind: Literal["franka_ros2", "franka_arm", "external"]
    """franka_ros2: started with a controller of config/backends; franka_arm: our own driver over pylibfranka;
    external: a controller of config/backends whose driver is started elsewhere."""
    arm: Text | None = None  # file of config/backends
    gripper: Text | None = None  # file of config/backends; None: the hand, by our own driver
    robot_ip: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,253}$")] = "172.16.0.2"
    com_port: Text = "/dev/ttyUSB0"  # of a Robotiq's adapter; /dev/serial/by-id/... does not change
    cameras: Literal["realsense2_camera", "realsense_camera"] = "realsense2_camera"  # ROS's, or our own

    @model_validator(mode="after")
    def _check_arm(self) -> DriverConfig:
        if (self.arm is None) != (self.kind == "franka_arm"):
            raise ValueError("arm names a file of config/backends; kind: franka_arm alone has none")
        if self.gripper is None and self.kind != "franka_arm":
            raise ValueError("gripper missing; kind: franka_arm alone drives a hand without")
        return self


def _unique(views: list[str]) -> list[str]:
    if len(set(views)) < len(views):
        raise ValueError("must be different views")
    return views


class _CellFields(FileSchema):
    robot: Text
    simulator: Text | None = None
    scene: Text | None = None
    depth: bool = False
    driver: DriverConfig | None = None
    cameras: Text | None = None
    calibration: Text | None = None
    views: Annotated[list[RosName], Field(min_length=1, max_length=MAX_VIEWS), AfterValidator(_unique)]
    guard: GuardConfig = GuardConfig()

    @model_validator(mode="after")
    def _check_kind(self) -> _CellFields:
        if (self.simulator is None) == (self.driver is None):
            raise ValueError("a cell has either a simulator or a driver")
        if (self.cameras is None) != (self.driver is None):
            raise ValueError("cameras belong to a driver, and a driver needs them; a simulator has its own")
        if self.scene is not None and self.simulator is None:
            raise ValueError("scene belongs to a simulator")
        if self.depth and self.simulator is None:
            raise ValueError("depth belongs to a simulator; name the depth_profile of real cameras in their file")
        if self.driver is not None and self.calibration is None:
            raise ValueError("calibration missing; name the folder that ./genima calibrate writes")
        return self


@dataclass(frozen=True)
class Cell:
    """Robot cell, real or simulated."""

    name: str  # of the file
    reference: str  # finds the file again: a name in config/cells, or an absolute path
    robot_reference: str  # a name in config/robots, or a file
    robot: RobotModel
    simulator: str  # a name of the simulators' registry; empty: a real cell
    scene: str  # of the simulator, where it has several; empty: its usual
    depth: bool  # the simulator publishes depth images
    driver: DriverConfig | None  # None: simulated
    camera_devices: Mapping[str, CameraDevice]  # cameras by view; empty: simulated
    calibration: str  # folder of calibrations, or a name in calibration/; empty: images are taken as they are
    views: tuple[str, ...]  # in tile order
    guard: GuardConfig

    @property
    def calibrated(self) -> bool:
        """Return whether the folder of its calibration exists."""
        try:
            return bool(self.calibration) and calibration_folder(self.calibration).is_dir()
        except GenimaError:
            return False

    @property
    def arm_backend(self) -> ArmBackend | None:
        """Return the interface of the arm's controller; None: simulated, or our own driver."""
        return ArmBackend.load(self.driver.arm) if self.driver and self.driver.arm else None

    @property
    def gripper_backend(self) -> GripperBackend | None:
        """Return the gripper's action server; None: simulated, or our own driver."""
        return GripperBackend.load(self.driver.gripper) if self.driver and self.driver.gripper else None

    def has_robot(self, robot: RobotModel) -> bool:
        """Return whether its arm and gripper have the joints of another model."""
        mine = self.robot.joint_names, self.robot.gripper_joint
        return mine == (robot.joint_names, robot.gripper_joint)

    @property
    def recovers(self) -> bool:
        """Return whether a service recovers the robot after a reflex."""
        if self.driver is None or self.driver.kind == "external":
            return False
        return self.arm_backend is None or self.arm_backend.recovery is not None

    def with_robot_ip(self, robot_ip: str) -> Cell:
        """Return the cell with its robot at another address; empty: the cell as it is."""
        if not robot_ip:
            return self
        return replace(self, driver=self.require_driver().model_copy(update={"robot_ip": robot_ip}))

    def require_driver(self) -> DriverConfig:
        """Return what drives a real robot; GenimaError for a simulated cell."""
        if self.driver is None:
            raise GenimaError(f"cell {self.name}: simulated by {self.simulator}; name the cell of a real robot")
        return self.driver

    def load_cameras(self) -> Mapping[str, Camera]:
        """Load the calibrated cameras by view, in the cell's order.

        Raises:
            GenimaError: for a folder or a view that is missing, and a malformed file.
        """
        how = "see docs/calibration.md"
        if not self.calibrated:
            raise GenimaError(f"cell {self.name}: no calibration ({self.calibration or 'none named'}); {how}")
        found = load_cameras(self.calibration)
        if missing := [view for view in self.views if view not in found]:
            raise GenimaError(f"cell {self.name}: {self.calibration} lacks {', '.join(missing)}; {how}")
        return {view: found[view] for view in self.views}

    def require_policy(self, spec: PolicySpec, what: str) -> None:
        """Check that a policy fits the cell: its robot and gripper, views, image sizes, depth and calibration.

        The one place where that is checked, for every simulator and robot. ``what`` names the policy in errors.

        Raises:
            GenimaError: where it was trained for another robot, or takes what the cell does not have.
        """
        try:
            spec.require_robot(self.robot, what)
        except GenimaError as error:
            raise GenimaError(f"cell {self.name}: {error}") from None
        views = [view for view in spec.views if view != VIRTUAL]
        if missing := [view for view in views if view not in self.views]:
            has = ", ".join(self.views)
            raise GenimaError(f"{what} takes the view {', '.join(missing)}; cell {self.name} has {has}")
        if spec.requires_depth:
            self._require_depth(views, what)
        for view in views:
            if view in self.camera_devices and (problem := image_problem(self.camera_devices[view], spec.camera_size)):
                raise GenimaError(f"{view} camera: {problem}")
        if self.calibration:
            cameras = self.load_cameras()
            sizes = {view: (cameras[view].width, cameras[view].height) for view in views}
            if not self.camera_devices and (other := [view for view in views if sizes[view] != spec.camera_size]):
                width, height = sizes[other[0]]
                expected = "x".join(map(str, spec.camera_size))
                raise GenimaError(
                    f"{what} takes images of {expected}; {other[0]} of cell {self.name} has {width}x{height}"
                )

    def _require_depth(self, views: Iterable[str], what: str) -> None:
        """Raise a GenimaError where a view has no depth images; ``what`` names the policy that takes them."""
        if not self.camera_devices:
            if not self.depth:
                raise GenimaError(
                    f"{what} takes depth images; cell {self.name} has none; set depth: true in its file, where its "
                    "simulator renders them"
                )
        elif missing := [view for view in views if not self.camera_devices[view].depth_profile]:
            raise GenimaError(
                f"{what} takes depth images; {', '.join(missing)} of cell {self.name} has none; set depth_profile of "
                "the view in its cameras file"
            )


def load_cell(name_or_file: str | Path) -> Cell:
    """Read ``config/cells/<name>.yaml`` or a YAML file.

    Files that it names are searched for in the folder of the user's file first, then in ``config/`` and
    ``calibration/``.

    Raises:
        GenimaError: for a missing file, missing, unknown or bad fields, and files that it names.
    """
    path = paths.config_file(name_or_file, "config", "cells")
    fields = load_yaml(_CellFields, path, "cell")
    try:
        return _assemble(fields, path, str(path.absolute() if Path(name_or_file).suffix == ".yaml" else name_or_file))
    except GenimaError as error:
        raise GenimaError(f"cell {path}: {error}") from None


def _assemble(fields: _CellFields, path: Path, reference: str) -> Cell:
    def find(name: str | None) -> str:
        beside = path.parent / (name or "")
        return (
            str(beside.absolute())
            if name and (beside.is_dir() or beside.suffix == ".yaml" and beside.is_file())
            else name or ""
        )

    driver = fields.driver
    if driver is not None:
        driver = driver.model_copy(
            update={key: find(name) or None for key, name in (("arm", driver.arm), ("gripper", driver.gripper))}
        )
    cell = Cell(
        name=path.stem,
        reference=reference,
        robot_reference=find(fields.robot),
        robot=RobotModel.load(find(fields.robot)),
        simulator=fields.simulator or "",
        scene=find(fields.scene),
        depth=fields.depth,
        driver=driver,
        camera_devices=load_camera_devices(find(fields.cameras)) if fields.cameras else {},
        calibration=find(fields.calibration),
        views=tuple(fields.views),
        guard=fields.guard,
    )
    if cell.camera_devices and (missing := [view for view in cell.views if view not in cell.camera_devices]):
        raise GenimaError(
            f"views: {', '.join(missing)} not in cameras {fields.cameras}, which has {', '.join(cell.camera_devices)}"
        )
    if (backend := cell.arm_backend) is not None:
        backend.joint_names(cell.robot)
    hand = cell.robot.gripper == HAND
    if driver is not None and cell.gripper_backend is None and not hand:
        raise GenimaError(
            f"driver: gripper missing; our own driver drives a {HAND}, the robot has a {cell.robot.gripper}"
        )
    return cell
