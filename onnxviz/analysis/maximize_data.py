"""The numbers behind a sheet of activation maximization."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from onnxviz.analysis.maximize import Maximized

__all__ = ["maximized_data"]


def maximized_data(found: Maximized) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays and a manifest for :func:`onnxviz.runtime.storage.write_arrays`.

    ``values`` is ``(N, C, ...)`` float32 from 0 to 1, a row a picture, channels in the model's order; what enters the
    model is ``scale * values + shift``. ``score`` and ``start``, ``(N,)``: what is maximized, at the end and at the
    beginning, of the picture as it is; ``history``, ``(N, steps)``: at each step, transformed, NaN where a picture was
    interrupted. ``unit``, ``(N,)``: the channel or -1; ``copy``: which of several.
    """
    made, canvas = found.pictures, found.canvas
    longest = max((len(one.history) for one in made), default=0)
    history = np.full((len(made), longest), np.nan, np.float32)
    for row, one in zip(history, made, strict=True):
        row[: len(one.history)] = one.history
    shape = (0, canvas.channels, *canvas.size)
    arrays = {
        "values": np.stack([one.values for one in made]) if made else np.zeros(shape, np.float32),
        "score": np.array([one.score for one in made], np.float64),
        "start": np.array([one.start for one in made], np.float64),
        "history": history,
        "unit": np.array([-1 if one.unit is None else one.unit for one in made], np.int64),
        "copy": np.array([one.copy for one in made], np.int64),
        "scale": canvas.scale,
        "shift": canvas.shift,
    }
    manifest = {
        "model": found.model_name, "what": found.what, "layer": found.layer, "input": canvas.name,
        "kind": canvas.kind, "order": canvas.order, "color": canvas.color, "labels": [one.label for one in made],
        "settings": asdict(found.settings), "batch": found.batch, "notes": list(found.notes),
        "not_drawn": [one.to_dict() for one in found.not_drawn], "interrupted": found.interrupted,
        "rules": found.rules,
    }  # fmt: skip
    return arrays, manifest
