"""How far two ways of computing the same may be apart by rounding alone."""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxviz.analysis.comparison import TOLERANCE

__all__ = ["computes_in_codes", "deepened", "tolerance"]

_QUANTISED = 5e-2  # a code that is rounded the other way moves what follows by a step
_DEEP = 100  # nodes from which rounding errors that add up are allowed for


def deepened(limit: float, nodes: int) -> float:
    """Return a relative tolerance behind so many nodes: roundings add up as the square root of their number.

    >>> deepened(1e-4, 10), deepened(1e-4, 400)
    (0.0001, 0.0002)
    """
    return limit * max(1.0, math.sqrt(nodes / _DEEP))


def tolerance(model: ir.Model, dtype: str) -> float:
    """Return the relative error that rounding may make of an output: by its type, the model's types and its depth.

    Types count by their coarsest: a float32 output of a model that computes in float16 or in codes of 8 bits is no
    better than those. What is no float must be equal: 0.

    Args:
        model: With types inferred.
        dtype: Of the output, as numpy spells it.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Neg(x)}'
    ... )
    >>> tolerance(model, "float32"), tolerance(model, "int64")
    (0.0001, 0.0)
    """
    limit = TOLERANCE.get(dtype, 0.0)
    if not limit:
        return 0.0
    nodes = 0
    for node in model.graph.all_nodes():
        nodes += 1
        if _in_codes(node):
            limit = max(limit, _QUANTISED)
        for value in node.outputs:
            if value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
                limit = max(limit, TOLERANCE[value.dtype.name.lower()])
    return deepened(limit, nodes)


def computes_in_codes(model: ir.Model) -> bool:
    """Return whether a model is quantised, so that it holds only numbers of the ranges that it was calibrated for.

    >>> model = ir.from_onnx_text(
    ...     '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) {y = Neg(x)}'
    ... )
    >>> computes_in_codes(model)
    False
    """
    return any(_in_codes(node) for node in model.graph.all_nodes())


def _in_codes(node: ir.Node) -> bool:
    return "Quantize" in node.op_type or node.op_type.startswith("QLinear") or node.op_type.endswith("Integer")
