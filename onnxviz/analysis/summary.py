"""What is kept of the values of a tensor so that any split of them, merged in any order, gives the same result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.accumulate import FINITE, INF, NAN, NEGATIVE_INF, SUBNORMAL, ZERO, accumulate
from onnxviz.analysis.exact_sum import ExactSum
from onnxviz.analysis.histogram import Histogram, symlog_histogram
from onnxviz.analysis.log_bins import LogBins
from onnxviz.analysis.moments import Moments
from onnxviz.analysis.numeric import is_numeric
from onnxviz.errors import SelectionError

__all__ = ["QUANTILES", "STATISTICS", "Summary", "merge_all"]

#: The quantiles that are reported where none are named.
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)

#: The statistics that are one number.
STATISTICS = ("min", "max", "mean", "std", "nan", "inf", "zero", "l2", "subnormal")


@dataclass(frozen=True, eq=False)
class Summary:
    """What is kept of the values of a tensor: a few hundred numbers that two sets of values can be merged from.

    Counts, extremes and bins merge exactly. So do sums: the values of a sample (entry of the first axis), or of a
    channel of one, are summed in float64 in an order of their own, and these sums are added up without rounding. So
    any split of the samples over batches, threads or processes, merged in any order, gives the same bits; a split
    within samples changes mean, std and L2 by some 1e-15 of their value.

    Minimum, maximum, mean, standard deviation and L2 norm are over the finite values; None where there are none.

    Attributes:
        dtype: The type of the values, such as ``"float32"``; ``"string"`` for text.
        size: Number of values, NaN and Inf included.
        channels: Number of channels, or None where they are not told apart.
        low: ``(C,)`` smallest finite value of each channel, C = 1 without channels.
        high: ``(C,)`` largest finite value.
        tallies: ``(6, C)`` int64: finite values, NaN, +Inf, -Inf, zeros, subnormals.
        sums: ``(2, C)``: exact sums of the row sums, and of the row sums of squares.
        bins: Histogram of the finite values that are not zero; None where it was not made.
        channel_bins: The same for each channel; None where they were not made.
    """

    dtype: str
    size: int
    channels: int | None
    low: npt.NDArray[Any]
    high: npt.NDArray[Any]
    tallies: npt.NDArray[np.int64]
    sums: ExactSum
    bins: LogBins | None
    channel_bins: tuple[LogBins, ...] | None = None

    @classmethod
    def of(cls, array: npt.ArrayLike, *, channel_axis: int | None = None, histograms: bool = False) -> Summary:
        """Return the summary of an array of any shape and type, read in blocks, with less than 3 MB beside it.

        Args:
            array: The values; text and other values that are no real numbers are only counted.
            channel_axis: The axis of the channels, to tell them apart.
            histograms: Make a histogram of each channel too, so that channels have quantiles.

        Raises:
            SelectionError: The array has no such axis.

        >>> s = Summary.of(np.array([[1.0, 3.0], [5.0, np.nan]]), channel_axis=1)
        >>> s.mean, s.nan, [c.mean for c in s.per_channel()]
        (3.0, 1, [3.0, 3.0])
        """
        values = np.asarray(array)
        axis = _axis(values, channel_axis)
        channels = None if axis is None else values.shape[axis]
        width = 1 if channels is None else channels
        dtype, numeric = _named(values.dtype)
        if not numeric:
            nothing = np.zeros(width)
            sums = ExactSum.zeros((2, width))
            return cls(dtype, values.size, channels, nothing, nothing, np.zeros((6, width), np.int64), sums, None)
        found = accumulate(values, axis, histograms=histograms and axis is not None)
        bins = None if found.channel_bins is None else tuple(found.channel_bins)
        return cls(dtype, values.size, channels, found.low, found.high, found.tallies, found.sums, found.bins, bins)

    def merge(self, other: Summary) -> Summary:
        """Return the summary of both sets of values together.

        Raises:
            ValueError: The types or the numbers of channels differ.

        >>> Summary.of(np.arange(6)) == Summary.of(np.arange(4, 6)).merge(Summary.of(np.arange(4)))
        True
        """
        for what, mine, its in (("types", self.dtype, other.dtype), ("channels", self.channels, other.channels)):
            if mine != its:
                raise ValueError(f"summaries with different {what} cannot be merged: {mine} and {its}")
        bins = None if self.bins is None or other.bins is None else self.bins.merge(other.bins)
        channel_bins = None
        if self.channel_bins is not None and other.channel_bins is not None:
            channel_bins = tuple(a.merge(b) for a, b in zip(self.channel_bins, other.channel_bins, strict=True))
        return Summary(
            self.dtype,
            self.size + other.size,
            self.channels,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.tallies + other.tallies,
            self.sums + other.sums,
            bins,
            channel_bins,
        )

    def channel(self, index: int) -> Summary:
        """Return the summary of one channel.

        Raises:
            SelectionError: There is no such channel.
        """
        if self.channels is None or not -self.channels <= index < self.channels:
            raise SelectionError(f"there is no channel {index}", hint=f"this summary has {self.channels or 'none'}")
        index %= self.channels
        part = slice(index, index + 1)
        return Summary(
            self.dtype, self.size // self.channels, None, self.low[part], self.high[part], self.tallies[:, part],
            ExactSum(self.sums.low, self.sums.limbs[..., part]),
            None if self.channel_bins is None else self.channel_bins[index],
        )  # fmt: skip

    def per_channel(self) -> list[Summary]:
        """Return the summary of every channel; empty where channels are not told apart."""
        return [self.channel(index) for index in range(self.channels or 0)]

    def channel_values(self) -> dict[str, list[Any]]:
        """Return each statistic of every channel, as :meth:`per_channel` would give them one by one, only faster.

        >>> Summary.of(np.array([[1, 2], [3, 4]]), channel_axis=1).channel_values()["max"]
        [3, 4]
        """
        if self.channels is None:
            return {name: [] for name in STATISTICS}
        counts = self.tallies[FINITE].tolist()
        moments = Moments.each(counts, self.sums)
        low, high = (
            [self._number(end) if count else None for end, count in zip(ends.tolist(), counts, strict=True)]
            for ends in (self.low, self.high)
        )
        return {
            "min": low,
            "max": high,
            "mean": [_within(m.mean, a, b) for m, a, b in zip(moments, low, high, strict=True)],
            "std": [m.std for m in moments],
            "nan": self.tallies[NAN].tolist(),
            "inf": (self.tallies[INF] + self.tallies[NEGATIVE_INF]).tolist(),
            "zero": self.tallies[ZERO].tolist(),
            "l2": [m.l2 for m in moments],
            "subnormal": self.tallies[SUBNORMAL].tolist(),
        }

    def __eq__(self, other: object) -> bool:
        return self.to_state() == other.to_state() if isinstance(other, Summary) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    @property
    def count(self) -> int:
        """Number of finite values."""
        return self._tally(FINITE)

    @property
    def nan(self) -> int:
        """Number of NaN."""
        return self._tally(NAN)

    @property
    def inf(self) -> int:
        """Number of infinite values of either sign."""
        return self.positive_inf + self.negative_inf

    @property
    def positive_inf(self) -> int:
        """Number of +Inf."""
        return self._tally(INF)

    @property
    def negative_inf(self) -> int:
        """Number of -Inf."""
        return self._tally(NEGATIVE_INF)

    @property
    def zero(self) -> int:
        """Number of values equal to zero, of either sign."""
        return self._tally(ZERO)

    @property
    def subnormal(self) -> int:
        """Number of values, not zero, below the smallest normal number of their own type: 2**-126 for float32."""
        return self._tally(SUBNORMAL)

    @property
    def min(self) -> float | int | None:
        """Smallest finite value, an int where the type is an integer's."""
        return self._number(self.low.min()) if self.count else None

    @property
    def max(self) -> float | int | None:
        """Largest finite value, an int where the type is an integer's."""
        return self._number(self.high.max()) if self.count else None

    @property
    def mean(self) -> float | None:
        """Mean of the finite values."""
        return _within(self._moments.mean, self.min, self.max)

    @property
    def std(self) -> float | None:
        """Population standard deviation (divided by n); None too where it passes float64's range."""
        return self._moments.std

    @property
    def l2(self) -> float | None:
        """Square root of the sum of squares; None too where it passes float64's range."""
        return self._moments.l2

    def quantiles(self, shares: Iterable[float] = QUANTILES) -> list[float | None]:
        """Return quantiles of the finite values, interpolated linearly between order statistics as numpy does.

        Each order statistic is off by at most 1/16 of its magnitude (of a normal float64); the smallest and the largest
        are exact, and so are whole numbers of integer types up to 32.

        Args:
            shares: Shares of the values, between 0 and 1.

        Raises:
            SelectionError: A share is not between 0 and 1, or this summary has no histogram.

        >>> Summary.of(np.arange(101)).quantiles([0.0, 0.25, 1.0])
        [0.0, 25.0, 100.0]
        """
        wanted = np.array(list(shares), np.float64)
        if not ((wanted >= 0) & (wanted <= 1)).all():
            raise SelectionError("a quantile is asked for by a share of the values", hint="give 0 to 1, such as 0.5")
        if self.bins is None and self.count:
            raise SelectionError("this summary has no histogram", hint="make it with histograms=True")
        if self.bins is None or not self.count:
            return [None] * len(wanted)
        low, high = float(self.low.min()), float(self.high.max())
        found = self.bins.quantiles(wanted, self.zero, low, high, whole=self._whole)
        return [float(value) for value in found]

    def quantile(self, share: float) -> float | None:
        """Return one quantile; see :meth:`quantiles`.

        >>> Summary.of(np.array([3.0, 1.0])).quantile(0.0)
        1.0
        """
        return self.quantiles([share])[0]

    def histogram(self) -> Histogram:
        """Return the histogram over :data:`onnxviz.analysis.histogram.SYMLOG_EDGES`.

        Raises:
            SelectionError: This summary has none.
        """
        if self.bins is None:
            raise SelectionError("this summary has no histogram", hint="make it with histograms=True")
        return symlog_histogram(self.bins, zero=self.zero, nan=self.nan, inf=self.inf)

    def to_state(self) -> dict[str, Any]:
        """Return all that is kept as plain JSON types, without any rounding."""
        sums, exponent = self.sums.integers()
        return {
            "dtype": self.dtype,
            "size": self.size,
            "channels": self.channels,
            "low": [_exact(value) for value in self.low.tolist()],
            "high": [_exact(value) for value in self.high.tolist()],
            "tallies": self.tallies.tolist(),
            "sums": [hex(value) for value in sums],
            "exponent": exponent,
            "bins": None if self.bins is None else self.bins.to_state(),
            "channel_bins": None if self.channel_bins is None else [bins.to_state() for bins in self.channel_bins],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Summary:
        """Return the summary that :meth:`to_state` wrote down.

        >>> s = Summary.of(np.array([0.1, -7.0, np.inf]))
        >>> Summary.from_state(s.to_state()) == s
        True
        """
        width = len(state["low"])
        kind = np.dtype(state["dtype"]) if state["dtype"] in ("int64", "uint64") else np.dtype(np.float64)
        low, high = (np.array([_inexact(value) for value in state[end]], kind) for end in ("low", "high"))
        bins, parts = state["bins"], state["channel_bins"]
        return cls(
            state["dtype"], state["size"], state["channels"], low, high,
            np.array(state["tallies"], np.int64).reshape(len(state["tallies"]), width),
            ExactSum.from_integers([int(value, 16) for value in state["sums"]], state["exponent"], (2, width)),
            None if bins is None else LogBins.from_state(bins),
            None if parts is None else tuple(LogBins.from_state(part) for part in parts),
        )  # fmt: skip

    @cached_property
    def _moments(self) -> Moments:
        return Moments.of(self.count, self.sums)

    @property
    def _whole(self) -> bool:
        return "int" in self.dtype or self.dtype == "bool"

    def _tally(self, kind: int) -> int:
        return int(self.tallies[kind].sum())

    def _number(self, value: Any) -> float | int:
        return int(value) if self._whole else float(value)


@cache
def _named(dtype: np.dtype[Any]) -> tuple[str, bool]:
    """Return the name of a type, and whether it holds real numbers."""
    return "string" if dtype.kind in "OUST" else str(dtype), is_numeric(dtype)


def _axis(array: npt.NDArray[Any], axis: int | None) -> int | None:
    if axis is None:
        return None
    if not -array.ndim <= axis < array.ndim:
        raise SelectionError(f"an array of shape {array.shape} has no axis {axis}", hint="channels are an axis of it")
    return axis % array.ndim


def _within(mean: float | None, low: float | None, high: float | None) -> float | None:
    """Return a mean of rounded sums, which may pass the extremes by a bit, between them."""
    return None if mean is None or low is None or high is None else min(max(mean, float(low)), float(high))


def _exact(value: float | int) -> str | int:
    return value.hex() if isinstance(value, float) else value


def _inexact(value: str | int) -> float | int:
    return float.fromhex(value) if isinstance(value, str) else value


def merge_all(summaries: Iterable[Summary]) -> Summary:
    """Return the summary of all sets of values together, in whatever order they come.

    Raises:
        ValueError: There are none, or their types or numbers of channels differ.

    >>> merge_all(Summary.of(np.full(2, k)) for k in range(3)).mean
    1.0
    """
    merged: Summary | None = None
    for summary in summaries:
        merged = summary if merged is None else merged.merge(summary)
    if merged is None:
        raise ValueError("there are no summaries to merge")
    return merged
