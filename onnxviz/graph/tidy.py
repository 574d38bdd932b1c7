"""What rewrites need again and again: names that are free, and the removal of what nothing reads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = ["add_initializer", "drop_unread", "free_name", "fresh_name"]


def free_name(graph: ir.Graph, wanted: str) -> str:
    """Return a name that no tensor of a graph has: the wanted one, or that with ``_2``, ``_3`` behind it."""
    values = (*graph.inputs, *(output for node in graph for output in node.outputs))
    return fresh_name(wanted, {*graph.initializers, *(str(value.name) for value in values)})


def fresh_name(name: str, taken: set[str]) -> str:
    """Return a name that is not taken yet, and take it.

    >>> fresh_name("x", {"x", "x_2"})
    'x_3'
    """
    count, fresh = 2, name
    while fresh in taken:
        fresh, count = f"{name}_{count}", count + 1
    taken.add(fresh)
    return fresh


def add_initializer(graph: ir.Graph, array: npt.NDArray[np.generic], wanted: str) -> ir.Value:
    """Add an array as an initializer, under the wanted name where that is free."""
    tensor = ir.Tensor(np.ascontiguousarray(array), name=free_name(graph, wanted))
    value = ir.Value(name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape))
    value.const_value = tensor
    graph.register_initializer(value)
    return value


def drop_unread(graph: ir.Graph, value: ir.Value | None) -> None:
    """Remove a tensor that nothing reads any more, and all that was computed for it alone.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) { a = Neg(x) b = Abs(a) y = Relu(x) }''')
    >>> drop_unread(model.graph, model.graph[1].outputs[0])
    >>> [node.op_type for node in model.graph]
    ['Relu']
    """
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if value is None or list(value.uses()) or value.is_graph_output() or value.is_graph_input():
            continue
        node = value.producer()
        if value.is_initializer():
            graph.initializers.pop(str(value.name), None)
        elif node is not None and node.graph is graph and not _read(node):
            waiting += node.inputs
            graph.remove(node, safe=True)


def _read(node: ir.Node) -> bool:
    return any(list(value.uses()) or value.is_graph_output() for value in node.outputs)
