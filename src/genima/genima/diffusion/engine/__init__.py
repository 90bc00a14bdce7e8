"""Drawing at the rate of cameras."""

from genima.diffusion.engine.engine import DrawingEngine
from genima.diffusion.engine.plan import Plan, Shortcuts, plans, spare_threads

__all__ = ["DrawingEngine", "Plan", "Shortcuts", "plans", "spare_threads"]
