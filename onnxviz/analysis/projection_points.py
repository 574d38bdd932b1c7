"""What a projection places: samples, channels, neurons or filters, a row of numbers each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.feature_maps import FeatureMaps
from onnxviz.analysis.sample_labels import SampleLabels
from onnxviz.analysis.unit_values import UnitValues
from onnxviz.analysis.weight_forms import weight_blocks
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import InputError, SelectionError

__all__ = [
    "Normalize", "Of", "Points", "channel_points", "clean_points", "filter_points", "map_points", "neuron_points",
    "preferred_classes", "sample_points",
]  # fmt: skip

Of = Literal["samples", "channels", "filters", "neurons"]
Normalize = Literal["none", "standard", "unit"]
Matrix = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Points:
    """Rows of numbers to be placed in a plane.

    Attributes:
        of: What a point is.
        layer: The tensor that they are of; of filters, the layer.
        op_type: The operator that made it.
        what: A point in words: ``"a sample, as its 84 values"``.
        matrix: ``(n, d)`` float, a row a point.
        numbers: ``(n,)`` int64: which sample, channel, filter or neuron each row is.
        names: What each is called.
        labels: The class of each; None where it has none, or there are no classes at all.
        label_source: What gave the classes, in words; empty for none.
        total: Points that there were before any was left out.
        notes: What was left out or changed, one line each.
    """

    of: Of
    layer: str
    op_type: str | None
    what: str
    matrix: Matrix
    numbers: npt.NDArray[np.int64]
    names: tuple[str, ...]
    labels: tuple[str | None, ...] | None
    label_source: str
    total: int
    notes: tuple[str, ...] = ()

    def take(self, rows: npt.NDArray[np.intp], *notes: str) -> Points:
        """Return some of the points, with notes added."""
        return replace(
            self, matrix=self.matrix[rows], numbers=self.numbers[rows], names=tuple(self.names[i] for i in rows),
            labels=None if self.labels is None else tuple(self.labels[i] for i in rows), notes=(*self.notes, *notes),
        )  # fmt: skip


def sample_points(
    values: UnitValues, op_type: str | None, names: Sequence[str], labels: SampleLabels | None = None
) -> Points:
    """Return the samples as points, each as what the layer's units hold for it.

    >>> values = UnitValues("h", (3, 2), "NC", "flat", (np.float32([[1, 2], [3, 4], [5, 6]]),))
    >>> sample_points(values, "Relu", ["a", "b", "c"]).what
    'a sample, as its 2 values'
    """
    made = {"flat": "values", "mean": "channels, each its mean over positions"}
    how = made.get(values.over, f"channels, each its {values.over} over positions")
    return Points(
        "samples", values.name, op_type, f"a sample, as its {values.units:,} {how}", values.matrix,
        np.arange(values.samples), tuple(names), None if labels is None else labels.labels,
        "" if labels is None else f"classes from {labels.source}", values.samples,
        () if labels is None else labels.notes,
    )  # fmt: skip


def neuron_points(values: UnitValues, op_type: str | None, labels: SampleLabels | None = None) -> Points:
    """Return the neurons (every position of every channel) as points, each as its values over the samples."""
    positions = values.units // max(values.channels, 1) if values.over == "flat" else 1
    names = tuple(
        str(i) if positions == 1 else f"channel {i // positions}, position {i % positions}" for i in range(values.units)
    )
    what = f"a neuron, as its values for {values.samples:,} samples"
    return _units("neurons", values, op_type, what, names, labels)


def channel_points(values: UnitValues, op_type: str | None, labels: SampleLabels | None = None) -> Points:
    """Return the channels as points, each as its mean (maximum, energy) over positions for each sample."""
    over = "value" if values.shape and values.units == np.prod(values.shape[1:]) else f"{values.over} over positions"
    what = f"a channel, as its {over} for each of {values.samples:,} samples"
    return _units("channels", values, op_type, what, tuple(str(i) for i in range(values.units)), labels)


def _units(
    of: Of, values: UnitValues, op_type: str | None, what: str, names: tuple[str, ...], labels: SampleLabels | None
) -> Points:
    matrix = values.matrix.T
    classes = None if labels is None else preferred_classes(matrix, labels)
    source = "" if labels is None else f"class of highest mean ({labels.source})"
    return Points(
        of, values.name, op_type, what, matrix, np.arange(len(matrix)), names, classes, source, len(matrix),
        () if labels is None else labels.notes,
    )  # fmt: skip


def preferred_classes(matrix: Matrix, labels: SampleLabels) -> tuple[str | None, ...]:
    """Return the class for whose samples each unit of ``(units, samples)`` is highest on the average.

    None where a unit holds NaN or is the same for all classes.

    >>> labels = SampleLabels(("a", "b", "a"), ("a", "b"), "folders")
    >>> preferred_classes(np.array([[1.0, 0.0, 1.0], [0.0, 5.0, 1.0], [2.0, 2.0, 2.0]]), labels)
    ('a', 'b', None)
    """
    index = np.asarray(labels.indices)
    present = [c for c in range(len(labels.classes)) if (index == c).any()]
    if not present:
        return (None,) * len(matrix)
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.stack([matrix[:, index == c].mean(axis=1, dtype=np.float64) for c in present], axis=1)
        told = np.isfinite(means).all(axis=1) & (means.max(axis=1) > means.min(axis=1))
    best = np.argmax(np.where(np.isfinite(means), means, -np.inf), axis=1)
    return tuple(labels.classes[present[b]] if ok else None for b, ok in zip(best, told, strict=True))


def map_points(maps: FeatureMaps) -> Points:
    """Return the channels as points, each as its map for one sample, position by position.

    Raises:
        SelectionError: The layer has no positions.
    """
    if maps.kind == "vector":
        raise SelectionError(
            f"{maps.name} has one value a channel for one sample: there is nothing to compare",
            hint="give several samples, and no --sample",
        )
    matrix = maps.maps.reshape(maps.total, -1) if maps.kind == "grid" else maps.maps[0]
    what = f"a channel, as its {matrix.shape[1]:,} positions for sample {maps.sample}"
    names = tuple(str(c) for c in range(len(matrix)))
    return Points(
        "channels", maps.name, maps.op_type, what, matrix, np.arange(len(matrix)), names, None, "", len(matrix),
        (maps.note,) if "slice" in maps.note else (),
    )  # fmt: skip


def filter_points(weights: LayerWeights) -> Points:
    """Return the filters of a layer as points, each as its weights.

    Raises:
        SelectionError: The weight has one axis, or a row alone.
        ModelError: It cannot be read.
    """
    try:
        blocks = weight_blocks(weights)
    except SelectionError as error:
        raise SelectionError(
            f"{weights.tensor} of {weights.layer}, of shape {weights.shape}, is no set of filters",
            hint="choose a convolution or a linear layer",
        ) from error
    matrix = blocks.values.reshape(-1, blocks.values.shape[-1])
    entry = {"embedding": "an entry", "recurrence": "a gate of a unit"}.get(weights.role, "a filter")
    if weights.orientation.startswith("(dir"):
        entry = "a gate of a unit"
    return Points(
        "filters", weights.layer, weights.op_type, f"{entry}, as its {matrix.shape[1]:,} weights", matrix,
        np.arange(len(matrix)), tuple(str(i) for i in range(len(matrix))), None, "", len(matrix),
        (f"weights dequantised from {weights.quantization}",) if weights.quantization else (),
    )  # fmt: skip


def clean_points(points: Points, *, normalize: Normalize = "none", most: int = 2000, seed: int = 0) -> Points:
    """Leave out what cannot be placed, and say so.

    Left out are, in this order: columns that are NaN or Inf for more than half of the points; points with NaN or Inf;
    channels, neurons and filters whose values are all equal; what is beyond ``most``, drawn at random; columns that
    are the same for all points.

    Args:
        points: The points.
        normalize: ``"standard"``: each column minus its mean, over its standard deviation. ``"unit"``: each row over
            its length, so that directions are compared.
        most: Most points.
        seed: Of the draw.

    Raises:
        InputError: Fewer than two points are left, or all are the same.
        SelectionError: There is no such normalisation.

    >>> values = UnitValues("h", (3, 2), "NC", "flat", (np.float32([[1, 7], [3, 7], [np.nan, 7]]),))
    >>> made = clean_points(sample_points(values, None, ["a", "b", "c"]))
    >>> made.matrix.tolist(), made.notes
    ([[1.0], [3.0]], ('1 of 3 samples left out: NaN or Inf', '1 of 2 values are the same for all samples'))
    """
    if normalize not in get_args(Normalize):
        raise SelectionError(f"there is no normalisation {normalize!r}", hint="choose none, standard or unit")
    points = _finite(points)
    if points.of != "samples" and points.matrix.shape[1] > 1:
        varied = points.matrix.max(axis=1) > points.matrix.min(axis=1) if points.matrix.size else np.zeros(0, bool)
        if not varied.all():
            gone = int((~varied).sum())
            points = points.take(np.flatnonzero(varied), f"{gone:,} of {points.total:,} {points.of} left out: constant")
    if len(points.matrix) > most:
        chosen = np.sort(np.random.RandomState(seed).choice(len(points.matrix), most, replace=False))
        points = points.take(chosen, f"{most:,} of {len(points.matrix):,} {points.of} drawn at random, seed {seed}")
    _enough(points)
    points = _varied(points)
    return _normalized(points, normalize)


def _finite(points: Points) -> Points:
    finite = np.isfinite(points.matrix)
    if finite.all():
        return points
    kept = finite.mean(axis=0) >= 0.5
    if not kept.all() and kept.any():
        note = f"{int((~kept).sum()):,} of {len(kept):,} columns left out: mostly NaN or Inf"
        points = replace(points, matrix=points.matrix[:, kept], notes=(*points.notes, note))
        finite = finite[:, kept]
    rows = finite.all(axis=1)
    if rows.all():
        return points
    gone = int((~rows).sum())
    return points.take(np.flatnonzero(rows), f"{gone:,} of {points.total:,} {points.of} left out: NaN or Inf")


def _enough(points: Points) -> None:
    count = len(points.matrix)
    if count < 2:
        why = f" ({'; '.join(points.notes)})" if points.notes else ""
        hint = "give a folder of inputs" if points.of == "samples" else "choose another layer with --tensor"
        raise InputError(f"a projection needs at least 2 {points.of}, and {points.layer} gives {count}{why}", hint=hint)


def _varied(points: Points) -> Points:
    varied = points.matrix.max(axis=0) > points.matrix.min(axis=0)
    if not varied.any():
        raise InputError(
            f"all {len(points.matrix)} {points.of} of {points.layer} hold the same values: there is nothing to place",
            hint="choose another layer with --tensor, or other inputs",
        )
    if varied.all():
        return points
    what = "values" if points.of == "samples" else "columns"
    note = f"{int((~varied).sum()):,} of {len(varied):,} {what} are the same for all {points.of}"
    return replace(points, matrix=points.matrix[:, varied], notes=(*points.notes, note))


def _normalized(points: Points, normalize: Normalize) -> Points:
    if normalize == "none":
        return points
    matrix = points.matrix.astype(np.float64)
    if normalize == "standard":
        matrix = (matrix - matrix.mean(axis=0)) / matrix.std(axis=0)
        return replace(points, matrix=matrix, notes=(*points.notes, "each column standardised"))
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    points = replace(points, matrix=matrix / np.where(length > 0, length, 1), notes=(*points.notes, "rows of length 1"))
    return _varied(points)
