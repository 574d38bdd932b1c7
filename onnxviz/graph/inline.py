"""Inlining model-local functions, so that the tensors inside them can be named."""

from __future__ import annotations

import onnx_ir as ir

from onnxviz.errors import ModelError
from onnxviz.graph.model import copy_model, summary_line

__all__ = ["inline_functions"]


def inline_functions(model: ir.Model) -> ir.Model:
    """Return a copy in which every model-local function is inlined; the model itself where it has none.

    Raises:
        ModelError: A function calls itself.
    """
    if not model.functions:
        return model
    from onnx_ir.passes.common import InlinePass  # its package loads every pass there is

    copy = copy_model(model)
    try:
        inlined = InlinePass()(copy).model
    except Exception as error:
        raise ModelError(f"a function of the model cannot be inlined: {summary_line(error)}") from error
    _unshadow(inlined.graph, _names(inlined.graph))
    inlined.meta.update(model.meta)
    return inlined


def _own_values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *graph.initializers.values(), *(output for node in graph for output in node.outputs)]


def _names(graph: ir.Graph) -> set[str]:
    """Return every name in a graph and the bodies inside it."""
    names = {value.name or "" for value in _own_values(graph)}
    for body in graph.subgraphs():
        names |= {value.name or "" for value in _own_values(body)}
    return names


def _unshadow(graph: ir.Graph, taken: set[str], outer: frozenset[str] = frozenset()) -> None:
    """Rename values in bodies whose names the surrounding graphs use: the inliner looks at one graph at a time."""
    for value in _own_values(graph):
        if outer and value.name in outer:
            count = 2
            while f"{value.name}_{count}" in taken:
                count += 1
            value.name = f"{value.name}_{count}"
            taken.add(value.name)
    visible = outer | {value.name or "" for value in _own_values(graph)} - {""}
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH and not attribute.is_ref():
                _unshadow(attribute.as_graph(), taken, visible)
            elif attribute.type == ir.AttributeType.GRAPHS and not attribute.is_ref():
                for body in attribute.as_graphs():
                    _unshadow(body, taken, visible)
