"""Names of the project's policies."""

GENIMA, ACT, SUSIE = "genima", "act", "susie"
TRAINED = (GENIMA, ACT, SUSIE)  # with checkpoints
EXPERT, REPLAY, REMOTE = "expert", "replay", "remote"
