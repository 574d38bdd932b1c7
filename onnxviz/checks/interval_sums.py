"""What bounds sums: reductions, convolutions and matrix products; see :mod:`onnxviz.checks.intervals`."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxviz.checks.interval_arithmetic import absolute, even_power, less_its_maximum, times
from onnxviz.checks.intervals import INF, Bounds, Known, Rule
from onnxviz.checks.reading import read_array
from onnxviz.errors import CheckError
from onnxviz.graph.constants import constant_tensor
from onnxviz.graph.equality import ints
from onnxviz.graph.shapes import shape_list

__all__ = ["SUM_RULES"]

_LARGEST_WEIGHT = 1 << 26  # elements of a weight up to which its rows are summed


def _axes(node: ir.Node) -> list[int] | None:
    """Return the axes of a reduction; empty for all, None where they are computed."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        tensor = constant_tensor(node.inputs[1])
        return None if tensor is None else [int(axis) for axis in read_array(tensor).reshape(-1)]
    return ints(node, "axes") or []


def _same_axes(total: ir.Node, shifted: ir.Node) -> bool:
    """Whether a sum runs over the axes that the maximum was taken of, which ``shifted`` takes off."""
    maximum = None if shifted.inputs[1] is None else shifted.inputs[1].producer()
    axes = _axes(total)
    return maximum is not None and axes is not None and axes == _axes(maximum)


def _count(node: ir.Node) -> tuple[float, float]:
    """Return the least and most elements that a reduction adds up."""
    shape = None if node.inputs[0] is None else shape_list(node.inputs[0])
    axes = _axes(node)
    if shape is None or axes is None:
        return 1.0, INF
    sizes = [shape[axis] for axis in axes if -len(shape) <= axis < len(shape)] if axes else shape
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return 1.0, INF
    count = float(math.prod(size for size in sizes if isinstance(size, int)))
    return count, count


def _exactly(rule: Rule, reduce: Callable[..., np.ndarray]) -> Rule:
    """Return a rule for a reduction that works out what it makes of a constant, such as the norm of a weight."""

    def exact(node: ir.Node, known: Known) -> Bounds | None:
        tensor, axes = constant_tensor(node.inputs[0]), _axes(node)
        if tensor is None or axes is None or tensor.size == 0 or tensor.size > _LARGEST_WEIGHT:
            return rule(node, known)
        try:
            array = np.asarray(read_array(tensor), np.float64)
        except CheckError:
            return None
        found = reduce(array, axis=tuple(axes) or None)
        return Bounds(float(found.min()), float(found.max()), bool((found != 0).all()))

    return exact


def _sum(node: ir.Node, known: Known) -> Bounds:
    x, (least, most) = known.input(node), _count(node)
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is not None and source.op_type == "Exp" and source.inputs[0] is not None:
        shifted = source.inputs[0].producer()
        if shifted is not None and less_its_maximum(shifted) and _same_axes(node, shifted):
            return Bounds(1.0, most)  # the largest element gives e⁰
    ends = [times(end, count) for end in (x.low, x.high) for count in (least, most)]
    return Bounds(min(ends), max(ends))


def _sum_of_squares(node: ir.Node, known: Known) -> Bounds:
    x, (least, most) = even_power(known.input(node), 2), _count(node)
    return Bounds(times(x.low, least), times(x.high, most))


def _norm2(node: ir.Node, known: Known) -> Bounds:
    squares = _sum_of_squares(node, known)
    return Bounds(math.sqrt(squares.low), math.sqrt(squares.high))


def _norm1(node: ir.Node, known: Known) -> Bounds:
    x, (least, most) = absolute(node, known), _count(node)
    return Bounds(times(x.low, least), times(x.high, most))


def _linear(weight_at: int, bias_at: int | None, rows: Callable[[ir.Node, np.ndarray], np.ndarray]) -> Rule:
    """Return the rule of an operator that adds up its input times a constant weight."""

    def rule(node: ir.Node, known: Known) -> Bounds | None:
        x = known.input(node)
        tensor = constant_tensor(node.inputs[weight_at]) if weight_at < len(node.inputs) else None
        if x.magnitude == INF or tensor is None or tensor.size > _LARGEST_WEIGHT:
            return None
        try:
            weight = rows(node, np.asarray(read_array(tensor), np.float64))
        except CheckError:
            return None
        low, high = min(x.low, 0.0), max(x.high, 0.0)  # padding is 0
        up, down = np.maximum(weight, 0).sum(axis=1), np.minimum(weight, 0).sum(axis=1)
        bias = Bounds(0.0, 0.0)
        if bias_at is not None and bias_at < len(node.inputs) and node.inputs[bias_at] is not None:
            bias = known.input(node, bias_at)
        least, most = float((up * low + down * high).min()), float((up * high + down * low).max())
        return Bounds(least + bias.low, most + bias.high)

    return rule


def _filters(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    return weight.reshape(len(weight), -1)


def _columns(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    if weight.ndim < 2:
        return weight.reshape(1, -1)
    return np.swapaxes(weight, -1, -2).reshape(-1, weight.shape[-2])


def _gemm_rows(node: ir.Node, weight: np.ndarray) -> np.ndarray:
    scaled = weight * node.attributes.get_float("alpha", 1.0)
    return scaled if node.attributes.get_int("transB", 0) else scaled.T


def _gemm(node: ir.Node, known: Known) -> Bounds | None:
    return _linear(1, 2, _gemm_rows)(node, known) if node.attributes.get_float("beta", 1.0) == 1.0 else None


#: Operator -> what bounds its first output.
SUM_RULES: dict[str, Rule] = {
    "ReduceSum": _exactly(_sum, np.sum),
    "ReduceSumSquare": _exactly(_sum_of_squares, lambda x, axis: np.sum(x * x, axis)),
    "ReduceL1": _exactly(_norm1, lambda x, axis: np.sum(np.abs(x), axis)),
    "ReduceL2": _exactly(_norm2, lambda x, axis: np.sqrt(np.sum(x * x, axis))),
    "Conv": _linear(1, 2, _filters),
    "MatMul": _linear(1, None, _columns),
    "Gemm": _gemm,
}
