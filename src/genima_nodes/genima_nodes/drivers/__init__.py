"""Device drivers by the makers' own libraries, without ROS."""
