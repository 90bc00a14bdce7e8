"""Fault injection: ``./genima faults``, and what tests inject: relays between nodes and clocks that jump."""
