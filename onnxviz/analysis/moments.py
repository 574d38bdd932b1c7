"""Mean, standard deviation and norm of exact sums, each rounded once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxviz.analysis.exact_sum import ExactSum

__all__ = ["Moments"]


@dataclass(frozen=True)
class Moments:
    """Exact power sums of a set of values.

    Attributes:
        count: Number of values.
        total: Their sum, as a multiple of ``2**exponent``.
        squares: The sum of their squares, as a multiple of ``2**exponent``.
        exponent: 0 or less.
    """

    count: int
    total: int
    squares: int
    exponent: int

    @classmethod
    def of(cls, count: int, sums: ExactSum) -> Moments:
        """Return the moments that ``(2, C)`` exact sums give together."""
        return cls.each([count], sums.total())[0]

    @classmethod
    def each(cls, counts: Sequence[int], sums: ExactSum) -> list[Moments]:
        """Return the moments of each of C sets of values, from their sizes and ``(2, C)`` exact sums."""
        values, exponent = sums.integers()
        if exponent > 0:
            values, exponent = [value << exponent for value in values], 0
        rows = zip(counts, values[: len(counts)], values[len(counts) :], strict=True)
        return [cls(count, total, squares, exponent) for count, total, squares in rows]

    @property
    def mean(self) -> float | None:
        """``Σx / n``; None without values."""
        return _ratio(self.total, self.count, self.exponent) if self.count else None

    @property
    def std(self) -> float | None:
        """``sqrt(Σx²/n - (Σx/n)²)``, which loses nothing as the sums are exact; None where it passes float64.

        >>> Moments(2, 10**30 * 2 + 2, 10**60 + (10**30 + 2) ** 2, 0).std
        1.0
        """
        spread = self.count * (self.squares << -self.exponent) - self.total**2
        return _root(spread, self.count**2, 2 * self.exponent) if self.count else None

    @property
    def l2(self) -> float | None:
        """``sqrt(Σx²)``; None without values, or where it passes float64."""
        return _root(self.squares, 1, self.exponent) if self.count else None


def _ratio(numerator: int, denominator: int, exponent: int) -> float | None:
    """Return ``numerator / denominator * 2**exponent``, rounded once; None where it passes float64."""
    try:
        if exponent < 0:
            return numerator / (denominator << -exponent)
        return (numerator << exponent) / denominator
    except OverflowError:
        return None


def _root(numerator: int, denominator: int, exponent: int) -> float | None:
    """Return the square root of ``numerator / denominator * 2**exponent``."""
    if numerator <= 0:
        return 0.0
    places = max(0, 160 + denominator.bit_length() - numerator.bit_length())
    places += (exponent - places) % 2
    return _ratio(math.isqrt((numerator << places) // denominator), 1, (exponent - places) // 2)
