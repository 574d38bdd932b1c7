"""Clusters of points, where scikit-learn is installed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["STRUCTURE", "Clusters", "cluster"]

#: Silhouettes below this say that there is no substantial structure (Kaufman and Rousseeuw 1990, table 2.4).
STRUCTURE = 0.25
_MOST_CLUSTERS = 8
_SCORED = 2000  # points that a silhouette is averaged over


@dataclass(frozen=True, eq=False)
class Clusters:
    """A partition of points.

    Attributes:
        labels: ``(n,)`` int64, the cluster of each; the largest cluster is 0.
        count: Number of clusters.
        silhouette: Mean silhouette, -1 … 1.
        tried: Number of clusters to silhouette, for all that were tried.
    """

    labels: npt.NDArray[np.int64]
    count: int
    silhouette: float
    tried: dict[int, float]

    @property
    def clear(self) -> bool:
        """Whether the silhouette says that the clusters are more than a partition of one cloud."""
        return self.silhouette >= STRUCTURE


def cluster(
    points: npt.NDArray[np.float64], *, most: int = _MOST_CLUSTERS, seed: int = 0
) -> tuple[Clusters | None, str]:
    """Partition points by k-means; k is the number of clusters, from 2 to ``most``, with the largest mean silhouette.

    The silhouette (Rousseeuw 1987) is over 2000 seeded points where there are more. One thread is used, so that the
    same points give the same partition.

    Args:
        points: ``(n, d)`` finite values.
        most: Most clusters.
        seed: Of the starts of k-means and of the silhouette's points.

    Returns:
        The clusters, or None and the reason: scikit-learn is not installed, or there are too few distinct points.
    """
    distinct = len(np.unique(points, axis=0))
    if distinct < 4:
        return None, f"{distinct} distinct points: too few to cluster"
    try:
        from sklearn.cluster import KMeans
        from sklearn.metrics import silhouette_score
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError:
        return None, "not clustered: pip install 'onnxviz[projection]' (scikit-learn)"
    labels: dict[int, npt.NDArray[np.int64]] = {}
    tried: dict[int, float] = {}
    points = points / float(np.abs(points).max())
    rng = np.random.default_rng(seed)
    some = np.arange(len(points)) if len(points) <= _SCORED else rng.choice(len(points), _SCORED, replace=False)
    with threadpool_limits(1):
        for k in range(2, min(most, distinct - 1) + 1):
            labels[k] = KMeans(k, n_init=4, random_state=seed).fit_predict(points).astype(np.int64)
            tried[k] = -1.0
            if len(np.unique(labels[k][some])) > 1:
                tried[k] = float(silhouette_score(points[some], labels[k][some]))
    best = max(tried, key=lambda k: (tried[k], -k))
    sizes = np.bincount(labels[best], minlength=best)
    order = np.argsort(-sizes, kind="stable")
    rank = np.empty(best, np.int64)
    rank[order] = np.arange(best)
    return Clusters(rank[labels[best]], best, tried[best], tried), ""
