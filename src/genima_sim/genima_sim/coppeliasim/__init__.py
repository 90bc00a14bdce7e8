"""CoppeliaSim's scenes as a robot with cameras, over its ZeroMQ remote API."""
