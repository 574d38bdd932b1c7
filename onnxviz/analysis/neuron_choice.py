"""Which units of a layer are shown, and in which order."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onnxviz.analysis.selectivity import Selectivity
from onnxviz.errors import InputError, MissingDependencyError, SelectionError

__all__ = ["UnitOrder", "UnitScore", "chosen_ways", "ordered_units", "ranked_units"]

Floats = npt.NDArray[np.float64]
#: By what the units to be shown are chosen, the highest first.
UnitScore = Literal["auto", "auc", "selectivity", "variance", "mean", "index"]
#: In which order they stand.
UnitOrder = Literal["auto", "class", "cluster", "score", "index"]

_MOST_CLUSTERED = 4096
_OPTIMAL = 512  # units whose leaves are put in the optimal order, which takes their number cubed


def chosen_ways(by: UnitScore, order: UnitOrder, classed: bool, why: str = "") -> tuple[UnitScore, UnitOrder]:
    """Return by what units are chosen and ordered, ``"auto"`` made up.

    Args:
        by, order: As :func:`onnxviz.analysis.neurons.neuron_layer` takes them.
        classed: Whether there are two classes of samples or more.
        why: Why not.

    Raises:
        InputError: One of them is unknown, or needs classes.

    >>> chosen_ways("auto", "auto", True)
    ('auc', 'class')
    """
    for given, known in ((by, get_args(UnitScore)), (order, get_args(UnitOrder))):
        if given not in known:
            raise InputError(f"units cannot be chosen or ordered by {given!r}", hint=f"choose from {', '.join(known)}")
        if given in ("auc", "selectivity", "class") and not classed:
            raise InputError(
                f"{given!r} needs two classes of samples or more: {why or 'there are no labels'}",
                hint="give --labels folders or FILE.csv",
            )
    if by == "auto":
        by = "auc" if classed else "variance"
    if order == "auto":
        order = "class" if classed else "cluster" if importlib.util.find_spec("scipy") is not None else "score"
    return by, order


def ranked_units(by: UnitScore, mean: Floats, deviation: Floats, found: Selectivity | None, top: int) -> list[int]:
    """Return the best units by a score, the highest first; one that is not defined comes last, ties keep their order.

    Raises:
        SelectionError: ``top`` is below 1.

    >>> ranked_units("mean", np.array([1.0, 3.0, np.nan]), np.zeros(3), None, 2)
    [1, 0]
    """
    if top < 1:
        raise SelectionError(f"the top {top} units are none", hint="ask for 1 or more")
    scores = {"variance": np.square(deviation), "mean": mean}
    if found is not None:
        scores |= {"auc": found.auc, "selectivity": found.index}
    if by == "index":
        return list(range(min(len(mean), top)))
    score = scores[by]
    order = np.argsort(-np.where(np.isfinite(score), score, -np.inf), kind="stable")
    return [int(i) for i in order[:top]]


def ordered_units(
    ranked: list[int],
    order: UnitOrder,
    values: npt.NDArray[Any],
    mean: Floats,
    deviation: Floats,
    found: Selectivity | None,
) -> list[int]:
    """Return the units in the order of the rows.

    Args:
        ranked: The units, by score.
        order: As :func:`chosen_ways` gives it.
        values: ``(samples, units)`` the answers of all units.
        mean, deviation: ``(units,)`` of them.
        found: Their class preferences.

    Raises:
        InputError: There are too many units to cluster.
        MissingDependencyError: Clusters were asked for without scipy.
    """
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
    tree = linkage(np.where(np.isfinite(scores), scores, 0).T, "ward", optimal_ordering=len(ranked) <= _OPTIMAL)
    return [ranked[int(leaf)] for leaf in leaves_list(tree)]
