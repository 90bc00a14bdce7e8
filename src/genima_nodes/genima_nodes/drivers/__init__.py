"""Device access by the makers' own libraries, without ROS."""
