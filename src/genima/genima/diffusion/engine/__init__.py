"""Drawing at the rate of cameras."""

from genima.diffusion.engine.engine import DrawingEngine
from genima.diffusion.engine.plan import Plan, plans, spare_threads
from genima.shortcuts import Shortcuts

__all__ = ["DrawingEngine", "Plan", "Shortcuts", "plans", "spare_threads"]
