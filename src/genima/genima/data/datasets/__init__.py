"""Training samples from episodes."""
