"""Filters of a layer: dead, silenced and near-duplicate ones, their principal components and clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.clusters import Clusters, find_clusters
from onnxviz.analysis.weight_forms import WeightName, weight_blocks
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import InputError, MissingDependencyError, ModelError, SelectionError
from onnxviz.graph.constants import constant_tensor

__all__ = ["DEAD", "SIMILAR", "FilterStudy", "PrincipalComponents", "SimilarPairs", "dead_rows", "filter_study",
           "principal_components", "silenced_filters", "similar_pairs"]  # fmt: skip

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: A filter is dead where its L2 norm is at most this share of the layer's largest, and silenced where the gamma of the
#: BatchNormalization behind it is.
DEAD = 1e-3
#: Filters are near-duplicates where the magnitude of their cosine is at least this.
SIMILAR = 0.99
#: Most pairs that are listed; all are counted.
MOST_PAIRS = 10_000
_MOST_WORK = 10**12  # multiplications that a search for pairs may take
_MOST_ROWS = 20_000  # of a block
_BLOCK = 1024
_EXACT_SIDE, _EXACT_ROWS, _SOME = 2048, 20_000, 2048
_CLUSTER_SPACE = 50


@dataclass(frozen=True, eq=False)
class SimilarPairs:
    """Near-duplicates among rows: equal up to sign and scale.

    Attributes:
        pairs: ``(P, 2)`` int64, the smaller index first; the most alike first, at most 10,000.
        cosines: ``(P,)`` their cosine; negative where one is the other turned round.
        count: How many pairs there are.
        members: How many rows are in a pair.
        refused: Why no pairs were looked for; else empty.
    """

    pairs: npt.NDArray[np.int64]
    cosines: Floats
    count: int
    members: int
    refused: str = ""


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """Rows along their directions of largest variance.

    Attributes:
        coordinates: ``(rows, components)`` float64; the sign of a component makes its largest coordinate positive.
        variance: ``(components,)`` share of the whole variance that each explains.
    """

    coordinates: Floats
    variance: Floats


@dataclass(frozen=True, eq=False)
class FilterStudy:
    """The filters of a layer: the rows of its matrices, one an output.

    Attributes:
        name: Which weight.
        count: Filters.
        size: Weights a filter.
        note: What was left out or stands apart.
        norms: ``(count,)`` L2 norm of each filter, float64.
        dead: Indices of filters whose norm is at most :data:`DEAD` of the largest.
        silenced: Indices of filters whose channel the BatchNormalization behind sets to a constant (its \\|gamma\\| at
            most :data:`DEAD` of its largest); None where no BatchNormalization reads the layer alone.
        similar: Near-duplicates among filters that read the same inputs and are not dead.
        shown: ``(n,)`` indices of the filters that are projected: all finite ones, or an even spread of 2048.
        components: Their projection; its second column is 0 for filters on a line.
        clusters: Their clusters, or None.
        not_clustered: Why there are none; else empty.
    """

    name: WeightName
    count: int
    size: int
    note: str
    norms: Floats
    dead: npt.NDArray[np.int64]
    silenced: npt.NDArray[np.int64] | None
    similar: SimilarPairs
    shown: npt.NDArray[np.int64]
    components: PrincipalComponents
    clusters: Clusters | None
    not_clustered: str

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers that are no arrays as plain JSON types."""
        clusters = self.clusters
        return {
            **self.name.to_dict(), "filters": self.count, "filter_size": self.size, "note": self.note,
            "dead": len(self.dead), "silenced": None if self.silenced is None else len(self.silenced),
            "similar_pairs": None if self.similar.refused else self.similar.count,
            "similar_refused": self.similar.refused,
            "clusters": None if clusters is None else clusters.count,
            "silhouette": None if clusters is None else clusters.silhouette, "not_clustered": self.not_clustered,
        }  # fmt: skip


