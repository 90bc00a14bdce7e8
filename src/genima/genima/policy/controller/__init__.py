"""Controller: drawn targets and measured joints to action chunks."""
