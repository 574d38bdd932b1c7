"""Which activations hold codes of a linear quantisation, and what numbers they stand for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.graph.constants import constant_tensor

__all__ = ["quantisation"]

_CODES = {ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16}
#: Operator -> the input that holds the scale of what it gives; the zero point is the next one.
_SCALE_AT = {
    "QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6, "QGemm": 7, "QLinearAdd": 6, "QLinearMul": 6,
    "QLinearAveragePool": 3, "QLinearGlobalAveragePool": 3, "QLinearSigmoid": 3, "QLinearLeakyRelu": 3,
    "QLinearSoftmax": 3, "QLinearReduceMean": 3, "QLinearConcat": 0,
}  # fmt: skip
_KEPT = {
    "MaxPool", "NhwcMaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Slice", "Split",
    "Relu", "Clip",
}  # fmt: skip


def quantisation(value: ir.Value) -> tuple[float, float] | None:
    """Return scale and zero point of the codes that a tensor holds; None where it holds numbers, or nothing tells.

    A number is ``(code - zero point) * scale``. Only one scale for the whole tensor is read.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (uint8[2, 1] y) <float s = {0.5}, uint8 z = {3}, int64[2] to = {2, 1}>
    ...   {q = QuantizeLinear(x, s, z) y = Reshape(q, to)}''')
    >>> quantisation(model.graph.outputs[0])
    (0.5, 3.0)
    """
    node = value.producer()
    while node is not None and node.op_type in _KEPT and node.inputs and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    at = None if node is None else _SCALE_AT.get(node.op_type)
    if node is None or at is None:
        return None
    if value.dtype is not None and value.dtype not in _CODES:
        return None
    found = []
    for index in (at, at + 1):
        given = node.inputs[index] if index < len(node.inputs) else None
        tensor = constant_tensor(given)
        if tensor is None and given is not None:
            return None
        if tensor is not None and int(np.prod(tensor.shape.numpy())) != 1:
            return None
        found.append(0.0 if tensor is None else float(np.asarray(tensor.numpy(), np.float64).reshape(-1)[0]))
    return (found[0], found[1]) if found[0] else None
