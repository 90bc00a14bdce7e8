"""`./genima calibrate FOLDER` and `board`: from images and joints on disk to a calibration, or to why there is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import handeye as bench
import numpy as np
import pytest
import yaml
from photographs import photograph
from scipy.spatial.transform import Rotation

from genima.cameras.calibration_board import CalibrationBoard
from genima.cameras.calibration_file import CameraCalibration, Frames
from genima.cameras.camera import Parent
from genima.cameras.intrinsics import CameraIntrinsics
from genima.data.episodes.bag import JOINT_STATES, camera_info_topic, raw_topic, types
from genima.data.episodes.bag_recorder import BagRecorder
from genima.data.episodes.metadata import Qos
from genima.errors import GenimaError
from genima.io import paths
from genima.robot.model import RobotModel
from genima.robot.rigid_transforms import pose, pose_distance
from genima_calibration.commands import main
from genima_calibration.easy_handeye2 import Calib, Parameters
from genima_calibration.sample_folder import CameraInfo, RawSample, drop_sample, load_samples, sample_names, save_sample

PANDA = RobotModel.load("panda")
BOARD = bench.BOARD
LENS = bench.LENS
COUNT = 8
VIEW: Mapping[Parent, str] = {"base": "front", "flange": "wrist"}


def info_of(view: str, lens: CameraIntrinsics = LENS) -> CameraInfo:
    camera_info = lens.camera(view, "base", np.eye(4)).camera_info()
    numbers = (tuple(camera_info["d"].tolist()), tuple(camera_info["k"].tolist()))
    return CameraInfo(f"{view}_color_optical_frame", lens.width, lens.height, "plumb_bob", *numbers)


def simulate_samples(parent: Parent) -> tuple[bench.Setup, list[RawSample]]:
    """Return a set-up and its samples at poses in which the board's markers are readable."""
    setup = bench.setup(PANDA, parent, 5, count=40)
    board_poses = setup.truth.T_camera_board(PANDA, setup.joints)
    readable_indices = np.flatnonzero(board_poses[:, 2, 2] > 0.85)[:COUNT]
    samples = []
    for i, (q, T) in enumerate(zip(setup.joints[readable_indices], board_poses[readable_indices], strict=True)):
        joints = dict(zip(PANDA.joint_names, q.tolist(), strict=True)) | {"finger_joint": 0.7}
        image = photograph(BOARD, T, LENS)
        samples.append(RawSample(f"{i + 1:02d}", VIEW[parent], image, joints, info_of(VIEW[parent])))
    return setup, samples


@pytest.fixture(scope="module")
def setups() -> Mapping[Parent, tuple[bench.Setup, list[RawSample]]]:
    return {parent: simulate_samples(parent) for parent in bench.PARENTS}


def write_samples(path: Path, samples: Sequence[RawSample]) -> Path:
    for sample in samples:
        save_sample(path, sample)
    return path


