"""Arithmetic on bounds; see :mod:`onnxviz.checks.intervals`."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxviz.checks.intervals import INF, UNBOUNDED, Bounds, Known
from onnxviz.checks.reading import read_array
from onnxviz.errors import CheckError
from onnxviz.graph.constants import constant_tensor

__all__ = ["absolute", "constant_scalar", "even_power", "exp", "less_its_maximum", "product", "quotient", "times"]

_NATURAL = Bounds(0.0, INF)


def times(a: float, b: float) -> float:
    """Multiply bounds: nothing times an unbounded number is nothing, for the number itself is finite."""
    return 0.0 if a == 0 or b == 0 else a * b


def product(a: Bounds, b: Bounds) -> Bounds:
    """Return the bounds of the product of two numbers."""
    corners = [times(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    return Bounds(min(corners), max(corners))


def quotient(a: Bounds, b: Bounds) -> Bounds:
    """Return the bounds of a quotient whose divisor is not 0."""
    if b.low > 0 or b.high < 0:
        return product(a, Bounds(1 / b.high, 1 / b.low))
    if b.low == 0:
        return product(a, _NATURAL)
    return product(a, Bounds(-INF, 0.0)) if b.high == 0 else UNBOUNDED


def exp(x: float) -> float:
    """Return e to a power, 0 and infinity where float64 ends."""
    return INF if x > 709 else 0.0 if x < -745 else math.exp(x)


def constant_scalar(value: ir.Value | None) -> float | None:
    """Return the number that a tensor of one element always holds; None where it holds others."""
    tensor = constant_tensor(value)
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    try:
        return float(read_array(tensor).reshape(-1)[0])
    except CheckError:
        return None


def less_its_maximum(node: ir.Node | None) -> bool:
    """Whether a node takes the maximum of a tensor, over some axes that it keeps, off the tensor itself."""
    if node is None or node.op_type != "Sub" or len(node.inputs) != 2 or node.inputs[1] is None:
        return False
    reduction = node.inputs[1].producer()
    if reduction is None or reduction.op_type != "ReduceMax" or reduction.inputs[0] is not node.inputs[0]:
        return False
    return reduction.attributes.get_int("keepdims", 1) == 1


def even_power(x: Bounds, power: float) -> Bounds:
    """Return the bounds of an even power of a number."""
    least = 0.0 if x.low <= 0 <= x.high else min(abs(x.low), abs(x.high))
    with np.errstate(over="ignore", under="ignore"):
        return Bounds(float(np.float64(least) ** power), float(np.float64(x.magnitude) ** power))


def absolute(node: ir.Node, known: Known) -> Bounds:
    """Bound what Abs gives."""
    x = known.input(node)
    least = 0.0 if x.low <= 0 <= x.high else min(abs(x.low), abs(x.high))
    return Bounds(least, x.magnitude, x.nonzero)
