"""CoppeliaSim's scenes as a robot with cameras, over its ZeroMQ remote API."""

DEFAULT_HOST, DEFAULT_PORT = "localhost", 23000  # where the remote API listens
