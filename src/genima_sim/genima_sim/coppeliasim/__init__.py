"""Scenes of CoppeliaSim, over its ZeroMQ remote API."""

DEFAULT_HOST, DEFAULT_PORT = "localhost", 23000  # of the remote API
