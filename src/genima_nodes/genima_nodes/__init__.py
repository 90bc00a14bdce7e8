"""Thin ROS nodes around the Genima library."""
