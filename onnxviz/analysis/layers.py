"""Which tensors and weights of a model are worth a picture when nobody names them."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import onnx_ir as ir

from onnxviz.analysis.feature_maps import FeatureMaps, Score, feature_maps
from onnxviz.analysis.weights import LayerWeights
from onnxviz.errors import SelectionError
from onnxviz.graph.inline import inline_functions
from onnxviz.graph.kinds import KINDS
from onnxviz.graph.layouts import tensor_layouts
from onnxviz.graph.shapes import infer_shapes
from onnxviz.runtime.record import Capture

__all__ = ["layer_feature_maps", "select_weights"]

_LAYER_OPS = frozenset().union(
    *(KINDS[kind] for kind in ("conv", "linear", "pool", "activation", "norm", "attention", "recurrent"))
)
_MAIN_ROLES = ("weight", "recurrence", "embedding")


def layer_feature_maps(
    model: ir.Model, captured: Capture, *, every: bool = False, top: int = 64, by: Score = "energy"
) -> list[FeatureMaps]:
    """Return the feature maps of a capture, in the model's order.

    Args:
        model: The model that was captured.
        captured: Its tensors.
        every: All tensors that have maps; by default those of layers (convolution, pooling, activation, linear,
            normalisation, attention, recurrence) and the outputs, or all if the model has no such layer.
        top: Most channels a tensor.
        by: How channels are chosen; see :func:`onnxviz.analysis.feature_maps.feature_maps`.

    Raises:
        SelectionError: None of the tensors can be drawn; the text says why the first one cannot.
    """
    names = list(captured)
    if not every:
        layers = {n for n in names if captured[n].op_type in _LAYER_OPS}
        shown = layers.union(captured.outputs) if layers else set(names)
        names = [n for n in names if n in shown]
    layouts = tensor_layouts(infer_shapes(inline_functions(model)))
    drawn: list[FeatureMaps] = []
    refused: SelectionError | None = None
    for name in names:
        try:
            drawn.append(feature_maps(captured[name], layout=layouts.get(name), top=top, by=by))
        except SelectionError as error:
            refused = refused or error
    if not drawn:
        raise refused or SelectionError("the model has no tensors to draw")
    return drawn


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
