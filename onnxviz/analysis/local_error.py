"""The error that nodes make themselves: they run again on what the reference holds before them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from onnxviz.analysis.held_numbers import HeldNumbers
from onnxviz.errors import OnnxvizError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import reads

__all__ = ["replayed", "segment"]

Array = npt.NDArray[Any]


def replayed(
    model: ir.Model,
    value: ir.Value,
    known: Mapping[str, Array],
    held: HeldNumbers,
    *,
    order: Mapping[ir.Node, int] | None = None,
    providers: str | Sequence[str] = "cpu",
    op_library: str | os.PathLike[str] | None = None,
) -> Array | None:
    """Return what a tensor is when the nodes since the nearest known tensors read what the reference holds there.

    Args:
        model: Where the tensor is from.
        value: The tensor.
        known: Tensors of the model -> what the reference holds for them, as numbers.
        held: What the model itself holds; tells types and codes.
        order: Place of each node in the graph, where that is known already.
        providers: Where the nodes run.
        op_library: A shared library of custom operators.

    Returns:
        The tensor as numbers; None where there is nothing to run, or the piece cannot be run alone.
    """
    from onnxviz.runtime.replay import replay

    nodes, borders = segment(value, known, order)
    if not nodes:
        return None
    feeds = {border: held.as_held(str(border.name), known[str(border.name)]) for border in borders}
    try:
        result = replay(model, nodes, feeds, value, providers=providers, op_library=op_library)
    except OnnxvizError:  # the error stands as a whole
        return None
    return held.numbers(str(value.name), result)


def segment(
    value: ir.Value, known: Mapping[str, Any], order: Mapping[ir.Node, int] | None = None
) -> tuple[list[ir.Node], list[ir.Value]]:
    """Return the nodes between a tensor and the nearest known ones before it, in order, and those tensors.

    Args:
        value: The tensor.
        known: Names of tensors.
        order: Place of each node in the graph; worked out if left out.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) {a = Neg(x) b = Exp(a) y = Relu(b)}''')
    >>> nodes, borders = segment(model.graph.outputs[0], {"a": 0})
    >>> [node.op_type for node in nodes], [border.name for border in borders]
    (['Exp', 'Relu'], ['a'])
    """
    nodes: set[ir.Node] = set()
    borders: dict[ir.Value, None] = {}
    pending = [value]
    while pending:
        node = pending.pop().producer()
        if node is None or node in nodes:
            continue
        nodes.add(node)
        for source in reads(node):
            if str(source.name) in known:
                borders[source] = None
            elif constant_tensor(source) is None:
                if source.producer() is None:
                    return [], []
                pending.append(source)
    producer = value.producer()
    graph = None if producer is None else producer.graph
    if not isinstance(graph, ir.Graph):
        return [], list(borders)
    places = {node: place for place, node in enumerate(graph)} if order is None else order
    return sorted(nodes, key=places.__getitem__), list(borders)
