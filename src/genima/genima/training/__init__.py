"""Training of the diffusion agent and the controller."""