@pytest.mark.parametrize("parent", bench.PARENTS)
def test_calibration_from_sample_folder(
    setups: Mapping[Parent, tuple[bench.Setup, list[RawSample]]],
    parent: Parent,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup, samples = setups[parent]
    empty = replace(samples[0], name="99", image=np.full_like(samples[0].image, 90))
    folder, out, view = write_samples(tmp_path / "samples", [*samples, empty]), tmp_path / "out", VIEW[parent]
    calib = tmp_path / "one.calib"
    assert main([str(folder), "--out", str(out), "--easy-handeye2", str(calib)]) == 0
    printed = capsys.readouterr().out
    for expected in (
        "99 is left out: board: not detected", f"{view} on the {parent}: x, y, z",
        "standard deviation", f"{COUNT} used, 0 outliers",
        "park", "daniilidis", "recommended next pose", f"{view}.yaml is written\n",
    ):  # fmt: skip
        assert expected in printed
    found = CameraCalibration.load(out / f"{view}.yaml")
    millimetres, degrees = bench.error(replace(setup.truth, T_parent_camera=found.camera.T_parent_camera), setup.truth)
    assert found.sigma and millimetres < 4 * found.sigma[0] and degrees < 4 * found.sigma[1]
    assert found.sigma[0] < 5 and found.board == BOARD and len(found.samples) == COUNT
    assert found.intrinsics.parameters == pytest.approx(LENS.parameters)
    robot_frame = "panda_link0" if parent == "base" else "panda_link8"
    assert found.frames and (found.frames.parent, found.frames.camera) == (robot_frame, f"{view}_color_optical_frame")
    loaded_calib = Calib.load(calib)
    assert loaded_calib.parent == parent
    np.testing.assert_allclose(loaded_calib.T_robot_tracking, found.camera.T_parent_camera, atol=1e-9)

    assert main([str(folder), "--out", str(out)]) == 0
    assert "the former one is kept, with a date to its name" in capsys.readouterr().out
    kept = [path for path in out.iterdir() if path.suffix != ".yaml"]
    assert len(kept) == 1 and yaml.safe_load(kept[0].read_text())["date"] == found.date


def test_samples_round_trip(setups: Any, tmp_path: Path) -> None:
    _, samples = setups["base"]
    folder = write_samples(tmp_path / "new", samples[:3])
    for before, after in zip(samples, load_samples(folder, sample_names(folder)), strict=False):
        np.testing.assert_array_equal(before.image, after.image)
        assert replace(before, image=None) == replace(after, image=None)  # type: ignore[arg-type]
    with pytest.raises(GenimaError, match="sample 02 exists"):
        save_sample(folder, samples[1])
    drop_sample(folder, "02")
    assert sample_names(folder) == ["01", "03"] and len(list(folder.iterdir())) == 4
    save_sample(folder, samples[1])


def change(name: str, corrupt: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / name
        data = yaml.safe_load(file.read_text())
        corrupt(data)
        file.write_text(yaml.safe_dump(data))

    return edit


def change_all(corrupt: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for name in sample_names(folder):
            change(f"{name}.yaml", corrupt)(folder)

    return edit


def rename_joints(data: dict[str, Any]) -> None:
    data["joints"] = {joint.replace("panda", "fr3"): q for joint, q in data["joints"].items()}


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-500])


def mirror(folder: Path) -> None:
    for file in folder.glob("*.png"):
        cv2.imwrite(str(file), cv2.imread(str(file))[:, ::-1])


def keep_four(folder: Path) -> None:
    for name in sample_names(folder)[4:]:
        drop_sample(folder, name)


@pytest.mark.parametrize(
    ("corrupt", "arguments", "expected"),
    [
        (keep_four, [], "samples: too few .4.; take at least 5"),
        (lambda folder: None, ["--board", "{small}"], "squares of 3[56]"),
        (lambda folder: None, ["--board", "{other}"], "any of 8 images.*in 01: .*in its file: dictionary: 5X5"),
        (lambda folder: None, ["--board", "nowhere.yaml"], "board nowhere.yaml does not exist"),
        (lambda folder: None, ["--parent", "flange"], "of a camera on the base .*not on the flange.*swapped"),
        (lambda folder: None, ["--view", "wrist"], "of front, not of wrist; correct --view"),
        (change_all(rename_joints), [], r"sample 01: joints missing \(panda_joint1.*it has .*fr3_joint1"),
        (
            change_all(lambda d: d["joints"].update(panda_joint4=-134.6)),
            [],
            "01: joints outside the range of panda.*unit .rad",
        ),
        (change("03.yaml", lambda d: d.update(view="wrist")), [], "samples of two views .01 of front, 03 of wrist"),
        (
            change("03.yaml", lambda d: d["camera_info"].update(d=[0.0] * 5)),
            [],
            "samples of two cameras .camera_info of 03 differs",
        ),
        (change("03.yaml", lambda d: d["camera_info"].update(width=1280)), [], "03.png: 640x480, but .* of 1280x480"),
        (change("03.yaml", lambda d: d["camera_info"].update(width=float("inf"))), [], "camera_info.width: .*inf"),
        (change("03.yaml", lambda d: d.update(view="left-shoulder")), [], "03.yaml: view: .*for example left_shoulder"),
        (change("03.yaml", lambda d: d.update(colour="red")), [], "sample .*03.yaml: colour: Extra inputs"),
        (change("03.yaml", lambda d: d["camera_info"].pop("k")), [], "sample .*03.yaml: camera_info.k: Field required"),
        (change("03.yaml", lambda d: d["joints"].update(panda_joint1="a")), [], "03.yaml: joints.panda_joint1: .*'a'"),
        (lambda folder: (folder / "03.yaml").write_text("view: ["), [], "03.yaml: not YAML"),
        (lambda folder: (folder / "03.png").write_bytes(b"no image"), [], "03.png: not a PNG image"),
        (lambda folder: truncate(folder / "03.png"), [], "03.png: damaged or cut short"),
        (change_all(lambda d: d["camera_info"].update(k=[0.0] * 9)), [], "camera_info: no intrinsics"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], [], "no demo .* and no samples"),
        (lambda folder: None, ["--max-samples", "0"], "--max-samples 0: must be greater than or equal to 5"),
        (lambda folder: None, ["--base-frame", "/left"], "base frame: invalid frame name"),
        (lambda folder: None, ["--view", "left-shoulder"], "--view left-shoulder: .*for example left_shoulder"),
        (mirror, [], "board not detected in any of .*in 01: .*17 markers .* in the mirrored image only; print"),
        (lambda folder: None, ["--cell", "nowhere"], "nowhere"),
    ],
)
def test_bad_samples_are_rejected_in_one_line(
    setups: Any, tmp_path: Path, corrupt: Callable[[Path], Any], arguments: list[str], expected: str
) -> None:
    boards = {"small": replace(BOARD, square=0.025, marker=0.01875), "other": replace(BOARD, dictionary="4X4_50")}
    for name, board in boards.items():
        board.save(tmp_path / f"{name}.yaml")
    folder = write_samples(tmp_path / "samples", setups["base"][1])
    corrupt(folder)
    arguments = [each.format(**{name: tmp_path / f"{name}.yaml" for name in boards}) for each in arguments]
    with pytest.raises(GenimaError, match=expected) as rejected:
        main([str(folder), "--out", str(tmp_path / "out"), *arguments])
    assert "\n" not in str(rejected.value)
    assert not (tmp_path / "out" / "front.yaml").exists()


