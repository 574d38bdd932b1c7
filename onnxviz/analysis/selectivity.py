"""How much a unit prefers one class of samples: class means, the class selectivity index, and ROC-AUC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxviz.errors import SelectionError

__all__ = ["FEW", "Selectivity", "class_selectivity", "roc_auc"]

Floats = npt.NDArray[np.float64]

#: With fewer samples than this a class's numbers are told to be uncertain.
FEW = 5
_COLUMNS = 1 << 14  # units that are worked on at once


@dataclass(frozen=True, eq=False)
class Selectivity:
    """The class preferences of units; NaN where a number is not defined.

    Attributes:
        classes: The classes that have samples.
        counts: Number of samples of each.
        means: ``(classes, units)`` float64: the mean answer to each class.
        best: ``(units,)`` int64: the class with the largest mean, the first of equals; -1 where all means are equal (as
            of a dead unit) or none is finite.
        index: ``(units,)`` float64: the class selectivity index, 0 (all classes alike) to 1 (one class alone).
        auc: ``(units,)`` float64: area under the ROC curve with the answer as the score for ``best`` against the rest.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    means: Floats
    best: npt.NDArray[np.int64]
    index: Floats
    auc: Floats

    def notes(self) -> list[str]:
        """Return what a reader must know before trusting the numbers."""
        found = []
        few = [f"{name} ({count})" for name, count in zip(self.classes, self.counts, strict=True) if count < FEW]
        if few:
            found.append(f"few samples: {', '.join(few[:6])}{', …' if len(few) > 6 else ''}")
        undefined = int(np.count_nonzero(np.isnan(self.index)))
        if undefined:
            which = "any unit" if undefined == len(self.index) else f"{undefined} of {len(self.index)} units"
            found.append(f"class selectivity index not defined for {which}: their answers are negative, or all 0")
        if alike := int(np.count_nonzero(self.best < 0)):
            found.append(f"{alike} unit{'s' if alike != 1 else ''} prefer{'s' if alike == 1 else ''} no class")
        return found


def class_selectivity(matrix: npt.NDArray[Any], indices: Sequence[int], classes: Sequence[str]) -> Selectivity:
    """Return how each unit's answers differ between classes.

    The class selectivity index is ``(μmax - μ-max) / (μmax + μ-max)`` of Morcos, Barrett, Rabinowitz and Botvinick, "On
    the importance of single directions for generalization", ICLR 2018, section 2.4: μmax is the largest class mean,
    μ-max the mean of the other classes' means. It is defined for answers that are never negative, and is NaN for a unit
    that gives any negative one, or nothing but 0. ROC-AUC is defined for any answers; ties count half (Mann-Whitney).
    Both are of the class with the largest mean, which is chosen on the same samples: with few of them, both are high by
    chance.

    Args:
        matrix: ``(samples, units)``; a value that is not finite is left out.
        indices: The class of each sample; -1 for none, which leaves the sample out.
        classes: Their names.

    Raises:
        SelectionError: Fewer than two classes have samples.

    >>> found = class_selectivity(np.array([[3.0, 1], [3, 1], [1, 1], [1, 1]]), [0, 0, 1, 1], ["a", "b"])
    >>> found.index.tolist(), found.auc.tolist(), found.means.tolist()
    ([0.5, 0.0], [1.0, nan], [[3.0, 1.0], [1.0, 1.0]])
    """
    kept = np.asarray(indices) >= 0
    labels, rows = np.asarray(indices, np.int64)[kept], np.asarray(matrix)[kept]
    present, labels = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        raise SelectionError(
            f"class selectivity compares classes, and the samples are of {len(present)}",
            hint="give samples of two classes or more",
        )
    parts = [
        _of_columns(rows[:, at : at + _COLUMNS].astype(np.float64), labels, len(present))
        for at in range(0, rows.shape[1], _COLUMNS)
    ]
    means, best, index, auc = (np.concatenate([part[i] for part in parts], axis=-1) for i in range(4))
    counts = np.bincount(labels, minlength=len(present))
    return Selectivity(
        tuple(classes[i] for i in present), tuple(int(c) for c in counts), means, best.astype(np.int64), index, auc
    )


def _of_columns(
    rows: Floats, labels: npt.NDArray[np.int64], classes: int
) -> tuple[Floats, npt.NDArray[np.int64], Floats, Floats]:
    finite = np.isfinite(rows)
    zeroed = np.where(finite, rows, 0)
    members = np.stack([labels == c for c in range(classes)])
    with np.errstate(invalid="ignore"):
        means = np.stack([zeroed[m].sum(axis=0) / finite[m].sum(axis=0) for m in members])
    known = np.isfinite(means)
    largest, least = np.where(known, means, -np.inf).max(axis=0), np.where(known, means, np.inf).min(axis=0)
    best = np.where(largest > least, np.where(known, means, -np.inf).argmax(axis=0), -1)
    index = _index(means, known, zeroed.min(axis=0) >= 0)
    auc = np.full(rows.shape[1], np.nan)
    positive = labels[:, None] == best[None]
    whole = finite.all(axis=0) & (best >= 0)
    auc[whole] = roc_auc(rows[:, whole], positive[:, whole])
    for unit in np.flatnonzero(~finite.all(axis=0) & (best >= 0)):
        has = finite[:, unit]
        auc[unit] = roc_auc(rows[has, unit, None], positive[has, unit, None])[0]
    return means, best, index, auc


def _index(means: Floats, known: npt.NDArray[np.bool_], positive: npt.NDArray[np.bool_]) -> Floats:
    largest = np.where(known, means, -np.inf).max(axis=0)
    count = known.sum(axis=0) - 1
    others = np.where(known, means, 0).sum(axis=0) - np.where(np.isfinite(largest), largest, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = np.maximum(others, 0) / count
        found = (largest - rest) / (largest + rest)
    return np.where(positive & (count > 0) & (largest > 0), found, np.nan)


def roc_auc(scores: Floats, positive: npt.NDArray[np.bool_]) -> Floats:
    """Return the area under the ROC curve of each column; ties count half, so it equals Mann-Whitney's U / (P·N).

    Args:
        scores: ``(samples, units)``, finite.
        positive: ``(samples, units)``: which samples are of the class that is told apart.

    Returns:
        ``(units,)`` float64; NaN where one side has no samples.

    >>> roc_auc(np.array([[0.1], [0.4], [0.4], [0.8]]), np.array([[False], [False], [True], [True]])).tolist()
    [0.875]
    """
    count = len(scores)
    order = np.argsort(scores, axis=0, kind="stable")
    ranked = np.take_along_axis(scores, order, axis=0)
    place = np.arange(count)[:, None]
    new = np.ones(scores.shape, bool)
    new[1:] = ranked[1:] != ranked[:-1]
    ends = np.ones(scores.shape, bool)
    ends[:-1] = new[1:]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=0)
    last = np.minimum.accumulate(np.where(ends, place, count)[::-1], axis=0)[::-1]
    ranks = (first + last) / 2 + 1
    chosen = np.take_along_axis(positive, order, axis=0)
    right = chosen.sum(axis=0).astype(np.float64)
    wrong = count - right
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = (np.where(chosen, ranks, 0).sum(axis=0) - right * (right + 1) / 2) / (right * wrong)
    return found