def filter_study(lw: LayerWeights, *, seed: int = 0, clustered: bool = True) -> FilterStudy:
    """Study the filters of a layer.

    Args:
        lw: A weight with at least 3 outputs.
        seed: Of the clustering.
        clustered: Look for clusters, which takes most of the time.

    Raises:
        SelectionError: It has no rows and columns, fewer than 3 finite filters, filters of a single weight, or all
            filters are equal.
        ModelError: It cannot be read.
    """
    blocks = weight_blocks(lw)
    rows = blocks.values.reshape(-1, blocks.values.shape[-1])
    count, size = rows.shape
    finite = np.flatnonzero(np.isfinite(rows).all(axis=1))
    if len(finite) < 3:
        raise SelectionError(f"{len(finite)} finite filters: a projection needs 3")
    if size < 2:
        raise SelectionError("its filters are a single weight each: there is nothing to project")
    notes = [blocks.note] if blocks.note else []
    if len(finite) < count:
        notes.append(f"{count - len(finite)} filters with NaN or Inf left out")
    shown = finite
    if len(finite) > _EXACT_ROWS or min(len(finite), size) > _EXACT_SIDE:
        shown = finite[np.linspace(0, len(finite) - 1, min(_SOME, len(finite))).astype(np.int64)]
        if len(shown) < len(finite):
            notes.append(f"an even spread of {len(shown)} filters is projected")
    components = principal_components(rows[shown], min(_CLUSTER_SPACE, size, len(shown)))
    clusters, refused = None, "" if clustered else "not asked for"
    try:
        clusters = find_clusters(components.coordinates, seed=seed) if clustered else None
    except (InputError, MissingDependencyError) as error:
        refused = str(error)
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64, casting="unsafe"))
    dead = dead_rows(norms)
    return FilterStudy(
        WeightName.of(lw), count, size, " · ".join(notes), norms, dead, silenced_filters(lw, count),
        similar_pairs(blocks.values, leave_out=dead), shown, components, clusters, refused,
    )  # fmt: skip


def dead_rows(norms: Floats) -> npt.NDArray[np.int64]:
    """Return the indices of norms that are at most :data:`DEAD` of the largest finite one.

    >>> dead_rows(np.array([1.0, 0.0, 0.5, 1e-4])).tolist()
    [1, 3]
    """
    finite = norms[np.isfinite(norms)]
    return np.flatnonzero(norms <= DEAD * (finite.max() if finite.size else 0.0))


def silenced_filters(lw: LayerWeights, count: int) -> npt.NDArray[np.int64] | None:
    """Return the filters whose channel BatchNormalization sets to its beta, whatever the input; None where none
    follows.

    The output of BatchNormalization varies with \\|gamma\\|. It must be the only reader of the layer's output.
    """
    norm = batchnorm_after(lw)
    gamma = None if norm is None or len(norm.inputs) < 2 else constant_tensor(norm.inputs[1])
    if norm is None or gamma is None or gamma.size != count:
        return None
    try:
        values = gamma.numpy().astype(np.float64)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"the scale {gamma.name} of {norm.name or norm.op_type} cannot be read: {error}") from error
    return dead_rows(np.abs(values).reshape(-1))


def batchnorm_after(lw: LayerWeights) -> Any:
    """Return the BatchNormalization node that alone reads what a layer gives, or None."""
    output = lw.node.outputs[0] if lw.node.outputs else None
    readers = list(output.uses()) if output is not None and not output.is_graph_output() else []
    if len(readers) != 1 or readers[0][0].op_type != "BatchNormalization" or readers[0][1] != 0:
        return None
    return readers[0][0]


