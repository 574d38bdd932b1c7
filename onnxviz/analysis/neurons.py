"""The units of layers over many samples: what they answer, to which they answer most, and which class they prefer."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.neuron_answers import NeuronAnswers
from onnxviz.analysis.neuron_samples import SampleView
from onnxviz.analysis.paired import NotDrawn
from onnxviz.analysis.sample_labels import SampleLabels
from onnxviz.analysis.selectivity import Selectivity, class_selectivity
from onnxviz.errors import InputError, MissingDependencyError, SelectionError
from onnxviz.graph.receptive_field import ReceptiveField

__all__ = ["Extreme", "NeuronLayer", "Neurons", "UnitExtremes", "UnitOrder", "UnitScore", "neuron_layer"]

Floats = npt.NDArray[np.float64]
#: By what the units to be shown are chosen, the highest first.
UnitScore = Literal["auto", "auc", "selectivity", "variance", "mean", "index"]
#: In which order they stand.
UnitOrder = Literal["auto", "class", "cluster", "score", "index"]

_MOST_CLUSTERED = 4096


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
    kept = np.isfinite(matrix).any(axis=1)
    if not kept.any():
        raise SelectionError(
            f"{answers.values.name}: no answer to any of {len(matrix)} samples is finite",
            hint="onnxviz capture --stop-on nonfinite tells where NaN and Inf come from",
        )
    if labels is not None and len(labels.labels) != len(matrix):
        raise InputError(f"there are {len(labels.labels)} labels for {len(matrix)} samples")
    values, samples = matrix[kept], np.flatnonzero(kept).astype(np.int64)
    told = [f"{len(matrix) - len(values)} samples without a finite answer left out"] if not kept.all() else []
    index = np.asarray(labels.indices, np.int64)[kept] if labels is not None else np.zeros(0, np.int64)
    classes = labels.classes if labels is not None else ()
    selectivity, why = _selectivity(values, index, classes)
    mean, deviation, share_on, holes = _moments(values)
    told += [f"{holes} other answers are not finite (hatched, left out of the numbers)"] if holes else []
    scores: dict[str, Floats] = {"variance": np.square(deviation), "mean": mean}
    if selectivity is not None:
        scores |= {"auc": selectivity.auc, "selectivity": selectivity.index}
    score = _choice("by", by, get_args(UnitScore), "auc" if selectivity is not None else "variance")
    rows = _choice("order", order, get_args(UnitOrder), "class" if selectivity is not None else _cluster_or_score())
    for what, needed in ((score, score in ("auc", "selectivity")), (rows, rows == "class")):
        if needed and selectivity is None:
            raise InputError(
                f"{what!r} needs two classes of samples or more: {why or 'there are no labels'}",
                hint="give --labels folders or FILE.csv",
            )
    ranked = _ranked(scores.get(score), len(mean), top)
    units = _ordered(ranked, rows, values, mean, deviation, selectivity)
    few = values.shape[0] == 1
    extremes = () if few else tuple(
        _extremes(answers, values, samples, unit, most, least, field, extent) for unit in ranked[:pictures]
    )  # fmt: skip
    told += [why] if why else []
    told += selectivity.notes() if selectivity is not None else []
    return NeuronLayer(
        answers.values.name, op_type, answers.values.shape, any(p is not None for p in answers.peaks),
        answers.values.over, role, values, samples, len(matrix) - len(values),
        mean, deviation, share_on, answers.lowest, answers.highest, index, classes, selectivity, tuple(units),
        tuple(ranked), score, rows, z_score, extremes, (*notes, *told),
    )  # fmt: skip


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


def _choice(what: str, given: str, known: Sequence[str], default: str) -> str:
    if given not in known:
        raise InputError(f"units cannot be chosen {what} {given!r}", hint=f"choose from {', '.join(known)}")
    return default if given == "auto" else given


def _cluster_or_score() -> str:
    return "cluster" if importlib.util.find_spec("scipy") is not None else "score"


def _ranked(score: Floats | None, units: int, top: int) -> list[int]:
    if top < 1:
        raise SelectionError(f"the top {top} units are none", hint="ask for 1 or more")
    if score is None:
        return list(range(min(units, top)))
    order = np.argsort(-np.where(np.isfinite(score), score, -np.inf), kind="stable")
    return [int(i) for i in order[:top]]


def _ordered(
    ranked: list[int], order: str, values: npt.NDArray[Any], mean: Floats, deviation: Floats, found: Selectivity | None
) -> list[int]:
    if order == "index":
        return sorted(ranked)
    if order == "class" and found is not None:
        best = [int(found.best[u]) if found.best[u] >= 0 else len(found.classes) for u in ranked]
        return [unit for _, unit in sorted(zip(best, ranked, strict=True), key=lambda pair: pair[0])]
    if order != "cluster" or len(ranked) < 3:
        return ranked
    if importlib.util.find_spec("scipy") is None:
        raise MissingDependencyError("ordering units by clusters needs scipy", hint="pip install scipy")
    if len(ranked) > _MOST_CLUSTERED:
        raise InputError(
            f"{len(ranked)} units are too many to cluster", hint=f"--top {_MOST_CLUSTERED}, or --order score"
        )
    from scipy.cluster.hierarchy import leaves_list, linkage

    spread = np.where(deviation > 0, deviation, 1.0)
    scores = (values[:, ranked] - mean[ranked]) / spread[ranked]
    # Units that always give the same have no direction: they are all 0, and stand together.
    tree = linkage(np.where(np.isfinite(scores), scores, 0).T, "ward", optimal_ordering=len(ranked) <= 512)
    return [ranked[int(leaf)] for leaf in leaves_list(tree)]


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
