"""Principal components, exact whatever the number of columns, and the distances between rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Pca", "gram", "pca", "squared_distances"]

Doubles = npt.NDArray[np.float64]
_BLOCK = 1 << 24  # values that are made float64 at a time


@dataclass(frozen=True, eq=False)
class Pca:
    """Principal components of the rows of a matrix.

    Attributes:
        scores: ``(n, k)`` float64: each row on the leading components.
        variances: ``(r,)`` float64: the variance along every component that has any, falling; divisor n - 1.
        total: The total variance, summed over the columns.
        columns: Number of columns.
    """

    scores: Doubles
    variances: Doubles
    total: float
    columns: int

    @property
    def ratio(self) -> Doubles:
        """Share of the total variance along each component, ``(r,)``."""
        return self.variances / self.total

    def needed(self, share: float) -> int:
        """Return how many components hold a share of the total variance."""
        return min(int(np.searchsorted(np.cumsum(self.ratio), share - 1e-12)) + 1, len(self.variances))


def gram(matrix: npt.NDArray[Any]) -> Doubles:
    """Return the products of all rows of ``(n, d)`` with one another, the mean row taken off, as ``(n, n)`` float64.

    >>> gram(np.array([[0.0, 0.0], [2.0, 0.0]])).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    n, d = matrix.shape
    step = max(_BLOCK // max(n, 1), 1)
    made = np.zeros((n, n))
    for start in range(0, d, step):
        block = matrix[:, start : start + step].astype(np.float64)
        block -= block.mean(axis=0)
        made += block @ block.T
    return made


def squared_distances(products: Doubles) -> Doubles:
    """Return the squared Euclidean distances between rows, ``(n, n)``, from what :func:`gram` gives."""
    lengths = np.diag(products)
    squared = lengths[:, None] + lengths[None, :] - 2 * products
    np.fill_diagonal(squared, 0.0)
    return np.asarray(np.maximum(squared, 0.0))


def pca(matrix: npt.NDArray[Any], components: int = 50, products: Doubles | None = None) -> Pca:
    """Return principal components without scaling the columns.

    The smaller of the ``n × n`` matrix of products and the ``d × d`` covariance is decomposed, so a layer of a million
    units costs n² (Jolliffe, Principal Component Analysis, 2002, section 3.5). The sign of a component is that which
    makes the largest score positive.

    Args:
        matrix: ``(n, d)``, finite, with n of at least 2.
        components: Most components whose scores are returned; variances are those of all.
        products: What :func:`gram` gives of it, where that is known.

    >>> found = pca(np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [2.0, 1.0]]))
    >>> round(found.total, 4), [round(float(r), 3) for r in found.ratio]
    (2.9167, [0.914, 0.086])
    """
    n, d = matrix.shape
    products = gram(matrix) if products is None else products
    if d < n:
        centred = matrix.astype(np.float64)
        centred -= centred.mean(axis=0)
        values, vectors = np.linalg.eigh(centred.T @ centred)
        values, vectors = values[::-1], vectors[:, ::-1]
        kept = _nonzero(values, max(n, d))
        scores = centred @ vectors[:, : min(kept, components)]
    else:
        values, vectors = np.linalg.eigh(products)
        values, vectors = values[::-1], vectors[:, ::-1]
        kept = min(_nonzero(values, max(n, d)), n - 1)
        few = min(kept, components)
        scores = vectors[:, :few] * np.sqrt(values[:few])
    largest = scores[np.argmax(np.abs(scores), axis=0), np.arange(scores.shape[1])]
    scores = scores * np.where(largest < 0, -1.0, 1.0)
    return Pca(scores, values[:kept] / (n - 1), float(np.trace(products)) / (n - 1), d)


def _nonzero(values: Doubles, size: int) -> int:
    """Return how many of the falling eigenvalues are more than rounding."""
    limit = values[0] * max(size, 10) * np.finfo(np.float64).eps
    return max(int(np.count_nonzero(values > limit)), 1)
