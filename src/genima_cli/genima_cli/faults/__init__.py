"""Fault injection of ``./genima faults`` and of tests: relays between nodes, clock jumps, killed processes."""
