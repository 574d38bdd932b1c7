"""Running a few nodes of a model by themselves, on values that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxviz.errors import ExecutionError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.extract import cut, piece_proto
from onnxviz.graph.model import from_proto
from onnxviz.runtime.session import Session
from onnxviz.runtime.values import constant_array

__all__ = ["run_piece"]


def run_piece(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    source: ir.Value,
    values: np.ndarray,
    output: ir.Value,
    *,
    change: Mapping[str, Any] | None = None,
    extra: str | None = None,
    opset: int | None = None,
) -> list[np.ndarray]:
    """Run nodes of a model on values of one tensor that they read; everything else that they read must be constant.

    Constants of float16 and bfloat16 become the type of ``values`` where that is a wider float.

    Args:
        model: Where the nodes are from.
        nodes: The nodes, in the graph's order.
        source: The tensor that they read.
        values: Its values.
        output: What to return.
        change: Attributes to set on the one node: name -> value.
        extra: Name of a second output to ask of the one node, such as the indices of a MaxPool.
        opset: Least version of the standard operators to run it as.

    Returns:
        The output, and the extra one.

    Raises:
        ExecutionError: onnxruntime has no kernel for it, or the nodes read something else that is not constant.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (float[2] y) {y = Relu(x)}''')
    >>> x, node = model.graph.inputs[0], model.graph.node(0)
    >>> run_piece(model, [node], x, np.float32([-1, 1]), node.outputs[0])[0].tolist()
    [0.0, 1.0]
    """
    piece = cut(nodes, {output})
    if others := [str(value.name) for value in piece.inputs if value is not source]:
        raise ExecutionError(f"it depends on {others[0]} as well, which is not constant")
    kind = onnx.TypeProto()
    kind.tensor_type.elem_type = int(ir.DataType.from_numpy(values.dtype))
    for _ in range(values.ndim):
        kind.tensor_type.shape.dim.add()
    initializers = [_initializer(value, values.dtype) for value in piece.constants]
    proto = piece_proto(model, piece, {source: kind}, initializers)
    for name, value in (change or {}).items():
        kept = [a for a in proto.graph.node[0].attribute if a.name != name]
        del proto.graph.node[0].attribute[:]
        proto.graph.node[0].attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
    if extra is not None:
        del proto.graph.node[0].output[1:]
        proto.graph.node[0].output.append(extra)
        proto.graph.output.add(name=extra)
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx") and opset is not None:
            entry.version = max(entry.version, opset)
    results = Session(from_proto(proto), "cpu").run({str(source.name): values})
    return [np.asarray(results[str(output.name)]), *([np.asarray(results[extra])] if extra is not None else [])]


def _initializer(value: ir.Value, dtype: np.dtype[Any]) -> onnx.TensorProto:
    tensor = constant_tensor(value)
    assert tensor is not None
    array = constant_array(tensor)
    if tensor.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) and dtype in (np.float32, np.float64):
        array = array.astype(dtype)
    return onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), str(value.name))
