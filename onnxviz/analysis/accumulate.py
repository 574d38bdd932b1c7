"""One pass over an array, block by block: everything that its statistics are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.blocks import Block, Layout
from onnxviz.analysis.exact_sum import ExactSum
from onnxviz.analysis.leading_bits import LeadingBits
from onnxviz.analysis.log_bins import LogBins
from onnxviz.analysis.numeric import smallest_normal, to_float, to_single
from onnxviz.analysis.power_terms import power_terms

__all__ = ["FINITE", "INF", "NAN", "NEGATIVE_INF", "SUBNORMAL", "ZERO", "Totals", "accumulate"]

_SHORT = 192  # rows shorter than this are laid side by side: numpy's reductions cost some 50 ns a row
_NARROW = 128  # channels-last rows of fewer channels are turned, for the same reason
_CANCELLED = 2.0**-12  # share of the squares that must be left about the mean, or they are summed about the mean
_GROUP = 2048  # rows summed with care at a time
_SAFE = (2.0**-300, 2.0**400)  # magnitudes whose squares neither vanish nor overflow
_PLACES = 15  # limbs of an exact sum that other rows are moved by: 2**660
_LEAST_SINGLE = 2.0**-126  # normal float32

#: Rows of :attr:`Totals.tallies`.
FINITE, NAN, INF, NEGATIVE_INF, ZERO, SUBNORMAL = range(6)

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass
class Totals:
    """What one pass gives, a column a channel.

    Attributes:
        low: ``(C,)`` smallest finite values, float64, or the array's type where that is a 64-bit integer; the largest
            value of that type where there are none.
        high: ``(C,)`` largest finite values, likewise.
        tallies: ``(6, C)`` int64: finite values, NaN, +Inf, -Inf, zeros, subnormals.
        sums: ``(2, C)``: sums of the finite values and of their squares.
        bins: Histogram of the finite values that are not zero, all channels together.
        channel_bins: The same for each channel, or None.
    """

    low: Array
    high: Array
    tallies: Counts
    sums: ExactSum
    bins: LogBins
    channel_bins: list[LogBins] | None


def accumulate(array: Array, channel_axis: int | None = None, *, histograms: bool = False) -> Totals:
    """Return what the statistics of a numeric array are made of.

    A *row* is the values of one channel in one sample (entry of the first axis), or a part of them of fixed position
    where they are more than 65,536. A row is summed in float64, in an order that depends on the row alone; rows are
    added up exactly. So sums do not depend on how samples are split over calls.

    Args:
        array: Any shape.
        channel_axis: The axis of the channels, counted from the front; None takes all values as one channel.
        histograms: Also make a histogram a channel.
    """
    layout = Layout.of(array.shape, channel_axis)
    run = _Run(array, layout, histograms)
    with np.errstate(all="ignore"):
        for block in layout.blocks():
            run.add(block)
    return run.totals()


class _Kind(NamedTuple):
    """What is to know about a type.

    Attributes:
        single: float32 holds all its values exactly.
        wide: float64 does not.
        read_as: The type that blocks are read as.
        extremes: The type of minimum and maximum.
        lowest: Lowest value of that type.
        highest: Highest value of that type.
        tiny: Magnitude below which values are subnormal.
        small: Leading bits below these may be those of zeros, of subnormals, or of what is not normal in float32.
    """

    single: bool
    wide: bool
    read_as: np.dtype[Any]
    extremes: np.dtype[Any]
    lowest: float
    highest: float
    tiny: float
    small: int


@cache
def _kind_of(dtype: np.dtype[Any]) -> _Kind:
    single = dtype == np.float32 or dtype.itemsize < 4
    wide = dtype.kind in "iu" and dtype.itemsize == 8
    read_as: Any = np.dtype(np.float32) if single else dtype.newbyteorder("=")
    tiny = smallest_normal(dtype)
    if wide:
        limits = np.iinfo(read_as)
        return _Kind(single, wide, read_as, read_as, limits.min, limits.max, tiny, 0)
    return _Kind(
        single, wide, read_as, np.dtype(np.float64), -np.inf, np.inf, tiny, LeadingBits.below(tiny) if single else 0
    )


class _Run:
    """The state of one pass."""

    def __init__(self, array: Array, layout: Layout, histograms: bool) -> None:
        self.layout = layout
        contiguous = array.flags.c_contiguous
        self._flat: Any = array.reshape(-1) if contiguous else array.flat
        self._kind = kind = _kind_of(array.dtype)
        self._single, self._wide = kind.single, kind.wide
        channels = layout.channels
        self._low, self._high = np.empty(channels, kind.extremes), np.empty(channels, kind.extremes)
        self._low.fill(kind.highest)
        self._high.fill(kind.lowest)
        self._tallies = np.zeros((6, channels), np.int64)
        self._sums = ExactSum.zeros((2, channels))
        self._rows = np.empty((2, layout.rows, channels))
        self._buffer = np.empty(layout.largest + 2 * _SHORT)
        self._leading = LeadingBits() if self._single else None
        self._bins = LogBins()
        self._channel_bins = [LogBins()] * channels if histograms else None

    def totals(self) -> Totals:
        if not self._wide:
            self._low += 0.0  # no -0.0, which a minimum keeps or not by the order of values
            self._high += 0.0
        self._tallies[FINITE] = self.layout.samples * self.layout.values
        self._tallies[FINITE] -= np.add.reduce(self._tallies[NAN : NEGATIVE_INF + 1], axis=0)
        bins = self._bins if self._leading is None else self._leading.bins().merge(self._bins)
        return Totals(self._low, self._high, self._tallies, self._sums, bins, self._channel_bins)

    def add(self, block: Block) -> None:
        count = block.shape[0] * block.shape[1] * block.shape[2]
        source = self._flat[block.start : block.start + count]
        if source.dtype != self._kind.read_as:
            source = to_single(source) if self._single else source.astype(self._kind.read_as)
        cube = source.reshape(block.shape)
        samples, channels = block.shape[0], block.shape[2 if self.layout.last else 1]
        at = slice(block.channel, block.channel + channels)
        suspects = count
        if self._leading is not None:
            suspects = self._leading.add(source, self._buffer.view(np.int64)[:count], self._kind.small)
        values, tile, axis = self._arranged(cube)
        low = _grid(np.minimum.reduce(values, axis=axis), samples, channels)
        high = _grid(np.maximum.reduce(values, axis=axis), samples, channels)
        if suspects:
            self._count_small(values, axis, source, suspects, samples, at)
        sums = _grid(np.add.reduce(tile, axis=axis), samples, channels)
        np.multiply(tile, tile, out=tile)
        squares = _grid(np.add.reduce(tile, axis=axis), samples, channels)
        careful = self._careful(sums, squares, low, high, count // (samples * channels))
        if careful.any():
            low, high = low.astype(self._low.dtype), high.astype(self._high.dtype)
            self._add_carefully(cube, np.nonzero(careful), low, high, block.channel)
            sums[careful] = squares[careful] = 0
        if not self._single:
            self._add_bins(source)
        if self._channel_bins is not None:
            self._add_channel_bins(self._channel_bins, cube, block.channel)
        np.minimum(self._low[at], low.min(axis=0) if samples > 1 else low[0], out=self._low[at])
        np.maximum(self._high[at], high.max(axis=0) if samples > 1 else high[0], out=self._high[at])
        self._rows[0, block.row : block.row + samples, at] = sums
        self._rows[1, block.row : block.row + samples, at] = squares
        if block.full:
            self._sums = self._sums + ExactSum.of(self._rows[:, : block.full], axis=1)

    def _arranged(self, cube: Array) -> tuple[Array, Floats, int]:
        """Return values to compare, values to sum (float64, may be overwritten), and the axis to reduce.

        A reduction over the first axis of two would run the other way if the second had one entry, so it has two.
        """
        buffer: Any = self._buffer
        if self.layout.last and cube.shape[2] >= _NARROW:
            tile = buffer[: cube.size].reshape(cube.shape)
            np.copyto(tile, cube)
            return cube, tile, 1
        turned = cube.transpose(0, 2, 1) if self.layout.last else cube
        samples, channels, values = turned.shape
        if values >= _SHORT:
            tile = buffer[: cube.size].reshape(turned.shape)
            np.copyto(tile, turned)
            return (turned if not self.layout.last or self._wide else tile), tile, 2
        upright = turned.transpose(2, 0, 1)
        rows = samples * channels
        tile = buffer[: values * max(rows, 2)].reshape(values, -1)
        np.copyto(tile[:, :rows].reshape(upright.shape), upright)
        tile[:, rows:] = 0
        return (upright if self._wide else tile), tile, 0

    def _count_small(self, values: Array, axis: int, source: Array, suspects: int, samples: int, at: slice) -> None:
        """Count zeros and subnormals a channel."""
        channels = at.stop - at.start
        zeros = np.add.reduce(_grid(_count(values == 0, axis), samples, channels), axis=0)
        self._tallies[ZERO, at] += zeros
        if (self._single and int(zeros.sum()) == suspects) or not self._kind.tiny:
            return
        small = np.abs(values) < self._kind.tiny
        small &= values != 0
        self._tallies[SUBNORMAL, at] += _grid(_count(small, axis), samples, channels).sum(axis=0)
        if self._single and self._kind.tiny <= _LEAST_SINGLE:
            hidden = np.abs(source) < _LEAST_SINGLE
            hidden &= source != 0
            self._bins = self._bins.merge(LogBins.of(source[hidden].astype(np.float64)))

    def _careful(self, sums: Floats, squares: Floats, low: Array, high: Array, count: int) -> npt.NDArray[np.bool_]:
        """Return which rows hold NaN or Inf, or have sums that cancel, overflow or vanish."""
        if count == 1:
            return np.asarray(~(sums - sums.astype(np.float32) == 0))  # the square of a float32 is exact
        about_mean = squares - sums * sums / count
        careful = ~(about_mean >= squares * _CANCELLED)
        if not self._single:
            careful |= (squares < _SAFE[0] ** 2) & ((low != 0) | (high != 0))
            careful |= squares > _SAFE[1] ** 2
        return careful

    def _add_carefully(
        self, cube: Array, where: tuple[npt.NDArray[np.intp], ...], low: Array, high: Array, channel: int
    ) -> None:
        """Add rows whose plain sums would not do; ``low`` and ``high`` are set to those of their finite values."""
        for start in range(0, len(where[0]), _GROUP):
            samples, channels = (index[start : start + _GROUP] for index in where)
            picked = cube[samples, :, channels] if self.layout.last else cube[samples, channels]
            rows = picked.astype(np.float64)
            finite = np.isfinite(rows)
            counts = np.full(len(rows), float(rows.shape[1]))
            mask = None
            if not finite.all():
                for kind, found in ((NAN, np.isnan(rows)), (INF, rows == np.inf), (NEGATIVE_INF, rows == -np.inf)):
                    np.add.at(self._tallies[kind], channel + channels, found.sum(axis=1))
                low[samples, channels] = np.where(finite, rows, np.inf).min(axis=1)
                high[samples, channels] = np.where(finite, rows, -np.inf).max(axis=1)
                rows[~finite] = 0
                mask, counts = finite, finite.sum(axis=1).astype(np.float64)
            lows, highs = (np.asarray(ends[samples, channels], np.float64) for ends in (low, high))
            self._add_terms(rows, mask, counts, lows, highs, channel + channels)

    def _add_terms(
        self, rows: Floats, mask: Array | None, counts: Floats, low: Floats, high: Floats, channels: Array
    ) -> None:
        """Add rows about their means, those that are huge or tiny moved to where float64 has room."""
        peak = np.where(counts > 0, np.maximum(np.abs(low), np.abs(high)), 0.0)
        for places, chosen in (
            (0, (peak >= _SAFE[0]) & (peak <= _SAFE[1])),
            (_PLACES, peak > _SAFE[1]),
            (-_PLACES, (peak < _SAFE[0]) & (peak > 0)),
        ):
            if not chosen.any():
                continue
            pick: Any = slice(None) if chosen.all() else chosen
            scale = 2.0 ** (-44 * places)
            part, count, bottom, top = rows[pick] * scale, counts[pick], low[pick] * scale, high[pick] * scale
            mean = np.clip(part.sum(axis=1) / count, bottom, top)
            terms = power_terms(part, mean, count, None if mask is None else mask[pick])
            for power, found in enumerate(terms):
                total = ExactSum.of(found, axis=0).shifted(places * (power + 1))
                self._sums = self._sums + total.placed(self._sums.limbs.shape[1:], (power, channels[pick]))

    def _add_bins(self, source: Array) -> None:
        self._bins = self._bins.merge(LogBins.of(_countable(source)))

    def _add_channel_bins(self, bins: list[LogBins], cube: Array, channel: int) -> None:
        channels = cube.shape[2 if self.layout.last else 1]
        for index in range(channels):
            values = cube[:, :, index] if self.layout.last else cube[:, index]
            bins[channel + index] = bins[channel + index].merge(LogBins.of(_countable(values.reshape(-1))))


def _countable(values: Array) -> Floats:
    """Return the finite values that are not zero."""
    floats = to_float(values, np.float64)
    good = np.isfinite(floats)
    good &= floats != 0
    found: Floats = np.ascontiguousarray(floats if good.all() else floats[good])
    return found


def _grid(found: Array, samples: int, channels: int) -> Array:
    """Return what was found of each row as ``(samples, channels)``."""
    return found.reshape(-1)[: samples * channels].reshape(samples, channels)


def _count(mask: npt.NDArray[np.bool_], axis: int) -> Counts:
    """Count along an axis: of few values along the first, of any number along the second or third of three."""
    if axis == 2:
        bits = np.bitwise_count(np.packbits(mask, axis=2))
        found: Counts = np.add.reduce(bits, axis=2, dtype=np.int64)
        return found
    small = mask.view(np.uint8)
    if axis == 0:
        return np.asarray(np.add.reduce(small, axis=0, dtype=np.uint8), np.int64)
    total = np.zeros((len(small), small.shape[2]), np.int64)
    for start in range(0, small.shape[1], 255):
        total += np.add.reduce(small[:, start : start + 255], axis=1, dtype=np.uint8)
    return total
