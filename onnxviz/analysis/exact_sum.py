"""Sums of float64 without any rounding, so that neither order nor grouping shows in them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["ExactSum"]

_WIDTH = 44  # bits of a limb: 19 bits of an int64 are left for carries, 9 of a float64 for sums
_OFFSET = 22  # limb 0 counts multiples of 2**-22: what activations sum to mostly fits two limbs
_HALF = 1 << (_WIDTH - 1)
_FLOAT_ROWS = 1 << (53 - _WIDTH)  # limbs that a float64 adds up without rounding
_INT_ROWS = 1 << (63 - _WIDTH - 1)  # and an int64
_LARGEST = 2.0**900

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ExactSum:
    """An array of exact sums, as fixed-point numbers of as many 44-bit limbs as they need.

    A float64 is an integer times a power of two, so sums of them are exact on a fixed grid that is fine enough: they
    are then associative and commutative, which rounded sums are not. Limbs are cut off by adding and subtracting
    ``1.5 * 2**(52 + g)``, which rounds to multiples of ``2**g`` without error in the rest.

    Source: the cut: Rump, Ogita, Oishi, "Accurate floating-point summation part I", 2008, algorithm 3.2
    (ExtractVector); limbs on a grid that does not depend on the data: Neal, "Fast exact summation using small and
    large superaccumulators", 2015, section 2.

    Attributes:
        low: Index of the lowest limb: limb ``j`` counts multiples of ``2**(44 * j - 22)``.
        limbs: ``(K, ...)`` int64, the lowest first.
    """

    low: int
    limbs: Ints

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> ExactSum:
        """Return sums of nothing."""
        return cls(0, np.zeros((0, *shape), np.int64))

    @classmethod
    def of(cls, terms: npt.NDArray[np.float64], axis: int) -> ExactSum:
        """Return the exact sums over one axis of finite float64 below 2**900; the terms are used up.

        >>> ExactSum.of(np.array([[1e100], [1.0], [-1e100]]), axis=0).integers()
        ([4194304], -22)
        """
        shape = terms.shape[:axis] + terms.shape[axis + 1 :]
        high, low = np.maximum.reduce(terms, axis=None, initial=0.0), np.minimum.reduce(terms, axis=None, initial=0.0)
        peak = max(float(high), -float(low))
        if peak == 0:
            return cls.zeros(shape)
        if not peak < _LARGEST:
            raise ValueError(f"terms of magnitude {peak} have no exact sum here")
        index = -((_OFFSET - 1 - math.frexp(peak)[1]) // _WIDTH)  # the highest limb stays under 2**43
        limbs, cut = [], np.empty_like(terms)
        while True:
            grid = index * _WIDTH - _OFFSET
            rounder = 1.5 * 2.0 ** (52 + grid)
            np.add(terms, rounder, out=cut)
            cut -= rounder
            terms -= cut
            limbs.append(_summed(cut, axis, -grid))
            if not _some(terms):
                break
            index -= 1
        return cls(index, np.array(limbs[::-1]))

    def __add__(self, other: ExactSum) -> ExactSum:
        if not len(other.limbs):
            return self
        if not len(self.limbs):
            return other
        low = min(self.low, other.low)
        high = max(self.low + len(self.limbs), other.low + len(other.limbs))
        limbs = np.zeros((high - low, *self.limbs.shape[1:]), np.int64)
        for part in (self, other):
            limbs[part.low - low : part.low - low + len(part.limbs)] += part.limbs
        return ExactSum(low, limbs).normalized()

    def normalized(self) -> ExactSum:
        """Return the same sums with every limb in [-2**43, 2**43) and no empty limb at either end: a unique form."""
        limbs = np.concatenate([self.limbs, np.zeros_like(self.limbs[:1])])
        for k in range(len(limbs) - 1):
            carry = limbs[k] + _HALF
            carry >>= _WIDTH
            limbs[k + 1] += carry
            carry <<= _WIDTH
            limbs[k] -= carry
        first, last = 0, len(limbs)
        while last > first and not limbs[last - 1].any():
            last -= 1
        while first < last and not limbs[first].any():
            first += 1
        return ExactSum(self.low + first if last > first else 0, limbs[first:last])

    def shifted(self, places: int) -> ExactSum:
        """Return the sums times ``2**(44 * places)``."""
        return ExactSum(self.low + places, self.limbs)

    def placed(self, shape: tuple[int, ...], where: tuple[Any, ...]) -> ExactSum:
        """Return sums of ``shape`` that hold these at the indices ``where``, added up where an index is repeated."""
        limbs = np.zeros((len(self.limbs), *shape), np.int64)
        np.add.at(limbs, (slice(None), *where), self.limbs)
        return ExactSum(self.low, limbs).normalized()

    def total(self) -> ExactSum:
        """Return the sums over the last axis together, as an axis of one."""
        limbs = self.limbs
        if limbs.shape[-1] > _INT_ROWS:  # a sum of more could pass an int64
            half = limbs.shape[-1] // 2
            return ExactSum(self.low, limbs[..., :half]).total() + ExactSum(self.low, limbs[..., half:]).total()
        return ExactSum(self.low, limbs.sum(axis=-1, keepdims=True)).normalized()

    def integers(self) -> tuple[list[int], int]:
        """Return the sums in C order as integers times ``2**exponent``; equal sums give equal integers."""
        unique = self.normalized()
        flat = unique.limbs.reshape(len(unique.limbs), math.prod(unique.limbs.shape[1:]))
        values = [0] * flat.shape[1]
        for row in flat[::-1].tolist():
            values = [(value << _WIDTH) + limb for value, limb in zip(values, row, strict=True)]
        return values, unique.low * _WIDTH - _OFFSET

    @classmethod
    def from_integers(cls, values: list[int], exponent: int, shape: tuple[int, ...]) -> ExactSum:
        """Return the sums that :meth:`integers` took apart."""
        low, odd = divmod(exponent + _OFFSET, _WIDTH)
        if odd:
            raise ValueError(f"an exponent of {exponent} is not on the grid of exact sums")
        rows = []
        while any(values):
            digits = [((value + _HALF) & ((1 << _WIDTH) - 1)) - _HALF for value in values]
            rows.append(digits)
            values = [(value - digit) >> _WIDTH for value, digit in zip(values, digits, strict=True)]
        return cls(low, np.array(rows, np.int64).reshape(len(rows), *shape)).normalized()


def _some(terms: npt.NDArray[np.float64]) -> bool:
    """Whether any is not zero; of many, the extremes are found faster than the truth of each."""
    if terms.size < 4096:
        return bool(np.logical_or.reduce(terms, axis=None))
    return bool(np.maximum.reduce(terms, axis=None) > 0 or np.minimum.reduce(terms, axis=None) < 0)


def _summed(cut: npt.NDArray[np.float64], axis: int, exponent: int) -> Ints:
    """Return the sums over an axis, times ``2**exponent``, of values that are multiples of ``2**-exponent``."""
    rows, shape = cut.shape[axis], cut.shape[:axis] + cut.shape[axis + 1 :]
    if rows == 1:
        sums = cut.reshape(shape)
    elif rows <= _FLOAT_ROWS:
        sums = np.add.reduce(cut, axis=axis)
    else:
        if math.prod(shape[axis:]) == 1:
            cut = cut.reshape(cut.shape[: axis + 1])  # one contiguous run to add up instead of many of one value
        sums = np.add.reduceat(cut, np.arange(0, rows, _FLOAT_ROWS), axis=axis)
    if exponent < 1000:
        sums *= 2.0**exponent
    else:
        sums = np.ldexp(sums, exponent)
    limbs: Ints = sums.astype(np.int64)
    return limbs if rows <= _FLOAT_ROWS else np.add.reduce(limbs, axis=axis).reshape(shape)
