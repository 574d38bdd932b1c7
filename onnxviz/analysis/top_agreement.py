"""Whether two sets of scores name the same classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["TopAgreement", "top_agreement"]

Array = npt.NDArray[Any]


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

    The form is ``(N, C)`` or ``(N, C, 1, 1)`` of a floating type with C ≥ 2. A row with a NaN agrees with none. Whether
    such numbers mean classes cannot be told from them.

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
    one, other = (array.reshape(rows, classes).astype(np.float64) for array in (expected, found))
    most = max(1, min(k, classes // 2))
    first, overlap = 0, 0.0
    for here, there in zip(one, other, strict=True):
        if np.isnan(here).any() or np.isnan(there).any():
            continue
        best, best_there = (np.argsort(-row, kind="stable")[:most] for row in (here, there))
        first += int(best[0] == best_there[0])
        overlap += len(set(best.tolist()) & set(best_there.tolist())) / most
    return TopAgreement(rows, first, most, overlap)
