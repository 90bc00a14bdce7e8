"""States and reasons of the command guard, numbered as in GuardStatus.msg."""

from __future__ import annotations

from enum import Enum


class GuardState(Enum):
    """Treatment of the owner's command."""

    OK = 0
    LIMITED = 1  # passed on as far as the limits allow
    HELD = 2  # rejected; the arm holds, the next valid command is passed on
    STOPPED = 3  # the arm holds; only a command near it, or resume after a requested stop, moves it


class GuardReason(Enum):
    """Reason for not passing on a command unchanged."""

    NONE = 0
    POSITION_LIMIT = 1
    RATE_LIMIT = 2  # velocity, acceleration or jerk
    GRIPPER_RANGE = 3
    WORKSPACE = 4
    SELF_COLLISION = 5
    COMMAND_MALFORMED = 6
    COMMAND_NOT_FINITE = 7
    COMMAND_JUMP = 8
    COMMAND_FAR = 9
    MULTIPLE_PUBLISHERS = 10
    COMMAND_LATE = 11
    COMMAND_LOST = 12
    COMMAND_FUTURE = 13
    STATE_LATE = 14
    STATE_LOST = 15
    STATE_FUTURE = 16
    GUARD_LATE = 17
    ARM_MOVED = 18
    NO_STATE = 19
    NO_COMMAND = 20
    NO_OWNER = 21
    PAUSED = 22
    HAND_OVER = 23
    REJOIN = 24
    STOP_REQUESTED = 25

    @property
    def text(self) -> str:
        """Text for the user."""
        return _TEXTS[self]


_TEXTS = {
    GuardReason.NONE: "",
    GuardReason.POSITION_LIMIT: "position limit",
    GuardReason.RATE_LIMIT: "velocity, acceleration or jerk limit",
    GuardReason.GRIPPER_RANGE: "the gripper's open fraction is not from 0 to 1",
    GuardReason.WORKSPACE: "the arm would leave its workspace",
    GuardReason.SELF_COLLISION: "the arm would touch itself",
    GuardReason.COMMAND_MALFORMED: "command is malformed",
    GuardReason.COMMAND_NOT_FINITE: "command is not finite",
    GuardReason.COMMAND_JUMP: "command jumps away from the set-point",
    GuardReason.COMMAND_FAR: "command is far from the measured joints",
    GuardReason.MULTIPLE_PUBLISHERS: "more than one publisher commands the arm",
    GuardReason.COMMAND_LATE: "commands are late",
    GuardReason.COMMAND_LOST: "commands have stopped",
    GuardReason.COMMAND_FUTURE: "command is stamped in the future",
    GuardReason.STATE_LATE: "joint states are late",
    GuardReason.STATE_LOST: "joint states have stopped",
    GuardReason.STATE_FUTURE: "joint states are stamped in the future",
    GuardReason.GUARD_LATE: "the guard was late",
    GuardReason.ARM_MOVED: "the arm was moved from outside",
    GuardReason.NO_STATE: "no joint states yet",
    GuardReason.NO_COMMAND: "no command yet",
    GuardReason.NO_OWNER: "the arm has no owner",
    GuardReason.PAUSED: "paused by its owner",
    GuardReason.HAND_OVER: "the arm comes to rest before its new owner moves it",
    GuardReason.REJOIN: "after a stop or a hand-over, the command is not near the arm",
    GuardReason.STOP_REQUESTED: "stop requested",
}

INTENDED = frozenset({GuardReason.NO_OWNER, GuardReason.NO_COMMAND, GuardReason.PAUSED, GuardReason.HAND_OVER})
"""Reasons that are no faults: the arm holds as intended."""

TRANSIENT = frozenset(
    {
        GuardReason.COMMAND_LATE,
        GuardReason.COMMAND_LOST,
        GuardReason.STATE_LATE,
        GuardReason.STATE_LOST,
        GuardReason.GUARD_LATE,
        GuardReason.NO_COMMAND,
        GuardReason.HAND_OVER,
        GuardReason.REJOIN,
        GuardReason.COMMAND_JUMP,
    }
)
"""Reasons that a briefly overloaded machine can cause, and their consequences."""
