"""Find and run the sub-command; print errors for the user in one line."""

from __future__ import annotations

import contextlib
import difflib
import gc
import importlib
import os
import sys
from typing import NoReturn

from genima import __version__
from genima.errors import GenimaError
from genima.system.signals import end_by_interrupt, hide_interrupt_traceback, was_interrupted
from genima.system.terminal import configure_streams, error_line
from genima_cli import COMMANDS


def usage() -> str:
    rows = [f"  {name:<12}{command.help}" for name, command in COMMANDS.items()]
    hint = "./genima COMMAND --help explains a command's arguments; ./genima --version; tab completion: README.md."
    return "\n".join(["usage: ./genima COMMAND [ARGUMENTS]", "", *rows, "", hint])


def check_known(name: str) -> None:
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=2)
        hint = f"did you mean {' or '.join(close)}?" if close else "./genima --help lists the commands"
        raise GenimaError(f"unknown command '{name}': {hint}")


def dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] == "--version":
        print(f"genima {__version__}")
        return 0
    name, *arguments = argv
    if name == "--check":  # the entry script asks this before a set-up of minutes for a typing error
        check_known(arguments[0] if arguments else name)
        return 0
    check_known(name)
    module = COMMANDS[name].module
    return importlib.import_module(module).main(arguments) if module else 0


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
    except BrokenPipeError:  # whoever read our output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if was_interrupted():  # libraries turn it into errors of their own
            return 130
        if not isinstance(error, OSError):  # no room, no right, no such device: the system's own words say which
            raise
        error_line(error)
        return 2


def end(code: int) -> NoReturn:
    """Exit the process.

    ROS objects are destroyed before Python's final clean-up, in which finished commands crashed now and then.
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
