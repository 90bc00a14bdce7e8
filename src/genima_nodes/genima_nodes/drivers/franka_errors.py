"""Texts for the error flags of a Franka arm."""

from __future__ import annotations

from typing import Any

_MODES = {
    "Guiding": "the arm is guided by hand",
    "UserStopped": "the user stop is pressed, or the joints are locked",
    "Reflex": "a reflex stopped the arm",
    "AutomaticErrorRecovery": "the robot is recovering",
    "Other": "the robot is in a mode that does not let it move (is FCI active, and the joints unlocked?)",
}
# Flags with a remedy for the user; the others are reported by name.
_FLAGS = {
    "joint_reflex": "joint torque above the threshold: the arm touched something, or is pushed",
    "cartesian_reflex": "force at the hand above the threshold: it touched something, or its load is not set in Desk",
    "self_collision_avoidance_violation": "the arm came too near to itself",
    "joint_position_limits_violation": "a joint is at the end of its range: move it back by hand",
    "communication_constraints_violation": "too many packets were lost: check the cable and this machine's load",
    "joint_motion_generator_position_limits_violation": "a command lies outside a joint's range",
    "joint_motion_generator_velocity_limits_violation": "a command exceeds a joint's velocity limit",
    "joint_motion_generator_velocity_discontinuity": "the velocity of the commands is not continuous",
    "joint_motion_generator_acceleration_discontinuity": "the acceleration of the commands is not continuous",
    "power_limit_violation": "the power of the arm exceeds its limit",
    "tau_j_range_violation": "joint torque outside the range of its sensor",
}
_AXES = ("x", "y", "z", "roll", "pitch", "yaw")


def stop_reason(state: Any) -> str:
    """Return the reason why the robot of a ``RobotState`` cannot move; empty while it can."""
    mode, now = state.robot_mode.name, bool(state.current_errors)
    if mode in ("Idle", "Move") and not now:
        return ""
    parts = [_MODES.get(mode, "the robot has errors")]
    names = flags(state.current_errors) | (flags(state.last_motion_errors) if mode == "Reflex" else set())
    parts += [_FLAGS.get(name, name.replace("_", " ")) for name in sorted(names)]
    if joints := [str(i) for i, hit in enumerate(state.joint_collision, start=1) if hit]:
        parts.append(f"contact at joint {', '.join(joints)}")
    if axes := [axis for axis, hit in zip(_AXES, state.cartesian_collision, strict=True) if hit]:
        parts.append(f"contact at the hand along {', '.join(axes)}")
    return "; ".join(parts)


def flags(errors: Any) -> set[str]:
    """Return the names of the set flags."""
    return {name for name in dir(errors) if not name.startswith("_") and getattr(errors, name) is True}
