"""Texts of a Franka arm's error flags."""

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
    "joint_reflex": "a joint met more torque than allowed: the arm touched something, or is pushed",
    "cartesian_reflex": "the hand met more force than allowed: it touched something, or its load is not set in Desk",
    "self_collision_avoidance_violation": "the arm came too near to itself",
    "joint_position_limits_violation": "a joint is at the end of its range: move it back by hand",
    "communication_constraints_violation": "too many packets were lost: check the cable and this machine's load",
    "joint_motion_generator_position_limits_violation": "a command lies outside a joint's range",
    "joint_motion_generator_velocity_limits_violation": "commands are faster than a joint may be",
    "joint_motion_generator_velocity_discontinuity": "commands jump",
    "joint_motion_generator_acceleration_discontinuity": "commands are not smooth",
    "power_limit_violation": "the arm took more power than it may",
    "tau_j_range_violation": "a joint met more torque than its sensor can measure",
}
_AXES = ("x", "y", "z", "roll", "pitch", "yaw")


def stop_reason(state: Any) -> str:
    """Return the reason why a ``RobotState`` cannot move; empty while it can."""
    mode, now = state.robot_mode.name, bool(state.current_errors)
    if mode in ("Idle", "Move") and not now:
        return ""
    parts = [_MODES.get(mode, "the robot has errors")]
    names = flags(state.current_errors) | (flags(state.last_motion_errors) if mode == "Reflex" else set())
    parts += [_FLAGS.get(name, name.replace("_", " ")) for name in sorted(names)]
    if joints := [str(i) for i, hit in enumerate(state.joint_collision, start=1) if hit]:
        parts.append(f"felt at joint {', '.join(joints)}")
    if axes := [axis for axis, hit in zip(_AXES, state.cartesian_collision, strict=True) if hit]:
        parts.append(f"felt at the hand along {', '.join(axes)}")
    return "; ".join(parts)


def flags(errors: Any) -> set[str]:
    """Names of those that are set."""
    return {name for name in dir(errors) if not name.startswith("_") and getattr(errors, name) is True}
