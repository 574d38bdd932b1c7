"""Cutting a runnable piece out of a graph: some of its nodes, with the weights that they read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor

__all__ = ["Piece", "ancestors", "bodies_of", "cut", "embed", "outer_values", "piece_proto", "reads"]

Constant = Callable[[ir.Value], ir.TensorProtocol | None]


@dataclass(frozen=True)
class Piece:
    """Some nodes of one graph, in its order, and what joins them to the rest.

    Attributes:
        nodes: The nodes.
        inputs: Values that the nodes, or bodies inside them, read and that are computed elsewhere.
        constants: Values that they read and that always hold the same tensor.
        outputs: Values that they produce and that were asked for.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    constants: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]


def bodies_of(node: ir.Node) -> Iterator[ir.Graph]:
    """Yield the graphs that a node holds: the bodies of If, Loop and Scan."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def outer_values(node: ir.Node) -> list[ir.Value]:
    """Return what the bodies of a node read from the graphs around it, each value once.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (bool c, float[2] x) => (float[2] y) {
    ...     y = If(c) <then_branch = a () => (float[2] p) {p = Neg(x)}, else_branch = b () => (float[2] q) {q = Abs(x)}>
    ...   }''')
    >>> [value.name for value in outer_values(model.graph.node(0))]
    ['x']
    """
    own: set[ir.Value] = set()
    read: dict[ir.Value, None] = {}
    pending = list(bodies_of(node))
    while pending:
        body = pending.pop()
        own.update(body.inputs, body.initializers.values())
        read.update(dict.fromkeys(body.outputs))
        for inner in body:
            own.update(inner.outputs)
            read.update(dict.fromkeys(value for value in inner.inputs if value is not None))
            pending.extend(bodies_of(inner))
    return [value for value in read if value not in own]


def reads(node: ir.Node) -> list[ir.Value]:
    """Return the tensors that a node reads, those that only its bodies read included."""
    return [*(value for value in node.inputs if value is not None), *outer_values(node)]


def ancestors(nodes: Iterable[ir.Node], ends: Iterable[ir.Value]) -> set[ir.Value]:
    """Return what some values depend on, those included.

    Args:
        nodes: Of one graph, in its order.
        ends: The values.
    """
    found = set(ends)
    for node in reversed(list(nodes)):
        if found.intersection(node.outputs):
            found.update(reads(node))
    return found


def cut(nodes: Sequence[ir.Node], keep: Collection[ir.Value], constant: Constant = constant_tensor) -> Piece:
    """Return the piece that some nodes of one graph make.

    Args:
        nodes: The nodes, in the graph's order.
        keep: Values that the piece should return, where it produces them.
        constant: What tells which tensor a value always holds; by default initializers and Constant nodes.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) {y = Neg(x) z = Exp(y)}'
    ... )
    >>> [value.name for value in cut([model.graph.node(1)], model.graph.outputs).inputs]
    ['y']
    """
    made = {value for node in nodes for value in node.outputs}
    inputs: dict[ir.Value, None] = {}
    constants: dict[ir.Value, None] = {}
    for node in nodes:
        for value in reads(node):
            if value in made:
                continue
            (inputs if constant(value) is None else constants)[value] = None
    outputs = [value for node in nodes for value in node.outputs if value.name and value in keep]
    return Piece(tuple(nodes), tuple(inputs), tuple(constants), tuple(outputs))


def piece_proto(
    model: ir.Model,
    piece: Piece,
    types: Mapping[ir.Value, onnx.TypeProto],
    initializers: Iterable[onnx.TensorProto],
) -> onnx.ModelProto:
    """Serialise a piece as a model of its own.

    Args:
        model: Where it was cut from; its opset versions are kept.
        piece: The piece.
        types: Type of each of ``piece.inputs``. Outputs carry none: onnxruntime infers them.
        initializers: The constants, named as the values of ``piece.constants``.
    """
    proto = onnx.ModelProto(ir_version=max(model.ir_version or 0, 4), producer_name="onnxviz")
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    graph = proto.graph
    graph.name = "piece"
    graph.node.extend(ir.serde.serialize_node(node) for node in piece.nodes)
    graph.initializer.extend(initializers)
    for value in piece.inputs:
        graph.input.add(name=value.name, type=types[value])
    for value in piece.outputs:
        graph.output.add(name=value.name)
    return proto


def embed(graph: ir.Graph) -> None:
    """Bring external tensors inside the bodies and attributes of a graph into memory, in place.

    The weights of the graph itself stay where they are.
    """
    for body in graph.subgraphs():
        for value in body.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _in_memory(value.const_value)
    for node in graph.all_nodes():
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref() or attribute.type != ir.AttributeType.TENSOR:
                continue
            tensor = attribute.as_tensor()
            if isinstance(tensor, ir.ExternalTensor):
                node.attributes[name] = ir.AttrTensor(name, _in_memory(tensor))


def _in_memory(tensor: ir.ExternalTensor) -> ir.TensorProtocol:
    return ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name)
