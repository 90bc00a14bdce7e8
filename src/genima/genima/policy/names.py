"""Names of the project's policies."""

GENIMA, ACT, DIFFUSION_POLICY, SUSIE = "genima", "act", "diffusion_policy", "susie"
VIDEO_POLICY = "video_policy"
TRAINED = (GENIMA, ACT, DIFFUSION_POLICY, SUSIE, VIDEO_POLICY)  # with checkpoints
EXPERT, REPLAY, REMOTE = "expert", "replay", "remote"
