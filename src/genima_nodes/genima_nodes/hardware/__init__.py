"""Devices by their makers' own libraries, without ROS. The libraries are optional: who has the device has them."""
