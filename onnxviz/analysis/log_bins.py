"""Counts in logarithmic bins that are the leading bits of a float64, and quantiles of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BITS", "LogBins"]

#: Bits of the mantissa that tell bins apart: 16 bins an octave.
BITS = 4
_SHIFT = 52 - BITS
_SIGN = 1 << (63 - _SHIFT)
_BIAS = 1023

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LogBins:
    """Counts of finite values that are not zero, in 16 bins an octave of their magnitude, for each sign.

    The index of a bin is the biased exponent and the first 4 bits of the mantissa of the value as float64, so a bin is
    as wide as 1/16 of the lower end of its octave and bins do not depend on the data: they merge by addition. Such bins
    are called log-linear (HdrHistogram; Masson, Rim, Lee, "DDSketch", VLDB 2019, section 2.2, for their error).

    Attributes:
        first: Index of the first bin that is stored, for positive and for negative values.
        counts: The counts from there on, int64, the first and the last of them not 0; one array for each sign.
    """

    first: tuple[int, int] = (0, 0)
    counts: tuple[Counts, Counts] = (np.zeros(0, np.int64), np.zeros(0, np.int64))

    @classmethod
    def of(cls, values: npt.NDArray[np.float64]) -> LogBins:
        """Return the bins of finite float64 that are not zero, contiguous, of one axis.

        >>> LogBins.of(np.array([1.0, 1.03, -2.0])).counts[0].tolist()
        [2]
        """
        if not values.size:
            return cls()
        keys = (values.view(np.uint64) >> np.uint64(_SHIFT)).astype(np.int64)
        magnitudes = keys & (_SIGN - 1)
        low = int(magnitudes.min())
        magnitudes -= low
        magnitudes *= 2
        magnitudes += keys >= _SIGN
        table = np.bincount(magnitudes)
        return cls.trimmed((low, low), (table[::2], table[1::2]))

    @classmethod
    def trimmed(cls, first: tuple[int, int], counts: tuple[Counts, Counts]) -> LogBins:
        """Return bins without the empty ones at either end."""
        starts, parts = [], []
        for start, row in zip(first, counts, strict=True):
            filled = row.nonzero()[0]
            begin, end = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (-start, -start)
            starts.append(start + begin)
            parts.append(row[begin:end].copy())  # a view would keep the whole table, of 64 KB a tensor
        return cls((starts[0], starts[1]), (parts[0], parts[1]))

    def merge(self, other: LogBins) -> LogBins:
        """Return the bins of both sets of values together."""
        if not len(other.counts[0]) and not len(other.counts[1]):
            return self
        first, counts = [], []
        for a, b, x, y in zip(self.first, other.first, self.counts, other.counts, strict=True):
            if not len(x) or not len(y):
                first.append(b if not len(x) else a)
                counts.append(y if not len(x) else x)
                continue
            low = min(a, b)
            row = np.zeros(max(a + len(x), b + len(y)) - low, np.int64)
            row[a - low : a - low + len(x)] += x
            row[b - low : b - low + len(y)] += y
            first.append(low)
            counts.append(row)
        return LogBins((first[0], first[1]), (counts[0], counts[1]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LogBins):
            return NotImplemented
        same = (np.array_equal(x, y) for x, y in zip(self.counts, other.counts, strict=True))
        return self.first == other.first and all(same)

    __hash__ = None  # type: ignore[assignment]

    def to_state(self) -> dict[str, Any]:
        """Return the bins as plain JSON types."""
        return {"first": list(self.first), "counts": [row.tolist() for row in self.counts]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LogBins:
        """Return the bins that :meth:`to_state` wrote down."""
        positive, negative = (np.array(row, np.int64) for row in state["counts"])
        return cls((state["first"][0], state["first"][1]), (positive, negative))

    @property
    def totals(self) -> tuple[int, int]:
        """Number of positive and of negative values."""
        return int(self.counts[0].sum()), int(self.counts[1].sum())

    def octaves(self, low: int, high: int) -> tuple[Counts, Counts]:
        """Return counts an octave ``[2**e, 2**(e + 1))`` of the magnitude, of positive and of negative values.

        Args:
            low: Exponent of the first octave; what is smaller is counted in an entry before it.
            high: Exponent after the last octave; what is larger is counted in an entry after it.

        >>> positive, negative = LogBins.of(np.array([0.25, 1.0, 3.0, 8.0])).octaves(0, 3)
        >>> positive.tolist()
        [1, 1, 1, 0, 1]
        """
        tables = []
        for start, row in zip(self.first, self.counts, strict=True):
            exponents = ((np.arange(len(row)) + start) >> BITS) - _BIAS
            table = np.zeros(high - low + 2, np.int64)
            np.add.at(table, np.clip(exponents - low + 1, 0, high - low + 1), row)
            tables.append(table)
        return tables[0], tables[1]

    def quantiles(
        self, shares: npt.NDArray[np.float64], zeros: int, low: float, high: float, *, whole: bool = False
    ) -> npt.NDArray[np.float64]:
        """Return quantiles of the values, zeros included, with linear interpolation between order statistics.

        An order statistic is taken from its place within its bin, so it is off by at most 1/16 of its magnitude; the
        smallest and the largest are exact.

        Args:
            shares: Shares of the values, between 0 and 1.
            zeros: Number of values equal to zero.
            low: Smallest value.
            high: Largest value.
            whole: All values are whole numbers, so order statistics are rounded towards zero; up to 32 they are exact.

        Source: Hyndman, Fan, "Sample quantiles in statistical packages", 1996, definition 7 (numpy's default).
        """
        counts = np.concatenate([self.counts[1][::-1], np.array([zeros]), self.counts[0]])
        negative, positive = (_edges(*side) for side in zip(self.first[::-1], self.counts[::-1], strict=True))
        lower = np.concatenate([-negative[:0:-1], [0.0], positive[:-1]])
        upper = np.concatenate([-negative[-2::-1], [0.0], positive[1:]])
        ends = np.cumsum(counts)
        place = shares * (ends[-1] - 1)
        ranks = np.floor(place).astype(np.int64)
        both = np.stack([ranks, np.minimum(ranks + 1, ends[-1] - 1)])
        at = np.searchsorted(ends, both, side="right")
        inside = (both - ends[at] + counts[at] + 0.5) / counts[at]
        found = lower[at] + (upper[at] - lower[at]) * inside
        found = np.clip(np.trunc(found) if whole else found, low, high)
        found[both == 0] = low
        found[both == ends[-1] - 1] = high
        share = place - ranks
        result: npt.NDArray[np.float64] = found[0] * (1 - share) + found[1] * share
        return result


def _edges(first: int, counts: Counts) -> npt.NDArray[np.float64]:
    """Return the ends of the bins of one sign, as magnitudes, the last of all finite ones included."""
    edges = (np.arange(first, first + len(counts) + 1) << _SHIFT).view(np.float64)
    return np.minimum(edges, np.finfo(np.float64).max)
