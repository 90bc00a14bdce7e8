"""Our own RealSense driver, with librealsense's software device instead of a camera."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_graph import Graph, diagnostic_values, overrides
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from sensor_msgs.msg import Image as ImageMessage

from genima.errors import GenimaError
from genima_nodes.drivers import librealsense_camera as realsense
from genima_nodes.drivers import optional_library as optional
from genima_nodes.drivers.librealsense_camera import Frame, ImageProfile, RealSenseCamera
from genima_nodes.ros import messages, qos

MISSING = "pyrealsense2, or Debian's libusb-1.0-0, is not installed"
pytest.importorskip("pyrealsense2", reason=MISSING, exc_type=ImportError)
from standins.software_camera import ANGLE, LENS, TRANSLATION, Bus, SoftwareCamera  # noqa: E402

PROFILE = ImageProfile(64, 48, 30)


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realsense, "_START_TIMEOUT", 1.0)
    monkeypatch.setattr(realsense, "_IMAGE_TIMEOUT", 0.5)


def test_images_are_unchanged_and_losses_are_counted() -> None:
    device = SoftwareCamera("123")
    camera = RealSenseCamera("123", PROFILE, query_devices=Bus(device))
    camera.open()
    assert camera.read(0.01) is None
    stamp = device.expose(pixels=9)
    frame = camera.read(1.0)
    assert frame is not None
    assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8 and np.all(frame.image == 9)
    assert abs(frame.stamp - stamp) < 1e-5 and frame.lost == 0
    assert camera.clock == "global_time"
    device.expose(lose=3)
    assert camera.read(1.0).lost == 3  # type: ignore[union-attr]
    device.expose(pixels=1)
    time.sleep(0.05)
    device.expose(pixels=2)
    time.sleep(0.05)
    newest = camera.read(1.0)
    assert newest is not None and np.all(newest.image == 2) and newest.lost == 1, "not the newest image"
    camera.close()


def test_hardware_clock_is_not_used_as_time() -> None:
    device = SoftwareCamera("123")
    camera = RealSenseCamera("123", PROFILE, query_devices=Bus(device))
    camera.open()
    device.expose(stamp=12.5, domain="hardware_clock")
    frame = camera.read(1.0)
    assert frame is not None and abs(frame.stamp - time.time()) < 5
    camera.close()


def test_camera_info_equals_ros_driver() -> None:
    device = SoftwareCamera("123", coefficients=(0.1, 0.2, 0.3, 0.4, 0.5))
    opened = RealSenseCamera("123", PROFILE, query_devices=Bus(device)).open()
    info = CameraInfo(**opened.info)
    fx, fy, cx, cy = LENS
    assert (info.width, info.height, info.distortion_model) == (64, 48, "plumb_bob")
    assert np.allclose(info.k, [fx, 0, cx, 0, fy, cy, 0, 0, 1])
    assert np.allclose(info.p, [fx, 0, cx, 0, 0, fy, cy, 0, 0, 0, 1, 0])
    assert np.allclose(info.r, np.eye(3).ravel())
    assert np.allclose(info.d, [0.1, 0.2, 0.3, 0.4, 0.5])


def test_color_frame_is_from_device_extrinsics() -> None:
    opened = RealSenseCamera("123", PROFILE, query_devices=Bus(SoftwareCamera("123"))).open()
    x, y, z = TRANSLATION
    assert np.allclose(opened.T_link_color[:3, 3], [z, -x, -y], atol=1e-7), "x forward, y left, z up"
    # about the optical frame's y, which points down, is about the link's z, the other way round
    expected = Rotation.from_euler("z", -ANGLE).as_matrix()
    assert np.allclose(opened.T_link_color[:3, :3], expected, atol=1e-6)
    color_only = RealSenseCamera("9", PROFILE, query_devices=Bus(SoftwareCamera("9", depth=False))).open()
    assert np.array_equal(color_only.T_link_color, np.eye(4))


def frame_with_depth(camera: RealSenseCamera, device: SoftwareCamera, distances: NDArray[np.floating]) -> Frame:
    """Return the first image with a depth image, of ``distances`` in m from the depth sensor."""
    for _ in range(30):
        stamp = device.expose_with_depth(9, distances)
        while frame := camera.read(0.05, depth=True):
            assert abs(frame.stamp - stamp) < 1e-5
            if frame.depth is not None:
                return frame
    raise AssertionError("no depth image")


@pytest.mark.parametrize("single_sensor", [False, True])
def test_depth_is_aligned_to_color_and_in_metres(single_sensor: bool) -> None:
    """A plane before the depth sensor is at its distance from the colour lens, too, at its colours' pixels."""
    device = SoftwareCamera("123", single_sensor=single_sensor)
    camera = RealSenseCamera("123", PROFILE, query_devices=Bus(device), depth_profile=PROFILE)
    camera.open()
    plane = np.full((48, 64), 0.5)
    plane[:, 40:] = 0.8
    depth = frame_with_depth(camera, device, plane).depth
    camera.close()
    assert depth is not None and depth.shape == (48, 64) and depth.dtype == np.float32
    known = depth[8:40]  # the lower and upper edges are outside of the other image
    fx = LENS[0]
    shift = fx * TRANSLATION[0] / 0.5 + fx * ANGLE  # px, of the nearer plane's edge in the colour image
    for columns, expected in ((slice(6, 30), 0.5), (slice(54, 60), 0.8)):
        values = known[:, columns]
        assert np.mean(values > 0) > 0.9 and np.allclose(values[values > 0], expected, atol=0.01)
    edge = np.mean([np.max(np.flatnonzero(np.abs(row - 0.5) < 0.02)) for row in known])
    assert abs(abs(edge - 39) - shift) < 1.5
    assert ((depth == 0) | (depth > 0.4)).all()


