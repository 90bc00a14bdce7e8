"""Inspection of checkpoints and datasets: text for a terminal, and a contact sheet."""
