"""Training of the diffusion agent and the controller."""

# Files of a training folder besides its checkpoints; defined here, where importing them is fast.
METRICS = "metrics.jsonl"  # validation errors of every checkpoint
TARGET_SHEET = "drawings.png"  # in a diffusion agent's checkpoint: held-out drawn targets
STATE = "training_state"  # in the last checkpoint: state for resuming
PROGRESS = "progress.json"  # in the state
