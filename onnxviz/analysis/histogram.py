"""Histograms that an outlier, a NaN or a spike of zeros cannot spoil."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.log_bins import LogBins
from onnxviz.analysis.numeric import is_numeric, to_float
from onnxviz.errors import SelectionError

__all__ = ["SYMLOG_EDGES", "Histogram", "histogram", "symlog_histogram"]

_OCTAVES = 27
_POWERS = 2.0 ** np.arange(-_OCTAVES, _OCTAVES + 1)

#: The fixed symmetric-logarithmic edges: a bin an octave from 2**-27 (7.5e-9) to 2**27 (1.3e8) on both sides of one
#: bin around zero. They do not depend on the data, so that any two histograms over them merge.
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
        counts: ``(B,)`` int64, zeros included. Linear bins hold ``edges[i] <= x < edges[i + 1]``, the last one closed;
            symlog bins are mirrored at zero, ``2**e <= |x| < 2**(e + 1)``, and the middle one is open at both ends.
        scale: ``"linear"`` (equal bins over the bulk of the values) or ``"symlog"`` (:data:`SYMLOG_EDGES`).
        below: Finite values below the bins.
        above: Finite values above them.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the bins from the first to the last that is occupied as plain JSON types, and what no bin holds."""
        used = np.flatnonzero(self.counts)
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        edges = self.edges[first : last + 1].tolist() if len(used) else []
        counts = self.counts[first:last].tolist()
        return {"edges": edges, "counts": counts, "below": self.below, "above": self.above}

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
    zero = int(finite.size - np.count_nonzero(finite))
    inf = int(values.size - finite.size - nan)
    if scale == "symlog":
        return symlog_histogram(LogBins.of(finite[finite != 0]), zero=zero, nan=nan, inf=inf)
    edges = _linear_edges(finite, bins, step)
    counts = np.histogram(finite, edges)[0].astype(np.int64)
    return Histogram(
        edges=edges,
        counts=counts,
        scale=scale,
        below=int(np.count_nonzero(finite < edges[0])),
        above=int(np.count_nonzero(finite > edges[-1])),
        nan=nan,
        inf=inf,
        zero=zero,
        total=int(values.size),
    )


def symlog_histogram(bins: LogBins, *, zero: int, nan: int = 0, inf: int = 0) -> Histogram:
    """Return the histogram over :data:`SYMLOG_EDGES` that finer bins add up to, and counts of what is not in them.

    >>> int(symlog_histogram(LogBins.of(np.array([1.0, 1.5, -3.0])), zero=2).counts.max())
    2
    """
    positive, negative = bins.octaves(-_OCTAVES, _OCTAVES)
    middle = positive[0] + negative[0] + zero
    return Histogram(
        edges=SYMLOG_EDGES,
        counts=np.concatenate([negative[-2:0:-1], [middle], positive[1:-1]]),
        scale="symlog",
        below=int(negative[-1]),
        above=int(positive[-1]),
        nan=nan,
        inf=inf,
        zero=zero,
        total=sum(bins.totals) + zero + nan + inf,
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
