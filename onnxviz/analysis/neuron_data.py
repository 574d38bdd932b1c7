"""The numbers behind the view of neurons: named arrays with a manifest, and a table with a line a unit."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np

from onnxviz.analysis.neurons import NeuronLayer, Neurons
from onnxviz.errors import spreadsheet_text

__all__ = ["neuron_data", "neuron_table"]


def neuron_data(found: Neurons) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of the view, named ``NUMBER/WHAT``, a number a layer, and a manifest.

    ``values`` ``(N, units)`` the answers, ``samples`` ``(N,)`` which sample each row is, ``labels`` ``(N,)`` its class
    or -1; per unit ``mean``, ``deviation``, ``share_on``, ``lowest``, ``highest``, ``dead``, ``always_on``; with
    two classes or more ``class_means`` ``(classes, units)``, and ``best_class``, ``selectivity_index``, ``auc`` a unit;
    ``units`` the rows of the heat map; of the units of ``extreme_units`` ``top_samples`` and ``bottom_samples``
    ``(units, k)`` with -1 for none, their values, and ``top_peaks`` ``(units, k, axes)`` where the layer is spatial.
    """
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for i, layer in enumerate(found.layers):
        arrays |= {f"{i}/{name}": array for name, array in _arrays(layer).items()}
        rows.append({
            "number": i, "name": layer.name, "op_type": layer.op_type, "shape": list(layer.shape), "over": layer.over,
            "role": layer.role, "units": len(layer.mean), "samples": len(layer.values),
            "left_out": layer.left_out, "dead": int(layer.dead.sum()), "always_on": int(layer.always_on.sum()),
            "classes": [] if layer.selectivity is None else list(layer.selectivity.classes),
            "samples_a_class": [] if layer.selectivity is None else list(layer.selectivity.counts),
            "by": layer.by, "order": layer.order, "z_score": layer.z_score, "notes": list(layer.notes),
        })  # fmt: skip
    return arrays, {
        "format": "onnxviz.neurons/1", "model": found.model_name, "layers": rows, "samples": list(found.names),
        "classes": [] if found.labels is None else list(found.labels.classes), "notes": list(found.notes),
        "not_drawn": [one.to_dict() for one in found.not_drawn],
    }  # fmt: skip


def _arrays(layer: NeuronLayer) -> dict[str, np.ndarray]:
    own: dict[str, np.ndarray] = {
        "values": layer.values, "samples": layer.samples, "mean": layer.mean, "deviation": layer.deviation,
        "share_on": layer.share_on, "lowest": layer.lowest, "highest": layer.highest, "dead": layer.dead,
        "always_on": layer.always_on, "units": np.asarray(layer.units, np.int64),
    }  # fmt: skip
    if len(layer.labels):
        own["labels"] = layer.labels
    if (s := layer.selectivity) is not None:
        own |= {"class_means": s.means, "best_class": s.best, "selectivity_index": s.index, "auc": s.auc}
    own["extreme_units"] = np.asarray([e.unit for e in layer.extremes], np.int64)
    for side in ("top", "bottom"):
        lists = [getattr(e, side) for e in layer.extremes]
        most = max((len(one) for one in lists), default=0)
        samples, values = np.full((len(lists), most), -1, np.int64), np.full((len(lists), most), np.nan)
        axes = next((len(x.peak) for one in lists for x in one if x.peak is not None), 0)
        peaks = np.full((len(lists), most, axes), -1, np.int64)
        for at, one in enumerate(lists):
            for place, extreme in enumerate(one):
                samples[at, place], values[at, place] = extreme.sample, extreme.value
                if extreme.peak is not None:
                    peaks[at, place] = extreme.peak
        own |= {f"{side}_samples": samples, f"{side}_values": values}
        if axes:
            own[f"{side}_peaks"] = peaks
    return own


_HEADER = (
    "layer", "unit", "mean", "deviation", "share_on", "lowest", "highest", "dead", "always_on", "preferred_class",
    "class_mean", "other_classes_mean", "selectivity_index", "roc_auc",
)  # fmt: skip


def neuron_table(found: Neurons) -> str:
    """Return a CSV table with a line a unit, of every unit of every layer; an empty cell is a number not defined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for layer in found.layers:
        dead, on = layer.dead, layer.always_on
        for unit in range(len(layer.mean)):
            writer.writerow([
                spreadsheet_text(layer.name), unit,
                *(_cell(a[unit]) for a in (layer.mean, layer.deviation, layer.share_on, layer.lowest, layer.highest)),
                int(dead[unit]), int(on[unit]), *_class_cells(layer, unit),
            ])  # fmt: skip
    return text.getvalue()


def _class_cells(layer: NeuronLayer, unit: int) -> list[str]:
    found = layer.selectivity
    if found is None or found.best[unit] < 0:
        return [""] * 5
    best = int(found.best[unit])
    others = np.delete(found.means[:, unit], best)
    others = others[np.isfinite(others)]
    rest = float(others.mean()) if others.size else math.nan
    return [
        spreadsheet_text(found.classes[best]), _cell(found.means[best, unit]), _cell(rest), _cell(found.index[unit]),
        _cell(found.auc[unit]),
    ]  # fmt: skip


def _cell(value: Any) -> str:
    return f"{float(value):.9g}" if math.isfinite(value) else ""
