"""Policies: from observations to action chunks."""
