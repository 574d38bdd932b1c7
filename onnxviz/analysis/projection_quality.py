"""How far a map in the plane can be trusted: which neighbours it keeps, and which it makes up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["knn_preservation", "neighbor_order", "neighbor_ranks", "outliers", "same_class", "trustworthiness"]

Doubles = npt.NDArray[np.float64]
Order = npt.NDArray[np.intp]


def neighbor_order(squared: Doubles) -> Order:
    """Return the other points from near to far for each point, ``(n, n - 1)``; ties in index order.

    Args:
        squared: ``(n, n)`` squared distances.

    >>> neighbor_order(np.array([[0.0, 4.0, 1.0], [4.0, 0.0, 1.0], [1.0, 1.0, 0.0]])).tolist()
    [[2, 1], [2, 0], [0, 1]]
    """
    apart = squared.copy()
    np.fill_diagonal(apart, -1.0)  # itself comes first, also before duplicates
    return np.argsort(apart, axis=1, kind="stable")[:, 1:]


def neighbor_ranks(order: Order) -> Order:
    """Return the place of point j among the neighbours of point i, from 1, as ``(n, n)``; 0 on the diagonal."""
    n = len(order)
    ranks = np.zeros((n, n), np.intp)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(1, n), order.shape), axis=1)
    return ranks


def trustworthiness(ranks: Order, drawn: Order, k: int) -> float:
    """Return the trustworthiness of a map: 1 where no point is drawn near that is far in truth.

    ``1 - 2 / (n k (2n - 3k - 1)) · Σ_i Σ_{j drawn among the k nearest of i} max(0, r(i, j) - k)``
    (Venna and Kaski 2001, ICANN, equation 1).

    Args:
        ranks: True ranks, as :func:`neighbor_ranks` gives them.
        drawn: Neighbours in the map, as :func:`neighbor_order` gives them.
        k: Neighbours looked at; below n / 2.

    >>> order = neighbor_order(np.array([[0.0, 1, 16], [1, 0, 9], [16, 9, 0]]))
    >>> trustworthiness(neighbor_ranks(order), order, 1)
    1.0
    """
    n = len(ranks)
    near = np.take_along_axis(ranks, drawn[:, :k], axis=1)
    return 1.0 - 2.0 / (n * k * (2 * n - 3 * k - 1)) * float(np.maximum(near - k, 0).sum())


def knn_preservation(ranks: Order, drawn: Order, k: int) -> float:
    """Return the share of the k true nearest neighbours that are among the k nearest in the map, over all points."""
    near = np.take_along_axis(ranks, drawn[:, :k], axis=1)
    return float((near <= k).mean())


def same_class(order: Order, labels: Sequence[str | None], k: int) -> float | None:
    """Return the share of the k nearest neighbours that have a point's own class; None where none has a class.

    Points without a class are not asked and do not count as neighbours of a class.
    """
    codes = _codes(labels)
    near = codes[order[:, :k]]
    asked = codes >= 0
    told = near[asked] >= 0
    return float((near[asked] == codes[asked, None])[told].mean()) if told.any() else None


def outliers(order: Order, labels: Sequence[str | None], k: int) -> npt.NDArray[np.intp]:
    """Return the points none of whose k nearest neighbours has their class, though all k have one.

    >>> order = neighbor_order(np.subtract.outer(np.array([0, 1, 2, 9.0]), np.array([0, 1, 2, 9.0])) ** 2)
    >>> outliers(order, ["a", "a", "b", "b"], 2).tolist()
    [2]
    """
    codes = _codes(labels)
    near = codes[order[:, :k]]
    return np.flatnonzero((codes >= 0) & (near >= 0).all(axis=1) & (near != codes[:, None]).all(axis=1))


def _codes(labels: Sequence[str | None]) -> npt.NDArray[np.intp]:
    place = {label: i for i, label in enumerate(sorted({label for label in labels if label is not None}))}
    return np.array([-1 if label is None else place[label] for label in labels], np.intp)
