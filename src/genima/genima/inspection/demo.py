"""One-picture summary of a demo: camera images and joint curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from genima.data.episodes.alignment import Stream
from genima.data.episodes.bag import JOINT_COMMAND, JOINT_STATES, BagReader
from genima.data.episodes.episode_index import EpisodeIndex
from genima.data.episodes.frames import decode
from genima.data.episodes.idle import Activity, JointTrack, find_idle, find_tracks
from genima.data.episodes.summary import Summary, rate, read_notes
from genima.errors import GenimaError
from genima.inspection.report import Report, Section, format_list
from genima.inspection.sheet import add_caption, grid
from genima.io.files import shorten
from genima.robot.model import RobotModel
from genima.system.terminal import printable
from genima.types import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOMENTS = 6
_WIDTH = 1500  # px of the picture
_GAP = 6  # px
_ROW = 1.9  # inches, height of a plot
_DPI = 100
_MIN_RANGE = 0.2  # rad that a plot shows at least
_NEAR = 0.3  # rad: the end of a joint's range is shown when the joint comes as close
_OTHER_JOINTS = 16  # at most, in a plot
_LEADERS = (TELEOP_COMMAND, LEADER) = ("/teleop/command", "/leader/joint_states")
_LINES: dict[str, dict[str, Any]] = {
    JOINT_STATES: {"color": "tab:blue", "linewidth": 2.4},
    JOINT_COMMAND: {"color": "tab:orange", "linewidth": 1.0},
    TELEOP_COMMAND: {"color": "tab:green", "linewidth": 1.0, "linestyle": "--"},
    LEADER: {"color": "tab:purple", "linewidth": 1.0, "linestyle": ":"},
}
_Curve = tuple[NDArray[np.float64], NDArray[np.float64]]  # times in s, positions, (N,) each


def inspect_demo(index: EpisodeIndex, default: RobotModel | None = None) -> Report:
    """Inspect a demo: main facts, all views at some times, and joints over time.

    Args:
        index: of the demo.
        default: robot of a demo that holds no model, as of :meth:`EpisodeIndex.load_robot`.

    Raises:
        EpisodeError: for a demo with joints whose robot model is unknown.
    """
    summary, activity = Summary.of(index), None
    has_joints = any(topic in index.streams for topic in (JOINT_STATES, JOINT_COMMAND))
    robot = index.load_robot(default) if has_joints else None
    tracks = {} if robot is None else find_tracks(index, robot)
    rows = {
        "instruction": summary.instruction or "none",
        "robot": "unknown" if robot is None else robot.name,
        "length": f"{summary.seconds:.2f} s, {summary.megabytes:.1f} MB",
        "views": format_list(f"{view}: {_size(each.size)}, {each.rate:.1f} Hz" for view, each in summary.views.items())
        or "none",
        "calibration": _calibration(summary),
        "success": {True: "yes", False: "no", None: "not judged"}[summary.success],
        **read_notes(index),
    }  # fmt: skip
    if tracks:
        activity = find_idle(tracks)
        rest = [f"{interval.begin:.2f} to {interval.end:.2f} s" for interval in activity.idle]
        rows["nothing moves"] = ", ".join(rest) or "never"
    rows["topics"] = "\n".join(_topic(index, topic) for topic in sorted(index.types))
    moments = np.linspace(0, index.seconds, _MOMENTS)
    parts = [_contact_sheet(index, moments)] if summary.views else []
    if robot is not None:
        parts.append(_joint_plots(index, robot, tracks, activity, moments))
    if not parts:
        parts.append(add_caption(np.full((_GAP, _WIDTH, 3), 255, np.uint8), "neither images nor joints"))
    title = f"{index.folder.name}: {summary.instruction or 'no instruction'}"
    return Report([Section(str(index.folder), rows)], add_caption(grid(parts, 1), title))


# ------------------------------------------------------------------------------------------------------------- text


def _size(size: tuple[int, int] | None) -> str:
    return f"{size[0]}x{size[1]} px" if size else "of no size"


def _calibration(summary: Summary) -> str:
    if not summary.uncalibrated:
        return "of all views, as recorded" if summary.views else "none"
    return f"unknown of {', '.join(summary.uncalibrated)} (./genima render needs --cameras FOLDER)"


def _topic(index: EpisodeIndex, topic: str) -> str:
    count = index.counts[topic]
    messages = f"{printable(topic)}: {count or 'no'} message{'s' * (count != 1)}"
    if topic in index.unread:
        return f"{messages}, not read: {index.unread[topic]}"
    return f"{messages}, {rate(index.streams[topic]):.1f} Hz" if topic in index.streams and count > 1 else messages


# ----------------------------------------------------------------------------------------------------------- images


def _contact_sheet(index: EpisodeIndex, moments: NDArray[np.float64]) -> Image:
    """Return a row per view, with its images nearest to the times (T,)."""
    topics = {topic: view for view, topic in index.views.items() if topic in index.streams}
    chosen = {
        topic: [int(np.abs(index.streams[topic].times - moment).argmin()) for moment in moments] for topic in topics
    }
    side = (_WIDTH - _GAP * len(moments)) // len(moments)
    cells: dict[tuple[str, int], Image] = {}
    counts = dict.fromkeys(topics, 0)
    with BagReader(index.folder) as bag:
        for message in bag.messages(topics):
            i, topic = counts[message.topic], message.topic
            counts[topic] += 1
            if i in chosen[topic]:
                text = f"{topics[topic]}  {index.streams[topic].times[i]:.2f} s"
                cells[topic, i] = add_caption(_shrink(bag.deserialize(message), side), text)
    return grid([cells[topic, i] for topic in topics for i in chosen[topic]], len(moments), _GAP)


def _shrink(message: object, width: int) -> Image:
    try:
        image = decode(message)
    except GenimaError as error:
        return add_caption(np.full((width // 2, width, 3), 127, np.uint8), str(error))
    height = min(max(round(image.shape[0] * width / image.shape[1]), 1), 4 * width)
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


# ------------------------------------------------------------------------------------------------------------ plots


def _joint_plots(
    index: EpisodeIndex,
    robot: RobotModel,
    tracks: dict[str, JointTrack],
    activity: Activity | None,
    moments: NDArray[np.float64],
) -> Image:
    """Plot each joint and the gripper over time: measured, commanded, and the leader's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported here: slow
    from matplotlib.figure import Figure

    curves = {topic: _values_by_joint(index.streams[topic]) for topic in _LEADERS if topic in index.streams}
    curves.get(LEADER, {}).pop(robot.gripper_joint, None)  # in units of its own
    own = [*robot.joint_names, robot.gripper_joint]
    others = {topic: {name: curves[topic][name] for name in curves[topic] if name not in own} for topic in curves}
    others = {topic: joints for topic, joints in others.items() if joints}
    for topic, track in tracks.items():
        columns = np.column_stack([track.positions, track.gripper]).T
        curves[topic] = {name: (track.times, column) for name, column in zip(own, columns, strict=True)}

    rows = -(-(len(own) + len(others)) // 2)
    figure = Figure(figsize=(_WIDTH / _DPI, _ROW * rows + 0.5), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    plots = list(figure.subplots(rows, 2, sharex=True, squeeze=False).T.ravel())
    for plot in plots:
        for moment in moments:
            plot.axvline(moment, color="0.85", linewidth=0.8)
        for interval in activity.idle if activity else ():
            plot.axvspan(*interval, color="0.92", zorder=0)
        plot.tick_params(labelsize=8, labelbottom=True)
        plot.margins(x=0.01)
    lines = {}
    for k, (plot, name) in enumerate(zip(plots, own, strict=False)):
        drawn = []
        for topic, style in _LINES.items():
            if name in curves.get(topic, {}):
                times, values = curves[topic][name]
                drawn.append(values)
                (lines[topic],) = plot.plot(times, values, **style)
        if name == robot.gripper_joint:
            plot.set(ylim=(-0.1, 1.1))
            plot.set_title("gripper, 0 closed to 1 open", fontsize=9)
        else:
            _show_range(plot, np.concatenate([*drawn, []]), float(robot.position_min[k]), float(robot.position_max[k]))
            plot.set_title(f"{name} [rad], {robot.position_min[k]:.2f} to {robot.position_max[k]:.2f}", fontsize=9)
    for plot, (topic, joints) in zip(plots[len(own) :], others.items(), strict=False):
        for name, (times, values) in list(joints.items())[:_OTHER_JOINTS]:
            plot.plot(times, values, linewidth=1, label=_plain(name))
        more = f", {_OTHER_JOINTS} of {len(joints)}" if len(joints) > _OTHER_JOINTS else ""
        plot.set_title(f"{_plain(topic)}, joints that the robot does not have{more}", fontsize=9)
        plot.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    for plot in plots[len(own) + len(others) :]:
        plot.remove()
    text = "over s since the start; lines: the images above; grey: nothing moves; red: ends of a joint's range, if near"
    figure.legend(
        lines.values(), lines.keys(), title=text, title_fontsize=9, fontsize=9, ncols=len(_LINES), frameon=False,
        loc="outside upper center",
    )  # fmt: skip
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _plain(text: str) -> str:
    """Return a text of a demo for a plot: short, and not taken for a formula."""
    return printable(shorten(text)).replace("$", r"\$")


def _values_by_joint(stream: Stream) -> dict[str, _Curve]:
    """Return a topic's values by joint name."""
    points: dict[str, list[tuple[float, float]]] = {}
    for time, message in zip(stream.times, stream.messages, strict=True):
        for name, position in zip(message.name, message.position, strict=False):
            points.setdefault(name, []).append((time, position))
    return {name: (np.array(each)[:, 0], np.array(each)[:, 1]) for name, each in points.items()}


def _show_range(plot: Axes, values: NDArray[np.float64], low: float, high: float) -> None:
    """Scale a plot to a joint's motion; limits of its range are lines, visible when the joint is near."""
    for end in (low, high):
        plot.axhline(end, color="tab:red", linewidth=1.2)
    seen = values[np.isfinite(values)]
    bottom, top = (seen.min(), seen.max()) if len(seen) else (low, high)
    middle, half = (bottom + top) / 2, max((top - bottom) / 2, _MIN_RANGE / 2)
    bottom, top = middle - half, middle + half
    bottom, top = low if bottom - low < _NEAR else bottom, high if high - top < _NEAR else top
    room = 0.08 * (top - bottom)
    plot.set_ylim(min(bottom, middle - half) - room, max(top, middle + half) + room)
