"""Arms as data: limits and kinematics."""
