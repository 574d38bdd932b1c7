"""Which activations hold codes of a linear quantisation, and what numbers they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxviz.errors import SelectionError
from onnxviz.graph.constants import constant_tensor

__all__ = ["Decode", "codes_to_numbers", "decoders", "dequantizer", "quantisation"]

#: What turns codes into numbers, of any shape, as float64.
Decode = Callable[[npt.NDArray[Any]], npt.NDArray[np.float64]]

_CODES = {
    ir.DataType.UINT4, ir.DataType.INT4, ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16,
    ir.DataType.FLOAT8E4M3FN, ir.DataType.FLOAT8E4M3FNUZ, ir.DataType.FLOAT8E5M2, ir.DataType.FLOAT8E5M2FNUZ,
}  # fmt: skip
#: Operator -> the input that holds the scale of what it gives; the zero point is the next one.
_SCALE_AT = {
    "QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6, "QGemm": 7, "QLinearAdd": 6, "QLinearMul": 6,
    "QLinearAveragePool": 3, "QLinearGlobalAveragePool": 3, "QLinearSigmoid": 3, "QLinearLeakyRelu": 3,
    "QLinearSoftmax": 3, "QLinearReduceMean": 3, "QLinearConcat": 0,
}  # fmt: skip
#: Operators that only move, choose or clip codes.
_KEPT = {
    "MaxPool", "NhwcMaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Slice",
    "Split", "Gather", "Pad", "Relu", "Clip",
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
    if value.dtype is not None and value.dtype not in _CODES:
        return None
    node = value.producer()
    while node is not None and node.op_type in _KEPT and node.inputs and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    at = None if node is None else _SCALE_AT.get(node.op_type)
    if node is None or at is None:
        return None
    found = []
    for index in (at, at + 1):
        given = node.inputs[index] if index < len(node.inputs) else None
        tensor = constant_tensor(given)
        if (tensor is None and given is not None) or (tensor is not None and tensor.size != 1):
            return None
        found.append(_first(given))
    return (found[0], found[1]) if found[0] else None


def codes_to_numbers(value: ir.Value) -> Decode | None:
    """Return what turns the codes of a quantised tensor into numbers; None as of :func:`quantisation`.

    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["": 17]>
    ...   g (float[2] x) => (uint8[2] y) <float s = {0.5}, uint8 z = {3}> {y = QuantizeLinear(x, s, z)}''')
    >>> decode = codes_to_numbers(model.graph.outputs[0])
    >>> decode(np.array([3, 5], np.uint8)).tolist()
    [0.0, 1.0]
    """
    found = quantisation(value)
    return None if found is None else _decode(*found)


def decoders(values: Iterable[ir.Value]) -> dict[str, Decode]:
    """Return :func:`codes_to_numbers` of those tensors that hold codes, by name."""
    found = {str(value.name): codes_to_numbers(value) for value in values}
    return {name: decode for name, decode in found.items() if decode is not None}


def dequantizer(node: ir.Node, at: int) -> Decode:
    """Return what turns codes of a QLinear operator into numbers: its scale is input ``at``, its zero ``at + 1``.

    Raises:
        SelectionError: The scale or the zero point is computed, so that it is not known.
    """
    scale, zero = (node.inputs[i] if i < len(node.inputs) else None for i in (at, at + 1))
    if constant_tensor(scale) is None or (zero is not None and constant_tensor(zero) is None):
        raise SelectionError("its codes cannot be turned into numbers: their scale is computed in the graph")
    return _decode(_first(scale), _first(zero))


def _decode(scale: float, zero: float) -> Decode:
    return lambda codes: (codes.astype(np.float64) - zero) * scale


def _first(value: ir.Value | None) -> float:
    tensor = constant_tensor(value)
    return 0.0 if tensor is None else float(np.asarray(tensor.numpy(), np.float64).reshape(-1)[0])
