"""Names of the project's policies."""

GENIMA, ACT, DIFFUSION_POLICY, SUSIE = "genima", "act", "diffusion_policy", "susie"
TRAINED = (GENIMA, ACT, DIFFUSION_POLICY, SUSIE)  # with checkpoints
EXPERT, REPLAY, REMOTE = "expert", "replay", "remote"
