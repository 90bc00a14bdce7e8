"""Script of test_lerobot.py for a Python with the lerobot library: read our dataset, or write one.

python lerobot_library.py read DATASET RESULT.npz BACKEND
python lerobot_library.py write DATASET
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

VIEW_KEY = "observation.images.cam_high"
NAMES = [*(f"joint_{i}.pos" for i in range(7)), "gripper.pos"]


def read(folder: str, result: str, backend: str) -> None:
    """Read all items in random order, as in training."""
    dataset = LeRobotDataset("local/ours", root=folder, video_backend=backend)
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    items = dict(sorted((i, dataset[i]) for i in order))
    numbers = [key for key, value in items[0].items() if isinstance(value, torch.Tensor)]
    values = {key: np.stack([item[key].numpy() for item in items.values()]) for key in numbers}
    stats = {f"stats/{key}/{kind}": value for key, of in dataset.meta.stats.items() for kind, value in of.items()}
    window = LeRobotDataset(
        "local/ours",
        root=folder,
        video_backend=backend,
        delta_timestamps={"action": [k / dataset.fps for k in range(20)]},
    )
    np.savez(
        result, task=[item["task"] for item in items.values()], fps=dataset.fps, chunk=window[0]["action"].numpy(),
        **values, **stats,
    )  # fmt: skip


def write(folder: str) -> None:
    """Record two episodes with lerobot: AV1 videos, names and ranges of another robot."""
    vector = {"dtype": "float32", "shape": (8,), "names": NAMES}
    image = {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]}
    dataset = LeRobotDataset.create(
        "local/theirs", 20, {"observation.state": vector, "action": vector, VIEW_KEY: image}, root=folder
    )
    for episode in range(2):
        for t in range(12):
            values = np.array([0.1 * t, -0.2, 0.1, -1.5, 0, 1.5, 0.5, 100 * (t % 2)], np.float32)
            picture = np.full((64, 96, 3), (15 * t, 80 + 60 * episode, 200), np.uint8)
            dataset.add_frame({"observation.state": values, "action": values + 0.01, VIEW_KEY: picture, "task": "wave"})
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()


if __name__ == "__main__":
    {"read": read, "write": write}[sys.argv[1]](*sys.argv[2:])
