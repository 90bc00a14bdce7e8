"""Shared parts of the nodes: parameters, messages, threads, diagnostics."""
