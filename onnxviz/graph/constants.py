"""What a value always holds, found without running anything and without loading weights."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["constant_tensor", "is_parameter"]

_SCALAR_ATTRIBUTES = {"value_float": np.float32, "value_int": np.int64}
_LIST_ATTRIBUTES = {"value_floats": np.float32, "value_ints": np.int64}
_NOT_LEARNED = {ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL, ir.DataType.STRING, ir.DataType.UNDEFINED}


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor that a value always holds: an initializer, a Constant node's, or an Identity of one.

    A graph input that has an initializer as its default counts as constant, as files before IR version 4 list every
    weight among the inputs. External tensors are returned unloaded.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) <float[2] w = {1, 2}>'
    ...     '{y = Mul(x, w)}'
    ... )
    >>> constant_tensor(model.graph.node(0).inputs[1]).numpy().tolist()
    [1.0, 2.0]
    """
    seen = 0
    while value is not None and seen < 64:
        if value.const_value is not None:
            return value.const_value
        node = value.producer()
        if node is None or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type == "Constant":
            return _constant_of(node)
        if node.op_type != "Identity" or not node.inputs:
            return None
        value, seen = node.inputs[0], seen + 1
    return None


def _constant_of(node: ir.Node) -> ir.TensorProtocol | None:
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value" and attribute.type == ir.AttributeType.TENSOR:
            return attribute.as_tensor()
        if name in _SCALAR_ATTRIBUTES or name in _LIST_ATTRIBUTES:
            dtype = (_SCALAR_ATTRIBUTES | _LIST_ATTRIBUTES)[name]
            return ir.Tensor(np.asarray(attribute.value, dtype), name=node.outputs[0].name)
    return None


def is_parameter(tensor: ir.TensorProtocol) -> bool:
    """Whether a constant counts as learned parameters: floats and quantised integers do; shapes, indices, flags don't.

    The 32-bit biases of quantised layers are left out as well: 32-bit integers are mostly shapes and axes.
    """
    return tensor.dtype not in _NOT_LEARNED
