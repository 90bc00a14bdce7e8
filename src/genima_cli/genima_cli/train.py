"""``./genima train``: training commands."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from genima.errors import GenimaError

_RECIPES = {
    "diffusion": ("genima_cli.train_diffusion", "the diffusion agent, on a dataset of drawn targets"),
    "controller": ("genima_cli.train_controller", "the controller, on the same dataset or on arbitrary configurations"),
    "tiny": ("genima_cli.train_tiny", "all from nothing: demos in the simulator, targets, both small models, on a CPU"),
}


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima train``."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: ./genima train RECIPE [ARGUMENTS]\n")
        print("\n".join(f"  {name:<12}{text}" for name, (_, text) in _RECIPES.items()))
        print("\nExample: ./genima train tiny --episodes 200\n./genima train RECIPE --help explains the arguments.")
        return 0
    if argv[0] not in _RECIPES:
        raise GenimaError(f"unknown recipe {argv[0]!r}; known: {', '.join(_RECIPES)}")
    return int(importlib.import_module(_RECIPES[argv[0]][0]).main(list(argv[1:])))
