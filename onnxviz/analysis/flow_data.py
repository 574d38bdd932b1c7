"""The numbers of a flow as named arrays and a manifest, as they are written beside the picture."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxviz.analysis.flow import QUANTILE_ERROR, SHARES, Flow, LayerNumbers

if TYPE_CHECKING:
    from onnxviz.analysis.gradient_flow import GradientTrend
    from onnxviz.analysis.gradient_statistics import GradientStatistics

__all__ = ["flow_data"]

_NUMBERS = ("mean", "std", "rms", "zero", "flat", "variation", "effective_rank", "token_spread")
_COUNTS = ("count", "nan", "inf", "dead", "channels", "observations", "rank_limit")


def flow_data(flow: Flow) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays named ``SERIES/WHAT``, with an entry a layer, and a manifest with layers, marks and paths.

    ``quantiles`` is ``(layers, 7)`` float64, its columns the shares that the manifest names; ``mean``, ``std``,
    ``rms``, ``zero`` … are ``(layers,)`` float64 with NaN for what is not known; ``count``, ``nan``, ``inf`` …
    are ``(layers,)`` int64 with -1. ``depth`` is ``(layers,)`` int64. ``score_tensors`` and ``scores`` hold the share
    of the outputs that comes through each node, by its first tensor.

    With gradients: ``weight_gradients/norm`` … are ``(weights,)`` float64 and ``weight_gradients/channel_norms/I`` is
    ``(outputs,)`` of weight I; ``channel_gradients/quantiles/I`` is ``(channels, 7)`` of layer I's magnitudes that are
    not 0, and ``channel_gradients/dead/I`` lists its channels without gradient. The manifest's ``gradients`` names
    weights and layers in that order.
    """
    arrays: dict[str, np.ndarray] = {"depth": np.array([stage.depth for stage in flow.stages], np.int64)}
    for series in flow.series:
        rows = series.layers
        arrays[f"{series.name}/quantiles"] = np.array([_quantiles(row) for row in rows]).reshape(-1, len(SHARES))
        for name in _NUMBERS:
            arrays[f"{series.name}/{name}"] = np.array([_number(row, name) for row in rows], np.float64)
        for name in _COUNTS:
            arrays[f"{series.name}/{name}"] = np.array([_count(row, name) for row in rows], np.int64)
    if flow.gradients is not None:
        arrays |= _gradients(flow.gradients)
    if flow.paths is not None:
        arrays["score_tensors"] = np.array(list(flow.paths.scores), np.str_)
        arrays["scores"] = np.array(list(flow.paths.scores.values()), np.float64)
    return arrays, _manifest(flow)


def _manifest(flow: Flow) -> dict[str, Any]:
    paths = None
    if flow.paths is not None:
        paths = {"measure": flow.paths.measure, "paths": [asdict(path) for path in flow.paths.paths]}
    return {
        "format": "onnxviz.flow/1", "model": flow.model_name, "shares": list(SHARES), "quantile_error": QUANTILE_ERROR,
        "layers": [asdict(stage) for stage in flow.stages],
        "series": [
            {
                "name": series.name, "samples": series.samples, "marks": [asdict(mark) for mark in series.marks],
                "functions": {str(i): row.function for i, row in enumerate(series.layers) if row and row.function},
            }
            for series in flow.series
        ],
        "thresholds": asdict(flow.thresholds), "key_paths": paths, "notes": list(flow.notes),
        "not_drawn": [one.to_dict() for one in flow.not_drawn],
        "gradients": None if flow.gradients is None else _told(flow.gradients, flow.trend),
    }  # fmt: skip


def _gradients(found: GradientStatistics) -> dict[str, np.ndarray]:
    """Return a row a learned tensor, and what there is of channels, one array a layer or tensor."""
    arrays = {
        "weight_gradients/norm": np.array([one.norm for one in found.weights], np.float64),
        "weight_gradients/weight_norm": np.array([one.weight_norm for one in found.weights], np.float64),
        "weight_gradients/deviation": np.array([_known(one.deviation) for one in found.weights], np.float64),
        "weight_gradients/not_finite": np.array([one.not_finite for one in found.weights], np.float64),
        "weight_gradients/noise": np.array([_known(one.noise) for one in found.weights], np.float64),
    }
    for place, one in enumerate(found.weights):
        if one.outputs:
            arrays[f"weight_gradients/channel_norms/{place}"] = one.channel_norms
    for place, layer in enumerate(found.layers):
        if layer.summary.channels is not None:
            arrays[f"channel_gradients/quantiles/{place}"] = layer.channel_quantiles(SHARES)
            arrays[f"channel_gradients/dead/{place}"] = np.array(layer.dead, np.int64)
    return arrays


def _told(found: GradientStatistics, trend: GradientTrend | None) -> dict[str, Any]:
    return {
        "target": found.target, "target_in_words": found.said, "samples": found.samples,
        "layers": [{"name": one.name, "layer": one.layer, "norm": one.norm} for one in found.layers],
        "weights": [
            {"tensor": one.tensor, "layer": one.layer, "role": one.role, "batches": len(one.counts)}
            for one in found.weights
        ],
        "trend": None if trend is None else asdict(trend), "cuts": list(found.cuts),
    }  # fmt: skip


def _known(value: float | None) -> float:
    return np.nan if value is None else value


def _quantiles(row: LayerNumbers | None) -> list[float]:
    return list(row.quantiles) if row is not None and row.quantiles else [np.nan] * len(SHARES)


def _number(row: LayerNumbers | None, name: str) -> float:
    value = None if row is None else getattr(row, name)
    return np.nan if value is None else float(value)


def _count(row: LayerNumbers | None, name: str) -> int:
    value = None if row is None else getattr(row, name)
    return -1 if value is None else int(value)
