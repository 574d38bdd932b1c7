"""What is kept of gradients while a model runs over batches: sums that come out alike in whatever order they merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.log_bins import BITS, LogBins
from onnxviz.analysis.statistics import Summary

__all__ = ["GradientSum", "magnitude_quantiles"]

Floats = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class GradientSum:
    """The gradient of one weight, summed over batches, and the length of what each batch gave.

    Attributes:
        total: The sum over all samples, of the weight's shape as its node reads it; of the gradient's own type for one
            batch, float64 for several.
        rest: float64, what rounding took from ``total`` (Knuth's two-sum), so that the order of batches does not show;
            None for one batch.
        squares: For each batch the sum of squares of its finite entries, float64.
        bad: Entries that were NaN or infinite, over all batches.
    """

    total: Floats
    rest: Floats | None
    squares: tuple[float, ...]
    bad: int

    @classmethod
    def of(cls, array: Floats) -> GradientSum:
        """Return the sum of one batch: what its samples gave together.

        >>> GradientSum.of(np.array([3.0, 4.0])).squares
        (25.0,)
        """
        values = array.astype(np.float32) if array.dtype.itemsize < 4 else array
        finite = np.isfinite(values)
        bad = int(values.size - np.count_nonzero(finite))
        if bad:
            values = np.where(finite, values, 0)
        wide = values.reshape(-1).astype(np.float64)
        return cls(values, None, (float(wide @ wide),), bad)

    def merge(self, other: GradientSum) -> GradientSum:
        """Return the sum of both sets of batches.

        >>> parts = [GradientSum.of(np.float32([value])) for value in (1e8, 1.0, -1e8, 1e-8)]
        >>> one, two, three, four = parts
        >>> a, b = one.merge(two).merge(three).merge(four), four.merge(three).merge(two).merge(one)
        >>> a.total.item() == b.total.item()
        True
        """
        total, rest = _two_sum(self.total.astype(np.float64), other.total.astype(np.float64))
        for part in (self.rest, other.rest):
            if part is not None:
                rest = rest + part
        high = total + rest
        return GradientSum(high, rest - (high - total), (*self.squares, *other.squares), self.bad + other.bad)


def _two_sum(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return the rounded sum and what rounding took from it (Knuth, TAOCP 2, 4.2.2, theorem B)."""
    total = a + b
    shifted = total - a
    return total, (a - (total - shifted)) + (b - shifted)


def magnitude_quantiles(summary: Summary, shares: Sequence[float]) -> tuple[float, ...]:
    """Return quantiles of the magnitudes of the finite values that are not zero; empty where there are none.

    Each is off by at most 1/16 of itself; the largest is exact.

    >>> magnitude_quantiles(Summary.of(np.array([0.0, 0.0, -4.0, 1.0])), (0.0, 1.0))
    (1.0, 4.0)
    """
    if summary.bins is None:
        return ()
    (first, second), (positive, negative) = summary.bins.first, summary.bins.counts
    nothing = np.zeros(0, np.int64)
    bins = LogBins((first, 0), (positive, nothing)).merge(LogBins((second, 0), (negative, nothing)))
    if not len(bins.counts[0]):
        return ()
    largest = max(abs(float(summary.low.min())), abs(float(summary.high.max())))
    smallest = float((np.int64(bins.first[0]) << (52 - BITS)).view(np.float64))  # the lower end of its bin
    found = bins.quantiles(np.asarray(shares, np.float64), 0, smallest, largest)
    return tuple(float(value) for value in found)
