"""Run a sub-command, and print errors in one line."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from typing import NoReturn

from genima import __version__
from genima.errors import GenimaError
from genima.system.signals import end_by_interrupt, hide_interrupt_traceback, was_interrupted
from genima.system.terminal import configure_streams, error_line
from genima_cli import GROUP


def dispatch(argv: list[str]) -> int:
    """Run the command of ``argv``; return its exit code."""
    if not argv:
        print(GROUP.help_page())
        return 0
    if argv[0] == "--version":
        print(f"genima {__version__}")
        return 0
    if argv[0] == "--check":  # the entry script checks the command's name before a set-up that takes minutes
        GROUP.require(argv[1] if len(argv) > 1 else argv[0])
        return 0
    return GROUP.run(argv)


def main(argv: list[str] | None = None) -> int:
    hide_interrupt_traceback()
    configure_streams()
    try:
        return dispatch(sys.argv[1:] if argv is None else argv)
    except GenimaError as error:
        error_line(error)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if was_interrupted():  # libraries raise errors of their own for it
            return 130
        if not isinstance(error, OSError):  # no space, permission or device: the system's message names it
            raise
        error_line(error)
        return 2


def end(code: int) -> NoReturn:
    """Exit the process.

    ROS objects are destroyed before Python's final clean-up, in which finished commands could crash.
    """
    end_by_interrupt()
    if "rclpy" in sys.modules:
        gc.collect()
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    end(main())
