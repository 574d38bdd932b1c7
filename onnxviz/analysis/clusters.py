"""Clusters of points, how well they are apart, and how far two partitions agree."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.projection_pca import gram, squared_distances
from onnxviz.analysis.threads import one_thread
from onnxviz.errors import InputError, MissingDependencyError, SelectionError

__all__ = ["STRUCTURE", "Clusters", "adjusted_rand", "find_clusters", "silhouette"]

Doubles = npt.NDArray[np.float64]
#: Silhouettes below this say that there is no substantial structure (Kaufman and Rousseeuw 1990, table 2.4).
STRUCTURE = 0.25
_MOST = 10  # clusters that are tried
_SCORED = 2000  # points that a silhouette is the mean over: it takes all their distances


@dataclass(frozen=True, eq=False)
class Clusters:
    """A partition of points.

    Attributes:
        method: ``"k-means"`` or ``"HDBSCAN"``.
        labels: ``(n,)`` int64: the cluster of each point, the largest cluster first; -1 for none.
        count: Number of clusters.
        settings: How they were found, in words.
        silhouette: Mean over the points that are in a cluster; None where there are fewer than two clusters.
        tried: Number of clusters to silhouette, for each number that was tried; empty for HDBSCAN.
    """

    method: str
    labels: npt.NDArray[np.int64]
    count: int
    settings: str
    silhouette: float | None
    tried: dict[int, float] = field(default_factory=dict)

    @property
    def clear(self) -> bool:
        """Whether the silhouette says that the clusters are more than a partition of one cloud."""
        return self.silhouette is not None and self.silhouette >= STRUCTURE

    @property
    def noise(self) -> int:
        """Number of points in no cluster."""
        return int((self.labels < 0).sum())


def find_clusters(scores: Doubles, method: str = "kmeans", *, seed: int = 0) -> Clusters:
    """Cluster points by their principal components, never by a map in the plane.

    Silhouettes are over 2000 seeded points where there are more.

    Args:
        scores: ``(n, k)``.
        method: ``"kmeans"``: the number of clusters from 2 to 10 with the highest mean silhouette (Rousseeuw 1987);
            ``"kmeans:K"``: K clusters; ``"hdbscan"`` (Campello et al. 2013): as many as are dense, the rest in none.
        seed: Of the starts of k-means, and of the points of the silhouette.

    Raises:
        SelectionError: There is no such method.
        InputError: There are too few different points.
        MissingDependencyError: scikit-learn is not installed.
    """
    name, _, given = method.partition(":")
    if name not in ("kmeans", "hdbscan") or (given and (name == "hdbscan" or not given.isdigit())):
        raise SelectionError(f"there is no clustering {method!r}", hint="choose kmeans, kmeans:K, hdbscan or none")
    different = len(np.unique(scores, axis=0))
    if different < 4:
        raise InputError(f"clusters need at least 4 different points, and there are {different}")
    rate = _Silhouettes(scores, seed)
    if name == "hdbscan":
        return _hdbscan(scores, rate)
    if given and not 2 <= int(given) < different:
        raise InputError(f"{given} clusters do not fit {different} different points", hint=f"give 2 to {different - 1}")
    tried = [int(given)] if given else list(range(2, min(_MOST, different - 1) + 1))
    found = [_kmeans(scores, k, seed) for k in tried]
    full = [len(np.unique(labels)) == k for k, labels in zip(tried, found, strict=True)]
    if not any(full):
        raise InputError("the points differ by rounding alone: too few to cluster")
    tried = [k for k, made in zip(tried, full, strict=True) if made]  # what differs by rounding is one to k-means
    found = [labels for labels, made in zip(found, full, strict=True) if made]
    rated = [rate(labels) for labels in found]
    best = int(np.argmax([-1.0 if r is None else r for r in rated]))
    settings = f"k = {tried[best]} was given" if given else f"the best silhouette of k = 2 … {tried[-1]}"
    labels = _by_size(found[best])
    scored = {k: -1.0 if r is None else r for k, r in zip(tried, rated, strict=True)}
    return Clusters("k-means", labels, int(labels.max()) + 1, settings, rated[best], scored)


class _Silhouettes:
    """The mean silhouette of partitions of the same points."""

    def __init__(self, scores: Doubles, seed: int) -> None:
        count = len(scores)
        draw = np.random.default_rng(seed)
        self._some = np.arange(count) if count <= _SCORED else draw.choice(count, _SCORED, replace=False)
        self._distances = np.sqrt(squared_distances(gram(scores[self._some])))

    def __call__(self, labels: npt.NDArray[np.int64]) -> float | None:
        return silhouette(self._distances, labels[self._some])


def _kmeans(scores: Doubles, k: int, seed: int) -> npt.NDArray[np.int64]:
    try:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
    except ModuleNotFoundError as error:
        raise MissingDependencyError("k-means needs scikit-learn", hint="pip install 'onnxviz[projection]'") from error
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer clusters than asked for, which is looked at
        return np.asarray(KMeans(k, n_init=5, random_state=seed).fit(scores).labels_, np.int64)


def _hdbscan(scores: Doubles, rate: _Silhouettes) -> Clusters:
    try:
        from sklearn.cluster import HDBSCAN
    except ImportError as error:
        raise MissingDependencyError(
            "HDBSCAN needs scikit-learn 1.3", hint="pip install 'onnxviz[projection]'"
        ) from error
    smallest = min(max(5, round(len(scores) / 40)), len(scores))
    with one_thread():
        made = np.asarray(HDBSCAN(min_cluster_size=smallest, copy=True).fit(scores).labels_, np.int64)
    labels = _by_size(made)
    return Clusters("HDBSCAN", labels, int(labels.max()) + 1, f"at least {smallest} points each", rate(labels))


def _by_size(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number clusters from the largest on; of equal ones the one whose first point comes first."""
    names, first, counts = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    order = names[np.lexsort((first, -counts))]
    place = {int(name): i for i, name in enumerate(order)}
    return np.array([place.get(int(label), -1) for label in labels], np.int64)


