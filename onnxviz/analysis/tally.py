"""What enters and leaves activation functions over many samples, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.activation_curves import Curve
from onnxviz.analysis.histogram import Histogram
from onnxviz.analysis.numeric import to_float

__all__ = ["Tallies", "Tally", "tally"]

_PART = 1 << 22  # values looked at at a time


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts over the values of one tensor; two of them merge.

    Attributes:
        high: ``(C,)`` float64: largest value of each channel, NaN left out; -Inf where there is none. One channel
            where the tensor has none.
        low: ``(C,)`` float64: smallest value, likewise.
        zero: Number of values that are exactly 0.
        flat: Number of values where the function that they enter is flat; None where that is not known.
        nan: Number of NaN.
        total: Number of values.
        bins: How the values are spread over given bins; None where none were given.
        inf: Number of infinite values.
    """

    high: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    zero: int
    flat: int | None
    nan: int
    total: int
    bins: Histogram | None
    inf: int = 0

    def merge(self, other: Tally) -> Tally:
        """Return the counts of both sets of values together."""
        both = self.bins is not None and other.bins is not None
        return replace(
            self,
            high=np.maximum(self.high, other.high),
            low=np.minimum(self.low, other.low),
            zero=self.zero + other.zero,
            flat=None if self.flat is None or other.flat is None else self.flat + other.flat,
            nan=self.nan + other.nan,
            inf=self.inf + other.inf,
            total=self.total + other.total,
            bins=self.bins.merge(other.bins) if both else None,  # type: ignore[union-attr, arg-type]
        )


@dataclass(frozen=True)
class Tallies:
    """What is counted of one tensor: by the function that it enters, and under ``""`` as what leaves one."""

    by_use: dict[str, Tally]

    def merge(self, other: Tallies) -> Tallies:
        """Return the counts of both together."""
        return Tallies({key: one.merge(other.by_use[key]) for key, one in self.by_use.items()})


def tally(
    array: npt.NDArray[Any],
    axis: int | None = None,
    curve: Curve | None = None,
    edges: npt.NDArray[np.float64] | None = None,
) -> Tally:
    """Count the values of a tensor.

    Args:
        array: Numeric values.
        axis: Which axis holds the channels.
        curve: The function that they enter.
        edges: Edges of bins to count them in.

    >>> found = tally(np.float32([[-1, 0, 2], [0, 0, np.nan]]), axis=1)
    >>> found.high.tolist(), found.zero, found.nan
    ([0.0, 0.0, 2.0], 3, 1)
    """
    rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) if axis is not None else array.reshape(1, -1)
    high, low = np.full(len(rows), -np.inf), np.full(len(rows), np.inf)
    counts = None if edges is None else np.zeros(len(edges) - 1, np.int64)
    zero = nan = flat = below = above = inf = 0
    step = max(1, _PART // max(rows.shape[1], 1))
    for at in range(0, len(rows), step):
        part = to_float(rows[at : at + step])
        if part.size:
            high[at : at + step] = np.fmax.reduce(part, axis=1, initial=-np.inf)
            low[at : at + step] = np.fmin.reduce(part, axis=1, initial=np.inf)
        zero += int(part.size - np.count_nonzero(part))
        nan += int(np.count_nonzero(np.isnan(part)))
        inf += int(np.count_nonzero(np.isinf(part)))
        if curve is not None and len(curve.y) == 1:
            flat += int(np.count_nonzero(curve.is_flat(part)))
        if edges is not None and counts is not None:
            finite = part[np.isfinite(part)].astype(np.float64)
            counts += np.histogram(finite, edges)[0]
            below += int(np.count_nonzero(finite < edges[0]))
            above += int(np.count_nonzero(finite > edges[-1]))
    bins = None
    if edges is not None and counts is not None:
        bins = Histogram(edges, counts, "linear", below, above, nan, inf, zero, int(array.size))
    known = flat if curve is not None and len(curve.y) == 1 else None
    return Tally(high, low, zero, known, nan, int(array.size), bins, inf)
