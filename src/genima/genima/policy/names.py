"""Names of the project's policies."""

GENIMA, ACT, DIFFUSION_POLICY, SUSIE = "genima", "act", "diffusion_policy", "susie"
VIDEO_POLICY, DIFFUSER_ACTOR = "video_policy", "diffuser_actor"
TRAINED = (GENIMA, ACT, DIFFUSION_POLICY, SUSIE, VIDEO_POLICY, DIFFUSER_ACTOR)  # with checkpoints
EXPERT, REPLAY, REMOTE = "expert", "replay", "remote"
