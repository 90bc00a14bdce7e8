"""Robot models: limits, kinematics, driver interfaces."""
