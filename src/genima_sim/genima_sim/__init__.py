"""The simulated workcell: MuJoCo scene, tasks, scripted experts, and the node around them."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")  # draws without a display; MuJoCo reads it when it is imported
