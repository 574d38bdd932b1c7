"""Running some nodes of a model on values of all tensors that they read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import cut, piece_proto
from onnxviz.graph.model import from_proto
from onnxviz.runtime.session import Session

__all__ = ["piece_of", "replay", "tensor_type"]


def replay(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    values: Mapping[ir.Value, np.ndarray],
    output: ir.Value,
    *,
    providers: str | Sequence[str] = "cpu",
    op_library: str | os.PathLike[str] | None = None,
) -> np.ndarray:
    """Run nodes of one graph, nothing fused.

    Args:
        model: Where they are from.
        nodes: The nodes, in the graph's order.
        values: What they read from elsewhere and is not constant.
        output: What to return.
        providers: As :func:`onnxviz.runtime.providers.resolve_providers` takes them.
        op_library: A shared library of custom operators.

    Raises:
        ExecutionError: onnxruntime has no kernel, or a node fails.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] a, float[2] b) => (float[2] y) {h = Add(a, b) y = Relu(h)}''')
    >>> a, b = model.graph.inputs
    >>> values = {a: np.float32([1, 2]), b: np.float32([-3, 4])}
    >>> replay(model, list(model.graph), values, model.graph.outputs[0]).tolist()
    [0.0, 6.0]
    """
    proto, feeds = piece_of(model, nodes, values, output)
    results = Session(from_proto(proto), providers, op_library=op_library).run(feeds)
    return np.asarray(results[str(output.name)])


def piece_of(
    model: ir.Model, nodes: Sequence[ir.Node], values: Mapping[ir.Value, np.ndarray], output: ir.Value
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return some nodes of one graph as a model of their own, their weights inside, and what it is to be fed.

    Args:
        model: Where they are from.
        nodes: The nodes, in the graph's order.
        values: What they read from elsewhere and is not constant.
        output: What the model returns; it gets no type.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] a) => (float[2] y) <float[2] w = {1, 2}> {h = Add(a, w) y = Relu(h)}''')
    >>> proto, feeds = piece_of(model, [model.graph.node(0)], {model.graph.inputs[0]: np.float32([1, 2])},
    ...                         model.graph.node(0).outputs[0])
    >>> [node.op_type for node in proto.graph.node], list(feeds), [w.name for w in proto.graph.initializer]
    (['Add'], ['a'], ['w'])
    """
    piece = cut(nodes, {output}, lambda value: None if value in values else constant_tensor(value))
    types = {value: tensor_type(values[value]) for value in piece.inputs if value in values}
    initializers = []
    for value in piece.constants:
        tensor = constant_tensor(value)
        if tensor is not None:
            held = ir.Tensor(np.array(tensor.numpy()), dtype=tensor.dtype, name=value.name)
            initializers.append(ir.serde.serialize_tensor(held))
    proto = piece_proto(model, piece, {v: types.get(v, onnx.TypeProto()) for v in piece.inputs}, initializers)
    return proto, {str(value.name): values[value] for value in piece.inputs if value in values}


def tensor_type(array: np.ndarray) -> onnx.TypeProto:
    """Return the type of a tensor that holds an array.

    >>> tensor_type(np.zeros((2, 3), np.float32)).tensor_type.elem_type
    1
    """
    proto = onnx.TypeProto()
    text = array.dtype.kind in "OUS"
    proto.tensor_type.elem_type = int(ir.DataType.STRING if text else ir.DataType.from_numpy(array.dtype))
    proto.tensor_type.shape.SetInParent()
    for size in array.shape:
        proto.tensor_type.shape.dim.add(dim_value=size)
    return proto
