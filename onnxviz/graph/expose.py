"""Making intermediate tensors outputs of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import onnx_ir as ir

from onnxviz.graph.inline import inline_functions
from onnxviz.graph.model import copy_model
from onnxviz.graph.select import FLOAT_TYPES, node_tensors, select
from onnxviz.graph.shapes import infer_shapes, shape_list

__all__ = ["Rewritten", "expose"]


class Rewritten(NamedTuple):
    """What a rewrite returns: the new model, and the names of the tensors that it changed (empty if none)."""

    model: ir.Model
    changed: tuple[str, ...]


def expose(model: ir.Model, tensors: str | Sequence[str] | None = None) -> Rewritten:
    """Return a copy of a model that returns intermediate tensors as further outputs.

    The original outputs stay first, with their names, order and types. Each new output carries its type and shape as
    far as they can be inferred. Model-local functions are inlined in the copy, so that tensors inside them can be
    named. Tensors in the bodies of If, Loop and Scan cannot become outputs of the graph. Weights are neither loaded nor
    copied: both models share them.

    Args:
        model: The model; it is not changed.
        tensors: Patterns as :func:`onnxviz.graph.select.select` takes them. None exposes every floating-point tensor
            that a node of the main graph produces; a tensor whose type nothing tells counts as one.

    Returns:
        ``(model, changed)``: the copy, and the names of the outputs that were added.

    Raises:
        SelectionError: A pattern matches nothing.
        ModelError: A function calls itself, or the graph has a cycle.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) {y = Relu(x) z = Exp(y)}'
    ... )
    >>> exposed, added = expose(model)
    >>> added, [output.name for output in exposed.graph.outputs], len(model.graph.outputs)
    (('y',), ['z', 'y'], 1)
    """
    inlined = inline_functions(model)
    copy = copy_model(inlined) if inlined is model else inlined
    inferred = infer_shapes(copy)
    known = {value.name: value for value in node_tensors(inferred)}
    floats = [value for value in node_tensors(copy) if _is_float(known[value.name])]
    chosen = floats if tensors is None else select(copy, tensors)
    outputs = copy.graph.outputs
    present = {value.name for value in outputs}
    added = []
    for value in chosen:
        if value.name in present:
            continue
        twin = known[value.name]
        if value.type is None and not twin.meta.get("onnxviz.guessed"):
            value.type = twin.type  # a type that is only likely is left out: onnxruntime refuses a wrong one
        if value.type is not None and twin.shape is not None:
            value.shape = ir.Shape(shape_list(twin) or [])
        outputs.append(value)
        present.add(value.name)
        added.append(str(value.name))
    return Rewritten(copy, tuple(added))


def _is_float(value: ir.Value) -> bool:
    if value.meta.get("onnxviz.type") is not None or value.meta.get("onnxviz.not_float"):
        return False
    return value.type is None or (isinstance(value.type, ir.TensorType) and value.dtype in FLOAT_TYPES)
