"""The units of layers over many samples: what they answer, to which they answer most, and which class they prefer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.neuron_answers import NeuronAnswers
from onnxviz.analysis.neuron_choice import UnitOrder, UnitScore, chosen_ways, ordered_units, ranked_units
from onnxviz.analysis.neuron_samples import SampleView
from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.sample_labels import SampleLabels
from onnxviz.analysis.selectivity import Selectivity, class_selectivity
from onnxviz.errors import InputError, SelectionError
from onnxviz.graph.receptive_field import ReceptiveField

__all__ = ["Extreme", "NeuronLayer", "Neurons", "UnitExtremes", "neuron_layer"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Extreme:
    """A sample that a unit answers most or least to.

    Attributes:
        sample: Its number among those fed.
        value: The unit's answer.
        peak: Where the unit is most active, an index a spatial axis of the layer; None where it has no positions.
        box: What of the input that position sees: the first and the last position along each of its spatial axes,
            clipped to the input; None where that is unknown, or all of it.
    """

    sample: int
    value: float
    peak: tuple[int, ...] | None = None
    box: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class UnitExtremes:
    """The samples that one unit answers most and least to.

    Attributes:
        unit: Its number.
        top: The highest first; equal answers in the order of the samples.
        bottom: The lowest first.
        tied: Number of samples that share the lowest answer.
    """

    unit: int
    top: tuple[Extreme, ...]
    bottom: tuple[Extreme, ...]
    tied: int


@dataclass(frozen=True, eq=False)
class NeuronLayer:
    """The units of one layer over N samples.

    Attributes:
        name: The tensor.
        op_type: The operator that made it.
        shape: Its sizes in the first batch.
        spatial: Whether a unit has several positions.
        over: What was made of the positions of a unit: ``"mean"``, ``"max"`` or ``"energy"``.
        role: Why it is shown: ``""`` where it was asked for, else such as ``"last hidden layer"``.
        values: ``(N, units)`` float32, the answers of all units; samples without any finite one are left out.
        samples: ``(N,)`` int64: the number of each row among the samples fed.
        left_out: Number of samples left out, because no answer to them is finite.
        mean: ``(units,)`` float64: of the finite answers.
        deviation: ``(units,)`` float64: their standard deviation (population).
        share_on: ``(units,)`` float64: share of the samples with an answer above 0.
        lowest: ``(units,)`` float32: smallest value at any position of any sample.
        highest: ``(units,)`` float32: largest one.
        labels: ``(N,)`` int64, the class of each row in ``classes``; -1 for none. Empty without labels.
        classes: The classes.
        selectivity: Class means and scores; None without labels or with one class.
        units: The units shown, in the order of the rows.
        ranked: The same, by the score they were chosen by.
        by: That score.
        order: How they are ordered.
        z_score: Whether the heat maps show each unit's distance from its mean in its standard deviations.
        extremes: Samples answered most and least, of the first of ``ranked``.
        notes: What a reader must know; one line each.
    """

    name: str
    op_type: str | None
    shape: tuple[int, ...]
    spatial: bool
    over: str
    role: str
    values: npt.NDArray[np.float32]
    samples: npt.NDArray[np.int64]
    left_out: int
    mean: Floats
    deviation: Floats
    share_on: Floats
    lowest: npt.NDArray[np.float32]
    highest: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    selectivity: Selectivity | None
    units: tuple[int, ...]
    ranked: tuple[int, ...]
    by: str
    order: str
    z_score: bool
    extremes: tuple[UnitExtremes, ...]
    notes: tuple[str, ...] = ()

    @property
    def signed(self) -> bool:
        """Whether any value of the layer is negative."""
        return bool(np.any(self.lowest < 0))

    @property
    def dead(self) -> npt.NDArray[np.bool_]:
        """Units that are never above 0, at any position of any sample; a unit of NaN alone is none of them."""
        return np.asarray(self.highest <= 0)

    @property
    def always_on(self) -> npt.NDArray[np.bool_]:
        """Units that are above 0 at every position of every sample."""
        return np.asarray(self.lowest > 0)

    def rows(self) -> npt.NDArray[np.int64]:
        """Return the rows of ``values`` grouped by class, those without one last; else in their order."""
        if not len(self.labels):
            return np.arange(len(self.values), dtype=np.int64)
        last = np.where(self.labels < 0, len(self.classes), self.labels)
        return np.argsort(last, kind="stable").astype(np.int64)

    def shown(self) -> npt.NDArray[np.float32]:
        """Return what the heat map shows: ``(units shown, N)`` float32, columns as :meth:`rows`; NaN is kept."""
        return np.ascontiguousarray(self._scaled(self.values[self.rows()][:, list(self.units)].T), np.float32)

    def shown_means(self) -> npt.NDArray[np.float32] | None:
        """Return the class means of the units shown, ``(units shown, classes)``, on the same scale; None without."""
        if self.selectivity is None:
            return None
        return np.ascontiguousarray(self._scaled(self.selectivity.means[:, list(self.units)].T), np.float32)

    def _scaled(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if not self.z_score:
            return block
        index = list(self.units)
        spread = np.where(self.deviation[index] > 0, self.deviation[index], 1.0)
        return (block - self.mean[index][:, None]) / spread[:, None]


@dataclass(frozen=True, eq=False)
class Neurons:
    """The units of one or several layers over the same samples.

    Attributes:
        model_name: The model.
        layers: A sheet each.
        names: What each sample is called.
        labels: The classes, where there are any.
        views: Sample number -> what it looks like, for the samples among the extremes.
        not_drawn: Tensors that were asked for and cannot be shown.
        notes: What is true of all sheets.
    """

    model_name: str
    layers: tuple[NeuronLayer, ...]
    names: tuple[str, ...]
    labels: SampleLabels | None = None
    views: Mapping[int, SampleView] = field(default_factory=dict)
    not_drawn: tuple[NotDrawn, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def wanted(self) -> tuple[int, ...]:
        """The samples among the extremes, by number."""
        rows = (one.sample for layer in self.layers for e in layer.extremes for one in (*e.top, *e.bottom))
        return tuple(sorted(set(rows)))


def neuron_layer(
    answers: NeuronAnswers,
    labels: SampleLabels | None = None,
    *,
    op_type: str | None = None,
    role: str = "",
    top: int = 48,
    by: UnitScore = "auto",
    order: UnitOrder = "auto",
    z_score: bool = False,
    pictures: int = 12,
    most: int = 5,
    least: int = 3,
    field: ReceptiveField | None = None,
    extent: tuple[int, ...] | None = None,
    notes: Sequence[str] = (),
    units: Sequence[int] | None = None,
) -> NeuronLayer:
    """Return the units of a layer over samples, the best chosen and ordered.

    Args:
        answers: What the units answer.
        labels: The class of each sample.
        op_type: The operator that made the tensor.
        role: Why the layer is shown.
        top: Most units of the heat map.
        by: How they are chosen. ``"auc"`` and ``"selectivity"`` (see
            :func:`onnxviz.analysis.selectivity.class_selectivity`) need labels; ``"variance"``: of the answers;
            ``"mean"``; ``"index"``: the first ones. ``"auto"`` is ``"auc"`` with labels, else ``"variance"``.
        order: ``"class"``: by the preferred class, then by score; ``"cluster"``: hierarchical clustering (Ward's
            linkage of z-scores, leaves in the optimal order of Bar-Joseph et al. 2001), which needs scipy; ``"score"``;
            ``"index"``. ``"auto"`` is ``"class"`` with labels, else ``"cluster"`` where scipy is there, else
            ``"score"``.
        z_score: Show each unit's distance from its mean in its standard deviations.
        pictures: Of how many units, by score, the samples answered most and least are told.
        most, least: How many samples each.
        field: The layer's receptive field in the input that is drawn.
        extent: That input's size, a number an axis of ``field``.
        notes: What to tell beside.
        units: These units instead of the best.

    Raises:
        SelectionError: No sample has a finite answer.
        InputError: ``by`` or ``order`` needs labels that are not there, or labels do not fit in number.
        MissingDependencyError: ``order="cluster"`` without scipy.

    >>> from onnxviz.analysis.neuron_answers import neuron_answers
    >>> layer = neuron_layer(neuron_answers(np.array([[0.0, 1.0], [0.0, 5.0]])), order="score")
    >>> layer.ranked, layer.dead.tolist(), layer.extremes[0].top[0].sample
    ((1, 0), [True, False], 1)
    """
    matrix = answers.values.matrix
    kept = _kept(answers.values.name, matrix, labels)
    values, samples = matrix[kept], np.flatnonzero(kept).astype(np.int64)
    index = np.asarray(labels.indices, np.int64)[kept] if labels is not None else np.zeros(0, np.int64)
    classes = labels.classes if labels is not None else ()
    selectivity, why = _selectivity(values, index, classes)
    mean, deviation, share_on, holes = _moments(values)
    by, order = chosen_ways(by, order, selectivity is not None, why)
    ranked = ranked_units(by, mean, deviation, selectivity, top) if units is None else list(units)
    ordered = ordered_units(ranked, order, values, mean, deviation, selectivity)
    extremes = () if len(values) == 1 else tuple(
        _extremes(answers, values, samples, unit, most, least, field, extent) for unit in ranked[:pictures]
    )  # fmt: skip
    told = [*notes, *_told(len(matrix) - len(values), holes), *([why] if why else [])]
    told += selectivity.notes() if selectivity is not None else []
    return NeuronLayer(
        answers.values.name, op_type, answers.values.shape, any(p is not None for p in answers.peaks),
        answers.values.over, role, values, samples, len(matrix) - len(values), mean, deviation, share_on,
        answers.lowest, answers.highest, index, classes, selectivity, tuple(ordered), tuple(ranked), by, order, z_score,
        extremes, tuple(told),
    )  # fmt: skip


def _kept(name: str, matrix: npt.NDArray[Any], labels: SampleLabels | None) -> npt.NDArray[np.bool_]:
    """Return which samples have any finite answer."""
    kept: npt.NDArray[np.bool_] = np.isfinite(matrix).any(axis=1)
    if not kept.any():
        raise SelectionError(
            f"{name}: no answer to any of {len(matrix)} samples is finite",
            hint="onnxviz capture --stop-on nonfinite tells where NaN and Inf come from",
        )
    if labels is not None and len(labels.labels) != len(matrix):
        raise InputError(f"there are {len(labels.labels)} labels for {len(matrix)} samples")
    return kept


def _told(left_out: int, holes: int) -> list[str]:
    told = []
    if left_out:
        told.append(f"{left_out} sample{'s' if left_out > 1 else ''} without a finite answer left out")
    if holes:
        told.append(f"{holes} other answer{'s are' if holes > 1 else ' is'} not finite (hatched, in no number)")
    return told


def _selectivity(
    values: npt.NDArray[Any], index: npt.NDArray[np.int64], classes: tuple[str, ...]
) -> tuple[Selectivity | None, str]:
    if not len(index):
        return None, "one sample: selectivity and a distribution need more" if len(values) == 1 else ""
    present = len(set(index[index >= 0].tolist()))
    if present < 2:
        return None, f"class selectivity compares classes, and the samples are of {present}"
    return class_selectivity(values, index.tolist(), classes), ""


def _moments(values: npt.NDArray[np.float32]) -> tuple[Floats, Floats, Floats, int]:
    """Return mean, standard deviation and share above 0 of the finite values of each column, and how many are not."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    exact = np.where(finite, values, 0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = exact.sum(axis=0) / count
        deviation = np.sqrt(np.where(finite, np.square(exact - mean), 0).sum(axis=0) / count)
        share = (exact > 0).sum(axis=0) / count
    return mean, deviation, share, int(finite.size - count.sum())


