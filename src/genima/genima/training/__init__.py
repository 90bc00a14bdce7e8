"""Training of the diffusion agent and the controller."""

# Files of a training folder other than checkpoints; defined here to keep their import fast.
METRICS = "metrics.jsonl"  # validation errors of every checkpoint
TARGET_SHEET = "drawings.png"  # in a diffusion agent's checkpoint: held-out drawn targets
STATE = "training_state"  # in the last checkpoint: state for resuming
PROGRESS = "progress.json"  # in the state