def test_camera_without_depth_profile_or_reader_aligns_nothing() -> None:
    device = SoftwareCamera("123")
    for depth_profile, wanted in ((None, True), (PROFILE, False)):
        camera = RealSenseCamera("123", PROFILE, query_devices=Bus(device), depth_profile=depth_profile)
        camera.open()
        frame = None
        while frame is None:
            device.expose_with_depth(9, 0.5)
            frame = camera.read(0.1, wanted)
        assert frame.depth is None
        camera.close()


def test_unsupported_depth_profile_is_rejected() -> None:
    for depth, line in ((True, "no depth profile 1280x720x30; it has 64x48x30$"), (False, "it has none$")):
        bus = Bus(SoftwareCamera("1", depth=depth))
        with pytest.raises(GenimaError, match=line):
            RealSenseCamera("1", PROFILE, query_devices=bus, depth_profile=ImageProfile(1280, 720, 30)).open()


def test_sensor_options_are_set_and_checked() -> None:
    device = SoftwareCamera("123")
    RealSenseCamera("123", PROFILE, {"enable_auto_exposure": 0, "exposure": 300}, Bus(device)).open()
    assert (device.option("exposure"), device.option("enable_auto_exposure")) == (300, 0)
    assert device.option("global_time_enabled") == 1
    with pytest.raises(GenimaError, match="exposure is 20000; it must be from 1 to 10000"):
        RealSenseCamera("123", PROFILE, {"exposure": 20000}, Bus(device)).open()
    with pytest.raises(GenimaError, match="option gain not supported"):
        RealSenseCamera("123", PROFILE, {"gain": 3}, Bus(device)).open()


@pytest.mark.parametrize(
    ("serial", "connected", "line"),
    [
        ("777", ("123", "456"), r"camera 777: not connected; connected: 123 \(Intel RealSense D415\), 456 \("),
        ("777", (), "camera 777: not connected; no RealSense camera is connected"),
        ("", ("123", "456"), r"camera: no serial number given; connected: 123 \(.*\), 456 "),
    ],
)
def test_missing_camera_is_reported_with_connected_ones(serial: str, connected: tuple[str, ...], line: str) -> None:
    with pytest.raises(GenimaError, match=line):
        RealSenseCamera(serial, PROFILE, query_devices=Bus(*map(SoftwareCamera, connected))).open()


def test_single_camera_needs_no_serial_number() -> None:
    assert RealSenseCamera("", PROFILE, query_devices=Bus(SoftwareCamera("123"))).open().serial == "123"


def test_unsupported_profile_is_rejected_with_supported_ones() -> None:
    with pytest.raises(GenimaError, match="no colour profile 1920x1080x30; it has 64x48x15, 64x48x30$"):
        RealSenseCamera("1", ImageProfile(1920, 1080, 30), query_devices=Bus(SoftwareCamera("1"))).open()
    with pytest.raises(GenimaError, match="64x48x30 on USB 2.1; USB 3 has more"):
        RealSenseCamera("1", ImageProfile(1920, 1080, 30), query_devices=Bus(SoftwareCamera("1", usb="2.1"))).open()
    with pytest.raises(GenimaError, match="use a form like 640x480x30"):
        ImageProfile.parse("640,480,30")


def test_image_timeout_reports_whether_camera_is_connected() -> None:
    device = SoftwareCamera("123")
    bus = Bus(device)
    camera = RealSenseCamera("123", PROFILE, query_devices=bus)
    camera.open()
    with pytest.raises(GenimaError, match="connected, but sends no images"):
        until_error(camera)
    bus.cameras.clear()
    with pytest.raises(GenimaError, match="not connected"):
        until_error(camera)
    with pytest.raises(GenimaError, match="not connected"):
        camera.open()
    bus.cameras.append(SoftwareCamera("123"))
    camera.open()
    bus.cameras[0].expose()
    assert camera.read(1.0) is not None
    camera.close()


def until_error(camera: RealSenseCamera) -> None:
    for _ in range(30):
        assert camera.read(0.1) is None


