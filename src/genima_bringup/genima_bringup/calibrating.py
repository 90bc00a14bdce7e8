"""`./genima calibrate live`: calibrate a camera on the robot, by hand or by itself; or try it on the simulated one."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from genima.errors import GenimaError
from genima.handeye import Board, Calibration
from genima.handeye.poses import difference
from genima.signals import interruptible
from genima.views.camera import Camera, load_cameras
from genima_bringup.leading import Key, Leading, attached, leading, require_terminal
from genima_bringup.processes import calibrator, following, guard, simulated_leader, simulator_with_board
from genima_bringup.taking_part import add_graph_options

_NODES = ("calibrator",)  # of a robot that runs already
_SPEED = 0.4  # of a simulated arm's own: nobody stands beside it
_MOST = 20  # samples
_SEEN, _DONE = 60.0, 1200.0  # s for the board to be seen, and for all samples
_NEAR = 1.0, 0.1  # mm, deg from the simulator's truth


def main(argv: list[str]) -> int:
    """Calibrate; returns the exit code: 1 when a simulated camera was not found where it is."""
    options = _parse(argv)
    with interruptible():
        try:
            return _simulate(options) if options.sim else _operate(options)
        except KeyboardInterrupt:
            return 130


def _simulate(options: argparse.Namespace) -> int:
    truth = load_cameras("sim")[options.view]
    out = options.out or Path("runs") / time.strftime("%Y-%m-%d_%H-%M-%S")
    place, board = "table" if truth.parent == "flange" else "gripper", str(options.board or "")
    samples = str(options.samples or out / "samples" / options.view)
    node = calibrator(options.view, truth.parent, board, "panda", str(out), samples, _SPEED, options.most)
    simulator = simulator_with_board(options.view, place, board)
    if options.auto:
        with leading([*simulator, guard(), *node], options.logs) as session:
            try:
                _move_by_itself(session, options.most)
            except GenimaError as error:
                raise GenimaError(f"{error}; --out {out} goes on with the samples that it has") from None
            print(session.operator.said("calibrator/save", session.live))
        return _compare(out, truth)
    with leading([*simulator, *simulated_leader("jog"), *following(), *node], options.logs) as session:
        if place == "gripper":
            session.operator.toggle_gripper()  # it stays closed
        session.lead()
        _by_hand(session)
    return _compare(out, truth) if (out / f"{options.view}.yaml").exists() else 0


def _operate(options: argparse.Namespace) -> int:
    """Keys for a robot and a calibrator that run already."""
    with attached(_NODES, options.namespace, options.dds) as session:
        _by_hand(session)
    return 0


def _by_hand(session: Leading) -> None:
    operator, live = session.operator, session.live

    def by_itself() -> str:
        on = not (operator.calibrator is not None and operator.calibrator.automatic)
        if on and operator.following:
            operator.said("teleop/end", live)
        return operator.calibrate_by_itself(on, live)

    keys = {
        "t": Key("take", lambda: operator.said("calibrator/take", live)),
        "x": Key("drop the last", lambda: operator.drop_sample("", live)),
        "c": Key("compute", lambda: operator.said("calibrator/compute", live)),
        "v": Key("save", lambda: operator.said("calibrator/save", live)),
        "m": Key("move by itself, or stop that", by_itself),
    }
    session.by_hand(keys)


def _move_by_itself(session: Leading, most: int) -> None:
    """Have the arm take its samples, and wait for the end.

    Raises:
        GenimaError: when it does not begin, or ends for something that is wrong.
    """
    operator = session.operator
    session.say(_begun(session))
    with tqdm(total=most, unit="sample", dynamic_ncols=True) as progress:

        def ended() -> bool:
            if (status := operator.calibrator) is None:
                return False
            progress.update(len(status.samples) - progress.n)
            if status.computed:
                progress.set_postfix_str(f"{status.millimetres:.2f} mm, {status.degrees:.3f} deg", refresh=False)
            return bool(status.automatic_words) and not status.automatic

        finished = operator.spin_until(ended, _DONE, session.live)
    words = operator.calibrator.automatic_words if operator.calibrator else "nothing is heard of it"
    if not finished or not words.startswith("done"):
        raise GenimaError(f"calibrator: {words}")
    session.say(words)


def _begun(session: Leading) -> str:
    """Start it as soon as the board is seen."""
    deadline = time.monotonic() + _SEEN
    while True:
        try:
            return session.operator.calibrate_by_itself(True, session.live)
        except GenimaError:
            if time.monotonic() > deadline:
                raise
        session.operator.spin_until(lambda: False, 0.3, session.live)


def _compare(out: Path, truth: Camera) -> int:
    """Print how far the saved calibration is from the simulator's truth; returns the exit code."""
    path = out / f"{truth.view}.yaml"
    found = Calibration.load(path)
    metres, angle = difference(found.camera.T_parent_camera, truth.T_parent_camera)
    off, sure = (1e3 * metres, float(np.degrees(angle))), found.sigma or (np.nan, np.nan)
    rows = zip(("mm", "deg"), off, sure, strict=True)
    parts = [f"{value:.3f} {unit} (1 sigma as stated: {sigma:.3f})" for unit, value, sigma in rows]
    print(f"{path}: {' and '.join(parts)} from where the simulated camera is")
    return 0 if off[0] <= _NEAR[0] and off[1] <= _NEAR[1] else 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./genima calibrate live", description=__doc__)
    parser.add_argument("--sim", action="store_true", help="on the simulated robot, which holds or sees a board")
    views = load_cameras("sim")
    parser.add_argument("--view", choices=list(views), default="front", help="with --sim (default: %(default)s)")
    parser.add_argument("--auto", action="store_true", help="with --sim: from start to end without anybody")
    parser.add_argument("--board", type=Path, help="with --sim: its file (default: the one in calibration/boards)")
    parser.add_argument("--out", type=Path, help="with --sim: folder for the calibration (default: runs/<time>)")
    parser.add_argument("--samples", type=Path, help="with --sim: folder for the samples (default: in --out)")
    parser.add_argument(
        "--most", type=int, default=_MOST, help="with --sim: samples that it takes by itself (default: %(default)s)"
    )
    add_graph_options(parser)
    parser.add_argument("--logs", type=Path, help="with --sim: folder for the nodes' logs")
    options = parser.parse_args(argv)
    if options.board:
        Board.load(options.board)
    if options.most < 5:
        raise GenimaError("--most must be at least 5: fewer samples tell nothing")
    if not options.sim:
        unused = [name for name in ("auto", "board", "out", "samples") if getattr(options, name)]
        if unused:
            raise GenimaError(
                f"--{unused[0]} goes with --sim; a robot's nodes run already, and calibrate.launch.py gives them view, "
                "parent, board and folders (docs/calibration.md); key m then has the arm move by itself"
            )
    if not options.auto:
        require_terminal("calibrating by hand")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
