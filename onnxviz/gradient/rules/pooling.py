"""Pooling: maxima, means and norms of windows, of whole feature maps and of regions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxviz.gradient.registry import Grads, gradient
from onnxviz.gradient.step import Step
from onnxviz.gradient.windows import rank_of, spread, window_counts, window_of


@gradient("MaxPool")
def max_pool(s: Step, dy: ir.Value, *rest: ir.Value | None) -> Grads:
    """Goes to the first of the largest elements, as in PyTorch: to the place that ``Indices`` tells."""
    ops = s.ops
    if s.attr("storage_order", 0):
        attributes = {name: attribute.value for name, attribute in s.node.attributes.items() if name != "storage_order"}
        indices = ops.nodes("MaxPool", 2, s[0], **attributes)[1]
    else:
        indices = s.output(1)
    indices.dtype = ir.DataType.INT64
    return _put(s, indices, dy)


def _put(s: Step, indices: ir.Value, dy: ir.Value) -> ir.Value:
    """Add numbers at places of the flat input."""
    ops, line = s.ops, s.ops.ints(-1)
    made = ops.scatter_add(_length(s), ops.Reshape(indices, line), ops.Reshape(dy, line), 0)
    return ops.Reshape(made, ops.shape(s[0]), allowzero=1)


def _length(s: Step) -> ir.Value:
    shape = s[0].shape
    if shape is not None and shape.is_static():
        return s.ops.ints(int(np.prod([int(size) for size in shape.numpy()])))
    return s.ops.Reshape(s.ops.Size(s[0]), s.ops.ints(1))


@gradient("MaxUnpool")
def max_unpool(s: Step, dy: ir.Value) -> Grads:
    """The elements at the places that were filled; of equal places each is the last that was written."""
    ops = s.ops
    if s.input(2) is not None:
        raise s.refuse("output_shape")
    flat = ops.Reshape(dy, ops.ints(-1))
    return ops.Gather(flat, s[1])


@gradient("AveragePool")
def average_pool(s: Step, dy: ir.Value) -> Grads:
    """Each element of a window gets an equal part."""
    window = window_of(s, s.attr("kernel_shape"), s[0], s.y)
    counts = window_counts(s.ops, window, s[0], s.y, dy, padded=bool(s.attr("count_include_pad", 0)))
    return spread(s.ops, s.ops.Div(dy, counts), window, s[0], s.y)


@gradient("LpPool")
def lp_pool(s: Step, dy: ir.Value) -> Grads:
    window = window_of(s, s.attr("kernel_shape"), s[0], s.y)
    part, slope = _lp(s, dy)
    return s.ops.Mul(spread(s.ops, part, window, s[0], s.y), slope)


@gradient("GlobalLpPool")
def global_lp_pool(s: Step, dy: ir.Value) -> Grads:
    part, slope = _lp(s, dy)
    return s.ops.Mul(part, slope)


def _lp(s: Step, dy: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Return ``dy · y^(1 - p)``, 0 where y is 0 as in PyTorch, and ``sign(x) |x|^(p - 1)``."""
    ops, p, zero, one = s.ops, s.attr("p", 2), s.ops.scalar(0, dy), s.ops.scalar(1, dy)
    if p == 1:
        return dy, ops.Sign(s[0])
    none = ops.Equal(s.y, zero)
    norm = ops.Where(none, one, s.y)
    if p == 2:
        return ops.Where(none, zero, ops.Div(dy, norm)), s[0]
    power = ops.Div(dy, ops.Pow(norm, ops.scalar(p - 1, dy)))
    slope = ops.Mul(ops.Sign(s[0]), ops.Pow(ops.Abs(s[0]), ops.scalar(p - 1, dy)))
    return ops.Where(none, zero, power), slope


@gradient("GlobalAveragePool")
def global_average_pool(s: Step, dy: ir.Value) -> Grads:
    ops = s.ops
    return ops.Expand(ops.Div(dy, ops.count(s[0], range(2, rank_of(s)), dy)), ops.shape(s[0]))


@gradient("GlobalMaxPool")
def global_max_pool(s: Step, dy: ir.Value) -> Grads:
    """Goes to the first of the largest elements, as in PyTorch's ``adaptive_max_pool``."""
    ops, rank = s.ops, rank_of(s)
    flat = ops.Reshape(s[0], ops.ints(0, 0, -1))
    first = ops.ArgMax(flat, axis=2, keepdims=1)
    length = ops.Squeeze(ops.Shape(flat, start=2), ops.ints(0))
    hit = ops.Equal(ops.Range(ops.integer(0), length, ops.integer(1)), first)
    grad = dy if rank == 3 else ops.Reshape(dy, ops.ints(0, 0, 1))
    return ops.Reshape(ops.Where(hit, grad, ops.scalar(0, dy)), ops.shape(s[0]), allowzero=1)
