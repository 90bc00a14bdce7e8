"""What the command guard says about a command, and why."""

from __future__ import annotations

from enum import Enum


class GuardState(Enum):
    """What became of the wish."""

    OK = "ok"
    LIMITED = "limited"  # followed as far as the limits allow
    HELD = "held"  # refused; the arm holds, the next good command goes on
    STOPPED = "stopped"  # the arm holds; only a command near it, or resume after a requested stop, goes on


class GuardReason(Enum):
    """Why a wish was not followed as it was."""

    NONE = ""
    POSITION = "position limit"
    RATE = "velocity, acceleration or jerk limit"
    GRIPPER = "the gripper's open fraction is not from 0 to 1"
    WORKSPACE = "the arm would leave its workspace"
    COLLISION = "the arm would touch itself"
    MALFORMED = "command is malformed"
    NOT_FINITE = "command is not finite"
    JUMP = "command jumps away from the set-point"
    FAR = "command is far from the measured joints"
    RIVALS = "more than one publisher commands the arm"
    COMMAND_LATE = "commands are late"
    COMMAND_LOST = "commands have stopped"
    COMMAND_FUTURE = "command is stamped in the future"
    STATE_LATE = "joint states are late"
    STATE_LOST = "joint states have stopped"
    STATE_FUTURE = "joint states are stamped in the future"
    GUARD_LATE = "the guard itself was late"
    MOVED = "the arm was moved from outside"
    NO_STATE = "no joint states yet"
    NO_COMMAND = "no command yet"
    NO_OWNER = "nobody may move the arm"
    PAUSED = "paused by its owner"
    HAND_OVER = "the arm comes to rest before its new owner moves it"
    REJOIN = "after a stop or a hand-over, the command is not near the arm"
    REQUESTED = "stop requested"


INTENDED = frozenset({GuardReason.NO_OWNER, GuardReason.NO_COMMAND, GuardReason.PAUSED, GuardReason.HAND_OVER})
"""Reasons for which the arm stands still as its operator wants it: no faults."""
