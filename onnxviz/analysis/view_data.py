"""The numbers behind the views as named arrays and a manifest, as they are written beside the pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxviz.analysis.activations import Activations
from onnxviz.analysis.attention import AttentionMaps
from onnxviz.analysis.pooling import Pooling
from onnxviz.analysis.tokens import Tokens

__all__ = ["activation_data", "attention_data", "pooling_data"]


def activation_data(found: Activations) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of activation views, named ``NUMBER/WHAT``, and a manifest that tells which is which.

    ``before`` and ``after`` are ``(K, H, W)`` maps of ``channels``; ``curve_x`` ``(G,)`` and ``curve_y`` ``(K, G)`` the
    function; ``histogram_edges`` and ``histogram_counts`` what enters; ``dead`` the dead channels.
    """
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for i, view in enumerate(found.views):
        own: dict[str, np.ndarray] = {
            "before": view.before.maps, "after": view.after.maps,
            "channels": np.asarray(view.before.channels, np.int64),
            "histogram_edges": view.entering.edges, "histogram_counts": view.entering.counts,
        }  # fmt: skip
        if view.curve is not None:
            own |= {"curve_x": view.curve.x, "curve_y": view.curve.y}
        if view.dead is not None:
            own["dead"] = np.asarray(view.dead, np.int64)
        arrays |= {f"{i}/{name}": array for name, array in own.items()}
        rows.append({
            "number": i, "name": view.name, "source": view.source, "function": view.function,
            "shape": list(view.shape), "samples": view.samples, "values": view.values, "zeroed": view.zeroed,
            "saturated": view.saturated, "dead_channels": None if view.dead is None else len(view.dead),
            "channels": view.channels, "nan_before": view.nan[0], "nan_after": view.nan[1],
            "inf_before": view.inf[0], "inf_after": view.inf[1], "note": view.note,
        })  # fmt: skip
    manifest = {"format": "onnxviz.activations/1", "model": found.model_name, "samples": found.samples, "views": rows}
    return arrays, {**manifest, "not_drawn": [one.to_dict() for one in found.not_drawn]}


def pooling_data(found: Pooling) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of pooling views, named ``NUMBER/WHAT``, and a manifest that tells which is which.

    ``before`` and ``after`` are ``(K, H, W)`` maps of ``channels``; ``survivors`` ``(K, *pooled, R)`` input positions
    and ``tied`` ``(K, *pooled)`` are there for max pooling.
    """
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for i, view in enumerate(found.views):
        own: dict[str, np.ndarray] = {
            "before": view.before.maps, "after": view.after.maps, "channels": np.asarray(view.before.channels, np.int64)
        }  # fmt: skip
        if view.survivors is not None:
            own |= {"survivors": view.survivors.positions, "tied": view.survivors.tied}
        arrays |= {f"{i}/{name}": array for name, array in own.items()}
        windows = view.windows
        rows.append({
            "number": i, "name": view.name, "source": view.source, "op_type": view.op_type, "method": view.method,
            "shape_before": list(view.shape_before), "shape_after": list(view.shape_after),
            "kernel": None if windows is None else list(windows.kernel),
            "strides": None if windows is None else list(windows.strides),
            "pads_begin": None if windows is None else list(windows.pads),
            "dilations": None if windows is None else list(windows.dilations),
            "survive": None if view.survivors is None else view.survivors.kept,
            "pads_end": None if windows is None else list(windows.pads_end),
            "tied": None if view.survivors is None else view.survivors.ties,
            "outside": None if view.survivors is None else view.survivors.outside,
            "nan_before": view.nan[0], "nan_after": view.nan[1], "inf_before": view.inf[0], "inf_after": view.inf[1],
            "slices": None if view.slices is None else list(view.slices), "note": view.note,
        })  # fmt: skip
    manifest = {"format": "onnxviz.pooling/1", "model": found.model_name, "note": found.note, "views": rows}
    return arrays, {**manifest, "not_drawn": [one.to_dict() for one in found.not_drawn]}


def attention_data(maps: AttentionMaps) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of :meth:`onnxviz.analysis.attention.AttentionMaps.arrays`, and a manifest of the layers."""
    rows = [
        {
            "number": layer.order, "name": layer.name, "tensor": layer.tensor, "kind": layer.kind,
            "heads": list(layer.heads), "queries": layer.weights.shape[1], "keys": layer.weights.shape[2],
            "row_sum_error": layer.error, "rows_masked": layer.empty, "rows_nan": layer.broken, "note": layer.note,
            "query_grids": _grids(layer.queries), "key_grids": _grids(layer.keys),
        }
        for layer in maps.layers
    ]  # fmt: skip
    manifest = {"format": "onnxviz.attention/1", "model": maps.model_name, "layers": rows, "notes": list(maps.notes)}
    return maps.arrays(), {**manifest, "refused": maps.refused}


def _grids(tokens: Tokens) -> dict[str, list[int]]:
    return {block.name: list(block.grid) for block in tokens.blocks if block.grid is not None}
