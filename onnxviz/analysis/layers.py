"""Which tensors and weights of a model are worth a picture when nobody names them."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import onnx_ir as ir

from onnxviz.analysis.feature_maps import FeatureMaps, Score
from onnxviz.analysis.feature_sheet import feature_sheet
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import SelectionError
from onnxviz.runtime.record import Capture

__all__ = ["layer_feature_maps", "select_weights"]

_MAIN_ROLES = ("weight", "recurrence", "embedding")


def layer_feature_maps(
    model: ir.Model, captured: Capture, *, every: bool = False, top: int = 64, by: Score = "energy"
) -> list[FeatureMaps]:
    """Return the feature maps of a capture, in the model's order: see
    :func:`onnxviz.analysis.feature_sheet.feature_sheet`, which tells what has none as well.

    Raises:
        SelectionError: None of the tensors can be drawn; the text says why the first one cannot.
    """
    return list(feature_sheet(model, captured, every=every, top=top, by=by).maps)


def select_weights(layers: Sequence[LayerWeights], patterns: str | Sequence[str] | None = None) -> list[LayerWeights]:
    """Choose weights by name.

    Args:
        layers: All weights of a model.
        patterns: Names or globs of layers or tensors, or ``op:TYPE``. None chooses kernels, matrices, recurrences and
            embeddings, or everything in a model that has only others.

    Raises:
        SelectionError: A pattern matches nothing, or the model has no weights.
    """
    if not layers:
        raise SelectionError("the model has no weights", hint="it may take them as inputs")
    if patterns is None:
        return [lw for lw in layers if lw.role in _MAIN_ROLES] or list(layers)
    chosen: dict[int, LayerWeights] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        found = {position: lw for position, lw in enumerate(layers) if _named(lw, pattern)}
        if not found:
            names = list(dict.fromkeys(lw.layer for lw in layers))
            raise SelectionError(f"no weight matches {pattern!r}", hint=f"the layers are {', '.join(names[:12])}")
        chosen.update(found)
    return [chosen[position] for position in sorted(chosen)]


def _named(lw: LayerWeights, pattern: str) -> bool:
    if pattern.startswith("op:"):
        return fnmatch.fnmatchcase(lw.op_type, pattern[3:])
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for name in (lw.layer, lw.tensor))
