"""Training of the diffusion agent and the controller."""

# What a training's folder holds beside the checkpoints that its links `best` and `last` point to; here, where
# reading it takes no second.
METRICS = "metrics.jsonl"  # the validation errors of every checkpoint
DRAWINGS = "drawings.png"  # within a diffusion agent's checkpoint
STATE = "training_state"  # within the last checkpoint: what a resumed training needs besides
PROGRESS = "progress.json"  # within the state
