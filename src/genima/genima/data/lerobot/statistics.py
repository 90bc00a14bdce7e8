"""Statistics of LeRobot: of every feature, for each episode and for the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Statistics = dict[str, NDArray[Any]]  # min, max, mean, std, count (1,), q01, q10, q50, q90, q99

_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def row_statistics(rows: NDArray[Any]) -> Statistics:
    """Return the statistics of each column of (T, d) values; all have the shape (d,)."""
    return {
        "min": rows.min(0),
        "max": rows.max(0),
        "mean": rows.mean(0, dtype=float),
        "std": rows.std(0, dtype=float),
        "count": np.array([len(rows)]),
        **{name: np.quantile(rows.astype(float), quantile, axis=0) for name, quantile in _QUANTILES.items()},
    }


def image_statistics(counts: NDArray[np.int64], images: int) -> Statistics:
    """Return the statistics of each channel of ``images`` images, 0..1; all have the shape (3, 1, 1).

    ``counts`` (3, 256) is the histogram of each channel.
    """
    intensity = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)
    cumulative = np.cumsum(counts, 1) / counts.sum(1, keepdims=True)
    mean = share @ intensity
    each = {
        "min": intensity[(counts > 0).argmax(1)],
        "max": intensity[255 - (counts > 0)[:, ::-1].argmax(1)],
        "mean": mean,
        "std": np.sqrt((share * (intensity - mean[:, None]) ** 2).sum(1)),
        **{name: intensity[(cumulative >= quantile).argmax(1)] for name, quantile in _QUANTILES.items()},
    }
    return {name: value.reshape(3, 1, 1) for name, value in each.items()} | {"count": np.array([images])}


def pool_statistics(parts: Sequence[Statistics]) -> Statistics:
    """Return the pooled statistics of several parts.

    Quantiles are the parts' weighted by their counts, as LeRobot pools them: near the true ones, not equal to them.
    """
    total = np.sum([part["count"] for part in parts], axis=0)

    def weighted(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.sum([value * part["count"] for value, part in zip(values, parts, strict=True)], axis=0) / total

    mean = weighted([part["mean"] for part in parts])
    variance = weighted([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": total,
        **{name: weighted([part[name] for part in parts]) for name in _QUANTILES},
    }
