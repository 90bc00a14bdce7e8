"""Leader-follower teleoperation."""
