"""The simulated workcell: MuJoCo scene, tasks, scripted experts, and the node around them."""

import genima  # noqa: F401  first of all: it makes MuJoCo draw without a display
