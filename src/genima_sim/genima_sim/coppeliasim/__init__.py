"""Scenes of CoppeliaSim, over its ZeroMQ remote API."""

DEFAULT_SCENE = "rlbench"  # names of its objects: a file of config/coppeliasim
DEFAULT_HOST, DEFAULT_PORT = "localhost", 23000  # of the remote API
