"""Evaluation: success over many episodes."""

from genima.evaluation.success import BlankTargets, Success

__all__ = ["Success", "BlankTargets"]