def similar_pairs(
    blocks: Array, *, leave_out: npt.NDArray[np.int64] | None = None, threshold: float = SIMILAR
) -> SimilarPairs:
    """Find pairs of rows whose cosine has a magnitude of at least ``threshold``, within each block.

    Cosines are computed 1024 rows against 1024, so memory does not grow with the square of the rows.

    Args:
        blocks: ``(blocks, rows, columns)``; rows count through all blocks.
        leave_out: Indices of rows that are not compared, such as those that are all but 0. Rows that are not finite
            are left out too.
        threshold: Least magnitude of the cosine.

    >>> found = similar_pairs(np.array([[[1.0, 2.0], [2.0, 1.0], [-2.0, -4.0]]]))
    >>> found.pairs.tolist(), found.cosines.round(6).tolist()
    ([[0, 2]], [-1.0])
    """
    count, rows, columns = blocks.shape
    none = (np.zeros((0, 2), np.int64), np.zeros(0))
    if columns < 2:
        return SimilarPairs(*none, 0, 0, "filters of one weight are all alike up to scale")
    if rows < 2:
        return SimilarPairs(*none, 0, 0, "each filter reads inputs of its own")
    if rows > _MOST_ROWS or count * rows * rows * columns / 2 > _MOST_WORK:
        return SimilarPairs(*none, 0, 0, f"{rows} filters of {columns} weights: too many to compare")
    skipped = np.zeros(count * rows, bool)
    skipped[[] if leave_out is None else leave_out] = True
    pairs, cosines, total, members = [], [], 0, np.zeros(count * rows, bool)
    for number, block in enumerate(blocks):
        unit = _unit(block)
        unit[skipped[number * rows : (number + 1) * rows]] = 0
        for at, cosine in _alike(unit, threshold):
            at = at + number * rows
            members[at.reshape(-1)] = True
            total += len(at)
            pairs.append(at)
            cosines.append(cosine)
            if sum(map(len, pairs)) > 4 * MOST_PAIRS:
                pairs, cosines = ([part] for part in _best(pairs, cosines))
    best, values = _best(pairs, cosines) if pairs else none
    return SimilarPairs(best, values, total, int(np.count_nonzero(members)))


def _unit(block: Array) -> npt.NDArray[np.float32]:
    """Return rows scaled to length 1, those of length 0 and those that are not finite as 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        largest = np.abs(block).max(axis=1, keepdims=True)
        usable = np.isfinite(largest) & (largest > 0)
        scaled = np.where(usable, block / np.where(usable, largest, 1), 0).astype(np.float32)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.asarray(scaled / np.where(length > 0, length, 1), np.float32)


def _alike(unit: npt.NDArray[np.float32], threshold: float) -> Any:
    for top in range(0, len(unit), _BLOCK):
        for left in range(top, len(unit), _BLOCK):
            cosine = unit[top : top + _BLOCK] @ unit[left : left + _BLOCK].T
            found = np.abs(cosine) >= threshold
            if left == top:
                found = np.triu(found, 1)
            at = np.argwhere(found)
            if len(at):
                yield at + np.array([top, left]), np.clip(cosine[found].astype(np.float64), -1, 1)


def _best(pairs: list[Array], cosines: list[Array]) -> tuple[Array, Array]:
    every, values = np.concatenate(pairs), np.concatenate(cosines)
    order = np.lexsort((every[:, 1], every[:, 0], -np.abs(values)))[:MOST_PAIRS]
    return every[order], values[order]


def principal_components(rows: Array, count: int = 2) -> PrincipalComponents:
    """Return the first principal components of ``(rows, columns)``, by the eigenvectors of the smaller Gram matrix.

    Args:
        rows: Finite values.
        count: How many components; 2 at least are returned, the missing ones 0.

    Raises:
        SelectionError: All rows are equal.

    >>> found = principal_components(np.array([[0.0, 0.0], [2.0, 0.0], [7.0, 0.0]]))
    >>> found.coordinates[:, 0].round(6).tolist(), found.variance.round(6).tolist()
    ([-3.0, -1.0, 4.0], [1.0, 0.0])
    """
    centred = rows.astype(np.float64)
    largest = float(np.abs(centred).max(initial=0.0))
    centred /= largest or 1.0  # squares of large values would overflow
    centred -= centred.mean(axis=0)
    total = float(np.square(centred).sum())
    if total <= 1e-24 * centred.size:
        raise SelectionError("all its filters are equal: there is no variance to project")
    wide = len(centred) < centred.shape[1]
    values, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    values, vectors = np.maximum(values[::-1][:count], 0), vectors[:, ::-1][:, :count]
    coordinates = vectors * np.sqrt(values) if wide else centred @ vectors
    signs = np.sign(coordinates[np.abs(coordinates).argmax(axis=0), np.arange(coordinates.shape[1])])
    coordinates = coordinates * np.where(signs == 0, 1, signs) * (largest or 1.0)
    lacking = max(2 - coordinates.shape[1], 0)
    return PrincipalComponents(np.pad(coordinates, ((0, 0), (0, lacking))), np.pad(values / total, (0, lacking)))
