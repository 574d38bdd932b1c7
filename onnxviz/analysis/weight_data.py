"""The numbers behind the pictures of weights as named arrays and a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxviz.analysis.weight_filters import FilterStudy
from onnxviz.analysis.weight_forms import WeightName, WeightStudy
from onnxviz.analysis.weight_norms import KernelNorms
from onnxviz.analysis.weight_spectra import Spectrum
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import ModelError

__all__ = ["study_data", "weight_data"]

Study = WeightStudy[KernelNorms] | WeightStudy[FilterStudy] | WeightStudy[Spectrum]
Data = tuple[dict[str, np.ndarray], dict[str, Any]]


def weight_data(layers: Sequence[LayerWeights], model_name: str) -> Data:
    """Return weights as arrays named ``NUMBER/WHAT``, and a manifest that tells which is which.

    ``kernel`` is as of :attr:`onnxviz.analysis.weights.LayerWeights.kernel`; ``histogram_edges`` and
    ``histogram_counts`` are of its values.
    """
    arrays: dict[str, np.ndarray] = {}
    rows = []
    refused = []
    for i, lw in enumerate(layers):
        try:
            kernel, bins = lw.kernel, lw.histogram
        except ModelError as error:
            refused.append({"name": lw.layer, "reason": error.message})
            continue
        arrays |= {f"{i}/kernel": kernel, f"{i}/histogram_edges": bins.edges, f"{i}/histogram_counts": bins.counts}
        rows.append({"number": i, **WeightName.of(lw).to_dict(), "orientation": lw.orientation})
    return arrays, {"format": "onnxviz.weights/1", "model": model_name, "views": rows, "not_drawn": refused}


def study_data(study: Study) -> Data:
    """Return the arrays of a study, named ``NUMBER/WHAT``, and a manifest that tells which is which.

    Norms: ``values`` and ``filter_norms``. Filters: ``norms``, ``dead``, ``silenced``, ``pairs`` and their ``cosines``,
    ``shown`` with ``coordinates`` and ``clusters``, ``explained_variance``. Spectra: ``singular_values``.
    """
    arrays: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    views: tuple[KernelNorms | FilterStudy | Spectrum, ...] = study.views
    for i, view in enumerate(views):
        own, facts = _arrays(view)
        arrays |= {f"{i}/{name}": array for name, array in own.items()}
        rows.append({"number": i, **facts})
    refused = [one.to_dict() for one in study.not_drawn]
    kind = {KernelNorms: "norms", FilterStudy: "filters", Spectrum: "spectra"}[type(views[0])]
    name = f"onnxviz.weights.{kind}/1"
    return arrays, {"format": name, "model": study.model_name, "views": rows, "not_drawn": refused}


def _arrays(view: KernelNorms | FilterStudy | Spectrum) -> Data:
    if isinstance(view, Spectrum):
        return {"singular_values": view.singular_values}, view.to_dict()
    if isinstance(view, KernelNorms):
        facts = {"norms": view.norms, "rows": view.rows, "columns": view.columns, "groups": view.groups}
        return {"values": view.values, "filter_norms": view.filters}, {**view.name.to_dict(), **facts}
    own = {
        "norms": view.norms, "dead": view.dead, "pairs": view.similar.pairs, "cosines": view.similar.cosines,
        "shown": view.shown, "coordinates": view.components.coordinates,
        "explained_variance": view.components.variance,
    }  # fmt: skip
    if view.silenced is not None:
        own["silenced"] = view.silenced
    if view.clusters is not None:
        own["clusters"] = view.clusters.labels
    return own, view.to_dict()
