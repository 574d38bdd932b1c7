"""Whether two sets of scores name the same classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["TopAgreement", "row_agreement", "top_agreement"]

Array = npt.NDArray[Any]
_PART = 1 << 18  # elements that are looked at together


@dataclass(frozen=True)
class TopAgreement:
    """How far the best classes of two answers agree.

    Attributes:
        samples: Rows that were compared.
        first: Those whose best class is the same.
        k: How many of the best classes ``overlap`` looks at.
        overlap: Sum over the rows of the share of the k best classes that both have.
    """

    samples: int
    first: int
    k: int
    overlap: float

    def merge(self, other: TopAgreement, /) -> TopAgreement:
        """Return the agreement over both sets of samples."""
        return TopAgreement(
            self.samples + other.samples, self.first + other.first, self.k, self.overlap + other.overlap
        )

    @property
    def top1(self) -> float:
        """Share of samples whose best class is the same."""
        return self.first / self.samples

    @property
    def topk(self) -> float:
        """Mean share of the k best classes that both have."""
        return self.overlap / self.samples


def top_agreement(expected: Array, found: Array, k: int = 5) -> TopAgreement | None:
    """Compare the best classes of two outputs; None where they have not the form of a classifier's scores.

    The form is ``(N, C)`` or ``(N, C, 1, 1)`` of a floating type with C ≥ 2. Whether such numbers mean classes
    cannot be told from them.

    Args:
        expected, found: The scores.
        k: How many of the best; at most half of the classes are looked at.

    >>> answer = top_agreement(np.float32([[1, 3, 2], [5, 4, 1]]), np.float32([[1, 2, 3], [5, 3, 1]]))
    >>> answer.top1
    0.5
    """
    if expected.shape != found.shape or expected.dtype.kind != "f" or found.dtype.kind != "f" or expected.ndim < 2:
        return None
    rows, classes = expected.shape[:2]
    if not rows or classes < 2 or expected.size != rows * classes:
        return None
    return row_agreement(expected, found, max(1, min(k, classes // 2)))


def row_agreement(expected: Array, found: Array, k: int) -> TopAgreement:
    """Compare the largest elements of each row, all axes but the first being one.

    Of equal elements the first counts. NaN is the least; a row agrees in nothing with one that has it elsewhere.

    Args:
        expected, found: ``(N, …)``, numbers, of one shape, and not empty.
        k: How many of the largest.

    >>> row_agreement(np.float32([[1, 3, 2]]), np.float32([[3, 1, 2]]), 2)
    TopAgreement(samples=1, first=0, k=2, overlap=0.5)
    """
    rows = expected.shape[0]
    classes = expected.size // rows
    at_once = max(1, _PART // classes)
    first, overlap = 0, 0
    for start in range(0, rows, at_once):
        one, other = (
            np.asarray(array[start : start + at_once], np.float64).reshape(-1, classes) for array in (expected, found)
        )
        odd, odd_there = np.isnan(one), np.isnan(other)
        same = (odd == odd_there).all(axis=1)
        one, other = np.where(odd, -np.inf, one)[same], np.where(odd_there, -np.inf, other)[same]
        first += int((one.argmax(axis=1) == other.argmax(axis=1)).sum())
        overlap += int((_largest(one, k) & _largest(other, k)).sum())
    return TopAgreement(rows, first, k, overlap / k)


def _largest(rows: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.bool_]:
    """Return where the k largest elements of each row are; of equal ones, those that come first."""
    least = np.partition(rows, -k, axis=1)[:, -k, None]
    above, level = rows > least, rows == least
    room = k - above.sum(axis=1, keepdims=True)
    return np.asarray(above | (level & (level.cumsum(axis=1) <= room)))