def silhouette(distances: Doubles, labels: npt.NDArray[np.integer]) -> float | None:
    """Return the mean silhouette of the points in clusters: (b - a) / max(a, b), 0 for a cluster of one point.

    a is the mean distance to the others of its cluster, b that to the nearest other cluster (Rousseeuw 1987).

    Args:
        distances: ``(n, n)``.
        labels: ``(n,)``; -1 for no cluster.

    Returns:
        From -1 to 1; None for fewer than two clusters, or where every point is its own.

    >>> apart = np.abs(np.subtract.outer([0.0, 1.0, 10.0, 11.0], [0.0, 1.0, 10.0, 11.0]))
    >>> round(silhouette(apart, np.array([0, 0, 1, 1])), 3)
    0.9
    """
    inside = np.flatnonzero(labels >= 0)
    names, codes = np.unique(labels[inside], return_inverse=True)
    if len(names) < 2 or len(names) == len(inside):
        return None
    member = np.zeros((len(inside), len(names)))
    member[np.arange(len(inside)), codes] = 1.0
    counts = member.sum(axis=0)
    sums = distances[np.ix_(inside, inside)] @ member
    rows = np.arange(len(inside))
    own = sums[rows, codes] / np.maximum(counts[codes] - 1, 1)
    others = sums / counts
    others[rows, codes] = np.inf
    nearest = others.min(axis=1)
    larger = np.maximum(own, nearest)
    score = np.where((counts[codes] > 1) & (larger > 0), (nearest - own) / np.where(larger > 0, larger, 1.0), 0.0)
    return float(score.mean())


def adjusted_rand(first: Sequence[object], second: Sequence[object]) -> float:
    """Return the adjusted Rand index of two partitions: 1 where they are the same, about 0 for chance.

    Hubert and Arabie 1985 (Journal of Classification 2), equation 5.

    >>> adjusted_rand(["a", "a", "b", "b"], [1, 1, 0, 0]), round(adjusted_rand([0, 0, 1, 1], [0, 1, 0, 1]), 6)
    (1.0, -0.5)
    """
    rows = np.unique(np.array([str(x) for x in first]), return_inverse=True)[1]
    columns = np.unique(np.array([str(x) for x in second]), return_inverse=True)[1]
    table = np.zeros((rows.max() + 1, columns.max() + 1), np.int64)
    np.add.at(table, (rows, columns), 1)
    together = sum(comb(int(c), 2) for c in table.ravel())
    left, right = (sum(comb(int(c), 2) for c in table.sum(axis=axis)) for axis in (1, 0))
    pairs = comb(len(rows), 2)
    expected = left * right / pairs if pairs else 0.0
    largest = (left + right) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)
