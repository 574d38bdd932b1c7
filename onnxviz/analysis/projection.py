"""Projections: points of many numbers placed in a plane, with what the picture keeps and what it loses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onnxviz.analysis import projection_maps
from onnxviz.analysis.clusters import Clusters, adjusted_rand, find_clusters, silhouette
from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.projection_pca import Pca, gram, pca, squared_distances
from onnxviz.analysis.projection_points import Points
from onnxviz.analysis.projection_quality import (
    knn_preservation,
    neighbor_order,
    neighbor_ranks,
    outliers,
    same_class,
    trustworthiness,
)
from onnxviz.analysis.sample_labels import label_order
from onnxviz.errors import InputError, MissingDependencyError, SelectionError

__all__ = ["ClassAgreement", "Map", "Method", "Projection", "project_points", "projection_data"]

Method = Literal["pca", "tsne", "umap"]
Doubles = npt.NDArray[np.float64]
_COMPONENTS = 50


@dataclass(frozen=True, eq=False)
class Map:
    """Points in a plane.

    Attributes:
        method: ``"PCA"``, ``"t-SNE"`` or ``"UMAP"``.
        settings: Such as ``"perplexity 30"``; empty for PCA.
        points: ``(n, 2)`` float64.
        trustworthiness: Over the k nearest neighbours, against all columns of the data; None where n is too small.
        preserved: Share of the k nearest neighbours that the map keeps; None likewise.
    """

    method: str
    settings: str
    points: Doubles
    trustworthiness: float | None
    preserved: float | None


@dataclass(frozen=True, eq=False)
class ClassAgreement:
    """What classes that are known have to do with where the points lie, in all columns of the data.

    Attributes:
        source: What gave the classes.
        labels: The class of each point; None for none.
        silhouette: Of the classes; None for fewer than two.
        same_class: Share of the k nearest neighbours that are of a point's class; None without classes.
        outliers: Samples none of whose k nearest neighbours has their class.
        rand: Adjusted Rand index of classes and clusters, over the points that have both; None without clusters.
    """

    source: str
    labels: tuple[str | None, ...]
    silhouette: float | None
    same_class: float | None
    outliers: npt.NDArray[np.intp]
    rand: float | None

    @property
    def classes(self) -> tuple[tuple[str, int], ...]:
        """The classes and their numbers of points, numbers by value, then names."""
        counts: dict[str, int] = {}
        for label in self.labels:
            if label is not None:
                counts[label] = counts.get(label, 0) + 1
        return tuple(sorted(counts.items(), key=lambda item: label_order(item[0])))


@dataclass(frozen=True, eq=False)
class Projection:
    """Points of a layer in the plane.

    Attributes:
        model_name: Of the model.
        of, layer, op_type, what, numbers, names, total: As :class:`onnxviz.analysis.projection_points.Points` has them.
        columns: Numbers a point.
        pca: The principal components.
        maps: PCA first, then what else was asked for.
        neighbors: Nearest neighbours k that the numbers of quality look at; 0 where there are too few points.
        nearest: ``(n, k)``: the k nearest points of each in all columns, as rows.
        clusters: None where none were asked for or found.
        classes: None where there are none.
        seed: Of all random numbers.
        notes: What was left out or changed, one line each.
        not_drawn: What was asked for and is not here, with the reason.
    """

    model_name: str
    of: str
    layer: str
    op_type: str | None
    what: str
    numbers: npt.NDArray[np.int64]
    names: tuple[str, ...]
    total: int
    columns: int
    pca: Pca
    maps: tuple[Map, ...]
    neighbors: int
    nearest: npt.NDArray[np.intp]
    clusters: Clusters | None
    classes: ClassAgreement | None
    seed: int
    notes: tuple[str, ...]
    not_drawn: tuple[NotDrawn, ...]


def project_points(
    points: Points,
    method: Method = "pca",
    *,
    clusters: str = "none",
    perplexity: Sequence[float] | None = None,
    neighbors: Sequence[int] | None = None,
    seed: int = 0,
    model_name: str = "",
    not_drawn: Sequence[NotDrawn] = (),
) -> Projection:
    """Place points in a plane by PCA, and by t-SNE or UMAP of their first 50 principal components.

    Args:
        points: As :func:`onnxviz.analysis.projection_points.clean_points` leaves them.
        method: ``"pca"``, ``"tsne"`` or ``"umap"``; PCA is always there.
        clusters: As :func:`onnxviz.analysis.clusters.find_clusters` takes it, or ``"none"``.
        perplexity: Of t-SNE, a map each; by default three.
        neighbors: Of UMAP, a map each; by default 15.
        seed: Of all random numbers.
        model_name: Of the model.
        not_drawn: What is missing already.

    Raises:
        SelectionError: There is no such method.

    >>> from onnxviz.analysis.unit_values import UnitValues
    >>> from onnxviz.analysis.projection_points import sample_points
    >>> values = UnitValues("h", (4, 2), "NC", "flat", (np.float32([[1, 2], [3, 4], [5, 6], [7, 9]]),))
    >>> found = project_points(sample_points(values, None, "abcd"))
    >>> found.maps[0].points.shape, round(float(found.pca.ratio[0]), 4)
    ((4, 2), 0.9972)
    """
    if method not in get_args(Method):
        raise SelectionError(f"there is no projection {method!r}", hint=f"choose {', '.join(get_args(Method))}")
    refused = list(not_drawn)
    products = gram(points.matrix)
    components = pca(points.matrix, _COMPONENTS, products)
    order = neighbor_order(squared := squared_distances(products))
    n = len(order)
    k = max(min(10, (n - 1) // 2), 0)
    judge = _Judge(neighbor_ranks(order), k)
    plane = components.scores[:, :2]
    plane = np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    maps = [judge("PCA", "", plane)]
    for name, settings, make in _asked(method, components.scores, perplexity, neighbors, seed):
        try:
            maps.append(judge(name, settings, make()))
        except (InputError, MissingDependencyError) as error:
            refused.append(NotDrawn(f"{name}{', ' + settings if settings else ''}", str(error)))
    found = None
    if clusters != "none":
        try:
            found = find_clusters(components.scores, clusters, seed=seed)
        except (InputError, MissingDependencyError) as error:
            refused.append(NotDrawn("clusters", str(error)))
    return Projection(
        model_name, points.of, points.layer, points.op_type, points.what, points.numbers, points.names, points.total,
        points.matrix.shape[1], components, tuple(maps), k, order[:, :k], found,
        _agreement(points, np.sqrt(squared), order, k, found), seed,
        (*points.notes, *_remarks(points.matrix, components)), tuple(refused),
    )  # fmt: skip


class _Judge:
    """Makes a map of points in the plane: what it keeps of the true neighbours is measured."""

    def __init__(self, ranks: npt.NDArray[np.intp], k: int) -> None:
        self._ranks, self._k = ranks, k

    def __call__(self, method: str, settings: str, points: Doubles) -> Map:
        if not self._k:
            return Map(method, settings, points, None, None)
        drawn = neighbor_order(squared_distances(gram(points)))
        return Map(
            method, settings, points, trustworthiness(self._ranks, drawn, self._k),
            knn_preservation(self._ranks, drawn, self._k),
        )  # fmt: skip


def _asked(
    method: Method, scores: Doubles, perplexity: Sequence[float] | None, neighbors: Sequence[int] | None, seed: int
) -> list[tuple[str, str, Any]]:
    """Return the maps that were asked for beside PCA: name, settings, and what makes it."""
    if method == "tsne":
        given = tuple(perplexity or projection_maps.default_perplexities(len(scores)) or (2.0,))
        return [
            ("t-SNE", f"perplexity {p:g}", lambda p=p: projection_maps.tsne(scores, p, seed))
            for p in dict.fromkeys(given)
        ]
    if method == "umap":
        sizes = tuple(neighbors or (min(15, max(len(scores) - 1, 2)),))
        return [
            ("UMAP", f"{size} neighbours, min_dist 0.1", lambda size=size: projection_maps.umap(scores, size, seed))
            for size in dict.fromkeys(sizes)
        ]
    return []


def _agreement(
    points: Points, distances: Doubles, order: npt.NDArray[np.intp], k: int, clusters: Clusters | None
) -> ClassAgreement | None:
    labels = points.labels
    if labels is None or not any(label is not None for label in labels):
        return None
    names = {label: i for i, label in enumerate(sorted({x for x in labels if x is not None}))}
    codes = np.array([-1 if label is None else names[label] for label in labels], np.int64)
    rand = None
    if clusters is not None and (both := np.flatnonzero((codes >= 0) & (clusters.labels >= 0))).size > 1:
        rand = adjusted_rand([int(c) for c in codes[both]], [int(c) for c in clusters.labels[both]])
    asked = k and len(names) > 1 and points.of == "samples"
    odd = outliers(order, labels, k) if asked else np.zeros(0, np.intp)
    return ClassAgreement(
        points.label_source, labels, silhouette(distances, codes), same_class(order, labels, k) if k else None, odd,
        rand,
    )  # fmt: skip


def _remarks(matrix: npt.NDArray[Any], components: Pca) -> list[str]:
    """Return what a reader should know of the points: duplicates, a line."""
    notes = []
    same = len(matrix) - len({hashlib.blake2b(row.tobytes()).digest() for row in matrix})
    if same:
        notes.append(f"{same:,} of {len(matrix):,} points repeat another exactly")
    if len(components.variances) == 1:
        notes.append("the points lie on a line: the second axis holds nothing")
    return notes


def projection_data(found: Projection) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a projection and a manifest that tells what they are.

    ``numbers`` (n,): which sample, channel, filter or neuron each row is; ``scores`` (n, components) and ``variances``
    of PCA; ``map/0`` … (n, 2), in the manifest's order; ``nearest`` (n, k) rows; ``clusters`` (n,) with -1 for none;
    ``outliers`` rows.
    """
    arrays: dict[str, np.ndarray] = {
        "numbers": found.numbers, "scores": found.pca.scores, "variances": found.pca.variances,
        "nearest": found.nearest.astype(np.int64),
    }  # fmt: skip
    arrays |= {f"map/{i}": one.points for i, one in enumerate(found.maps)}
    manifest: dict[str, Any] = {
        "format": "onnxviz.projection/1", "model": found.model_name, "of": found.of, "layer": found.layer,
        "what": found.what, "points": len(found.numbers), "total": found.total, "columns": found.columns,
        "names": list(found.names), "seed": found.seed, "neighbors": found.neighbors,
        "total_variance": found.pca.total, "notes": list(found.notes),
        "maps": [
            {"number": i, "method": one.method, "settings": one.settings, "trustworthiness": one.trustworthiness,
             "knn_preservation": one.preserved} for i, one in enumerate(found.maps)
        ],
        "not_drawn": [one.to_dict() for one in found.not_drawn],
    }  # fmt: skip
    if found.clusters is not None:
        arrays["clusters"] = found.clusters.labels
        manifest["clusters"] = {
            "method": found.clusters.method, "settings": found.clusters.settings, "count": found.clusters.count,
            "noise": found.clusters.noise, "silhouette": found.clusters.silhouette,
        }  # fmt: skip
    if (classes := found.classes) is not None:
        arrays["outliers"] = classes.outliers.astype(np.int64)
        manifest["classes"] = {
            "source": classes.source, "labels": list(classes.labels), "silhouette": classes.silhouette,
            "same_class": classes.same_class, "adjusted_rand": classes.rand,
            "outliers": [found.names[i] for i in classes.outliers],
        }  # fmt: skip
    return arrays, manifest
