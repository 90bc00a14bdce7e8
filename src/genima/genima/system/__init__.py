"""Processes, terminal and command line."""
