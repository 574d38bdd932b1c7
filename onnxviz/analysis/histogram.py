"""Histograms that an outlier, a NaN or a spike of zeros cannot spoil."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.statistics import is_numeric, to_float
from onnxviz.errors import SelectionError

__all__ = ["SYMLOG_EDGES", "Histogram", "histogram"]

_DECADES = (-8, 8)
_PER_DECADE = 4
_POWERS = 10.0 ** (np.arange(_DECADES[0] * _PER_DECADE, _DECADES[1] * _PER_DECADE + 1) / _PER_DECADE)

#: The fixed symmetric-logarithmic edges: four bins a decade from 1e-8 to 1e8 on both sides of one bin around zero.
#: They do not depend on the data, so that any two histograms over them merge.
SYMLOG_EDGES: npt.NDArray[np.float64] = np.concatenate([-_POWERS[::-1], _POWERS])
SYMLOG_EDGES.flags.writeable = False

_BULK = (0.1, 99.9)  # percentiles that the linear bins must hold
_WIDE = 1000.0  # ratio of the largest to the median magnitude from which bins are logarithmic


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of values in bins, and of everything that falls in none.

    ``counts.sum() + below + above + nan + inf == total``.

    Attributes:
        edges: ``(B + 1,)`` float64, ascending.
        counts: ``(B,)`` int64: values in ``edges[i] <= x < edges[i + 1]``, the last bin closed, zeros included.
        scale: ``"linear"`` (equal bins over the bulk of the values) or ``"symlog"`` (:data:`SYMLOG_EDGES`).
        below: Finite values under the first edge.
        above: Finite values over the last edge.
        nan: Number of NaN.
        inf: Number of infinite values.
        zero: Number of values equal to zero; they are in ``counts`` too.
        total: Number of values in all.
    """

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    scale: Literal["linear", "symlog"]
    below: int
    above: int
    nan: int
    inf: int
    zero: int
    total: int

    @property
    def zero_bin(self) -> int | None:
        """Index of the bin that zeros fall in, or None where no bin holds them."""
        if not self.edges[0] <= 0 <= self.edges[-1]:
            return None
        return min(int(np.searchsorted(self.edges, 0.0, side="right")) - 1, len(self.counts) - 1)

    def merge(self, other: Histogram) -> Histogram:
        """Return the histogram of both sets of values together.

        Raises:
            ValueError: The edges differ; histograms over :data:`SYMLOG_EDGES` always merge.
        """
        if not np.array_equal(self.edges, other.edges):
            raise ValueError("histograms with different edges cannot be merged: make both with scale='symlog'")
        return Histogram(
            self.edges,
            self.counts + other.counts,
            self.scale,
            self.below + other.below,
            self.above + other.above,
            self.nan + other.nan,
            self.inf + other.inf,
            self.zero + other.zero,
            self.total + other.total,
        )


def histogram(
    array: npt.NDArray[Any],
    *,
    bins: int | None = None,
    scale: Literal["auto", "linear", "symlog"] = "auto",
    step: float | None = None,
) -> Histogram:
    """Return the histogram of a numeric array of any shape.

    Linear bins span the 0.1st to 99.9th percentile of the finite values that are not zero (and zero, where it occurs),
    widened to the whole range where that makes it at most twice as wide; what lies outside is counted beside. So a
    single outlier cannot push all else into one bin. ``"auto"`` takes symlog bins where the 99.9th percentile of the
    magnitudes passes 1000 times their median.

    Args:
        array: The values.
        bins: Number of linear bins; None takes ``2 n^(1/3)`` (the Rice rule) between 8 and 64.
        scale: ``"linear"``, ``"symlog"`` or ``"auto"``.
        step: Distance between neighbouring values where they lie on a grid, as quantised ones do: linear bins are then
            a whole number of steps wide, so that none holds more grid points than its neighbour.

    Raises:
        SelectionError: The array holds no numbers.

    >>> h = histogram(np.array([0.0, 1.0, 2.0, np.nan]), bins=2)
    >>> h.counts.tolist(), h.edges.tolist(), h.nan, h.zero
    ([1, 2], [0.0, 1.0, 2.0], 1, 1)
    """
    array = np.asarray(array)
    if not is_numeric(array.dtype):
        raise SelectionError(f"values of type {array.dtype} have no histogram", hint="choose a numeric tensor")
    values = to_float(array.reshape(-1), np.float64)
    nan = int(np.count_nonzero(np.isnan(values)))
    finite = values[np.isfinite(values)]
    if scale == "auto":
        scale = "symlog" if _is_wide(finite) else "linear"
    edges = SYMLOG_EDGES if scale == "symlog" else _linear_edges(finite, bins, step)
    counts = np.histogram(finite, edges)[0].astype(np.int64)
    return Histogram(
        edges=edges,
        counts=counts,
        scale=scale,
        below=int(np.count_nonzero(finite < edges[0])),
        above=int(np.count_nonzero(finite > edges[-1])),
        nan=nan,
        inf=int(values.size - finite.size - nan),
        zero=int(finite.size - np.count_nonzero(finite)),
        total=int(values.size),
    )


def _is_wide(finite: npt.NDArray[np.float64]) -> bool:
    magnitudes = np.abs(finite[finite != 0])
    if not magnitudes.size:
        return False
    median, bulk = np.percentile(magnitudes, (50, _BULK[1]), method="lower")
    return bool(bulk / _WIDE > median)


def _linear_edges(finite: npt.NDArray[np.float64], bins: int | None, step: float | None) -> npt.NDArray[np.float64]:
    count = bins if bins is not None else min(64, max(8, math.ceil(2 * finite.size ** (1 / 3))))
    edges: npt.NDArray[Any]
    steps = np.linspace(0.0, 1.0, count + 1)
    if not finite.size:
        return steps
    low, high = float(finite.min()), float(finite.max())
    alive = finite[finite != 0]
    if alive.size:  # percentiles of what is not zero: a spike of zeros would shrink the bins around it
        inner = [float(p) for p in np.percentile(alive, _BULK, method="nearest")]
        if alive.size < finite.size:
            inner = [min(inner[0], 0.0), max(inner[1], 0.0)]
        if inner[1] > inner[0] and high / 2 - low / 2 > inner[1] - inner[0]:
            low, high = inner
    if not low < high:
        pad = abs(low) / 2 or 0.5
        low, high = low - pad, high + pad
    if step and math.isfinite(step) and high - low >= 2 * step:
        levels = round((high - low) / step) + 1
        width = step * math.ceil(levels / count)
        edges = low - step / 2 + width * np.arange(math.ceil(levels * step / width - 1e-6) + 1)
    else:
        edges = low * (1 - steps) + high * steps
    edges = edges if np.all(np.diff(edges) > 0) else np.array([low, high])
    return np.asarray(edges, np.float64)
