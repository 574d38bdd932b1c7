"""Sums of rows and of their squares as terms that keep what one float64 would lose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["power_terms"]

Floats = npt.NDArray[np.float64]


def power_terms(
    rows: Floats, pivots: Floats, counts: Floats, finite: npt.NDArray[np.bool_] | None = None
) -> tuple[Floats, Floats]:
    """Return terms whose exact sums are the sum of each row, and the sum of its squares.

    With a pivot ``p`` near the mean of the ``n`` values, ``d = Σ(x - p)`` and ``e = Σ(x - p)²``:
    ``Σx = n p + d`` and ``Σx² = n p² + 2 p d + e``. ``p`` and ``d`` are split into parts of few bits
    so that all products are exact. So the variance ``Σx² - (Σx)²/n`` of exact sums keeps the digits of ``e``, however
    far the mean is from zero.

    Source: the split: Dekker, "A floating-point technique for extending the available precision", 1971, section 5.

    Args:
        rows: ``(R, n)`` float64, finite, the largest magnitude between 2**-300 and 2**400, n at most 65,536; used up.
        pivots: ``(R,)``.
        counts: ``(R,)`` number of values that count in each row.
        finite: ``(R, n)`` which values count; None for all.

    Returns:
        ``(4, R)`` and ``(13, R)`` terms.

    >>> sums, squares = power_terms(np.array([[1e8, 1e8 + 2]]), np.array([1e8 + 1]), np.array([2.0]))
    >>> float(sums.sum()), int(sum(map(int, squares[:, 0]))) == 10**16 + (10**8 + 2) ** 2
    (200000002.0, True)
    """
    rows -= pivots[:, None]
    if finite is not None:
        rows *= finite
    rest = rows.sum(axis=1)
    rows *= rows
    a, low = _split(pivots, 35)
    b, c = _split(low, 35)
    head, tail = _split(rest, 27)
    na, nb, nc = counts * a, counts * b, counts * c
    sums = np.stack([na, nb, nc, rest])
    squares = np.stack(
        [
            rows.sum(axis=1), na * a, 2 * na * b, nb * b, 2 * na * c, 2 * nb * c, nc * c,
            *(2 * part * digit for part in (a, b, c) for digit in (head, tail)),
        ]
    )  # fmt: skip
    return sums, squares


def _split(values: Floats, bits: int) -> tuple[Floats, Floats]:
    """Cut values into a part without the last ``bits`` of 53 bits, and the rest."""
    scaled = values * (2.0**bits + 1)
    high = scaled - (scaled - values)
    return high, values - high