def test_missing_library_is_reported_with_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(GenimaError, match=r"pip install pyrealsense2==2\.59"):
        optional.import_library("pyrealsense2")

    def without_libusb(name: str) -> Any:
        raise ImportError("libusb-1.0.so.0: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(optional.importlib, "import_module", without_libusb)
    with pytest.raises(GenimaError, match="apt install libusb-1.0-0"):
        optional.import_library("pyrealsense2")


# ------------------------------------------------------------------------------------------------------------ node


class CameraFixture:
    """Node with a software camera that produces images."""

    def __init__(self, graph: Graph, bus: Bus, **parameters: Any) -> None:
        from genima_nodes.realsense_camera import RealSenseCameraNode

        self.graph, self.bus = graph, bus
        self.node = graph.add(RealSenseCameraNode(bus, parameter_overrides=overrides(**parameters)))
        self.images = graph.subscribe(ImageMessage, "cameras/front/color/image_raw", qos.IMAGE)
        self.infos = graph.subscribe(CameraInfo, "cameras/front/color/camera_info", qos.IMAGE)

    def until(self, condition: Callable[[], Any], otherwise: str, expose: bool = True) -> None:
        self.graph.until(condition, otherwise, self.bus.cameras[0].expose if expose and self.bus.cameras else None)


@pytest.fixture
def tf(graph: Graph) -> Iterator[list[Any]]:
    module = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not built")
    latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    yield graph.subscribe(module.TFMessage, "/tf_static", latched)


def test_node_publishes_as_ros_driver(graph: Graph, tf: list[Any]) -> None:
    camera = CameraFixture(
        graph, Bus(SoftwareCamera("0123")), serial_no="_0123", **{"rgb_camera.color_profile": "64x48x30"}
    )
    camera.until(lambda: camera.images and camera.infos, "no images")
    image, info = camera.images[-1], camera.infos[-1]
    assert image.header.frame_id == info.header.frame_id == "front_color_optical_frame"
    assert messages.image_from(image).shape == (48, 64, 3)
    assert messages.seconds(image.header.stamp) in {messages.seconds(i.header.stamp) for i in camera.infos}
    graph.until(lambda: tf, "no transforms")
    tree = {t.child_frame_id: t for t in tf[0].transforms}
    assert {child: t.header.frame_id for child, t in tree.items()} == {
        "front_color_frame": "front_link",
        "front_color_optical_frame": "front_color_frame",
    }
    rotation = tree["front_color_optical_frame"].transform.rotation
    # roll -90, yaw -90 degrees, as the driver has it; a quaternion and its negative are the same rotation
    assert np.allclose(np.abs([rotation.x, rotation.y, rotation.z, rotation.w] @ np.array([-0.5, 0.5, -0.5, 0.5])), 1)
    camera.until(lambda: "realsense_camera" in graph.diagnostics, "no diagnostics")
    values = diagnostic_values(graph.diagnostics["realsense_camera"])
    assert (values["serial"], values["usb"], values["requested rate [Hz]"]) == ("0123", "3.2", "30")


def test_node_publishes_aligned_depth_with_stamps_of_images(graph: Graph, tf: list[Any]) -> None:
    profiles = {"rgb_camera.color_profile": "64x48x30", "depth_module.depth_profile": "64x48x30"}
    camera = CameraFixture(graph, Bus(SoftwareCamera("1")), serial_no="_1", **profiles)
    received = graph.subscribe(ImageMessage, messages.depth_topic("front"), qos.IMAGE)
    device = camera.bus.cameras[0]
    graph.until(lambda: len(received) > 1, "no depth images", lambda: device.expose_with_depth(9, 0.5))
    message = received[-1]
    depth = messages.depth_from(message, (64, 48))
    assert message.encoding == "16UC1" and message.header.frame_id == "front_color_optical_frame"
    assert np.median(depth) == pytest.approx(0.5, abs=0.002)
    stamps = {messages.seconds(image.header.stamp) for image in camera.images}
    graph.until(lambda: messages.seconds(message.header.stamp) in stamps, "no image has the stamp of its depth")


def test_unplugged_camera_is_fault_until_reconnected(graph: Graph, tf: list[Any]) -> None:
    camera = CameraFixture(graph, Bus(SoftwareCamera("1")), serial_no="_1", **{"rgb_camera.color_profile": "64x48x30"})
    camera.until(graph.has_no_fault("realsense_camera"), "fault reported although the camera is connected")
    camera.bus.cameras.clear()
    camera.until(graph.reports_fault("realsense_camera", "camera 1: not connected"), "fault not reported")
    camera.bus.cameras.append(SoftwareCamera("1"))
    count = len(camera.images)
    camera.until(
        lambda: len(camera.images) > count and graph.has_no_fault("realsense_camera")(),
        "no reconnection",
    )
    camera.until(
        lambda: diagnostic_values(graph.diagnostics["realsense_camera"])["times opened"] == "2",
        "reconnection not counted",
    )


def test_wrong_stamps_are_fault(graph: Graph, tf: list[Any]) -> None:
    camera = CameraFixture(graph, Bus(SoftwareCamera("1")), serial_no=1, **{"rgb_camera.color_profile": "64x48x30"})
    graph.until(
        graph.reports_fault("realsense_camera", "check this machine's clock"),
        "fault not reported",
        lambda: camera.bus.cameras[0].expose(stamp=time.time() - 30),
    )
    camera.until(graph.has_no_fault("realsense_camera"), "the fault remains")
