"""The numbers of a flow as named arrays and a manifest, as they are written beside the picture."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from onnxviz.analysis.flow import QUANTILE_ERROR, SHARES, Flow, LayerNumbers

__all__ = ["flow_data"]

_NUMBERS = ("mean", "std", "rms", "zero", "flat", "variation", "effective_rank", "token_spread")
_COUNTS = ("count", "nan", "inf", "dead", "channels", "observations", "rank_limit")


def flow_data(flow: Flow) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays named ``SERIES/WHAT``, with an entry a layer, and a manifest with layers, marks and paths.

    ``quantiles`` is ``(layers, 7)`` float64, its columns the shares that the manifest names; ``mean``, ``std``,
    ``rms``, ``zero`` … are ``(layers,)`` float64 with NaN for what is not known; ``count``, ``nan``, ``inf`` …
    are ``(layers,)`` int64 with -1. ``depth`` is ``(layers,)`` int64. ``score_tensors`` and ``scores`` hold the share
    of the outputs that comes through each node, by its first tensor.
    """
    arrays: dict[str, np.ndarray] = {"depth": np.array([stage.depth for stage in flow.stages], np.int64)}
    for series in flow.series:
        rows = series.layers
        arrays[f"{series.name}/quantiles"] = np.array([_quantiles(row) for row in rows]).reshape(-1, len(SHARES))
        for name in _NUMBERS:
            arrays[f"{series.name}/{name}"] = np.array([_number(row, name) for row in rows], np.float64)
        for name in _COUNTS:
            arrays[f"{series.name}/{name}"] = np.array([_count(row, name) for row in rows], np.int64)
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
    }  # fmt: skip


def _quantiles(row: LayerNumbers | None) -> list[float]:
    return list(row.quantiles) if row is not None and row.quantiles else [np.nan] * len(SHARES)


def _number(row: LayerNumbers | None, name: str) -> float:
    value = None if row is None else getattr(row, name)
    return np.nan if value is None else float(value)


def _count(row: LayerNumbers | None, name: str) -> int:
    value = None if row is None else getattr(row, name)
    return -1 if value is None else int(value)