def test_swapped_cameras_are_rejected(setups: Any, tmp_path: Path) -> None:
    samples = setups["flange"][1]
    out = tmp_path / "out"
    as_front = write_samples(tmp_path / "swapped", [replace(sample, view="front") for sample in samples])
    camera = LENS.camera("wrist", "flange", np.eye(4))
    CameraCalibration(camera).save(out)
    with pytest.raises(GenimaError, match="camera front: its frame is that of wrist"):
        main([str(as_front), "--out", str(out)])
    (out / "wrist.yaml").unlink()
    CameraCalibration(replace(camera, view="front", parent="base")).save(out)  # with ambiguous frame names
    with pytest.raises(GenimaError, match="front.yaml: front on the base, but on the flange in these samples"):
        main([str(as_front), "--out", str(out)])
    (out / "front.yaml").write_text("damaged: [")
    assert main([str(as_front), "--out", str(out)]) == 0


# From demos.


def record(folder: Path, samples: Sequence[RawSample], rest: float = 0.8, view: str = "front") -> Path:
    """Write a bag of an arm that rests ``rest`` s at each pose.

    Images are at 10 Hz, and empty while the arm moves; joints are at 50 Hz.
    """

    def serialize(kind: str, **fields: Any) -> bytes:
        return types().serialize_cdr(types().types[kind](**fields), kind)

    def header(stamp: float, frame: str = "") -> Any:
        time = types().types["builtin_interfaces/msg/Time"](sec=int(stamp), nanosec=round(stamp % 1 * 1e9))
        return types().types["std_msgs/msg/Header"](stamp=time, frame_id=frame)

    poses = np.array([[sample.joints[joint] for joint in PANDA.joint_names] for sample in samples])
    motion_time, start = 0.6, 1000.0  # s: between poses, first stamp
    grey = np.full_like(samples[0].image, 90)
    with BagRecorder(folder, reserve_bytes=0) as bag:
        topics = {
            raw_topic(view): "sensor_msgs/msg/Image",
            camera_info_topic(view): "sensor_msgs/msg/CameraInfo",
            JOINT_STATES: "sensor_msgs/msg/JointState",
        }
        for topic, kind in topics.items():
            bag.add_topic(topic, kind, Qos())
        for tick in range(round(50 * len(samples) * (rest + motion_time))):
            t = tick / 50
            i, since = int(t // (rest + motion_time)), t % (rest + motion_time)
            share = max(0.0, since - rest) / motion_time
            q = (1 - share) * poses[i] + share * poses[(i + 1) % len(poses)]
            joints = {
                "header": header(start + t), "name": list(PANDA.joint_names), "position": q, "velocity": np.zeros(0),
                "effort": np.zeros(0),
            }  # fmt: skip
            stamp = round((start + t) * 1e9)
            bag.write(JOINT_STATES, serialize(topics[JOINT_STATES], **joints), stamp, wait=True)
            if tick % 5 == 0:
                image = grey if share else samples[i].image
                h, w, _ = image.shape
                lens = {"header": header(start + t, samples[i].info.frame_id)}
                picture = serialize(
                    topics[raw_topic(view)], **lens, height=h, width=w, encoding="rgb8", is_bigendian=0, step=3 * w,
                    data=image.ravel(),
                )  # fmt: skip
                bag.write(raw_topic(view), picture, stamp, wait=True)
                roi = types().types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
                fields = LENS.camera(view, "base", np.eye(4)).camera_info()
                info = serialize(topics[camera_info_topic(view)], **lens, **fields, binning_x=0, binning_y=0, roi=roi)
                bag.write(camera_info_topic(view), info, stamp, wait=True)
    return folder


@pytest.fixture(scope="module")
def demo(setups: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demo that repeats some poses, which add no samples."""
    samples = setups["base"][1]
    return record(tmp_path_factory.mktemp("demos") / "one", [*samples, *samples[:3]])


def test_calibration_from_demo(setups: Any, demo: Path, tmp_path: Path) -> None:
    setup, _ = setups["base"]
    assert main([str(demo), "--view", "front", "--out", str(tmp_path)]) == 0
    found = CameraCalibration.load(tmp_path / "front.yaml")
    assert len(found.samples) == COUNT and not found.outliers  # one of each pose, none in motion
    assert found.sigma and 1e3 * pose_distance(found.camera.T_parent_camera, setup.truth.T_parent_camera)[0] < max(
        4 * found.sigma[0], 1.0
    )
    assert main([str(demo), "--view", "front", "--out", str(tmp_path), "--max-samples", "6"]) == 0
    assert len(CameraCalibration.load(tmp_path / "front.yaml").samples) == 6


def test_insufficient_demos_are_rejected(setups: Any, demo: Path, tmp_path: Path) -> None:
    def error_message(folder: Path, *arguments: str) -> str:
        with pytest.raises(GenimaError) as error:
            main([str(folder), "--out", str(tmp_path / "out"), *arguments])
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "--view: missing" in error_message(demo)
    assert "no images of wrist (views: front)" in error_message(demo, "--view", "wrist")
    without_rests = record(tmp_path / "hasty", setups["base"][1], rest=0.1)
    assert "the arm never rests" in error_message(without_rests, "--view", "front")
    other = error_message(demo, "--view", "front", "--cell", "sim_fr3")
    assert re.search(r"/joint_states: none of fr3 \(.*fr3_joint7.*\); it has panda_joint1", other)


# easy_handeye2.


def test_easy_handeye2_calibration_is_imported(setups: Any, demo: Path, tmp_path: Path) -> None:
    setup, samples = setups["flange"]
    T = setup.truth.T_parent_camera
    T_link_optical = pose(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([0.0, 0.015, 0]))  # REP 103
    T_flange_hand = pose(Rotation.from_euler("z", -45, degrees=True).as_matrix(), np.zeros(3))
    file, out = tmp_path / "wrist.calib", tmp_path / "out"
    parameters = Parameters(
        name="wrist",
        calibration_type="eye_in_hand",
        robot_base_frame="panda_link0",
        robot_effector_frame="panda_hand",
        tracking_base_frame="wrist_link",
        tracking_marker_frame="board",
    )
    Calib.of(parameters, T, T_link_optical, T_flange_hand).save(file)
    lens = write_samples(tmp_path / "lens", samples[:1])
    arguments = ["import", str(file), "--view", "wrist", "--lens", str(lens), "--out", str(out)]
    with pytest.raises(GenimaError, match="--effector is missing; give the pose of panda_hand in panda_link8"):
        main(arguments)
    arguments += ["--effector", *"0 0 0 0 0 -45".split()]
    with pytest.raises(
        GenimaError, match="--optical is missing; give the pose of wrist_color_optical_frame in wrist_link"
    ):
        main(arguments)
    assert main([*arguments, "--optical", *"0 0.015 0 -90 0 -90".split()]) == 0
    found = CameraCalibration.load(out / "wrist.yaml")
    np.testing.assert_allclose(found.camera.T_parent_camera, T, atol=1e-6)
    assert found.frames == Frames("panda_link8", "wrist_color_optical_frame") and found.method == "easy_handeye2"
    assert found.intrinsics.parameters == pytest.approx(LENS.parameters)
    with pytest.raises(GenimaError, match="of wrist, not of front; correct --view"):
        main([*arguments, "--view", "front"])

    frame = {"calibration_type": "eye_on_base", "tracking_base_frame": "front_color_optical_frame"}
    base_parameters = parameters.model_copy(update=frame)
    Calib(base_parameters, T).save(file)
    arguments = ["import", str(file), "--view", "front", "--lens", str(demo), "--out", str(out)]
    assert main(arguments) == 0
    np.testing.assert_allclose(CameraCalibration.load(out / "front.yaml").camera.T_parent_camera, T, atol=1e-6)
    Calib(base_parameters.model_copy(update={"robot_base_frame": "world"}), T).save(file)
    with pytest.raises(GenimaError, match="--base is missing; give the pose of world in panda_link0"):
        main(arguments)
    assert main([*arguments, "--base", *"1 0 0 0 0 0".split()]) == 0
    moved = CameraCalibration.load(out / "front.yaml").camera.T_parent_camera
    np.testing.assert_allclose(moved[:3, 3], T[:3, 3] + [1, 0, 0], atol=1e-6)
    namespaced = base_parameters.model_copy(update={"robot_base_frame": "left_panda_link0"})
    Calib(namespaced, T).save(file)
    assert main(arguments) == 0
    assert CameraCalibration.load(out / "front.yaml").frames == Frames("left_panda_link0", "front_color_optical_frame")
    Calib(base_parameters.model_copy(update={"robot_base_frame": "link_base"}), T).save(file)
    assert main([*arguments, "--base-frame", "link_base"]) == 0
    assert CameraCalibration.load(out / "front.yaml").frames == Frames("link_base", "front_color_optical_frame")


def test_easy_handeye_ros1_calibration_is_imported(demo: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "front.yaml", tmp_path / "out"
    quaternion = "qw: 0.0, qx: 0.7071067811865476, qy: -0.7071067811865476, qz: 0.0"
    transformation = f"transformation: {{{quaternion}, x: 0.5, y: 0.0, z: 1.2}}\n"
    parameters = (
        "eye_on_hand: false\nrobot_base_frame: panda_link0\nrobot_effector_frame: panda_hand\n"
        "tracking_base_frame: front_color_optical_frame\ntracking_marker_frame: board\n"
    )
    nested = "parameters:\n" + "".join(f"  {line}\n" for line in parameters.splitlines())
    for head in (nested + "  namespace: /eye_on_base/\n", parameters):  # of the last and the first versions
        file.write_text(head + transformation)
        assert main(["import", str(file), "--view", "front", "--lens", str(demo), "--out", str(out)]) == 0
        camera = CameraCalibration.load(out / "front.yaml").camera
        assert camera.parent == "base" and camera.T_parent_camera[:3, 3].tolist() == [0.5, 0.0, 1.2]
        np.testing.assert_allclose(camera.T_parent_camera[:3, 2], [0, 0, -1], atol=1e-9)
    file.write_text(nested.replace("false", "perhaps") + transformation)
    with pytest.raises(GenimaError, match="parameters: eye_on_hand: .*'perhaps'"):
        Calib.load(file)
    file.write_text(nested + transformation.replace("x: 0.5", "x: 500.0"))
    with pytest.raises(GenimaError, match=r"from the base \(500 m\).*millimetres"):
        Calib.load(file)


def test_implausible_import_is_reported_with_likely_cause(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "front.calib", tmp_path / "out"
    T = CameraCalibration.load(paths.shared("calibration", "sim", "front.yaml")).camera.T_parent_camera
    T_link = T @ np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # x forward, z up
    parameters = Parameters(
        name="front",
        calibration_type="eye_on_base",
        robot_base_frame="panda_link0",
        robot_effector_frame="panda_hand",
        tracking_base_frame="front_color_optical_frame",
        tracking_marker_frame="board",
    )
    Calib(parameters, T_link).save(file)
    assert main(["import", str(file), "--view", "front", "--lens", str(demo), "--out", str(out)]) == 0
    output = capsys.readouterr().out
    assert "WARNING: front: at this pose it does not see the robot" in output
    assert "is it the pose of the camera's link (x forward, z up)?" in output


# Boards.


def test_board_is_printed_with_definition(tmp_path: Path) -> None:
    out = tmp_path / "board.pdf"
    assert main(["board", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"%PDF") and not out.with_suffix(".yaml").exists()
    arguments = ["--kind", "grid", "--columns", "4", "--rows", "3", "--square", "0.06", "--marker", "0.045"]
    out = tmp_path / "mine.png"
    assert main(["board", *arguments, "--dictionary", "APRILTAG_36h11", "--out", str(out)]) == 0
    assert CalibrationBoard.load(out.with_suffix(".yaml")) == CalibrationBoard(
        "grid", 4, 3, 0.06, 0.045, "APRILTAG_36h11"
    )
    assert cv2.imread(str(out)) is not None
    with pytest.raises(GenimaError, match="smaller than square"):
        main(["board", *arguments[:-1], "0.07", "--out", str(out)])
    with pytest.raises(GenimaError, match="mine.yaml is the definition of another board"):
        main(["board", *arguments[:-1], "0.04", "--out", str(out)])
    assert main(["board", *arguments[:-1], "0.04", "--out", str(out), "--overwrite"]) == 0
    assert CalibrationBoard.load(out.with_suffix(".yaml")) == CalibrationBoard("grid", 4, 3, 0.06, 0.04, "5X5_50")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--columns", "6", "--rows", "4"], {"columns": 6, "rows": 4}),
        (["--rows", "4"], {"rows": 4}),
        (["--square", "0.03", "--marker", "0.02"], {"square": 0.03, "marker": 0.02}),
        (["--dictionary", "DICT_6X6_250"], {"dictionary": "6X6_250"}),
        (["--legacy-pattern", "true", "--rows", "4"], {"legacy_pattern": True, "rows": 4}),
        (["--first-id", "20"], {"first_id": 20}),
        (["--kind", "grid"], {"kind": "grid"}),
    ],
)
def test_board_options_are_printed(tmp_path: Path, arguments: list[str], expected: dict[str, Any]) -> None:
    out = tmp_path / "mine.pdf"
    assert main(["board", *arguments, "--out", str(out)]) == 0
    assert CalibrationBoard.load(out.with_suffix(".yaml")) == replace(BOARD, **expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--columns", "9", "--rows", "6"], "too large for A4 .*324 x 216 mm"),
        (["--columns", "9", "--board", "{board}"], "--board and --columns describe two boards"),
        (["--columns", "100000", "--rows", "100000"], "--columns 100000: must be less than or equal to 1000"),
        (["--columns", "1000", "--rows", "1000"], "the board needs 500000"),
        (["--columns", "0"], "--columns 0: must be greater"),
        (["--square", "nan"], "--square nan: must be a finite number"),
        (["--square", "36", "--marker", "27"], "--square 36.0: must be less than or equal to 1"),
        (["--marker", "0.04"], "smaller than square"),
        (["--out", "{kept}"], "already exists and is not one; name another"),
        (["--out", "{kept}", "--overwrite"], "already exists and is not one; name another"),
        (["--kind", "grid", "--legacy-pattern", "true"], "legacy_pattern: not a field of a grid"),
        (["--out", "board.jpg"], r"a \.pdf or a \.png file"),
    ],
)
def test_unprintable_boards_are_rejected(tmp_path: Path, arguments: list[str], expected: str) -> None:
    kept, board = tmp_path / "kept.pdf", tmp_path / "board.yaml"
    kept.write_text("my notes")
    BOARD.save(board)
    given = [argument.format(kept=kept, board=board) for argument in arguments]
    with pytest.raises(GenimaError, match=expected):
        main(["board", *([] if "--out" in given else ["--out", str(tmp_path / "page.pdf")]), *given])
    assert kept.read_text() == "my notes" and sorted(tmp_path.iterdir()) == [board, kept]