def _extremes(
    answers: NeuronAnswers,
    values: npt.NDArray[np.float32],
    samples: npt.NDArray[np.int64],
    unit: int,
    most: int,
    least: int,
    field: ReceptiveField | None,
    extent: tuple[int, ...] | None,
) -> UnitExtremes:
    column = values[:, unit].astype(np.float64)
    finite = np.flatnonzero(np.isfinite(column))
    top = finite[np.argsort(-column[finite], kind="stable")][: min(most, len(finite) - len(finite) // 2)]
    bottom = finite[np.argsort(column[finite], kind="stable")][: min(least, len(finite) // 2)]
    tied = int(np.count_nonzero(column[finite] == column[finite].min())) if finite.size else 0

    def one(row: int, marked: bool) -> Extreme:
        sample = int(samples[row])
        peak = answers.peak(sample, unit) if marked else None
        return Extreme(sample, float(column[row]), peak, _box(field, extent, peak))

    return UnitExtremes(
        unit, tuple(one(int(row), True) for row in top), tuple(one(int(row), False) for row in bottom), tied
    )


def _box(
    field: ReceptiveField | None, extent: tuple[int, ...] | None, peak: tuple[int, ...] | None
) -> tuple[tuple[int, int], ...] | None:
    """Return the first and the last position of the input that a position sees, axis by axis."""
    if field is None or extent is None or peak is None or not len(field.axes) == len(peak) == len(extent):
        return None
    spans = []
    for axis, (position, size) in enumerate(zip(peak, extent, strict=True)):
        first, last = field.interval(axis, position) or (0, size - 1)
        spans.append((max(first, 0), min(last, size - 1)))
    whole = all(span == (0, size - 1) for span, size in zip(spans, extent, strict=True))
    return None if whole or any(first > last for first, last in spans) else tuple(spans)
