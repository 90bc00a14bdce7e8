"""Names of the project's policies."""

GENIMA, ACT = "genima", "act"
TRAINED = (GENIMA, ACT)  # with checkpoints
EXPERT, REPLAY, REMOTE = "expert", "replay", "remote"
